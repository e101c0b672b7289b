"""The commands there are, and running one of them.

A command's module is imported when it runs: `COMMANDS` says where it is and repeats its first line for `--help`, which
imports none of them (a test holds the two together). What the commands do is their modules' business.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from kdnsctl.cli import failures
from kdnsctl.cli.commands import HELP_NAMES, Entry, Hidden, LazyGroup, expand
from kdnsctl.cli.options import Common, Connection, Record
from kdnsctl.cli.terminal import put

COMPLETION_VARIABLE = "_KDNSCTL_COMPLETE"

COMMANDS = {
    "find-affected": Entry(
        "kdnsctl.cli.find_affected:find_affected", "Tell which nodes have the DNS blackhole, from kube-proxy's logs"
    ),
    "signatures": Entry("kdnsctl.cli.signatures:signatures", "List what kube-proxy logs, and what each line means"),
    "completion": Entry("kdnsctl.cli.completion:completion", "Print the completion script for a shell"),
}


def root(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Find, contain, prove and repair the Kubernetes DNS blackhole, node by node.

    The options below go before or after the command. Every long option can be set in the environment:
    KDNSCTL_OUTPUT=json is -o json.
    """
    # Options before the command are parsed here only to find where they end; LazyGroup hands them to the command.


class Root(LazyGroup):
    """The commands of `COMMANDS`."""

    entries = COMMANDS


def build() -> LazyGroup:
    """The whole command tree, with light stand-ins for the commands."""
    app = typer.Typer(
        cls=Root,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": HELP_NAMES},
    )
    app.callback()(expand(root))
    return cast("LazyGroup", typer.main.get_command(app))


def run(arguments: Sequence[str], program: str) -> int:
    """Run one command line and return its exit code; errors are already on stderr."""
    return failures.contain(lambda: _dispatch(list(arguments), program), debug=_wants_traceback(arguments))


def _dispatch(arguments: list[str], program: str) -> int:
    tree = build()
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from kdnsctl.cli import completion  # noqa: PLC0415

        return completion.answer(tree, program, COMPLETION_VARIABLE, instruction)
    if not arguments:
        put(_short_help(tree, program))
        return 0
    with tree.make_context(program, arguments) as context:
        result = tree.invoke(context)
    return int(result or 0)


def _short_help(tree: LazyGroup, program: str) -> str:
    """What a bare `kdnsctl` prints: the commands, and where the rest is."""
    width = max(len(name) for name in tree.commands)
    lines = [f"Usage: {program} COMMAND [OPTIONS]", "", (root.__doc__ or "").partition("\n")[0], ""]
    lines += [f"  {name.ljust(width)}  {entry.summary}" for name, entry in tree.entries.items()]
    lines += ["", f"'{program} COMMAND --help' explains a command, '{program} --help' the options of all."]
    return "\n".join(lines) + "\n"


def _wants_traceback(arguments: Sequence[str]) -> bool:
    """Whether --debug was said, read before parsing because parsing itself may fail."""
    return "--debug" in arguments or os.environ.get("KDNSCTL_DEBUG", "").lower() in {"1", "true", "yes", "on", "t", "y"}
