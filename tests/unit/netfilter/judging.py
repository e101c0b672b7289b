"""Short ways for tests to say what must be so of parsed rules."""

from __future__ import annotations

from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.rules import NodeRules, ServiceRules
from tests.unit.netfilter.writing import Service

DNS = Service("kube-system/kube-dns:dns", "udp", 53, "10.96.0.10", (("10.244.1.5", 53), ("10.244.1.7", 53)))
WHOLE = Completeness(Proof.TRAILER)


def code(rules: NodeRules) -> str:
    """Why the dump is not whole; it must not be."""
    assert not rules.completeness.complete
    assert rules.completeness.problem is not None
    return rules.completeness.problem.code


def dns_of(rules: NodeRules) -> ServiceRules:
    """The rules of `DNS`."""
    (found,) = (each for each in rules.services if each.address == "10.96.0.10")
    return found


def problems(service: ServiceRules) -> list[str]:
    return [each.code for each in service.problems]
