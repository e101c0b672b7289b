"""`kdnsctl release`: words into options, a plan, a question, one call, the report (kind `ReleaseReport`)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import completing
from kdnsctl.cli.changing import (
    LOCK_NAMESPACE,
    AllNodes,
    Changing,
    LockNamespace,
    Selector,
    at_work,
    confirm,
    nodes_of,
    one_way,
    show_plan,
)
from kdnsctl.cli.nextsteps import Caller, caller_of, next_lines
from kdnsctl.cli.options import DEADLINE, Answer, Common, Connection, Deadline, Form, Record, said
from kdnsctl.cli.reaching import Pods, Rung, Ssh, check_via, pod_settings, ssh_ways
from kdnsctl.cli.terminal import put
from kdnsctl.model import UsageError

if TYPE_CHECKING:
    from kdnsctl.quarantine.release import NodeResult, ReleaseReport

HEADINGS = ("NODE", "RELEASED", "VERDICT", "DNS", "TAKEN-BACK", "DRIFT")


def release(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    ssh: Ssh,
    pods: Pods,
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
    via: Annotated[
        Rung,
        typer.Option(
            "--via",
            help="How nodes are judged, and DNS is asked from them. auto: exec into kube-proxy, else pods of its own, "
            "else SSH if an option of it is given.",
        ),
    ] = Rung.AUTO,
    deadline: Deadline = None,
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
      # Where exec into kube-proxy is forbidden, or DNS is to be asked from the node, too
      kdnsctl release ip-10-0-0-1 --via ssh --ssh-user ec2-user
      # It is to be replaced anyway
      kdnsctl release ip-10-0-0-1 --unchecked

    The nodes are judged first, and DNS is asked from them where something there can: one that is still affected, or of
    which that cannot be known, is refused, and so is one that DNS does not answer. Then what the record on the node
    says is taken back, where it still is as the quarantine left it. What somebody else changed since is reported, and
    stays.

    Exit codes: 0 all is as it was, 4 something was left as somebody else changed it, 5 refused, nothing was changed,
    1 failed, 2 wrong usage, 130 interrupted.
    """
    chosen = nodes_of(nodes)
    one_way(chosen, selector, all_nodes=all_nodes)
    useless = said(ctx, "via", "deadline", *(one.name for kind in (Ssh, Pods) for one in fields(kind)))
    if unchecked and useless:
        raise UsageError(f"{', '.join(useless)} has no effect with --unchecked")
    check_via(ctx, via)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.changes.reminding import reminded  # noqa: PLC0415
    from kdnsctl.cli import output, progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.evidence.ways import Via  # noqa: PLC0415
    from kdnsctl.quarantine import release as work  # noqa: PLC0415
    from kdnsctl.quarantine.reaching import Reach  # noqa: PLC0415
    from kdnsctl.quarantine.report import release_to_json  # noqa: PLC0415

    name = None if record.incident is None else incidents.checked_id(record.incident)
    scope, actor, now = CancelScope(), incidents.this_actor(), datetime.now(UTC)
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        no_ssh = via is Rung.AUTO and ssh == Ssh()  # nobody said how to log in
        prepared = work.prepare(
            chosen,
            cluster,
            incident=name,
            unchecked=unchecked,
            scope=scope,
            reporter=reporter,
            now=now,
            selector=selector,
            reach=Reach(
                Via(via.value),
                pod_settings(pods, via),
                None if no_ssh else ssh_ways(ssh, via, common, reporter),
            ),
            seconds=(deadline or DEADLINE).total_seconds(),
        )
        if changing.dry_run is not DryRun.NONE:
            return show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
        names = [one.name for one in prepared.nodes if one.record is not None]
        if prepared.incident is None:
            report = work.nothing(prepared, now)
        else:
            confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
            with at_work(cluster, prepared.incident, names, actor, lock_namespace, scope, recorded=True) as working:
                incident, held = working
                report = work.release(prepared, cluster, incident, actor, scope=held, now=lambda: datetime.now(UTC))
        report = replace(report, notes=(*report.notes, *reminded(cluster, now, scope=scope)))
    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller_of(ctx))) + "\n")
    else:
        output.document(release_to_json(report), answer.format)
    return report.exit_code


def _lines(report: ReleaseReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    if not any(node.record for node in report.nodes):
        return ["No node is in quarantine: nothing to do.", *_notes(report, width)]
    rows: list[table.Row] = []
    for node in report.nodes:
        cells = _row(node) if node.record else ("-", "-", "-", "was not in quarantine", "-")
        rows.append([table.Cell.of(text) for text in (node.name, *cells)])
    lines = table.lay_out(HEADINGS, rows, width=width, paint=paint)
    for node in report.nodes:
        for text in _told(node):
            lines += table.wrapped(visible(f"{node.name}: {text}"), width, 0, 2)
    lines += [*_notes(report, width), "", visible(f"Incident {report.incident}."), ""]
    return [*lines, *next_lines([caller.on_files("incident", "report", str(report.incident))])]


def _row(node: NodeResult) -> tuple[str, ...]:
    proof, drift = node.proof, len(node.drift)
    dns = {None: "not asked", True: "answers", False: "fails"}[proof.dns.well if proof and proof.dns else None]
    back = sum(one.reason is None for one in node.undone)
    return (
        "yes" if node.released else "no",
        proof.verdict.value if proof else "not judged",
        dns,
        f"{back} of {len(node.undone)}",
        str(drift) if drift else "none",
    )


def _told(node: NodeResult) -> Iterable[str]:
    """What was not taken back, and why; and what DNS said."""
    from kdnsctl.changes.executor import Undone  # noqa: PLC0415

    words = {Undone.DRIFT: "left as it is, for somebody else changed it", Undone.GONE: "there is nothing to change"}
    for one in node.undone:
        if one.reason is not None:
            yield f"{one.says}: {words.get(one.outcome, 'failed')}: {one.reason.message}"
    if node.proof is not None and node.proof.dns is not None:
        yield f"DNS: {node.proof.dns.message}"


def _notes(report: ReleaseReport, width: int | None) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import visible  # noqa: PLC0415

    return [line for note in report.notes for line in table.wrapped(visible(f"note: {note}"), width)]
