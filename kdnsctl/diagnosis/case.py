"""What the checks work on: the evidence and truth of one node, with its stale entries and faulty rules worked out once.

Only records, and which Services a verdict is about. The groups come from `stale`, the faults from `drift`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.flows import Group
from kdnsctl.diagnosis.index import Index, Kind
from kdnsctl.diagnosis.truth import ServicePort, Truth
from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.rules import NodeRules

COUNTED_PROTOCOL = "udp"


@dataclass(frozen=True, slots=True)
class StaleGroup:
    """Stale entries with one key. `count` are those that may be counted, `waiting` those that need a second reading."""

    kind: Kind
    service: ServicePort | None
    group: Group
    count: int
    waiting: int
    in_scope: bool

    @property
    def key(self) -> Key:
        """Where the flows were sent and where they go."""
        return self.group.key

    @property
    def counts(self) -> bool:
        """Whether a verdict may rest on it: UDP, of a Service that was asked for, and settled."""
        return self.in_scope and self.key.protocol == COUNTED_PROTOCOL and self.count > 0


class Wrong(enum.Enum):
    """What is wrong with the rules for one Service port."""

    DEAD_TARGET = "a rule leads to an endpoint that does not serve"
    REJECTED = "flows are rejected though endpoints serve"
    ABSENT = "there are no rules for it"
    UNREACHED = "no packet can reach its rules"


@dataclass(frozen=True, slots=True)
class RuleFault:
    """What is wrong with the rules for one Service port in one dump. `address` is None for a NodePort.

    `target` is the dead endpoint, "ADDRESS:PORT", and `share` the part of new flows it gets, where it is about one.
    `proven` is False where the dump shows it but something else may explain it; `settled` is False when a second
    reading has to confirm it.
    """

    wrong: Wrong
    service: ServicePort
    family: int
    rules: NodeRules
    address: str | None = None
    target: str = ""
    share: float | None = None
    settled: bool = True
    proven: bool = True
    in_scope: bool = True

    @property
    def counts(self) -> bool:
        """Whether a verdict may rest on it."""
        return self.in_scope and self.settled and self.proven and self.service.protocol == COUNTED_PROTOCOL


@dataclass(frozen=True, slots=True)
class Case:
    """One node to be judged."""

    evidence: Evidence
    truth: Truth
    terms: Terms
    index: Index
    stale: tuple[StaleGroup, ...] = ()
    faults: tuple[RuleFault, ...] = ()

    def in_scope(self, service: ServicePort | None) -> bool:
        """Whether the verdict is about this Service."""
        return in_scope(service, self.truth, self.terms)

    @property
    def services(self) -> tuple[ServicePort, ...]:
        """The UDP Service ports that the verdict is about."""
        return tuple(
            service
            for service in self.truth.services
            if service.protocol == COUNTED_PROTOCOL and self.in_scope(service)
        )

    @property
    def latest_rules(self) -> tuple[NodeRules, ...]:
        """The rules as they were read last."""
        return self.evidence.rules_later or self.evidence.rules

    @property
    def rules_read(self) -> bool:
        """Whether any whole dump of rules holds Services."""
        return any(rules.services and rules.completeness.complete for rules in self.latest_rules)


def in_scope(service: ServicePort | None, truth: Truth, terms: Terms) -> bool:
    """Whether a verdict on these terms is about this Service; None stands for one that is gone."""
    if not terms.services:
        return True
    if service is None:
        # Entries of a Service that is gone have no name. They are about one asked for only if one of those is gone.
        known = {f"{each.namespace}/{each.name}" for each in truth.services}
        return not known.issuperset(terms.services)
    return f"{service.namespace}/{service.name}" in terms.services
