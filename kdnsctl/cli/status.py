"""`kdnsctl status`: which nodes are in quarantine (kind `StatusReport`). What is looked at is known to `quarantine`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli import completing
from kdnsctl.cli.changing import AllNodes, Selector, nodes_of, one_way
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import Answer, Common, Connection, Form
from kdnsctl.cli.terminal import put
from kdnsctl.model import ExitCode

if TYPE_CHECKING:
    from kdnsctl.quarantine.status import NodeStatus, StatusReport

HEADINGS = ("NODE", "PHASE", "AGE", "VERDICT", "BY", "INCIDENT", "HOLDS", "DRIFT")


def status(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    answer: Answer,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...",
            autocompletion=completing.complete_node,
            help="Nodes; - reads names from standard input. Default: all that are in quarantine.",
        ),
    ] = None,
    selector: Selector = None,
    all_nodes: AllNodes = False,  # noqa: FBT002  # typer's way
) -> int:
    """Show the nodes in quarantine: how far, since when, by whom, what is in force, and what was changed since.

    Examples:
      # Whose quarantines are there?
      kdnsctl status
      kdnsctl status ip-10-0-0-1 -o json

    Nothing is judged and nothing changed.

    Exit codes: 0 shown, 1 failed, 2 wrong usage, 130 interrupted.
    """
    chosen = nodes_of(nodes)
    one_way(chosen, selector, all_nodes=all_nodes)

    # Late: what connects is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.quarantine import status as work  # noqa: PLC0415
    from kdnsctl.quarantine.report import status_to_json  # noqa: PLC0415

    scope = CancelScope()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        report = work.status(
            chosen, cluster, scope=scope, now=datetime.now(UTC), selector=selector, all_nodes=all_nodes
        )
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller_of(ctx))) + "\n")
    else:
        output.document(status_to_json(report), answer.format)
    return ExitCode.OK


def _lines(report: StatusReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.changes.raised import sentence  # noqa: PLC0415
    from kdnsctl.changes.reminding import StillRaised  # noqa: PLC0415
    from kdnsctl.cli import holds, table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows = [[table.Cell.of(text) for text in _row(node, report.generated_at)] for node in report.nodes]
    lines = table.lay_out(HEADINGS, rows, width=width, paint=paint) if rows else ["No node is in quarantine."]
    for node in report.nodes:
        told = [f"reason: {node.record.reason}"] if node.record and node.record.reason else []
        told += [f"{one.says}: not in force, it is {one.found}" for one in node.drift]
        told += [f"{one}: it could not be looked at" for one in node.unknown]
        told += [node.problem] if node.problem else []
        told += [f"going away: {node.dying}"] if node.dying else []
        told += [f"{node.holder} works on it right now"] if node.holder else []
        for text in told:
            lines += table.wrapped(visible(f"{node.name}: {text}"), width, 0, 2)
    for node in report.nodes:
        if node.holds:
            lines.append(visible(f"{node.name} and what may remove it:"))
        for hold in node.holds:
            lines += holds.lines(hold, width, in_force=hold.in_force)
    raised = StillRaised(report.raised, report.raised_sets).all
    told = [sentence(name, one, report.generated_at) for name, one in raised]
    for text in [*told, *report.notes]:
        lines += table.wrapped(visible(text), width, 0, 2)
    return [*lines, "", *next_lines([caller.on_cluster("verbosity", "restore")])] if raised else lines


def _row(node: NodeStatus, now: datetime) -> tuple[str, ...]:
    from kdnsctl.cancel import duration  # noqa: PLC0415

    record = node.record
    if record is None:
        return (node.name, "not in quarantine" if not node.problem else "unclear", *["-"] * 6)
    seconds = max(0, int((now - record.since).total_seconds()))
    age = duration(seconds if seconds < 3600 else seconds // 60 * 60)
    holds = f"{len(node.held)} of {len(record.steps)}"
    drift = str(len(node.drift) + len(node.unknown)) if node.drift or node.unknown else "none"
    return (node.name, record.phase.value, age, record.verdict or "-", record.operator, record.incident, holds, drift)
