"""verbosity show: the level of every node in scope, the way it can be raised, and where it is raised. Changes nothing.

Whether a kube-proxy answers at runtime is not tried: its settings say whether it should.
"""

from __future__ import annotations

from datetime import datetime

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.raised import RecordError, sentence
from kdnsctl.cluster.transport import Connection
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen
from kdnsctl.model import Reason
from kdnsctl.repair.levels import CannotRaise, Level, Survey, survey, way_of
from kdnsctl.repair.raiseplan import row
from kdnsctl.repair.verbosityreport import NodeVerbosity, Result, VerbosityReport


def show(chosen: Chosen, connection: Connection, *, scope: CancelScope, now: datetime) -> VerbosityReport:
    """Look at the nodes in scope. Raises as `nodes_in_scope`."""
    found = survey(connection, chosen, scope=scope, command="verbosity show")
    notes = list(found.notes)
    try:
        notes += [sentence(path.rpartition("/")[2], one.raised, now) for path, one in found.templates().items()]
    except RecordError as error:
        notes.append(str(error))
    return VerbosityReport(
        generated_at=now,
        cluster=identity_of(connection.target),
        action="show",
        nodes=tuple(_shown(level, found) for level in found.levels),
        scope=found.found.scope,
        notes=tuple(notes),
    )


def _shown(level: Level, found: Survey) -> NodeVerbosity:
    way = way_of(level, found.daemon_sets, found.found.nodes)
    problem = Reason("badRecord", level.problem) if level.problem else None
    if isinstance(way, CannotRaise):
        return row(level, Result.SHOWN, problem or way.reason, advice=way.advice)
    return row(level, Result.SHOWN, problem, way=way.value)
