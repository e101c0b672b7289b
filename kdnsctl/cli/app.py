"""The commands there are, and running one of them.

A command's module is imported when it runs: `COMMANDS` says where it is and repeats its first line for `--help`, which
imports none of them (a test holds the two together). What the commands do is their modules' business.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Annotated, Any, cast

from kdnsctl.cli import failures
from kdnsctl.cli.commands import Entry, Group, Hidden, LazyGroup, build_command
from kdnsctl.cli.options import Common, Connection, Record
from kdnsctl.cli.terminal import called_as

COMPLETION_VARIABLE = "_KDNSCTL_COMPLETE"

# A command that asks the API for something names what it needs: `rbac`, `doctor` and preflights know it from here.
COMMANDS = {
    "find-affected": Entry(
        "kdnsctl.cli.find_affected:find_affected",
        "Tell which nodes have the DNS blackhole, from kube-proxy's logs",
        needs="kdnsctl.find.online:NEEDS",
    ),
    "analyze": Entry(
        "kdnsctl.cli.analyze:analyze",
        "Prove what is wrong with a node, from its connection tracking table and its rules",
        needs="kdnsctl.find.analyze_nodes:NEEDS",
    ),
    "collect": Entry(
        "kdnsctl.cli.collect:collect",
        "Secure the evidence: nodes' tables and rules, kube-proxy's logs, and the cluster's side, in a bundle",
        needs="kdnsctl.evidence.collect:NEEDS",
    ),
    "probe": Entry(
        "kdnsctl.cli.probe:probe",
        "Measure whether DNS works: the Service, each pod behind it, and nodes' own caches",
        needs="kdnsctl.evidence.probing:NEEDS",
    ),
    "bundle": Entry(
        "kdnsctl.cli.bundle:BUNDLE", "Look at evidence that was collected: a directory, or an archive of it"
    ),
    "quarantine": Entry(
        "kdnsctl.cli.quarantine:quarantine",
        "Stop nodes from hurting, and keep them for forensics: hold, cordon, capture, judge, drain",
        needs="kdnsctl.quarantine.quarantine:NEEDS",
        changes=True,
    ),
    "status": Entry(
        "kdnsctl.cli.status:status",
        "Show the nodes in quarantine: how far, since when, by whom, what is in force, and what was changed since",
        needs="kdnsctl.quarantine.status:NEEDS",
    ),
    "release": Entry(
        "kdnsctl.cli.release:release",
        "Give nodes back exactly as they were before their quarantine",
        needs="kdnsctl.quarantine.release:NEEDS",
        changes=True,
    ),
    "repair": Entry(
        "kdnsctl.cli.repair:REPAIR",
        "Repair nodes narrowly: delete what is stale, and nothing else",
        needs="kdnsctl.repair.restart:NEEDS",
        changes=True,
    ),
    "flush": Entry(
        "kdnsctl.cli.repair.flush:flush",
        "Delete the stale conntrack entries of nodes, and no others",
        needs="kdnsctl.repair.flushplan:NEEDS",
        changes=True,
    ),
    "incident": Entry(
        "kdnsctl.cli.incident:INCIDENT",
        "Look at what was changed in an incident, and take it back",
        needs="kdnsctl.repair.undoing:NEEDS",
        partly=True,
    ),
    "runbook": Entry("kdnsctl.cli.runbook:RUNBOOK", "Go through an incident by a runbook, step by step"),
    "cleanup": Entry(
        "kdnsctl.cli.cleanup:cleanup",
        "Delete what interrupted runs have left on the cluster: pods, and locks of nodes",
        needs="kdnsctl.evidence.leftleases:NEEDS",
    ),
    "verbosity": Entry(
        "kdnsctl.cli.verbosity:VERBOSITY",
        "See more of what kube-proxy does, without breaking more",
        needs="kdnsctl.repair.restoring:NEEDS",
        changes=True,
    ),
    "signatures": Entry("kdnsctl.cli.signatures:signatures", "List what kube-proxy logs, and what each line means"),
    "doctor": Entry("kdnsctl.cli.doctor:doctor", "Tell whether the cluster answers, and which commands may work on it"),
    "config": Entry("kdnsctl.cli.config:config", "Show what files and the environment set, and check it"),
    "rbac": Entry("kdnsctl.cli.rbac:rbac", "Print the least Role with which commands can do their work"),
    "lab": Entry("kdnsctl.cli.lab:LAB", "Rehearse the incident: a cluster on this machine in which DNS really fails"),
    "completion": Entry("kdnsctl.cli.completion:completion", "Print the completion script for a shell"),
}


def root(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Find the nodes with the Kubernetes DNS blackhole.

    The options below go before or after the command. Every long option can be set in the environment
    (KDNSCTL_OUTPUT=json is -o json), or in a file: see 'kdnsctl config --help'.
    """
    # Options before the command are parsed here only to find where they end; LazyGroup hands them to the command.


def build() -> LazyGroup:
    """The whole command tree, with light stand-ins for the commands."""
    return cast("LazyGroup", build_command("kdnsctl", Group(root, COMMANDS)))


def run(arguments: Sequence[str], program: str) -> int:
    """Run one command line and return its exit code; errors are already on stderr."""
    called_as(program, COMMANDS)
    return failures.contain(lambda: _dispatch(list(arguments), program), debug=_wants_traceback(arguments))


def _dispatch(arguments: list[str], program: str) -> int:
    tree = build()
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from kdnsctl.cli import completion  # noqa: PLC0415

        return completion.answer(tree, program, COMPLETION_VARIABLE, instruction, defaults_of([]))
    with tree.make_context(program, arguments, obj=defaults_of(arguments)) as context:
        result = tree.invoke(context)
    return int(result or 0)


def defaults_of(arguments: list[str]) -> Any:
    """What gives a command its defaults from files; None where there is no file."""
    from kdnsctl.cli.settings import Defaults, Settings, files_of  # noqa: PLC0415  # not for --version

    files = files_of(arguments, os.environ)
    return functools.partial(Defaults, Settings(files, COMMANDS)) if files else None


def _wants_traceback(arguments: Sequence[str]) -> bool:
    """Whether --debug was said, read before parsing because parsing itself may fail."""
    return "--debug" in arguments or os.environ.get("KDNSCTL_DEBUG", "").lower() in {"1", "true", "yes", "on", "t", "y"}
