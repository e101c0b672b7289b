"""The verdict on one node from its state: the only place where findings become affected, clean or unknown.

A proven fault stands on cut-off evidence too. Health has to be proven for every Service asked for, in each of its
address families: by a whole reading of the table in which nothing is stale, and by whole rules that lead to serving
endpoints only. What has not settled is neither. Logs are no business of this room.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, RuleFault, StaleGroup, Wrong
from kdnsctl.diagnosis.catalogue import findings
from kdnsctl.diagnosis.drift import families, is_reached, of_family, rule_faults, rules_for, running
from kdnsctl.diagnosis.evidence import Evidence, Item, Terms
from kdnsctl.diagnosis.findings import Diagnosis
from kdnsctl.diagnosis.flows import Reading
from kdnsctl.diagnosis.index import Index, Kind, family_of
from kdnsctl.diagnosis.stale import covers, stale_groups
from kdnsctl.diagnosis.truth import ServicePort, Truth
from kdnsctl.model import Reason, Verdict


def diagnose(evidence: Evidence, truth: Truth, terms: Terms | None = None) -> Diagnosis:
    """Judge a node by its state. Without terms the verdict is about every Service of the truth."""
    case = case_of(evidence, truth, terms or Terms())
    readings = [reading for reading in (evidence.conntrack, evidence.conntrack_later) if reading is not None]
    gaps = tuple(gaps_of(case))
    verdict, reason = _verdict(case, gaps)
    return Diagnosis(
        verdict,
        reason,
        findings(case),
        sum(each.count for each in case.stale if each.counts) if readings else None,
        not gaps,
        gaps,
        len(readings) or 1,
    )


def case_of(evidence: Evidence, truth: Truth, terms: Terms) -> Case:
    """Work out what a node's evidence shows, for the checks and the verdict."""
    index = Index(truth, evidence.node)
    stale = tuple(stale_groups(evidence, truth, terms, index))
    return Case(evidence, truth, terms, index, stale, tuple(rule_faults(evidence, truth, terms, index)))


def unsettled(evidence: Evidence, truth: Truth, terms: Terms | None = None) -> tuple[StaleGroup | RuleFault, ...]:
    """What a live reading shows of the Services asked for but may not count yet: a second reading has to confirm it.

    Empty when a second reading would change nothing: nothing is pending, or what is proven already decides.
    """
    case = case_of(evidence, truth, terms or Terms())
    if any(each.counts for each in case.stale) or any(fault.counts for fault in case.faults):
        return ()
    return (*_waiting_groups(case), *_waiting_faults(case))


def _waiting_groups(case: Case) -> list[StaleGroup]:
    return [each for each in case.stale if each.in_scope and each.waiting and each.key.protocol == COUNTED_PROTOCOL]


def _waiting_faults(case: Case) -> list[RuleFault]:
    return [
        fault
        for fault in case.faults
        if fault.in_scope and not fault.settled and fault.proven and fault.service.protocol == COUNTED_PROTOCOL
    ]


def _verdict(case: Case, gaps: tuple[Reason, ...]) -> tuple[Verdict, Reason]:
    counted = sum(each.count for each in case.stale if each.counts and _decides(each, case))
    if counted:
        once = not case.evidence.live and case.evidence.conntrack_later is None
        entries = wording.count(counted, "stale UDP entry", "stale UDP entries")
        return Verdict.AFFECTED, Reason("staleEntries", f"{entries} (one read)" if once else entries)
    if faults := [fault for fault in case.faults if fault.counts]:
        return Verdict.AFFECTED, _rule_reason(faults)
    if case.evidence.replacement:
        message = f"{case.evidence.replacement} does kube-proxy's work here: conntrack holds no Service flows"
        return Verdict.NOT_APPLICABLE, Reason("noKubeProxy", message)
    if waiting := _waiting_groups(case):
        entries = wording.count(sum(each.waiting for each in waiting), "entry", "entries")
        message = f"{entries} may just be waiting for kube-proxy's cleanup; a second reading tells"
        return Verdict.UNKNOWN, Reason("notSettled", message)
    if waiting_faults := _waiting_faults(case):
        message = f"rules for {waiting_faults[0].service} are not up to date yet; a second reading tells"
        return Verdict.UNKNOWN, Reason("notSettled", message)
    if gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        return Verdict.UNKNOWN, Reason(gaps[0].code, gaps[0].message + more)
    names = wording.some(dict.fromkeys(f"{each.namespace}/{each.name}" for each in case.services))
    return Verdict.CLEAN, Reason("noStaleEntries", f"no stale UDP entries or rules for {names}")


def _decides(group: StaleGroup, case: Case) -> bool:
    """Without kube-proxy untranslated entries mean nothing: its replacement translates elsewhere, if at all."""
    return not case.evidence.replacement or group.key.reply_source != group.key.destination


def _rule_reason(faults: list[RuleFault]) -> Reason:
    dead = [fault for fault in faults if fault.wrong is Wrong.DEAD_TARGET]
    if dead:
        targets = wording.some(dict.fromkeys(fault.target for fault in dead))
        return Reason("staleRules", f"rules for {dead[0].service} lead to {targets}, which do not serve it")
    first = faults[0]
    return Reason("missingRules", f"{first.service}: {first.wrong.value}")


# --- what health is not proven for


def gaps_of(case: Case) -> Iterator[Reason]:
    """Why the evidence could not prove that the node is healthy, the most telling reason first."""
    yield from _truth_gaps(case)
    services = case.services
    yield from _reading_gaps(case, services)
    if case.truth.endpoints_known:
        for service in services:
            for family in families(service):
                yield from _rule_gaps(case, service, family)


def _truth_gaps(case: Case) -> Iterator[Reason]:
    truth = case.truth
    if not truth.endpoints_known:
        yield Reason("endpointsUnknown", "which endpoints serve is not known")
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


def _reading_gaps(case: Case, services: tuple[ServicePort, ...]) -> Iterator[Reason]:
    """What the better of the readings leaves open; nothing when one of them proves what it should."""
    evidence = case.evidence
    readings = [reading for reading in (evidence.conntrack_later, evidence.conntrack) if reading is not None]
    if not readings:
        yield evidence.why_missing(Item.CONNTRACK) or Reason("conntrackNotRead", "connection tracking was not read")
        return
    found = [list(_gaps_of_reading(reading, case, services)) for reading in readings]
    yield from min(found, key=len)


def _gaps_of_reading(reading: Reading, case: Case, services: tuple[ServicePort, ...]) -> Iterator[Reason]:
    whole = reading.completeness
    if not whole.complete:
        yield whole.problem or Reason("conntrackUnproven", "nothing shows that the conntrack dump is whole")
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
        for problem in (*rules.problems, *dump.problems):
            yield problem
    for fault in case.faults:
        if fault.service is service and fault.family == family and not fault.proven:
            yield Reason("rulesUnclear", f"{service}: {fault.wrong.value}, but not certainly")


__all__ = ["Kind", "Truth", "case_of", "diagnose", "gaps_of", "unsettled"]
