"""A capture as part of an incident: into a bundle in its directory, journaled before it begins and at its end.

Whoever changes nodes secures their evidence by this, so that it is found the same way whichever command it was. What is
captured and judged is known to `capture`; what the next run makes of a capture that was never finished, to
`interrupted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.incidents import Actor, Incident
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Reporter
from kdnsctl.quarantine.capture import Captured, capture
from kdnsctl.quarantine.interrupted import BEGUN, DONE
from kdnsctl.quarantine.reaching import BY_EXEC, Reach


def secured(
    names: Sequence[str],
    which: str,
    connection: Connection,
    incident: Incident,
    actor: Actor,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: Callable[[], datetime],
    reach: Reach = BY_EXEC,
    seconds: float | None = None,
) -> Captured:
    """Capture nodes into `evidence-RUN-WHICH` (`which` may be empty) and judge them; see `capture`.

    An end that cannot be journaled, as on a full disk, is a note: without a journal nothing more is changed. Raises
    what ended the scope, and KdnsctlError when the beginning cannot be journaled.
    """
    directory = incident.directory / "-".join(filter(None, ("evidence", actor.run, which)))
    about = {"run": actor.run, "bundle": directory.name, "nodes": list(names)}
    found = capture(
        connection,
        names,
        directory,
        scope=scope,
        reporter=reporter,
        now=now,
        reach=reach,
        seconds=seconds,
        begins=lambda pods: incident.journal.append(BEGUN, {**about, "pods": pods}),
    )
    nodes = {name: {"verdict": one.verdict.value, "captured": one.captured} for name, one in found.nodes.items()}
    try:
        incident.journal.append(DONE, {**about, "sumsSha256": found.digest, "nodes": nodes})
    except KdnsctlError as error:
        scope.check()
        return replace(found, notes=(*found.notes, str(error)))
    return found
