"""`kdnsctl quarantine`: words into options, a plan, a question, one call, the report (kind `QuarantineReport`).

What is done to nodes, and what says no, is known to `quarantine`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import values
from kdnsctl.cli.changing import (
    LOCK_NAMESPACE,
    AllNodes,
    Changing,
    LockNamespace,
    NodeWords,
    Selector,
    at_work,
    chosen_nodes,
    confirm,
    show_plan,
)
from kdnsctl.cli.collect import DEADLINE
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import Answer, Common, Connection, Form, Record, said
from kdnsctl.cli.reaching import Pods, Rung, Ssh, check_via, pod_settings, ssh_ways
from kdnsctl.cli.terminal import put
from kdnsctl.model import UsageError, Verdict

if TYPE_CHECKING:
    from kdnsctl.quarantine.guards import Most
    from kdnsctl.quarantine.outcome import NodeResult, QuarantineReport
    from kdnsctl.quarantine.podfilters import DrainOptions

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


@dataclass(frozen=True, slots=True)
class Draining:
    """Which pods are taken away, and how. Names and meanings are kubectl drain's."""

    TITLE: ClassVar = "The drain, as kubectl's"

    no_drain: Annotated[bool, typer.Option("--no-drain", help="Evict no pod.", show_default=False)] = False
    drain_anyway: Annotated[
        bool,
        typer.Option(
            "--drain-anyway", help="Drain also nodes that the capture does not prove affected.", show_default=False
        ),
    ] = False
    force: Annotated[
        bool, typer.Option("--force", help="Evict also pods that nothing would replace.", show_default=False)
    ] = False
    delete_emptydir_data: Annotated[
        bool,
        typer.Option(
            "--delete-emptydir-data", help="Evict also pods whose emptyDir goes with them.", show_default=False
        ),
    ] = False
    grace_period: Annotated[
        int, typer.Option("--grace-period", metavar="SECONDS", min=-1, help="Of each pod; -1: the pod's own.")
    ] = -1
    timeout: Annotated[
        timedelta | None,
        typer.Option("--timeout", metavar="DURATION", parser=values.duration, help="Of the drain. Default: no end."),
    ] = None
    pod_selector: Annotated[
        str, typer.Option("--pod-selector", metavar="SELECTOR", help="Drain only pods with these labels.")
    ] = ""
    disable_eviction: Annotated[
        bool, typer.Option("--disable-eviction", help="Delete pods, past their budgets.", show_default=False)
    ] = False
    skip_wait_for_delete_timeout: Annotated[
        int,
        typer.Option(
            "--skip-wait-for-delete-timeout",
            metavar="SECONDS",
            min=0,
            help="Do not wait for pods that should be gone for longer; 0: wait.",
        ),
    ] = 0
    ignore_daemonsets: Annotated[
        bool,
        typer.Option("--ignore-daemonsets", help="Changes nothing: DaemonSets' pods always stay.", show_default=False),
    ] = False


def quarantine(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    guarding: Guarding,
    pods: Draining,
    ssh: Ssh,
    own_pods: Pods,
    nodes: NodeWords = None,
    selector: Selector = None,
    all_nodes: AllNodes = False,  # noqa: FBT002  # typer's way
    via: Annotated[
        Rung,
        typer.Option("--via", help="How nodes are read for the capture, and asked for DNS between two of its pods."),
    ] = Rung.AUTO,
    deadline: Annotated[
        timedelta | None,
        typer.Option(
            "--deadline",
            metavar="DURATION",
            parser=values.duration,
            help="Stop a capture after this time, and judge what was had by then. Default: 10m.",
        ),
    ] = None,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Stop nodes from hurting, and keep them for forensics: hold, cordon, capture, judge, drain.

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
    evidence is captured and judged. Only a node that it proves affected is drained: through the Eviction API, pods that
    serve DNS last and one at a time. What was changed is written on the node, and in the incident's journal on this
    machine.

    Exit codes: 0 all done, 4 some of it was not, or a node is not proven affected and therefore not drained; 5 refused,
    nothing was changed; 1 failed, 2 wrong usage, 130 interrupted.
    """
    chosen = chosen_nodes(ctx, nodes, selector, all_nodes=all_nodes)

    if pods.no_drain and (useless := said(ctx, *(one.name for one in fields(Draining) if one.name != "no_drain"))):
        raise UsageError(f"{', '.join(useless)} has no effect with --no-drain")

    if guarding.no_collect and said(ctx, "deadline"):
        raise UsageError("--deadline has no effect with --no-collect")
    useless = said(ctx, "via", *(one.name for kind in (Ssh, Pods) for one in fields(kind)))
    drained = not pods.no_drain and (pods.drain_anyway or not guarding.no_collect)
    if guarding.no_collect and not drained and useless:
        raise UsageError(f"{', '.join(useless)} has no effect with --no-collect, where nothing is drained")
    check_via(ctx, via)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.evidence.ways import Via  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.quarantine import quarantine as work  # noqa: PLC0415
    from kdnsctl.quarantine.guards import DEFAULT_MOST  # noqa: PLC0415
    from kdnsctl.quarantine.reaching import Reach  # noqa: PLC0415
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
        seconds=(deadline or DEADLINE).total_seconds(),
        drain=None if pods.no_drain else _drain_options(pods),
        drain_anyway=pods.drain_anyway,
    )
    scope, actor = CancelScope(), incidents.this_actor()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        prepared = work.prepare(options, cluster, actor, scope=scope, now=lambda: datetime.now(UTC))
        if changing.dry_run is not DryRun.NONE:
            return show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
        confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
        names = [one.name for one in prepared.nodes]
        reach = Reach(
            Via(via.value),
            pod_settings(own_pods, via),
            None if guarding.no_collect else ssh_ways(ssh, via, common, reporter),
        )
        with at_work(cluster, prepared.incident, names, actor, lock_namespace, scope, recorded=True) as working:
            incident, held = working
            report = work.quarantine(
                prepared,
                cluster,
                incident,
                actor,
                options,
                scope=held,
                reporter=reporter,
                now=lambda: datetime.now(UTC),
                reach=reach,
            )
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller_of(ctx))) + "\n")
    else:
        output.document(quarantine_to_json(report), answer.format)
    return report.exit_code


def _drain_options(asked: Draining) -> DrainOptions:
    from kdnsctl.quarantine.podfilters import DrainOptions  # noqa: PLC0415

    return DrainOptions(
        force=asked.force,
        delete_emptydir_data=asked.delete_emptydir_data,
        grace_period=None if asked.grace_period < 0 else asked.grace_period,
        timeout=asked.timeout.total_seconds() if asked.timeout else None,
        pod_selector=asked.pod_selector,
        disable_eviction=asked.disable_eviction,
        skip_wait=float(asked.skip_wait_for_delete_timeout) or None,
    )


def _lines(report: QuarantineReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.cli import holds, table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

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
            lines += holds.lines(hold, width)
        for text in _pods(node):
            lines += table.wrapped(visible(text), width, 2, 2)
    for asked in report.asked:
        if asked.answer.well is None:
            continue  # said of the pods that therefore stay
        lines += table.wrapped(
            visible(f"DNS between two of its pods: {asked.service}: {asked.answer.message}"), width, 0, 2
        )
    for note in report.notes:
        lines += table.wrapped(visible(f"note: {note}"), width)
    lines += table.wrapped(visible(f"Incident {report.incident}." + _where(report)), width)
    return [*lines, "", *next_lines(_next(report, caller)), *_release(report, caller)]


def _pods(node: NodeResult) -> Iterable[str]:
    """What became of the node's pods."""
    from kdnsctl.quarantine.podfilters import name_of  # noqa: PLC0415

    if node.undrained:
        yield f"not drained: {node.undrained}"
    if node.drained is None:
        return
    if node.drained.refusal:
        yield f"not drained: {node.drained.refusal}"
    gone = [name_of(pod.pod) for pod in node.drained.pods if pod.left]
    if gone:
        yield f"gone: {', '.join(gone)}"
    staying: dict[str, list[str]] = {}
    for pod in node.drained.pods:
        if not pod.left:
            staying.setdefault(pod.reason.message if pod.reason else "kept", []).append(name_of(pod.pod))
    for why, names in staying.items():
        yield f"still there: {', '.join(names)}: {why}"
    for name in node.drained.arrived:
        yield f"came meanwhile: {name}"


def _where(report: QuarantineReport) -> str:
    if report.bundle is None:
        return " No evidence was captured."
    return f" Evidence: {report.bundle}; SHA-256 of its SHA256SUMS: {report.digest}"


def _next(report: QuarantineReport, caller: Caller) -> Iterable[str]:
    names = [node.name for node in report.nodes[:5]]
    if report.bundle is not None:
        yield caller.on_files("analyze", str(report.bundle))
    affected = [node.name for node in report.nodes if node.judgement and node.judgement.verdict is Verdict.AFFECTED][:5]
    if affected:
        yield caller.on_cluster("repair", "flush", *affected, "--incident", report.incident)
    if any(node.failed for node in report.nodes):
        yield caller.on_cluster("quarantine", *names, "--incident", report.incident)
    yield caller.on_cluster("status")


def _release(report: QuarantineReport, caller: Caller) -> list[str]:
    """How the nodes are given back. It refuses what is still affected, so it may be copied too early."""
    names = [node.name for node in report.nodes if node.phase][:5]
    return next_lines([caller.on_cluster("release", *names)] if names else [], "When repaired:")
