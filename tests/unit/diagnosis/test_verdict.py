"""What is said of a node: faults stand on any evidence, health has to be proven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from kdnsctl.diagnosis.evidence import Evidence, Item, Missing
from kdnsctl.diagnosis.truth import Truth
from kdnsctl.diagnosis.verdict import diagnose
from kdnsctl.model import Reason, Verdict
from kdnsctl.netfilter.rules import Backing, Mode
from tests.unit.diagnosis.nodes import (
    ALIVE,
    ALIVE6,
    CLIENT6,
    CUT,
    DEAD,
    DEAD6,
    DNS,
    NODE_IP,
    NOON,
    VIP,
    VIP6,
    both_families,
    entry,
    evidence,
    flows,
    judge,
    live,
    of,
    reading,
    rules,
    service,
    truth,
)

DUAL = truth(service((ALIVE, ALIVE6), addresses=(VIP, VIP6)))


def test_a_node_of_which_all_was_read_and_nothing_is_stale_is_clean() -> None:
    diagnosis = judge(evidence([entry(ALIVE)]), truth(), DNS)
    assert (diagnosis.verdict, diagnosis.complete, diagnosis.missing) == (Verdict.CLEAN, True, ())
    assert (diagnosis.stale_entries, diagnosis.reads) == (0, 1)
    assert DNS in diagnosis.reason.message
    assert diagnose(evidence([entry(ALIVE)]), truth()).verdict is Verdict.CLEAN


def _cut(found: Evidence) -> Evidence:
    assert found.conntrack is not None
    return replace(found, conntrack=replace(found.conntrack, completeness=CUT))


def _one_family(found: Evidence) -> Evidence:
    assert found.conntrack is not None
    return replace(found, conntrack=replace(found.conntrack, families=frozenset({6})))


def _other_address(found: Evidence) -> Evidence:
    assert found.conntrack is not None
    return replace(found, conntrack=replace(found.conntrack, addresses=frozenset({"10.96.0.99"})))


def _lost(found: Evidence) -> Evidence:
    assert found.conntrack is not None
    return replace(found, conntrack=replace(found.conntrack, lost=3))


def _rules_cut(found: Evidence) -> Evidence:
    return replace(found, rules=tuple(replace(each, completeness=CUT) for each in found.rules))


def _rules_unproven(found: Evidence) -> Evidence:
    nothing = replace(CUT, problem=None)
    return replace(found, rules=tuple(replace(each, completeness=nothing) for each in found.rules))


def _rules_of_the_other_family(found: Evidence) -> Evidence:
    return replace(found, rules=found.rules[1:])


def _rules_without_services(found: Evidence) -> Evidence:
    empty = tuple(replace(each, services=()) for each in found.rules)
    return replace(found, rules=empty, mode=Mode.IPTABLES)


def _rules_out_of_reach(found: Evidence) -> Evidence:
    return replace(found, rules=tuple(replace(each, jumps=(), completeness=CUT) for each in found.rules))


def _unreadable_rule(found: Evidence) -> Evidence:
    first = found.rules[0]
    bad = replace(first.services[0], problems=(Reason("unreadable", "DNAT [unsupported revision]"),))
    return replace(found, rules=(replace(first, services=(bad, *first.services[1:])), *found.rules[1:]))


def _other_mode(found: Evidence) -> Evidence:
    return replace(found, mode=Mode.NFTABLES)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda found: replace(found, conntrack=None), "conntrackNotRead"),
        (_cut, "cutOff"),
        (_one_family, "notAllRead"),
        (_other_address, "notAllRead"),
        (_lost, "tooManyGroups"),
        (lambda found: replace(found, rules=()), "rulesNotRead"),
        (_rules_cut, "cutOff"),
        (_rules_unproven, "rulesUnproven"),
        (_rules_of_the_other_family, "rulesNotRead"),
        (_rules_without_services, "rulesNotFound"),
        (_rules_out_of_reach, "cutOff"),
        (_unreadable_rule, "unreadable"),
        (_other_mode, "rulesNotRead"),
    ],
)
def test_health_is_not_said_of_what_is_not_proven(spoil: Callable[[Evidence], Evidence], code: str) -> None:
    spoilt = spoil(evidence([entry(ALIVE)]))
    diagnosis = judge(spoilt)
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert diagnosis.reason.code == code
    assert not diagnosis.complete
    assert of(diagnosis, "Q1")


@pytest.mark.parametrize("spoil", [_cut, _lost, _rules_cut, lambda found: replace(found, rules=())])
def test_a_proven_fault_stands_on_spoilt_evidence(spoil: Callable[[Evidence], Evidence]) -> None:
    diagnosis = judge(spoil(evidence(flows(7))))
    assert (diagnosis.verdict, diagnosis.stale_entries, diagnosis.complete) == (Verdict.AFFECTED, 7, False)


def test_no_proof_at_all_is_no_proof() -> None:
    found = evidence([entry(ALIVE)])
    assert found.conntrack is not None
    unproven = replace(found, conntrack=replace(found.conntrack, completeness=replace(CUT, problem=None)))
    assert judge(unproven).reason.code == "conntrackUnproven"


def test_the_reason_is_the_one_that_was_given_for_what_is_missing() -> None:
    why = Reason("forbidden", "pods/exec is forbidden")
    found = replace(
        evidence(), conntrack=None, rules=(), missing=(Missing(Item.CONNTRACK, why), Missing(Item.RULES, why))
    )
    diagnosis = judge(found)
    assert diagnosis.reason.code == "forbidden"
    assert diagnosis.stale_entries is None
    assert "and 1 more" in diagnosis.reason.message


def test_what_is_missing_without_need_leaves_the_node_clean_and_is_said() -> None:
    found = replace(evidence(), missing=(Missing(Item.KUBE_PROXY, Reason("refused", "connection refused")),))
    diagnosis = judge(found)
    assert (diagnosis.verdict, diagnosis.complete) == (Verdict.CLEAN, True)
    assert "connection refused" in of(diagnosis, "Q1")[0].explanation


@pytest.mark.parametrize(
    ("known", "services", "code"),
    [
        (replace(truth(), endpoints_known=False), (DNS,), "endpointsUnknown"),
        (truth(), ("default/missing",), "serviceUnknown"),
        (truth(service(protocol="tcp")), (DNS,), "serviceUnknown"),
        (Truth(), (), "serviceUnknown"),
        (truth(service(protocol="tcp")), (), "serviceUnknown"),
    ],
)
def test_without_the_truth_nothing_is_clean(known: Truth, services: tuple[str, ...], code: str) -> None:
    diagnosis = judge(evidence([], known), known, *services)
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.UNKNOWN, code)


def test_a_node_port_can_only_be_judged_when_the_nodes_addresses_are_known() -> None:
    known = truth(service(node_port=30_053))
    assert judge(evidence([], known), known).verdict is Verdict.CLEAN
    nameless = replace(evidence([], known), node="")
    assert judge(nameless, known).reason.code == "nodeAddressesUnknown"
    filtered = replace(evidence([], known), conntrack=reading([], known, addresses=[VIP]))
    assert judge(filtered, known).reason.code == "notAllRead"
    with_node = replace(filtered, conntrack=reading([], known, addresses=[VIP, NODE_IP]))
    assert judge(with_node, known).verdict is Verdict.CLEAN


def test_dual_stack_is_clean_only_with_both_families() -> None:
    assert judge(evidence([], DUAL), DUAL).verdict is Verdict.CLEAN
    four_only = replace(evidence([], DUAL), conntrack=reading([], DUAL, families=(4,)))
    assert judge(four_only, DUAL).reason.code == "notAllRead"
    four_rules = replace(evidence([], DUAL), rules=(rules(DUAL),))
    assert judge(four_rules, DUAL).reason.code == "rulesNotRead"


def test_a_single_stack_service_needs_its_own_family_only() -> None:
    known = truth()
    four_only = replace(evidence([], known), conntrack=reading([], known, families=(4,)), rules=(rules(known),))
    assert judge(four_only, known).verdict is Verdict.CLEAN
    six = truth(service((ALIVE6,), addresses=(VIP6,)))
    six_only = replace(evidence([], six), conntrack=reading([], six, families=(6,)), rules=(rules(six, family=6),))
    assert judge(six_only, six).verdict is Verdict.CLEAN
    stale = replace(six_only, conntrack=reading([entry(DEAD6, client=CLIENT6, destination=VIP6)], six, families=(6,)))
    assert judge(stale, six).verdict is Verdict.AFFECTED


def test_the_last_reading_has_to_be_whole() -> None:
    """What came after an earlier one that was whole is not known; one that was cut off before does not matter."""
    known = truth()
    first = reading([], known)
    cut = replace(first, completeness=CUT)
    state = live([], known, [])
    assert judge(replace(state, conntrack=cut, conntrack_later=first), known).verdict is Verdict.CLEAN
    later_cut = judge(replace(state, conntrack=first, conntrack_later=cut), known)
    assert (later_cut.verdict, later_cut.complete) == (Verdict.UNKNOWN, False)


def test_evidence_that_broke_off_proves_a_fault_and_no_health() -> None:
    known = truth()
    broken = (Reason("cutOff", "metrics have 7 bytes"),)
    said = judge(replace(live([], known), broken=broken), known)
    assert (said.verdict, said.reason.code, said.missing) == (Verdict.UNKNOWN, "cutOff", broken)
    stale = replace(live([entry(DEAD)], known), live=False)
    assert judge(replace(stale, broken=broken), known).verdict is Verdict.AFFECTED


def test_truth_of_another_time_proves_no_health() -> None:
    known = replace(truth(), at=NOON - timedelta(minutes=6))
    found = replace(live([], known), live=False)
    diagnosis = judge(found, known)
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.UNKNOWN, "truthOfAnotherTime")
    assert "together" in of(diagnosis, "Q1")[0].advice
    near = replace(known, at=NOON - timedelta(minutes=5))
    assert judge(found, near).verdict is Verdict.CLEAN


def test_rules_in_either_backend_will_do() -> None:
    known = truth()
    legacy = replace(rules(known), backing=Backing.LEGACY)
    empty = replace(rules(known), services=(), canary=False, jumps=(), family=None, completeness=CUT)
    assert judge(evidence([], known, rules=(empty, legacy)), known).verdict is Verdict.CLEAN


def test_ipvs_rules_have_no_family_of_their_own_when_empty_and_need_no_jump() -> None:
    known = truth()
    ipvs = replace(rules(known, mode=Mode.IPVS), jumps=(), canary=False)
    assert judge(evidence([], known, rules=(ipvs,)), known).verdict is Verdict.CLEAN
    both = replace(ipvs, family=None)
    assert judge(evidence([], known, rules=(both,)), known).verdict is Verdict.CLEAN


def test_cilium_without_kube_proxy_is_not_applicable_rather_than_clean() -> None:
    found = replace(evidence([], rules=()), replacement="Cilium")
    diagnosis = judge(found)
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.NOT_APPLICABLE, "noKubeProxy")
    assert of(diagnosis, "N2")
    untranslated = replace(evidence([entry(VIP)], rules=()), replacement="Cilium")
    assert judge(untranslated).verdict is Verdict.NOT_APPLICABLE


def test_entries_that_were_translated_prove_a_fault_even_there() -> None:
    found = replace(evidence(flows(2), rules=()), replacement="Cilium")
    diagnosis = judge(found)
    assert (diagnosis.verdict, diagnosis.stale_entries) == (Verdict.AFFECTED, 2)


def test_a_service_of_one_family_whose_endpoints_are_of_the_other_needs_no_rules() -> None:
    known = truth(service((ALIVE,), addresses=(VIP, VIP6)))
    four = rules(known)
    six = replace(rules(known, family=6), services=(), canary=True)
    diagnosis = judge(evidence([], known, rules=(four, six), mode=Mode.IPTABLES), known)
    assert diagnosis.verdict is Verdict.CLEAN


def test_a_fault_of_the_rules_outweighs_what_is_missing() -> None:
    known = truth()
    found = replace(evidence([], known), conntrack=None, rules=(rules(known, instead=(DEAD,)), both_families(known)[1]))
    diagnosis = judge(found, known)
    assert (diagnosis.verdict, diagnosis.stale_entries, diagnosis.complete) == (Verdict.AFFECTED, None, False)
