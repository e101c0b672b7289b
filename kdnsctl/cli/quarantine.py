"""`kdnsctl quarantine`: words into options, a plan, a question, one call, the report (kind `QuarantineReport`).

What is done to nodes, and what says no, is known to `quarantine`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import completing, nodenames
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
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import ExitCode, UsageError

if TYPE_CHECKING:
    from kdnsctl.quarantine.guards import Most
    from kdnsctl.quarantine.quarantine import QuarantineReport

HEADINGS = ("NODE", "PHASE", "VERDICT", "STALE", "REASON")
_STYLES = {"affected": "red", "suspect": "yellow", "unknown": "yellow", "clean": "green"}


def _most(text: str) -> Most:
    from kdnsctl.quarantine.guards import most_of  # noqa: PLC0415

    try:
        return most_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(frozen=True, slots=True)
class Guarding:
    """What is held, and how much may be done at once."""

    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever looks at the node.")] = ""
    no_collect: Annotated[
        bool, typer.Option("--no-collect", help="Capture no evidence, and judge nothing.", show_default=False)
    ] = False
    max_nodes: Annotated[
        str | None,
        typer.Option(
            "--max-nodes",
            metavar="N|N%",
            help="Most nodes in quarantine at once, of the Ready ones; at least one. Default: 10%.",
        ),
    ] = None
    allow_control_plane: Annotated[
        bool, typer.Option("--allow-control-plane", help="Take nodes of the control plane, too.", show_default=False)
    ] = False
    hold: Annotated[
        list[str],
        typer.Option(
            "--hold",
            metavar="auto|MANAGER",
            help="What to hold nodes against. Default: auto, what is found (repeatable).",
        ),
    ] = field(default_factory=list)


def quarantine(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    guarding: Guarding,
    nodes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NODE]...",
            autocompletion=completing.complete_node,
            help="Nodes; - reads names, or a report, from standard input.",
        ),
    ] = None,
    selector: Annotated[
        str | None, typer.Option("--selector", "-l", metavar="SELECTOR", help="The nodes with these labels.")
    ] = None,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Stop nodes from hurting, and keep them for forensics: hold, cordon, capture, judge.

    Examples:
      # What would be done?
      kdnsctl quarantine ip-10-0-0-1 --dry-run=client
      # The affected nodes that were just found
      kdnsctl find-affected --live -o name | kdnsctl quarantine - --yes
      # It was interrupted, or another laptop goes on
      kdnsctl quarantine ip-10-0-0-1
      # Back, exactly as it was
      kdnsctl release ip-10-0-0-1

    Autoscalers and repair controllers are held off, then the node is cordoned and gets a taint of its own, then the
    evidence is captured and judged. No pod is evicted. What was changed is written on the node, and in the incident's
    journal on this machine.

    Exit codes: 0 done, and the nodes are affected; 4 some could not be done, or are not proven affected; 5 refused,
    nothing was changed; 1 failed, 2 wrong usage, 130 interrupted.
    """
    chosen = nodes_of(nodes)
    if not chosen and nodes and nodenames.STDIN in nodes:
        tell("nothing to do: standard input names no node")
        return ExitCode.OK
    if bool(chosen) == (selector is not None):
        how = "NODE and --selector exclude each other" if chosen else "which nodes? Name them, or -l SELECTOR, or -"
        raise UsageError(how, hint=f"see {ctx.command_path} --help")

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.changes.plan import rehearsed  # noqa: PLC0415
    from kdnsctl.changes.verbs import Means  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.quarantine import quarantine as work  # noqa: PLC0415
    from kdnsctl.quarantine.guards import DEFAULT_MOST  # noqa: PLC0415
    from kdnsctl.quarantine.report import quarantine_to_json  # noqa: PLC0415

    now = datetime.now(UTC)
    options = work.QuarantineOptions(
        chosen=Chosen(chosen, selector),
        new_incident=incidents.new_id(now),
        incident=None if record.incident is None else incidents.checked_id(record.incident),
        reason=guarding.reason,
        most=_most(guarding.max_nodes or DEFAULT_MOST),
        allow_control_plane=guarding.allow_control_plane,
        hold=tuple(guarding.hold) or ("auto",),
        collect=not guarding.no_collect,
    )
    scope, actor = CancelScope(), incidents.this_actor()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        prepared = work.prepare(options, cluster, actor, scope=scope, now=now)
        if changing.dry_run is not DryRun.NONE:
            plan = prepared.plan
            if changing.dry_run is DryRun.SERVER:
                plan = rehearsed(plan, Means(cluster, scope))
            return show_plan(plan, cluster.target, answer, changing.dry_run)
        confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
        names = [one.name for one in prepared.nodes]
        with at_work(cluster, prepared.incident, names, actor, lock_namespace, scope) as (incident, held):
            report = work.quarantine(
                prepared,
                cluster,
                incident,
                actor,
                collect=options.collect,
                scope=held,
                reporter=reporter,
                now=lambda: datetime.now(UTC),
            )
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, ctx.find_root().info_name or "kdnsctl")) + "\n")
    else:
        output.document(quarantine_to_json(report), answer.format)
    return report.exit_code


def _lines(report: QuarantineReport, common: Common, program: str) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415
    from kdnsctl.quarantine.planning import told  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows: list[table.Row] = []
    for node in report.nodes:
        judged = node.judgement
        verdict = judged.verdict.value if judged else "-"
        stale = "-" if judged is None or judged.stale_entries is None else str(judged.stale_entries)
        why = f"stopped: {node.failed.message}" if node.failed else judged.reason if judged else "not captured"
        rows.append(
            [
                table.Cell.of(node.name),
                table.Cell.of(node.phase.value if node.phase else "-"),
                table.Cell.of(verdict, style=_STYLES.get(verdict, "")),
                table.Cell.of(stale),
                table.Cell.of(why or "-"),
            ]
        )
    lines = [*table.lay_out(HEADINGS, rows, width=width, paint=paint), ""]
    for node in report.nodes:
        lines.append(visible(f"{node.name}:"))
        for hold in node.planned.holds:
            lines += table.wrapped(visible(told(hold)), width, 2, 2)
    for note in report.notes:
        lines += table.wrapped(visible(f"note: {note}"), width)
    lines += table.wrapped(visible(f"Incident {report.incident}." + _where(report)), width)
    return [*lines, "", "Next:", *(f"  {visible(line)}" for line in _next(report, program))]


def _where(report: QuarantineReport) -> str:
    if report.bundle is None:
        return " No evidence was captured."
    return f" Evidence: {report.bundle}; SHA-256 of its SHA256SUMS: {report.digest}"


def _next(report: QuarantineReport, program: str) -> Iterable[str]:
    names = " ".join(node.name for node in report.nodes[:5])
    if report.bundle is not None:
        yield f"{program} analyze {report.bundle}"
    if any(node.failed for node in report.nodes):
        yield f"{program} quarantine {names} --incident {report.incident}    # go on"
    yield f"{program} status"
    yield f"{program} release {names}    # when they are repaired"
