"""`kdnsctl incident undo`: what an incident changed, taken back from its journal (kind `UndoReport`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli.changing import LOCK_NAMESPACE, Changing, LockNamespace, at_work, confirm, show_plan
from kdnsctl.cli.incident.reading import Name
from kdnsctl.cli.options import Answer, Common, Connection, Form
from kdnsctl.cli.terminal import put
from kdnsctl.model import API_VERSION, ExitCode, RefusedError

if TYPE_CHECKING:
    from kdnsctl.changes.executor import UndoneStep

HEADINGS = ("STEP", "OUTCOME")


def undo(
    common: Common,
    connection: Connection,
    answer: Answer,
    changing: Changing,
    name: Name,
    lock_namespace: LockNamespace = LOCK_NAMESPACE,
) -> int:
    """Take back what an incident changed, the last change first, where it still is as it was left.

    Examples:
      kdnsctl incident undo 20261123t030239z-1f2e --dry-run=client
      kdnsctl incident undo 20261123t030239z-1f2e

    What somebody else changed since is reported, and stays. Nodes are not judged: `kdnsctl release` does that.

    Exit codes: 0 all is taken back, 4 something was left, 5 refused, nothing was changed, 1 failed, 2 wrong usage,
    130 interrupted.
    """
    # Late: what changes a cluster is not needed for --help and TAB.
    from kdnsctl.cancel import CancelScope  # noqa: PLC0415
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.changes.executor import to_undo  # noqa: PLC0415
    from kdnsctl.changes.executor import undo as take_back  # noqa: PLC0415
    from kdnsctl.changes.incidents import incidents_directory, summary  # noqa: PLC0415
    from kdnsctl.changes.plan import undoing  # noqa: PLC0415
    from kdnsctl.changes.verbs import Means  # noqa: PLC0415
    from kdnsctl.cli import progress  # noqa: PLC0415
    from kdnsctl.cli.connecting import connected  # noqa: PLC0415
    from kdnsctl.find.online import identity_of  # noqa: PLC0415

    found = summary(incidents_directory(os.environ), name)
    if found.reading.problem is not None:
        raise RefusedError(
            f"the journal of {name} is not as it was written ({found.reading.problem.message}); nothing was changed",
            hint="kdnsctl release takes back what the nodes themselves say",
        )
    taken = to_undo(found.reading.records)
    scope, actor = CancelScope(), incidents.this_actor()
    undone: Sequence[UndoneStep] = ()
    with progress.reporting(common.color) as reporter, connected(connection, common, scope, reporter) as cluster:
        incidents.check_cluster(found, incidents.cluster_uid(cluster, scope=scope), identity_of(cluster.target))
        plan = undoing("incident undo", identity_of(cluster.target), [one.step for one in taken])
        if changing.dry_run is not DryRun.NONE:
            return show_plan(plan, cluster, answer, changing.dry_run, scope)
        if taken:
            confirm(plan, cluster.target, yes=changing.yes, no_input=common.no_input)
            nodes = [node.node for node in plan.nodes]
            with at_work(cluster, name, nodes, actor, lock_namespace, scope) as (incident, held):
                incident.begin("incident undo", actor, nodes)
                undone = take_back(taken, incident.journal, Means(cluster, held), actor.run)
    _print(name, undone, common, answer)
    return _code(undone)


def _print(name: str, undone: Sequence[UndoneStep], common: Common, answer: Answer) -> None:
    from kdnsctl.cli import output, table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415
    from kdnsctl.quarantine.report import undone_to_json  # noqa: PLC0415

    if answer.output is not Form.TABLE:
        steps = [undone_to_json(one) for one in undone]
        data = {"apiVersion": API_VERSION, "kind": "UndoReport", "incident": name, "steps": steps}
        output.document(data, answer.format)
        return
    if not undone:
        put("There is nothing to take back.\n")
        return
    rows = []
    for one in undone:
        said = one.outcome.value + (f": {one.reason.message}" if one.reason else "")
        rows.append([table.Cell.of(one.says), table.Cell.of(said)])
    paint = table.painter(color=has_color(sys.stdout, common.color))
    put("\n".join(table.lay_out(HEADINGS, rows, width=columns(sys.stdout), paint=paint)) + "\n")


def _code(undone: Sequence[UndoneStep]) -> int:
    from kdnsctl.changes.executor import Undone  # noqa: PLC0415

    done = {Undone.RESTORED, Undone.ALREADY}
    return ExitCode.OK if all(one.outcome in done for one in undone) else ExitCode.INCOMPLETE
