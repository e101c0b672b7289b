"""What one run of a repair works with, whichever repair it is: a locked scope, a journal, and whose they are.

Steps are taken and evidence is secured through it, so that both end up in the same journal, under the same run. Which
steps are right is decided by the repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.executor import take
from kdnsctl.changes.incidents import Actor, Incident
from kdnsctl.changes.verbs import Effect, Means
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Reporter, Step
from kdnsctl.quarantine.capture import Judgement
from kdnsctl.quarantine.securing import secured

CAPTURED: Final = "its evidence is captured before"  # what a plan says of a node


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
