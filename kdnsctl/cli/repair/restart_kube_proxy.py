"""`kdnsctl repair restart-kube-proxy`: words into options, a plan, a question, one call, a `RepairReport`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import values
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
from kdnsctl.cli.options import Answer, Common, Connection, Form, Record
from kdnsctl.cli.repair.after import after
from kdnsctl.cli.terminal import put

if TYPE_CHECKING:
    from kdnsctl.repair.report import RepairReport

HEADINGS = ("NODE", "RESULT", "BEFORE", "VERDICT", "REASON")
_STYLES = {"repaired": "green", "nothingToDo": "green", "refused": "yellow", "notTried": "yellow", "failed": "red"}


def restart_kube_proxy(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    nodes: NodeWords = None,
    selector: Selector = None,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=values.duration,
            help="Until a new kube-proxy has to have written its rules. Default: 2m.",
        ),
    ] = None,
    no_collect: Annotated[  # noqa: FBT002  # typer's way
        bool, typer.Option("--no-collect", help="Capture no evidence before.", show_default=False)
    ] = False,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Have kube-proxy write its rules anew, one node after the other.

    Examples:
      kdnsctl repair restart-kube-proxy ip-10-0-0-1 --dry-run=client
      kdnsctl repair restart-kube-proxy ip-10-0-0-1

    The evidence is secured first: a restart deletes what was wrong. Then the DaemonSet's pod is deleted, the new one is
    waited for until it has written its rules, and the node is judged again. Where rules cannot be written, a restart
    does not help: the answer says why they cannot. How a static pod or an embedded kube-proxy is restarted is printed.

    Exit codes: 0 the nodes are well, 4 some are and others not, 5 refused, nothing was changed, 1 failed,
    2 wrong usage, 130 interrupted.
    """
    chosen = chosen_nodes(ctx, nodes, selector)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.repair import restart as work  # noqa: PLC0415
    from kdnsctl.repair.session import Session, incident_of  # noqa: PLC0415

    now = datetime.now(UTC)
    named = None if record.incident is None else incidents.checked_id(record.incident)
    seconds = timeout.total_seconds() if timeout else work.SECONDS
    options = work.RestartOptions(Chosen(chosen, selector), not no_collect, seconds)
    scope, actor = CancelScope(), incidents.this_actor()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        prepared = work.prepare(options, cluster, scope=scope)
        if changing.dry_run is not DryRun.NONE:
            code = show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
            return code if prepared.todo else max(code, prepared.report({}, now).exit_code)
        if not prepared.todo:
            report = prepared.report({}, now)
        else:
            confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
            name = named or incident_of(prepared.found.nodes, prepared.todo) or incidents.new_id(now)
            with at_work(cluster, name, prepared.todo, actor, lock_namespace, scope, recorded=False) as (
                incident,
                held,
            ):
                at = Session(cluster, incident, actor, held, reporter, lambda: datetime.now(UTC))
                doing = work.Work(prepared, at)
                try:
                    doing.run()
                except BaseException:  # whatever ended it: what was done is told
                    _print(doing.report(), common, answer, caller_of(ctx))
                    raise
            report = doing.report()
    _print(report, common, answer, caller_of(ctx))
    return report.exit_code


def _print(report: RepairReport, common: Common, answer: Answer, caller: Caller) -> None:
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.repair.report import to_json  # noqa: PLC0415

    if answer.output is Form.TABLE:
        put("\n".join(_lines(report, common, caller)) + "\n")
    else:
        output.document(caller.spelled_in(to_json(report)), answer.format)


def _lines(report: RepairReport, common: Common, caller: Caller) -> list[str]:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color, visible  # noqa: PLC0415

    width, paint = columns(sys.stdout), table.painter(color=has_color(sys.stdout, common.color))
    rows: list[table.Row] = []
    for node in report.nodes:
        result = node.result.value
        cells = (node.before.value, node.after.value if node.after else "-", node.reason.message)
        rows.append(
            [table.Cell.of(node.name), table.Cell.of(result, style=_STYLES[result]), *map(table.Cell.of, cells)]
        )
    lines = [*table.lay_out(HEADINGS, rows, width=width, paint=paint), ""]
    for node in report.nodes:
        if node.advice:
            lines += table.wrapped(visible(f"{node.name}: {node.advice}"), width, 0, 2)
    for note in report.notes:
        lines += table.wrapped(visible(f"note: {note}"), width)
    return [*lines, *after(report, caller)]
