"""`kdnsctl cleanup`: what earlier runs have left on the cluster, told and then deleted (kind `CleanupReport`).

What counts as left, and what is never touched, is known to `evidence.leftovers` for pods, and to `evidence.leftleases`
for the locks of nodes.
"""

from __future__ import annotations

import enum
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from kdnsctl.cli import values
from kdnsctl.cli.changing import LOCK_NAMESPACE, LockNamespace
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import Answer, Common, Connection, Form
from kdnsctl.cli.terminal import put, tell, visible
from kdnsctl.model import ExitCode

if TYPE_CHECKING:
    from kdnsctl.cancel import CancelScope
    from kdnsctl.cluster.transport import Connection as Connected
    from kdnsctl.evidence.leftleases import FoundLeases
    from kdnsctl.evidence.leftovers import Found
    from kdnsctl.quarantine.marks import Mark

LEASE_HEADINGS = ("LEASE", "NODE", "HOLDER", "ENDED", "FATE", "WHY")
HEADINGS = ("POD", "NODE", "RUN", "OPERATOR", "PHASE", "AGE", "FATE", "WHY")
_STYLES = {"deleted": "green", "gone": "green", "failed": "red", "kept": "yellow"}
_RUN = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", re.ASCII)  # a label's value


class DryRun(enum.StrEnum):
    """Whether anything is done, as `evidence.leftovers.DryRun`."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


def _run(word: str) -> str:
    if not _RUN.fullmatch(word):
        raise typer.BadParameter(f"'{word}' is not the name of a run; `kdnsctl cleanup --dry-run=client` lists them")
    return word


def cleanup(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    answer: Answer,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", parser=_run, help="Only what this run has left, whoever made it."),
    ] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            "--older-than",
            metavar="DURATION",
            parser=values.duration,
            help="Only what is older than this, such as 1h, whoever made it.",
        ),
    ] = None,
    pod_namespace: Annotated[
        str,
        typer.Option(
            "--pod-namespace",
            metavar="NS",
            parser=values.namespace,
            help="Where to look if pods may not be listed in all namespaces.",
        ),
    ] = "kube-system",
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
    dry_run: Annotated[
        DryRun,
        typer.Option("--dry-run", help="client: only say what would be done. server: have the server check it, too."),
    ] = DryRun.NONE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False,  # noqa: FBT002  # typer's way
) -> int:
    """Delete what interrupted runs have left on the cluster: pods, and locks of nodes.

    Nodes that are in quarantine, or whose kube-proxy still logs more, are named with the command that ends it.

    Examples:
      # What is there?
      kdnsctl cleanup --dry-run=client
      # What the run has left that was killed
      kdnsctl cleanup --run 20261128-064900-1a2b3c
      # In a job that looks after it
      kdnsctl cleanup --older-than 1h --yes

    A pod that still runs and is somebody else's is only deleted when its run, or an age, is named; a lock only when it
    has expired, or its run has ended on this machine. All of it ends by itself; this takes away what is left of it.

    Exit codes: 0 nothing is left, 4 something could not be deleted or seen, or should be over and is not; 5 not
    confirmed and nothing changed, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.changes import runs  # noqa: PLC0415
    from kdnsctl.changes.reminding import reminded  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.confirming import confirm  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.evidence import leftleases, leftovers  # noqa: PLC0415
    from kdnsctl.reach.podkeeper import operator  # noqa: PLC0415

    scope, caller = CancelScope(), caller_of(ctx)
    on_nodes: tuple[Mark, ...] = ()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        wanted = leftovers.Wanted(operator(), run, older_than)
        found = leftovers.find(cluster, wanted, pod_namespace, scope=scope)
        alive = runs.runs_directory(os.environ)
        locks = leftleases.find(
            cluster,
            lock_namespace,
            run=run,
            older_than=older_than,
            is_over=lambda name: runs.is_over(alive, name),
            goes_on=lambda name: runs.goes_on(alive, name),
            scope=scope,
        )
        for note in filter(None, (found.note, locks.note)):
            tell(note)
        if (found.to_delete or locks.to_delete) and dry_run is DryRun.NONE:
            if not yes:
                for line in _lines(found, locks, common, sys.stderr):
                    tell(line)
                tell(f"on {cluster.target}")
            confirm(f"Delete {_what(found, locks)}?", yes=yes, no_input=common.no_input)
        if dry_run is not DryRun.CLIENT:
            server = dry_run is DryRun.SERVER
            if found.to_delete:
                found = leftovers.delete(cluster, found, server_dry_run=server, scope=scope, reporter=reporter)
            locks = leftleases.delete(cluster, locks, server_dry_run=server, scope=scope)
        if run is None and scope.reason is None:
            on_nodes = _on_nodes(cluster, found.generated_at, scope)
        raised = reminded(cluster, found.generated_at, scope=scope) if scope.reason is None else []
    if answer.output is Form.TABLE:
        _print(found, locks, on_nodes, common, caller, pod_namespace)
    else:
        how = leftovers.DryRun(dry_run.value)
        data = leftovers.to_json(found, how, leftleases.to_json(locks), (locks.note,))
        data |= {
            "onNodes": [mark.to_json() for mark in on_nodes],
            "nextCommands": [caller.spelled(mark.command) for mark in on_nodes],
        }
        output.document(data, answer.format)
    for note in raised:  # it is no pod, and is not put back here
        tell(note)
    if scope.reason is INTERRUPTED:
        tell(f"interrupted; what was not deleted is still there: {caller.on_cluster('cleanup')}")
        return ExitCode.INTERRUPTED
    overdue = any(mark.overdue for mark in on_nodes)
    return found.exit_code if locks.complete and not overdue else ExitCode.INCOMPLETE


def _on_nodes(cluster: Connected, now: datetime, scope: CancelScope) -> tuple[Mark, ...]:
    """What runs have written on nodes and is still there; said, when it cannot be known."""
    from kdnsctl.cluster.errors import ForbiddenError  # noqa: PLC0415
    from kdnsctl.quarantine.marks import marks  # noqa: PLC0415
    from kdnsctl.quarantine.status import status  # noqa: PLC0415

    try:
        return tuple(marks(status((), cluster, scope=scope, now=now)))
    except ForbiddenError as error:
        tell(f"which nodes are in quarantine is not known: {error}")
        return ()


def _print(
    found: Found, locks: FoundLeases, on_nodes: Sequence[Mark], common: Common, caller: Caller, namespace: str
) -> None:
    """Pods, locks, and the nodes in quarantine with what ends it; of a raised verbosity the notes tell."""
    from kdnsctl.quarantine.marks import Kind  # noqa: PLC0415

    if found.pods or locks.leases:
        put("\n".join(_lines(found, locks, common, sys.stdout)) + "\n")
    else:
        put("No pod and no lock is left.\n" if not found.note else f"No pod is left in {namespace}.\n")
    held = [mark for mark in on_nodes if mark.kind is Kind.QUARANTINE]
    put("".join(f"{visible(str(mark))}\n" for mark in held))
    if held:
        put("\n".join(["", *next_lines(caller.spelled(mark.command) for mark in held)]) + "\n")


def _what(found: Found, locks: FoundLeases) -> str:
    counts = ((len(found.to_delete), "pod"), (len(locks.to_delete), "lock"))
    parts = [f"{number} {word}" + ("s" if number > 1 else "") for number, word in counts if number]
    if len(parts) == 1:
        return f"this {parts[0].removeprefix('1 ')}" if parts[0].startswith("1 ") else f"these {parts[0]}"
    return " and ".join(parts)


def _lines(found: Found, locks: FoundLeases, common: Common, stream: TextIO) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    rows: list[table.Row] = []
    for one in found.pods:
        phase = "Terminating" if one.terminating else one.phase or "-"
        cells = [one.place, one.node or "-", one.run or "-", one.operator or "-", phase]
        cells += [_age(one.made, found.generated_at)]
        row = [table.Cell.of(text) for text in cells]
        row += [table.Cell.of(one.fate.value, style=_STYLES.get(one.fate.value, "")), table.Cell.of(one.why or "-")]
        rows.append(row)
    paint, width = table.painter(color=has_color(stream, common.color)), columns(stream)
    lines = list(table.lay_out(HEADINGS, rows, width=width, paint=paint)) if rows else []
    rows = []
    for lease in locks.leases:
        ended = _age(lease.end, found.generated_at) if lease.end and lease.end <= found.generated_at else "-"
        cells = [lease.place, lease.node, lease.holder or "-", ended]
        fate = table.Cell.of(lease.fate.value, style=_STYLES.get(lease.fate.value, ""))
        rows.append([*(table.Cell.of(text) for text in cells), fate, table.Cell.of(lease.why or "-")])
    if rows:
        lines += [*([""] if lines else []), *table.lay_out(LEASE_HEADINGS, rows, width=width, paint=paint)]
    return lines


def _age(made: datetime | None, now: datetime) -> str:
    """As kubectl shows it, roughly: the two largest units."""
    if made is None:
        return "-"
    seconds = max(0, int((now - made).total_seconds()))
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // smaller}{small_unit}"
    return f"{seconds}s"
