"""`kdnsctl completion SHELL`: the script that makes TAB work, and the answers it gets.

The scripts and the protocol are typer's. Nothing is installed or edited: the operator decides where the script goes.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kdnsctl.cli import app
from kdnsctl.cli.app import COMPLETION_VARIABLE
from kdnsctl.cli.options import Common
from kdnsctl.cli.terminal import put

CONSOLE_NAMES = ("kdnsctl", "kubectl-kdns")


class Shell(enum.StrEnum):
    """The shells there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    common: Common,  # noqa: ARG001
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="The shell to print the script for.")],
) -> int:
    """Print the completion script for a shell.

    Examples:
      # bash, for this session; put the line into ~/.bashrc to keep it
      source <(kdnsctl completion bash)
      # zsh, for this session; put the line into ~/.zshrc, after compinit, to keep it
      source <(kdnsctl completion zsh)
      # fish, for good
      kdnsctl completion fish > ~/.config/fish/completions/kdnsctl.fish
    """
    put(script(shell))
    return 0


def script(shell: Shell) -> str:
    """The script for `shell`, for every name that the tool is installed under."""
    typers = _typers_completion()
    scripts = [
        typers.get_completion_script(prog_name=name, complete_var=COMPLETION_VARIABLE, shell=shell.value)
        for name in CONSOLE_NAMES
    ]
    return "\n\n".join(scripts) + "\n"


def answer(tree: Any, program: str, variable: str, instruction: str, defaults: Any = None) -> int:
    """Answer one TAB: `instruction` is what the script put into the environment variable named `variable`.

    `defaults` gives options their values from files, as for a command that runs.
    """
    typers = _typers_completion()
    typers.completion_init()
    _keep_help_as_it_is()
    code: int = typers.shell_complete(tree, {"obj": defaults}, program, variable, instruction)
    return code


def answer_kubectl(words: Sequence[str]) -> int:
    """Answer TAB behind `kubectl kdns`: `words` are those behind it, the last one still being typed.

    Candidates go to stdout as kubectl takes them (cobra's `__complete`): value, tab, explanation; then `:4` for "no
    files", or `:0` for "files, then".
    """
    from kdnsctl.cli import failures  # noqa: PLC0415

    def offer() -> int:
        typers = _typers_completion()
        typers.completion_init()
        _keep_help_as_it_is()
        asked = importlib.import_module("typer._completion_classes").BashComplete(
            app.build(), {"obj": app.defaults_of([])}, "kubectl kdns", COMPLETION_VARIABLE
        )
        offered = asked.get_completions(list(words[:-1]), words[-1] if words else "")
        lines = [one.value + (f"\t{_one_line(one.help)}" if one.help else "") for one in offered]
        put("\n".join([*lines, ":4" if lines else ":0"]) + "\n")
        return 0

    return failures.contain(offer, debug=False)


def _typers_completion() -> Any:
    # By name: what is used here is documented by typer, but not exported as its type hints go.
    return importlib.import_module("typer.completion")


def _keep_help_as_it_is() -> None:
    """Spare every TAB in zsh and fish the import of all of rich.

    typer sends each help text through rich, to clean it of markup, which also breaks it at 80 columns. Ours has no
    markup. Where a later typer has no such step there is nothing to replace.
    """
    classes = vars(importlib.import_module("typer._completion_classes"))
    if "_sanitize_help_text" in classes:
        classes["_sanitize_help_text"] = _one_line


def _one_line(text: str) -> str:
    return " ".join(text.split())
