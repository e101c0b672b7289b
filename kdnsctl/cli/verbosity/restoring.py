"""`kdnsctl verbosity restore`: words into options, a plan, a question, one call, a `VerbosityReport`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli import completing
from kdnsctl.cli.changing import LOCK_NAMESPACE, Changing, LockNamespace, at_work, confirm, nodes_of, show_plan
from kdnsctl.cli.nextsteps import caller_of
from kdnsctl.cli.options import Answer, Common, Connection, Record
from kdnsctl.cli.verbosity.show import print_report


def restore(
    ctx: typer.Context,
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
            help="Nodes; - reads names from standard input. Default: all that are raised.",
        ),
    ] = None,
    no_collect: Annotated[  # noqa: FBT002  # typer's way
        bool, typer.Option("--no-collect", help="Capture no evidence before a restart.", show_default=False)
    ] = False,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Have kube-proxy log as before, wherever raising it broke off.

    Examples:
      kdnsctl verbosity restore --dry-run=client
      kdnsctl verbosity restore
      kdnsctl verbosity restore ip-10-0-0-1

    What is raised is written on the nodes and on the DaemonSet, so it can be put back from everywhere. A command line
    goes back first, then the kube-proxies that were started with it restart, after their evidence is captured, and the
    update strategy goes back last.

    Exit codes: 0 all is as before, 4 something was left, 5 refused, nothing was changed, 1 failed, 2 wrong usage,
    130 interrupted.
    """
    chosen = nodes_of(nodes)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.repair import restoring as work  # noqa: PLC0415
    from kdnsctl.repair.session import Session  # noqa: PLC0415

    name = None if record.incident is None else incidents.checked_id(record.incident)
    scope, actor, now = CancelScope(), incidents.this_actor(), datetime.now(UTC)
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        prepared = work.prepare(Chosen(chosen), cluster, incident=name, collect=not no_collect, scope=scope, now=now)
        if changing.dry_run is not DryRun.NONE:
            return show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
        if prepared.incident is None:
            report = prepared.report({}, now)
        else:
            confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
            with at_work(cluster, prepared.incident, prepared.locks, actor, lock_namespace, scope, recorded=False) as (
                incident,
                held,
            ):
                at = Session(cluster, incident, actor, held, reporter, lambda: datetime.now(UTC))
                doing = work.Work(prepared, at, collect=not no_collect)
                try:
                    doing.run()
                except BaseException:  # whatever ended it: what was done is told
                    print_report(doing.report(), common, answer, caller_of(ctx))
                    raise
            report = doing.report()
    print_report(report, common, answer, caller_of(ctx))
    return report.exit_code
