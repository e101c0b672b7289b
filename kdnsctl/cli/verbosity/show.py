"""`kdnsctl verbosity show`: at which level kube-proxy logs (kind `VerbosityReport`)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli import completing, values
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import Answer, Common, Connection, Form
from kdnsctl.cli.terminal import put

if TYPE_CHECKING:
    from kdnsctl.repair.verbosityreport import VerbosityReport

HEADINGS = ("NODE", "RESULT", "LEVEL", "WAY", "KUBE-PROXY", "REASON")
_STYLES = {"failed": "red", "refused": "yellow", "notTried": "yellow", "raised": "green", "restored": "green"}


def show(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    answer: Answer,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...",
            parser=values.node,
            autocompletion=completing.complete_node,
            help="Nodes. Default: all.",
        ),
    ] = None,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="The nodes with these labels.")
    ] = None,
) -> int:
    """Show at which level kube-proxy logs, how that can be raised, and where it is raised.

    Examples:
      kdnsctl verbosity show
      kdnsctl verbosity show ip-10-0-0-1 -o json

    A running kube-proxy does not tell its level: it is what it was started with, or what kdnsctl raised it to. WAY is
    how it can be raised: at runtime, by its DaemonSet's template, or not from here.

    Exit codes: 0 shown, 4 the level of some nodes is not known, 1 failed, 2 wrong usage, 130 interrupted.
    """
    # Late: what connects is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.repair import showing as work  # noqa: PLC0415

    scope = CancelScope()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        report = work.show(Chosen(tuple(nodes or ()), selector), cluster, scope=scope, now=datetime.now(UTC))
    print_report(report, common, answer, caller_of(ctx))
    return report.exit_code


def print_report(report: VerbosityReport, common: Common, answer: Answer, caller: Caller) -> None:
    """The report of any of the three commands, as asked."""
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.repair.verbosityreport import to_json  # noqa: PLC0415

    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller)) + "\n")
    else:
        output.document(to_json(report), answer.format)


def _lines(report: VerbosityReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.changes.raised import sentence  # noqa: PLC0415
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    if not report.nodes:
        return ["No node is raised: nothing to do."]
    rows: list[table.Row] = []
    for node in report.nodes:
        level = "-" if node.level is None else str(node.level)
        why = node.reason.message if node.reason else "-"
        style = _STYLES.get(node.result.value, "")
        cells = (level, node.way or "-", node.version or "-", why)
        rows.append(
            [table.Cell.of(node.name), table.Cell.of(node.result.value, style=style), *map(table.Cell.of, cells)]
        )
    lines = table.lay_out(HEADINGS, rows, width=width, paint=paint)
    for node in report.nodes:
        if node.advice:
            lines += table.wrapped(visible(f"{node.name}: {node.advice}"), width, 0, 2)
        if node.raised is not None:
            lines += table.wrapped(visible(sentence(node.name, node.raised, report.generated_at)), width, 0, 2)
    for note in report.notes:
        lines += table.wrapped(visible(f"note: {note}"), width)
    if report.bundle is not None:
        lines += table.wrapped(visible(f"The evidence from before the restart: {report.bundle}"), width)
    lines += ["", visible(f"Incident {report.incident}.")] if report.incident else []
    left = any(node.raised is not None for node in report.nodes)
    return [*lines, "", *next_lines([caller.on_cluster("verbosity", "restore")])] if left else lines
