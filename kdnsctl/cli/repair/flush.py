"""`kdnsctl repair flush`: words into options, a plan, a question, one call, the report (kind `RepairReport`).

Which entries are stale, and what says no, is known to `repair` and `diagnosis`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli.changing import (
    LOCK_NAMESPACE,
    Changing,
    LockNamespace,
    NodeWords,
    Selector,
    at_work,
    chosen_nodes,
    confirm,
    show_plan,
)
from kdnsctl.cli.nextsteps import Caller, caller_of
from kdnsctl.cli.options import Answer, Common, Connection, Form, KubeProxyVersion, Record, Settle
from kdnsctl.cli.reaching import Pods, Rung, Ssh, pod_settings, ssh_ways
from kdnsctl.cli.repair.after import after
from kdnsctl.cli.terminal import put, tell
from kdnsctl.model import ExitCode

if TYPE_CHECKING:
    from kdnsctl.repair.report import RepairReport

HEADINGS = ("NODE", "RESULT", "VERDICT", "DELETED", "VIA", "REASON")
_STYLES = {"repaired": "green", "nothingToDo": "green", "refused": "yellow", "notTried": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Extent:
    """What is deleted, and on how many nodes at once."""

    service: Annotated[
        list[str],
        typer.Option(
            "--service", metavar="NAMESPACE/NAME", help="Entries of this Service (repeatable). Default: DNS Services."
        ),
    ] = field(default_factory=list)
    tcp: Annotated[
        bool,
        typer.Option(
            "--tcp",
            help="Delete stale TCP entries too; healthy nodes have such of long connections.",
            show_default=False,
        ),
    ] = False
    settle: Settle = None
    kube_proxy_version: KubeProxyVersion = None
    parallel: Annotated[
        int,
        typer.Option("--parallel", metavar="N", min=1, max=100, help="Nodes at once, when the first is proven well."),
    ] = 10
    max_failures: Annotated[
        int, typer.Option("--max-failures", metavar="N", min=1, help="Begin no further node after so many failures.")
    ] = 3


def flush(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    extent: Extent,
    ssh: Ssh,
    pods: Pods,
    nodes: NodeWords = None,
    selector: Selector = None,
    via: Annotated[
        Rung,
        typer.Option(
            "--via",
            help="How conntrack is run. auto: in kube-proxy's container, else in a pod of our own, else by SSH.",
        ),
    ] = Rung.AUTO,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Delete the stale conntrack entries of nodes, and no others.

    Examples:
      # What would be deleted?
      kdnsctl repair flush ip-10-0-0-1 --dry-run=client
      # All that are affected, the first of them alone
      kdnsctl find-affected --live -o json | kdnsctl repair flush - --yes
      # kube-proxy's image has no conntrack (1.32 and later)
      kdnsctl repair flush ip-10-0-0-1 --image registry.example.com/kdnsctl-tools:1
      kdnsctl repair flush ip-10-0-0-1 --via ssh --ssh-user ec2-user

    The node's rules are judged first: if they lead to an endpoint that does not serve, every deleted entry would come
    back, so nothing is deleted, and the repair that comes first is named. Entries are deleted by group, with the dead
    endpoint in the filter: a flow that works cannot match. Then the table is read again, until none is left.

    Exit codes: 0 the nodes are well, 4 some are and others not, 5 refused, nothing was changed, 1 failed,
    2 wrong usage, 130 interrupted.
    """
    chosen = chosen_nodes(ctx, nodes, selector)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import INTERRUPTED, CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.cli.ending import interruptible  # noqa: PLC0415
    from kdnsctl.evidence.ways import Via  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.repair import flushing  # noqa: PLC0415
    from kdnsctl.repair import flushplan as work  # noqa: PLC0415
    from kdnsctl.repair.session import Session, incident_of  # noqa: PLC0415

    now = datetime.now(UTC)
    named = None if record.incident is None else incidents.checked_id(record.incident)
    options = work.FlushOptions(
        chosen=Chosen(chosen, selector),
        services=tuple(extent.service),
        tcp=extent.tcp,
        version=extent.kube_proxy_version,
        via=Via(via.value),
        pods=pod_settings(pods, via),
        parallel=extent.parallel,
        max_failures=extent.max_failures,
        rehearsed=changing.dry_run is not DryRun.NONE,
        **({"settle": extent.settle} if extent.settle is not None else {}),
    )
    scope, actor = CancelScope(), incidents.this_actor()
    with (
        interruptible(),
        progress.reporting(common.color) as reporter,
        connected(connection, common, scope, reporter) as cluster,
    ):
        by_ssh = via is not Rung.AUTO or _ssh_is_meant(ssh)
        ways = ssh_ways(ssh, via, common, reporter) if by_ssh else None
        with work.preparing(options, cluster, ways, scope=scope, reporter=reporter, now=now) as prepared:
            if changing.dry_run is not DryRun.NONE:
                shown = show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
                return shown if prepared.todo else max(shown, _refused(prepared.report({}, now)))
            ended = None
            if prepared.todo:
                confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
                name = named or incident_of(prepared.found.nodes, prepared.todo) or incidents.new_id(now)
                with at_work(cluster, name, prepared.todo, actor, lock_namespace, scope, recorded=False) as (
                    incident,
                    held,
                ):
                    at = Session(cluster, incident, actor, held, reporter, lambda: datetime.now(UTC))
                    report = flushing.flush(prepared, at)
                    ended = held.reason
            else:
                report = prepared.report({}, now)
    _print(report, common, answer, caller_of(ctx))
    if ended is INTERRUPTED:
        tell(f"interrupted; what was deleted is in incident {report.incident}: run the same again to go on")
        return ExitCode.INTERRUPTED
    return report.exit_code


def _ssh_is_meant(ssh: Ssh) -> bool:
    """Whether an option about SSH was given: without one, --via auto does not try to log in at nodes."""
    return ssh != Ssh()


def _refused(report: RepairReport) -> int:
    return ExitCode.REFUSED if report.exit_code is ExitCode.REFUSED else ExitCode.OK


def _print(report: RepairReport, common: Common, answer: Answer, caller: Caller) -> None:
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.repair.report import to_json  # noqa: PLC0415

    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller)) + "\n")
    else:
        output.document(caller.spelled_in(to_json(report)), answer.format)


def _lines(report: RepairReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.coverage import count  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415
    from kdnsctl.repair.report import Result  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows: list[table.Row] = []
    for node in report.nodes:
        result = node.result.value
        cells = (node.verdict.value, str(node.deleted), node.via or "-", node.reason.message)
        rows.append(
            [table.Cell.of(node.name), table.Cell.of(result, style=_STYLES[result]), *map(table.Cell.of, cells)]
        )
    lines = [*table.lay_out(HEADINGS, rows, width=width, paint=paint), ""]
    for node in report.nodes:
        if node.advice:
            lines += table.wrapped(visible(f"{node.name}: {node.advice}"), width)
        lines += [f"  {visible(command)}" for command in map(caller.spelled, node.commands)]
    for node in report.nodes:
        if node.probed is not None:
            lines += table.wrapped(visible(f"{node.name}: DNS: {node.probed.message}"), width)
    for note in report.notes:
        lines += table.wrapped(visible(f"note: {note}"), width)
    counts = {result: sum(node.result is result for node in report.nodes) for result in Result}
    told = ", ".join(f"{number} {result.value}" for result, number in counts.items() if number)
    deleted = sum(node.deleted for node in report.nodes)
    total = "1 entry" if deleted == 1 else f"{deleted} entries"
    lines += table.wrapped(f"{count(len(report.nodes), 'node')}: {told}; {total} deleted.", width)
    return [*lines, *after(report, caller)]
