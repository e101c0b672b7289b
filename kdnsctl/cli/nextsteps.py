"""Commands that are named as the next ones, spelled so that they work as they stand, for the cluster that was asked.

Whoever says `--context prod` and copies the next line must not end up at another cluster: the connection's options of
the command line go into every command that asks one. What is next is not decided here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import typer

from kdnsctl.cli.options import Connection, said
from kdnsctl.cli.terminal import visible

_NOT_REPEATED = frozenset({"request_timeout"})  # says nothing of which cluster it is
_NOT_KUBECTL = frozenset({"token_file", "resolve", "config"})  # options that kubectl does not have
_COMMANDS = frozenset({"nextCommands", "commands"})  # keys of reports, with command lines as their values
_FILES = frozenset({"--logs", "--node"})  # options of commands that read files, and ask no cluster
IN_INCIDENTS = frozenset(
    {
        *("find-affected", "analyze", "collect", "probe", "quarantine", "release", "flush"),
        *("repair flush", "repair restart-kube-proxy", "verbosity raise", "verbosity restore", "runbook run"),
    }
)
"""The commands that take --incident; a test compares it with them."""


@dataclass(frozen=True, slots=True)
class Caller:
    """How the operator calls us: our name, and the options that choose the cluster, for us and for kubectl.

    `incident` is the one that was named: what comes next belongs to it, too.
    """

    program: str = "kdnsctl"
    cluster: tuple[str, ...] = ()
    kubectl: tuple[str, ...] = ()
    incident: str = ""

    def spelled(self, command: str) -> str:
        """A command that begins with `kdnsctl` or `kubectl`, as the operator has to type it; any other as it is."""
        if command.startswith("kubectl "):
            return _with(command, "kubectl", self.kubectl)
        if not command.startswith("kdnsctl "):
            return command
        command = self.program + command.removeprefix("kdnsctl")
        return command if _FILES.intersection(command.split()) else self._asking(command)

    def spelled_in(self, data: Any) -> Any:
        """A report as plain data, with the commands in it spelled: what a program hands on works as it stands, too."""
        if isinstance(data, list):
            return [self.spelled_in(one) for one in data]
        if not isinstance(data, dict):
            return data
        return {
            key: [self.spelled(str(one)) for one in value] if key in _COMMANDS else self.spelled_in(value)
            for key, value in data.items()
        }

    def on_files(self, *words: str) -> str:
        """One of our commands that asks no cluster."""
        return f"{self.program} {shlex.join(words)}"

    def on_cluster(self, *words: str) -> str:
        """One of our commands that asks the cluster."""
        return self._asking(self.on_files(*words))

    def _asking(self, command: str) -> str:
        words = command.removeprefix(self.program).split()
        takes = {" ".join(words[:1]), " ".join(words[:2])} & IN_INCIDENTS and "--incident" not in words
        options = ("--incident", self.incident) if takes and self.incident else ()
        return _with(command, self.program, (*self.cluster, *options))


ASKED_PLAINLY = Caller()


def caller_of(ctx: typer.Context) -> Caller:
    """Who called, by the command line that is run. The environment stays what it is, and needs no repeating."""
    cluster: list[str] = []
    kubectl: list[str] = []
    named = {field.name for field in fields(Connection)} - _NOT_REPEATED | {"config"}  # which may choose a cluster, too
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in named or not said(ctx, name):
            continue
        value = ctx.params[name]
        option = next(spelling for spelling in parameter.opts if spelling.startswith("--"))
        words = [word for one in (value if isinstance(value, list | tuple) else [value]) for word in (option, str(one))]
        cluster += words
        kubectl += [] if name in _NOT_KUBECTL else words
    incident = ctx.params.get("incident") if said(ctx, "incident") else None
    return Caller(ctx.find_root().info_name or "kdnsctl", tuple(cluster), tuple(kubectl), incident or "")


def next_lines(commands: Iterable[str], heading: str = "Next:") -> list[str]:
    """What to run now, each command, as spelled, on a line of its own however long it is: it is to be copied.

    No comment goes behind a command: zsh takes none at its prompt, and would hand the words on.
    """
    lines = [f"  {visible(command)}" for command in commands]
    return [heading, *lines] if lines else []


def _with(command: str, program: str, options: Sequence[str]) -> str:
    """The command with options behind its program's name, where each of our commands and kubectl's takes them."""
    return f"{program} {shlex.join(options)}{command.removeprefix(program)}" if options else command
