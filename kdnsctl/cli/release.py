"""`kdnsctl release`: words into options, a plan, a question, one call, the report (kind `ReleaseReport`)."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import completing
from kdnsctl.cli.changing import (
    LOCK_NAMESPACE,
    Changing,
    LockNamespace,
    at_work,
    confirm,
    nodes_of,
    show_plan,
)
from kdnsctl.cli.options import Answer, Common, Connection, Form, Record
from kdnsctl.cli.terminal import put

if TYPE_CHECKING:
    from kdnsctl.quarantine.release import ReleaseReport

HEADINGS = ("NODE", "RELEASED", "VERDICT", "STEP", "OUTCOME")


def release(
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...",
            autocompletion=completing.complete_node,
            help="Nodes; - reads names from standard input. Default: all that are in quarantine.",
        ),
    ] = None,
    unchecked: Annotated[  # noqa: FBT002  # typer's way
        bool,
        typer.Option("--unchecked", help="Do not judge the nodes: give them back as they are.", show_default=False),
    ] = False,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Give nodes back exactly as they were before their quarantine.

    Examples:
      # What would be taken back?
      kdnsctl release ip-10-0-0-1 --dry-run=client
      kdnsctl release ip-10-0-0-1
      # It is to be replaced anyway
      kdnsctl release ip-10-0-0-1 --unchecked

    The nodes are judged first: one that is still affected, or of which that cannot be known, is refused. Then what the
    record on the node says is taken back, where it still is as the quarantine left it. What somebody else changed since
    is reported, and stays.

    Exit codes: 0 all is as it was, 4 something was left as somebody else changed it, 5 refused, nothing was changed,
    1 failed, 2 wrong usage, 130 interrupted.
    """
    chosen = nodes_of(nodes)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.changes.reminding import reminded  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.quarantine import release as work  # noqa: PLC0415
    from kdnsctl.quarantine.report import release_to_json  # noqa: PLC0415

    name = None if record.incident is None else incidents.checked_id(record.incident)
    scope, actor, now = CancelScope(), incidents.this_actor(), datetime.now(UTC)
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        prepared = work.prepare(
            chosen, cluster, incident=name, unchecked=unchecked, scope=scope, reporter=reporter, now=now
        )
        if changing.dry_run is not DryRun.NONE:
            return show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
        held_nodes = [one.name for one in prepared.nodes if one.record is not None]
        if prepared.incident is None:
            report = work.nothing(prepared, now)
        else:
            confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
            with at_work(cluster, prepared.incident, held_nodes, actor, lock_namespace, scope) as (incident, held):
                report = work.release(prepared, cluster, incident, actor, scope=held, now=lambda: datetime.now(UTC))
        report = replace(report, notes=(*report.notes, *reminded(cluster, now, scope=scope)))
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common)) + "\n")
    else:
        output.document(release_to_json(report), answer.format)
    return report.exit_code


def _lines(report: ReleaseReport, common: Common) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    if not any(node.record for node in report.nodes):
        return ["No node is in quarantine: nothing to do.", *_notes(report, width)]
    rows: list[table.Row] = []
    for node in report.nodes:
        head = (node.name, "yes" if node.released else "no", node.verdict.value if node.verdict else "-")
        if node.record is None:
            rows.append([table.Cell.of(text) for text in (node.name, "-", "-", "was not in quarantine", "-")])
        for one in node.undone:
            said = one.outcome.value + (f": {one.reason.message}" if one.reason else "")
            rows.append([table.Cell.of(text) for text in (*head, one.says, said)])
    lines = table.lay_out(HEADINGS, rows, width=width, paint=paint)
    return [*lines, *_notes(report, width), "", visible(f"Incident {report.incident}.")]


def _notes(report: ReleaseReport, width: int | None) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import visible  # noqa: PLC0415

    return [line for note in report.notes for line in table.wrapped(visible(f"note: {note}"), width)]
