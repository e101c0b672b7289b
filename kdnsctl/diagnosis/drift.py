"""Where a node's Service rules differ from the truth in a way that hurts clients: rules that lead to dead endpoints,
refuse flows that could be served, are missing, or are reached by no packet.

Rules follow the truth with a lag of their own, so that a live reading settles here as it does for entries. Differences
that hurt nobody by themselves are left to the checks. Nothing is worded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from kdnsctl.diagnosis.case import RuleFault, Wrong, in_scope
from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.index import Index, Owner, family_of
from kdnsctl.diagnosis.stale import gone_since, long_gone, steady_since
from kdnsctl.diagnosis.truth import Backend, ServicePort, Truth
from kdnsctl.netfilter.rules import Mode, NodeRules, ServiceRules, Target

DNS_PORT = 53


def rule_faults(evidence: Evidence, truth: Truth, terms: Terms, index: Index) -> Iterator[RuleFault]:
    """What is wrong in the rules as they were read last, and what a later reading that is cut off does not refute."""
    first = list(_faults(evidence.rules, evidence, truth, terms, index))
    second = list(_faults(evidence.rules_later, evidence, truth, terms, index))
    began, ended = evidence.rules_later_at, evidence.rules_at
    apart = began is not None and ended is not None and began - ended >= terms.recheck
    before = {_identity(fault) for fault in first}
    for fault in second:
        confirmed = apart and _identity(fault) in before
        yield _settled(fault, evidence, truth, evidence.rules_later_at, terms, confirmed=confirmed)
    again = {_identity(fault) for fault in second}
    for fault in first:
        if _identity(fault) not in again and not _refuted(fault, evidence.rules_later):
            yield _settled(fault, evidence, truth, evidence.rules_at, terms, confirmed=False)


def _refuted(fault: RuleFault, later: Sequence[NodeRules]) -> bool:
    """Whether the same rules were read again as a whole."""
    dump = fault.rules
    place = (dump.mode, dump.backing, dump.family)
    return any(each.completeness.complete and (each.mode, each.backing, each.family) == place for each in later)


def is_reached(rules: NodeRules) -> bool:
    """Whether packets get to a dump's Service rules at all. ipvs needs no jump."""
    return rules.mode is Mode.IPVS or bool(rules.jumps)


def of_family(dumps: Sequence[NodeRules], family: int) -> list[NodeRules]:
    """The dumps that have rules of an address family; one of ipvs has both."""
    return [rules for rules in dumps if rules.family == family or (rules.family is None and rules.mode is Mode.IPVS)]


def running(dumps: Sequence[NodeRules], mode: Mode | None) -> list[NodeRules]:
    """The dumps of the mode that kube-proxy works in; of all that hold Services when the mode is not known."""
    return [rules for rules in dumps if (rules.mode is mode if mode else bool(rules.services))]


def usable(service: ServicePort, family: int, node: str) -> list[Backend]:
    """The endpoints of a Service port that rules on this node must offer, of one family.

    Endpoints that terminate are only used when there are no others, and a local traffic policy leaves out those on
    other nodes.
    """
    ours = [backend for backend in service.backends if family_of(backend.address) == family]
    if service.local_only:
        ours = [backend for backend in ours if backend.node and backend.node == node]
    return [backend for backend in ours if not backend.terminating] or ours


def rules_for(dumps: Sequence[NodeRules], service: ServicePort, family: int) -> list[tuple[NodeRules, ServiceRules]]:
    """The rules for the addresses of a Service port, of one family, in all dumps."""
    ours = [address for address in service.addresses if family_of(address) == family]
    wanted = {(service.protocol, address, service.port) for address in ours}
    return [
        (dump, rules)
        for dump in of_family(dumps, family)
        for rules in dump.services
        if rules.address is not None and (rules.protocol, rules.address, rules.port) in wanted
    ]


def families(service: ServicePort) -> list[int]:
    """The address families that a Service port has."""
    return sorted({family_of(address) for address in service.addresses})


def _faults(
    dumps: Sequence[NodeRules], evidence: Evidence, truth: Truth, terms: Terms, index: Index
) -> Iterator[RuleFault]:
    if not truth.endpoints_known:
        return
    for dump in dumps:
        if is_reached(dump):
            for rules in dump.services:
                if owner := index.owner_of(rules):
                    scope = in_scope(owner.service, truth, terms)
                    for fault in _leading_astray(dump, rules, owner, dumps, evidence):
                        yield replace(fault, in_scope=scope)
    for service in truth.services:
        if in_scope(service, truth, terms):
            for family in families(service):
                yield from _not_served(dumps, service, family, evidence, by_name=bool(terms.services))


def _leading_astray(
    dump: NodeRules,
    rules: ServiceRules,
    owner: Owner,
    dumps: Sequence[NodeRules],
    evidence: Evidence,
) -> Iterator[RuleFault]:
    """Rules that lead to endpoints that do not serve, or refuse flows that could be served."""
    service = owner.service
    targets = [target for target in rules.targets if target.weight != 0]
    for target in targets:
        if not owner.serves(target.address, target.port):
            family = family_of(target.address)
            yield RuleFault(
                Wrong.DEAD_TARGET,
                service,
                family,
                dump,
                rules.address,
                (target.address, target.port),
                target.probability,
                proven=not _contradicted(dump, rules, target, dumps),
            )
    refused = family_of(rules.address) if rules.address else dump.family
    if rules.rejected and not targets and refused and usable(service, refused, evidence.node):
        yield RuleFault(Wrong.REJECTED, service, refused, dump, rules.address, proven=not rules.problems)


def _contradicted(dump: NodeRules, rules: ServiceRules, target: Target, dumps: Sequence[NodeRules]) -> bool:
    """Whether another set of rules that packets reach handles the same flows and does not lead to this target."""
    for other in dumps:
        if other is dump or not is_reached(other):
            continue
        for each in other.services:
            same = (each.protocol, each.address, each.port) == (rules.protocol, rules.address, rules.port)
            comparable = each.address is not None or other.family == dump.family
            leads_there = any((found.address, found.port) == (target.address, target.port) for found in each.targets)
            if same and comparable and not leads_there:
                return True
    return False


def _not_served(
    dumps: Sequence[NodeRules], service: ServicePort, family: int, evidence: Evidence, *, by_name: bool
) -> Iterator[RuleFault]:
    """A Service asked for that has endpoints, but no rules in dumps that have those of others, or none in reach."""
    if not usable(service, family, evidence.node):
        return
    ours = [dump for dump in of_family(running(dumps, evidence.running_mode), family) if dump.services]
    if not ours:
        return
    whole = all(dump.completeness.complete and not dump.problems for dump in ours)
    found = rules_for(dumps, service, family)
    working = [rules for _, rules in found if rules.targets or rules.rejected]
    if not working:
        # Those that kube-proxy leaves to others by their label are no Services of the truth. A replacement beside it
        # may take over more without a sign of it: a missing rule is a fault only of one asked for by name, and of DNS.
        expected = by_name or service.port == DNS_PORT
        unreadable = any(rules.problems for _, rules in found)
        yield RuleFault(Wrong.ABSENT, service, family, ours[0], proven=whole and expected and not unreadable)
    elif not any(_hooked(dump) for dump, _ in found):
        yield RuleFault(Wrong.UNREACHED, service, family, found[0][0], proven=whole)


def _hooked(dump: NodeRules) -> bool:
    """Whether what pods send comes to the Service rules of a dump."""
    return dump.mode is Mode.IPVS or any(hook.upper() == "PREROUTING" for hook in dump.jumps)


def _settled(
    fault: RuleFault, evidence: Evidence, truth: Truth, at: datetime | None, terms: Terms, *, confirmed: bool
) -> RuleFault:
    if not evidence.live or confirmed:
        return fault
    since = steady_since(truth, fault.service)
    if fault.endpoint is not None:
        since = gone_since(truth, fault.service, *fault.endpoint)
    return fault if long_gone(since, at, terms) else replace(fault, settled=False)


def _identity(fault: RuleFault) -> tuple[object, ...]:
    return fault.wrong, str(fault.service), fault.service.protocol, fault.family, fault.address, fault.endpoint
