"""What one run of a repair works with, whichever repair it is: a locked scope, a journal, and whose they are.

Steps are taken and evidence is secured through it, so that both end up in the same journal, under the same run. Which
steps are right is decided by the repairs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.executor import take
from kdnsctl.changes.fields import RECORD
from kdnsctl.changes.incidents import Actor, Incident, checked_id
from kdnsctl.changes.verbs import Effect, Means
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Reporter, Step, Verdict
from kdnsctl.quarantine.capture import Judgement
from kdnsctl.quarantine.planning import record_of
from kdnsctl.quarantine.securing import secured

CAPTURED: Final = "its evidence is captured before"  # what a plan says of a node


def quarantined(nodes: Iterable[Node]) -> tuple[str, ...]:
    """The names of those nodes that have a record of quarantine, whatever is in it."""
    return tuple(node.metadata.name for node in nodes if RECORD in node.metadata.annotations)


def secured_before(nodes: Iterable[Node]) -> frozenset[str]:
    """The names of those nodes of which a quarantine has captured what proves them affected."""
    found = []
    for node in nodes:
        with contextlib.suppress(KdnsctlError):  # no record: nothing is known of evidence
            record = record_of(node)
            if record is not None and record.verdict == Verdict.AFFECTED.value:
                found.append(node.metadata.name)
    return frozenset(found)


def incident_of(nodes: Iterable[Node], names: Collection[str]) -> str | None:
    """The incident by which these nodes are in quarantine: their repair belongs to it. None where it is not one."""
    try:
        records = [record_of(node) for node in nodes if node.metadata.name in names]
        found = {checked_id(record.incident) for record in records if record is not None}
    except KdnsctlError:  # what is no record is told of by `status`, and is no reason not to repair
        return None
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, slots=True)
class Session:
    """One run. `scope` ends when a lock is lost; `now` is asked for each time that is written down."""

    connection: Connection
    incident: Incident
    actor: Actor
    scope: CancelScope
    reporter: Reporter
    now: Callable[[], datetime]

    @property
    def means(self) -> Means:
        """What steps are taken with."""
        return Means(self.connection, self.scope)

    def begin(self, command: str, nodes: Sequence[str]) -> None:
        """Note that the command begins on these nodes."""
        self.incident.begin(command, self.actor, nodes)

    def take(self, step: Step) -> Effect:
        """Take one step, journaled. Raises as `executor.take`."""
        return take(step, self.incident.journal, self.means, self.actor.run)

    def secure(self, names: Sequence[str], what: str) -> tuple[Path, Mapping[str, Judgement]]:
        """Capture nodes into a bundle of the incident, and what it proves of each: a restart destroys evidence.

        Journaled with the digest of the bundle, whose name ends with `what`.
        """
        found = secured(
            names,
            what,
            self.connection,
            self.incident,
            self.actor,
            scope=self.scope,
            reporter=self.reporter,
            now=self.now,
        )
        return found.bundle, found.nodes
