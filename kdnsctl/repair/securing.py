"""The evidence of nodes whose kube-proxy is going to be restarted, secured before, since a restart destroys it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.incidents import Actor, Incident
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Reporter
from kdnsctl.quarantine.capture import Judgement, capture

CAPTURED: Final = "its evidence is captured before"


def secure(
    connection: Connection,
    incident: Incident,
    actor: Actor,
    names: Sequence[str],
    what: str,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: Callable[[], datetime],
) -> tuple[Path, Mapping[str, Judgement]]:
    """Capture nodes into a bundle of the incident, and what it proves of each. Journaled with its digest."""
    directory = incident.directory / f"evidence-{actor.run}-{what}"
    found = capture(connection, names, directory, scope=scope, reporter=reporter, now=now)
    nodes = {name: {"verdict": one.verdict.value, "captured": one.captured} for name, one in found.nodes.items()}
    body = {"run": actor.run, "bundle": directory.name, "sumsSha256": found.digest, "nodes": nodes}
    incident.journal.append("captured", body)
    return directory, found.nodes
