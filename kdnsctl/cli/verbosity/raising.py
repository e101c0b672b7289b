"""`kdnsctl verbosity raise`: words into options, a plan, a question, one call, the report (kind `VerbosityReport`).

With --for it stays until the time is over, or Ctrl-C, and puts everything back then. How that is done is known to
`repair`.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from kdnsctl.cli.nextsteps import caller_of
from kdnsctl.cli.options import Answer, Common, Connection, Record
from kdnsctl.cli.terminal import tell
from kdnsctl.cli.verbosity.show import print_report
from kdnsctl.model import CancelledError, KdnsctlError

if TYPE_CHECKING:
    from kdnsctl.repair.raising import Work
    from kdnsctl.repair.verbosityreport import VerbosityReport


@dataclass(frozen=True, slots=True)
class Raising:
    """How far, for how long, and what may restart."""

    level: Annotated[
        int, typer.Option("--level", metavar="N", min=1, max=10, help="The level; 4 is right in every version.")
    ] = 4
    lasts: Annotated[
        timedelta | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            parser=values.duration,
            help="Stay, and put it back after this time, or at Ctrl-C. Default: leave it raised.",
        ),
    ] = None
    no_restart: Annotated[
        bool, typer.Option("--no-restart", help="Only where nothing has to restart.", show_default=False)
    ] = False
    no_collect: Annotated[
        bool, typer.Option("--no-collect", help="Capture no evidence before a restart.", show_default=False)
    ] = False


def raise_(
    ctx: typer.Context,
    common: Common,
    connection: Connection,
    record: Record,
    answer: Answer,
    changing: Changing,
    raising: Raising,
    nodes: NodeWords = None,
    selector: Selector = None,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Have kube-proxy log more on some nodes, for a while.

    Examples:
      # How, and what would restart?
      kdnsctl verbosity raise ip-10-0-0-1 --dry-run=client
      # For half an hour; Ctrl-C puts it back earlier
      kdnsctl verbosity raise ip-10-0-0-1 --for 30m
      # Only where nothing has to restart
      kdnsctl verbosity raise ip-10-0-0-1 --no-restart

    At runtime where kube-proxy takes it (enableProfiling, since 1.22). Else by its DaemonSet's command line: the update
    strategy is set to OnDelete, so that only the named nodes' kube-proxies restart, after their evidence is captured.
    A DaemonSet that somebody else looks after (EKS add-on, AKS, Argo CD, Helm, Talos …) is refused. The ConfigMap is
    never changed: kube-proxy would exit on every node.

    Exit codes: 0 raised (and put back, with --for), 4 not on all nodes, 5 refused, nothing was changed, 1 failed,
    2 wrong usage, 130 interrupted.
    """
    chosen = chosen_nodes(ctx, nodes, selector)

    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.repair import raiseplan  # noqa: PLC0415
    from kdnsctl.repair import raising as doing  # noqa: PLC0415
    from kdnsctl.repair.session import Session  # noqa: PLC0415

    now = datetime.now(UTC)
    options = raiseplan.RaiseOptions(
        Chosen(chosen, selector), raising.level, raising.lasts, not raising.no_restart, not raising.no_collect
    )
    scope, actor = CancelScope(), incidents.this_actor()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        prepared = raiseplan.prepare(
            options,
            cluster,
            actor,
            incident=None if record.incident is None else incidents.checked_id(record.incident),
            new_incident=incidents.new_id(now),
            scope=scope,
            reporter=reporter,
            now=now,
        )
        if changing.dry_run is not DryRun.NONE:
            code = show_plan(prepared.plan, cluster, answer, changing.dry_run, scope)
            return code if prepared.names else max(code, prepared.report({}, now).exit_code)
        if not prepared.names:
            report = prepared.report({}, now)
        else:
            confirm(prepared.plan, cluster.target, yes=changing.yes, no_input=common.no_input)
            with at_work(cluster, prepared.incident, prepared.locks, actor, lock_namespace, scope, recorded=False) as (
                incident,
                held,
            ):
                at = Session(cluster, incident, actor, held, reporter, lambda: datetime.now(UTC))
                work = doing.Work(prepared, at)
                try:
                    report = _for_good(work) if raising.lasts is None else _for_a_while(work)
                except BaseException:  # whatever ended it: what was done is told
                    print_report(work.report(), common, answer, caller_of(ctx))
                    raise
    print_report(report, common, answer, caller_of(ctx))
    return report.exit_code


def _for_good(work: Work) -> VerbosityReport:
    work.run()
    return work.report()


def _for_a_while(work: Work) -> VerbosityReport:
    """Raise, wait, and put back: also when it is interrupted, or fails, in between.

    Raises the failure when all is put back. Where a lock was lost nothing is: it may be somebody else's work by now.
    """
    from kdnsctl.cancel import INTERRUPTED  # noqa: PLC0415
    from kdnsctl.repair.raising import hold  # noqa: PLC0415

    prepared, scope = work.prepared, work.session.scope
    failure: KdnsctlError | None = None
    try:
        work.run()
        if any(node.result.value == "raised" for node in work.report().nodes):
            tell(f"raised until {prepared.until:%Y-%m-%d %H:%M:%SZ}; Ctrl-C puts it back now")
            why = hold(prepared, work.session.connection, scope=scope)
            tell(f"{why}: putting it back" if why else "the time is over: putting it back")
    except KeyboardInterrupt:
        tell("interrupted: putting it back")
    except KdnsctlError as error:
        if scope.reason not in (None, INTERRUPTED):
            raise
        failure = None if isinstance(error, CancelledError) else error
        tell(f"{'interrupted' if failure is None else error}: putting it back")
    report = _put_back(work)
    if failure is not None:
        raise failure
    return report


def _put_back(raised: Work) -> VerbosityReport:
    """Restore the nodes that were raised; what was not raised keeps its answer."""
    from dataclasses import replace  # noqa: PLC0415

    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.find.scope import Chosen  # noqa: PLC0415
    from kdnsctl.repair import restoring  # noqa: PLC0415
    from kdnsctl.repair.raising import ENDED  # noqa: PLC0415

    prepared, at = raised.prepared, raised.session
    before = raised.report()  # what was not done has its answer by now
    chosen = Chosen() if prepared.templates else Chosen(prepared.names)
    collect = prepared.options.collect
    with CancelScope() as again:  # the one before may have ended
        now = datetime.now(UTC)
        try:
            back = restoring.prepare(
                chosen, at.connection, incident=at.incident.id, collect=collect, scope=again, now=now
            )
            work = restoring.Work(back, replace(at, scope=again), collect=collect)
            try:
                work.run()
            finally:
                report = work.report()
                ended = {name for name, one in raised.results.items() if one.reason and one.reason.code == ENDED}
                good = {one.name: one for one in report.nodes if one.result.value != "nothingToDo" or one.name in ended}
                raised.results |= good
                raised.bundle = report.bundle or raised.bundle
        except (KeyboardInterrupt, KdnsctlError):
            tell("it is not all put back: run kdnsctl verbosity restore")
            raise
    known = {node.name for node in before.nodes}
    others = (one for one in good.values() if one.name not in known)
    after = raised.report()
    notes = tuple(dict.fromkeys((*after.notes, *report.notes)))
    return replace(after, nodes=(*after.nodes, *others), notes=notes)
