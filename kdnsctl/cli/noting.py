"""Noting in an incident's journal what a command that only reads has found: for `--incident` of such commands.

Without `--incident` nothing is written anywhere. What is found is not known here, nor is it judged.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdnsctl.cli.options import Record
from kdnsctl.cli.terminal import tell
from kdnsctl.model import Coverage, KdnsctlError, Verdict

if TYPE_CHECKING:
    from kdnsctl.cancel import CancelScope
    from kdnsctl.changes.incidents import Actor, Incident
    from kdnsctl.cluster.transport import Connection

WORTH_A_NAME = (Verdict.AFFECTED, Verdict.SUSPECT, Verdict.UNKNOWN)


class Note(Protocol):
    """Writes down what was found."""

    def __call__(
        self,
        found: Mapping[str, Iterable[str]],
        coverage: Coverage | None = None,
        evidence: tuple[Path, str] | None = None,
    ) -> None:
        """`found`: verdict → the nodes it was reached on; `evidence`: a bundle, and the digest of its SHA256SUMS.

        What cannot be written is told: the answer is not lost for it.
        """
        ...


def _not_noted(
    found: Mapping[str, Iterable[str]], coverage: Coverage | None = None, evidence: tuple[Path, str] | None = None
) -> None:
    """No incident was named."""
    del found, coverage, evidence


def opened(cluster: Connection, name: str, uid: str, actor: Actor) -> Incident:
    """The incident `name` of this cluster on this machine, open for writing, and told. Raises as `open_incident`."""
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.find.online import identity_of  # noqa: PLC0415

    directory = incidents.incidents_directory(os.environ)
    incident = incidents.open_incident(directory, name, uid, identity_of(cluster.target), actor)
    tell(f"incident {incident.id}" + (" (new)" if incident.fresh else ""))
    return incident


@contextlib.contextmanager
def noting(cluster: Connection, record: Record, command: str, scope: CancelScope) -> Iterator[Note]:
    """The way to note what `command` finds, in the incident of `record`; one that does nothing where none is named.

    The incident is opened, or begun, before anything is read: raises as `incidents.open_incident`, and as
    `incidents.cluster_uid`. From then on every request names the incident.
    """
    if record.incident is None:
        yield _not_noted
        return
    from kdnsctl.changes import incidents  # noqa: PLC0415
    from kdnsctl.cluster.connection import user_agent  # noqa: PLC0415

    name, actor = incidents.checked_id(record.incident), incidents.this_actor()
    cluster.user_agent = user_agent(name)
    uid = incidents.cluster_uid(cluster, scope=scope)
    incident = opened(cluster, name, uid, actor)

    def note(
        found: Mapping[str, Iterable[str]], coverage: Coverage | None = None, evidence: tuple[Path, str] | None = None
    ) -> None:
        try:
            incident.found(command, actor, found, coverage, evidence)
        except KdnsctlError as error:
            tell(f"not noted in incident {incident.id}: {error}")

    with incident.journal:
        yield note


def by_verdict(nodes: Iterable[tuple[str, Verdict]]) -> dict[str, list[str]]:
    """Verdict → names of its nodes, for those that need somebody's attention."""
    return grouped((name, verdict.value) for name, verdict in nodes if verdict in WORTH_A_NAME)


def grouped(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """What was found of each name → the names it was found of."""
    names: dict[str, list[str]] = {}
    for name, what in found:
        names.setdefault(what, []).append(name)
    return names
