"""What a diagnosis says: findings, and the verdict on one node.

The JSON form of a finding is a promise to users:
`{"id", "severity", "service", "port", "protocol", "count", "backends", "clients", "explanation", "advice",
"commands", "repair"}`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kdnsctl.model import Reason, Verdict


class Severity(enum.StrEnum):
    """How much a finding matters: a fault hurts clients, a warning may, information explains."""

    FAULT = "fault"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends the flows of a finding: an address, the pod behind it where known, and how many entries it has."""

    address: str
    count: int
    pod: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `id` is C1…Q1 of the catalogue; `count` counts entries, rules or counters, as it says.

    `service` is as kube-proxy spells it; `backends` are "ADDRESS:PORT". `explanation` says what was seen and what it
    means, `advice` what to do; both are for people and hold nothing that came from the node unescaped. `repair` is the
    command of kdnsctl that does it, "" where none does; `commands` do the same for somebody who has no more than a root
    shell on the node. `clients` are those with the most
    entries; `more` counts the entries of all others.
    """

    id: str
    severity: Severity
    explanation: str
    advice: str = ""
    service: str = ""
    port: int | None = None
    protocol: str = ""
    count: int | None = None
    backends: tuple[str, ...] = ()
    clients: tuple[Client, ...] = ()
    family: int | None = None
    more: int = 0
    commands: tuple[str, ...] = ()
    repair: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The judgement on one node from its state.

    `stale_entries` counts UDP entries only; None when connection tracking was not read. `complete` is False when
    something was missing or cut off: what was found still counts. `reads` tells how often the table was read.
    """

    verdict: Verdict
    reason: Reason
    findings: tuple[Finding, ...] = ()
    stale_entries: int | None = None
    complete: bool = True
    missing: tuple[Reason, ...] = field(default_factory=tuple)
    reads: int = 1
