"""Why a node's evidence could not prove that it is healthy, even if nothing wrong is found in it.

Health needs, for every Service asked for and each of its address families: known endpoints, a whole reading of the
table, and whole rules in reach of packets. Nothing is found here, and nothing worded but what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import Case
from kdnsctl.diagnosis.drift import families, is_reached, of_family, rules_for, running
from kdnsctl.diagnosis.evidence import Item
from kdnsctl.diagnosis.flows import Reading
from kdnsctl.diagnosis.index import family_of
from kdnsctl.diagnosis.stale import covers
from kdnsctl.diagnosis.truth import ServicePort
from kdnsctl.model import Reason

SAME_TIME = timedelta(minutes=5)
"""How far apart the truth and a reading may be to be judged together."""

HARMLESS = frozenset({"nameMismatch"})
"""Problems of rules that leave no doubt about where they lead; R8 reports them."""


def gaps_of(case: Case) -> Iterator[Reason]:
    """Why the evidence could not prove that the node is healthy, the most telling reason first."""
    yield from _truth_gaps(case)
    services = case.services
    yield from _reading_gaps(case, services)
    if case.truth.endpoints_known:
        for service in services:
            for family in families(service):
                yield from _rule_gaps(case, service, family)
    yield from case.evidence.broken


def _truth_gaps(case: Case) -> Iterator[Reason]:
    truth = case.truth
    if not truth.endpoints_known:
        yield Reason("endpointsUnknown", "which endpoints serve is not known")
    if truth_is_of_another_time(case):
        yield Reason("truthOfAnotherTime", "the endpoints are known for another time than that of the reading")
    present = {f"{service.namespace}/{service.name}" for service in case.services}
    for name in case.terms.services:
        if name not in present:
            yield Reason("serviceUnknown", f"nothing is known of Service {name}, or it has no UDP port")
    if not present and not case.terms.services:
        yield Reason("serviceUnknown", "no Service with a UDP port is known")
    for service in case.services:
        if service.node_port and not case.index.node_known:
            yield Reason(
                "nodeAddressesUnknown", f"the node's own addresses, for NodePort {service.node_port}, are not known"
            )


def truth_is_of_another_time(case: Case) -> bool:
    """Whether endpoints are known for a time at which the node was not read."""
    reading = case.evidence.conntrack_later or case.evidence.conntrack
    at, then = case.truth.at, reading.at if reading else None
    return at is not None and then is not None and abs(at - then) > SAME_TIME


def _reading_gaps(case: Case, services: tuple[ServicePort, ...]) -> Iterator[Reason]:
    """What the last reading leaves open: an earlier one that is whole tells nothing of what has come since."""
    evidence = case.evidence
    last = evidence.conntrack_later or evidence.conntrack
    if last is None:
        yield evidence.why_missing(Item.CONNTRACK) or Reason("conntrackNotRead", "connection tracking was not read")
        return
    yield from _gaps_of_reading(last, case, services)


def _gaps_of_reading(reading: Reading, case: Case, services: tuple[ServicePort, ...]) -> Iterator[Reason]:
    whole = reading.completeness
    if not whole.complete:
        yield whole.problem or Reason("conntrackUnproven", "nothing shows that the conntrack dump is whole")
    if reading.entries == 0:
        # A node has entries at least of its own connections, the one it was read through among them. A container with
        # a network of its own has a table of its own, and no error says so (net/netfilter/nf_conntrack_standalone.c).
        empty = "the conntrack table has no entry at all: it may be that of another network namespace than the node's"
        yield Reason("tableEmpty", empty)
    elif reading.udp == 0:
        # `conntrack -L -p tcp` ends with a count like any other.
        yield Reason("noUdpEntries", "the conntrack dump has no entry of UDP: it may be one of other protocols only")
    if reading.lost:
        yield Reason("tooManyGroups", f"{reading.lost} entries were left out: too many different destinations")
    destinations = dict.fromkeys(address for service in services for address in service.addresses)
    if any(service.node_port for service in services) and case.index.node_known:
        destinations |= dict.fromkeys(case.index.node_addresses)
    unread = [address for address in destinations if not covers(reading, address)]
    if unread:
        yield Reason("notAllRead", f"flows to {wording.some(unread)} were not read")


def _rule_gaps(case: Case, service: ServicePort, family: int) -> Iterator[Reason]:
    evidence = case.evidence
    dumps = of_family(running(case.latest_rules, evidence.running_mode), family)
    whole = [dump for dump in dumps if dump.completeness.complete]
    if not dumps:
        reason = evidence.why_missing(Item.RULES)
        yield reason or Reason("rulesNotRead", f"no IPv{family} rules of kube-proxy were read")
        return
    if not whole:
        problem = next((dump.completeness.problem for dump in dumps if dump.completeness.problem), None)
        yield problem or Reason("rulesUnproven", f"nothing shows that the dump of the IPv{family} rules is whole")
        return
    found = rules_for(whole, service, family)
    if not any(is_reached(dump) for dump, _ in found):
        has_none = not any(family_of(backend.address) == family for backend in service.backends)
        if found or not has_none:
            yield Reason("rulesNotFound", f"no rules for {service} (IPv{family}) were found in reach of packets")
        return
    for dump, rules in found:
        yield from (problem for problem in (*rules.problems, *dump.problems) if problem.code not in HARMLESS)
    for fault in case.faults:
        if fault.service is service and fault.family == family and not fault.proven:
            yield Reason("rulesUnclear", f"{service}: {fault.wrong.value}, but not certainly")
