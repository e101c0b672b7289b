"""What is found in rules (R1 to R9), and what of it makes a node affected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from kdnsctl.diagnosis.drift import usable
from kdnsctl.diagnosis.findings import Diagnosis, Severity
from kdnsctl.diagnosis.truth import Backend, Truth
from kdnsctl.model import Reason, Verdict
from kdnsctl.netfilter import names
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules, ServiceRules, Target
from tests.unit.diagnosis.nodes import (
    ALIVE,
    ALSO_ALIVE,
    CUT,
    DEAD,
    DNS,
    NODE,
    NODE_IP,
    both_families,
    evidence,
    flows,
    judge,
    live,
    of,
    rules,
    service,
    the,
    truth,
)

OTHER = service(name="web", namespace="default", port_name="", port=80, addresses=("10.96.1.1",))
TWO = truth(service(), OTHER)


def changed(dump: NodeRules, which: int = 0, **fields: Any) -> NodeRules:
    """A dump with one Service's rules changed."""
    services = list(dump.services)
    services[which] = replace(services[which], **fields)
    return replace(dump, services=tuple(services))


def judged(dumps: Sequence[NodeRules], known: Truth = TWO, **more: object) -> Diagnosis:
    return judge(evidence([], known, rules=tuple(dumps), **more), known, DNS)


# --- R1


def test_missing_rules_of_a_service_make_a_node_affected() -> None:
    without = replace(rules(TWO), services=rules(TWO).services[1:])
    diagnosis = judged([without])
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.AFFECTED, "missingRules")
    finding = the(diagnosis, "R1")
    assert (finding.severity, finding.service) == (Severity.FAULT, f"{DNS}:dns")
    assert "no rules" in finding.explanation


def test_refusing_flows_that_could_be_served_is_a_fault() -> None:
    diagnosis = judged([changed(rules(TWO), targets=(), rejected=True)])
    assert diagnosis.verdict is Verdict.AFFECTED
    assert "refuse" in the(diagnosis, "R1").explanation


def test_refusing_flows_without_endpoints_is_right() -> None:
    known = truth(service(()), OTHER)
    diagnosis = judged([rules(known)], known)
    assert diagnosis.verdict is Verdict.CLEAN
    assert not of(diagnosis, "R1")


def test_a_local_policy_refuses_rightly_where_no_endpoint_is() -> None:
    known = truth(service(local_only=True), OTHER)
    refusing = changed(rules(known), targets=(), rejected=True)
    assert not of(judged([refusing], known), "R1")
    here = replace(known.services[0], backends=(Backend(ALIVE, 53, node=NODE),))
    known = replace(known, services=(here, OTHER))
    assert the(judged([refusing], known), "R1").severity is Severity.FAULT


@pytest.mark.parametrize(
    "dump",
    [
        replace(rules(TWO), services=()),
        replace(rules(TWO), services=rules(TWO).services[1:], completeness=CUT),
        replace(rules(TWO), services=rules(TWO).services[1:], problems=(Reason("unreadable", "a map"),)),
    ],
    ids=["no Services at all", "cut off", "unreadable parts"],
)
def test_absence_is_no_proof_where_the_dump_may_not_tell(dump: NodeRules) -> None:
    diagnosis = judged([dump])
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert not [each for each in of(diagnosis, "R1") if each.severity is Severity.FAULT]


def test_unreadable_rules_are_not_missing() -> None:
    unreadable = changed(rules(TWO), targets=(), problems=(Reason("unreadable", "DNAT [unsupported revision]"),))
    diagnosis = judged([unreadable])
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.UNKNOWN, "unreadable")
    assert the(diagnosis, "R1").severity is Severity.WARNING


def test_a_service_that_nobody_asked_for_may_be_left_to_others() -> None:
    without = replace(rules(TWO), services=rules(TWO).services[:1])
    found = evidence([], TWO, rules=(without,))
    assert judge(found, TWO, DNS).verdict is Verdict.CLEAN
    assert judge(found, TWO).verdict is Verdict.UNKNOWN


def test_missing_rules_for_dns_are_a_fault_whoever_asked() -> None:
    without = replace(rules(TWO), services=rules(TWO).services[1:])
    assert judge(evidence([], TWO, rules=(without,)), TWO).verdict is Verdict.AFFECTED


def test_rules_in_another_backend_are_not_missing() -> None:
    legacy = replace(rules(TWO), backing=Backing.LEGACY)
    leftovers = replace(rules(TWO), services=rules(TWO).services[1:])
    assert judged([leftovers, legacy]).verdict is Verdict.CLEAN


# --- R2


def test_rules_to_the_dead_make_a_node_affected_and_name_their_share() -> None:
    diagnosis = judged([rules(TWO, instead=(ALIVE, DEAD))])
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.AFFECTED, "staleRules")
    assert diagnosis.reason.message.endswith(f"lead to {DEAD}:53, which does not serve it")
    dns, other = of(diagnosis, "R2")
    assert (dns.backends, dns.count, dns.severity) == ((f"{DEAD}:53",), 1, Severity.FAULT)
    assert "50% of new flows" in dns.explanation
    assert "not about this Service" in other.explanation


def test_tcp_rules_to_the_dead_are_shown_and_do_not_decide() -> None:
    known = truth(service(), service(port_name="dns-tcp", protocol="tcp"))
    bad = changed(rules(known), 1, targets=(Target(DEAD, 53, 1.0),))
    diagnosis = judged([bad], known)
    assert diagnosis.verdict is Verdict.CLEAN
    assert "does not make the node affected" in the(diagnosis, "R2").explanation


@pytest.mark.parametrize(
    ("known", "dump"),
    [
        (truth(service((ALIVE,), terminating=(DEAD,))), rules(truth(), instead=(ALIVE, DEAD))),
        (truth(), replace(rules(truth(), instead=(DEAD,)), jumps=())),
        (
            truth(),
            changed(rules(truth(), mode=Mode.IPVS), targets=(Target(ALIVE, 53, 1.0), Target(DEAD, 53, 0.0, weight=0))),
        ),
        (truth(), replace(rules(truth()), unreachable=("KUBE-SEP-AAAAAAAAAAAAAAAA",))),
    ],
    ids=["terminating but serving", "out of reach", "draining in ipvs", "chain unreachable"],
)
def test_these_are_no_rules_to_the_dead(known: Truth, dump: NodeRules) -> None:
    assert not of(judge(evidence([], known, rules=(dump,)), known), "R2")


def test_without_known_endpoints_no_rule_is_stale() -> None:
    known = replace(truth(service(())), endpoints_known=False)
    diagnosis = judge(evidence([], known, rules=(rules(truth(), instead=(DEAD,)),)), known)
    assert not of(diagnosis, "R2")
    assert not of(diagnosis, "R3")
    assert diagnosis.verdict is Verdict.UNKNOWN


def test_a_node_port_that_leads_to_the_dead() -> None:
    known = truth(service(node_port=30_053))
    bad = changed(rules(known), 1, targets=(Target(DEAD, 53, 1.0),))
    assert bad.services[1].address is None
    assert judge(evidence([], known, rules=(bad,)), known).verdict is Verdict.AFFECTED


def test_ipvs_has_node_ports_by_address() -> None:
    known = truth(service(node_port=30_053))
    good = rules(known, mode=Mode.IPVS)
    bad = changed(good, 1, address=NODE_IP, targets=(Target(DEAD, 53, 1.0),))
    assert the(judge(evidence([], known, rules=(bad,)), known), "R2").backends == (f"{DEAD}:53",)
    stranger = changed(bad, 1, address="203.0.113.9")
    assert not of(judge(evidence([], known, rules=(stranger,)), known), "R2")


def test_leftover_rules_that_contradict_the_others_leave_it_open() -> None:
    good = rules(TWO, mode=Mode.NFTABLES)
    left = rules(TWO, instead=(DEAD,))
    diagnosis = judged([good, left])
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert diagnosis.reason.code == "rulesUnclear"
    finding = of(diagnosis, "R2")[0]
    assert finding.severity is Severity.WARNING
    assert "not proven" in finding.explanation
    both_bad = judged([rules(TWO, mode=Mode.NFTABLES, instead=(DEAD,)), left])
    assert both_bad.verdict is Verdict.AFFECTED


def test_leftover_rules_out_of_reach_or_of_other_services_contradict_nothing() -> None:
    bad = rules(TWO, instead=(DEAD,))
    unreached = replace(rules(TWO, mode=Mode.NFTABLES), jumps=())
    assert judged([bad, unreached]).verdict is Verdict.AFFECTED
    elsewhere = replace(rules(TWO, mode=Mode.NFTABLES), services=rules(TWO).services[1:])
    assert judged([bad, elsewhere]).verdict is Verdict.AFFECTED


# --- R3


def test_an_endpoint_without_a_rule_is_a_warning() -> None:
    diagnosis = judged([rules(TWO, instead=(ALIVE,))])
    finding = of(diagnosis, "R3")[0]
    assert (finding.severity, finding.backends) == (Severity.WARNING, (f"{ALSO_ALIVE}:53",))
    assert diagnosis.verdict is Verdict.CLEAN


@pytest.mark.parametrize(
    "known",
    [truth(service((ALIVE,), terminating=(ALSO_ALIVE,))), truth(service(local_only=True))],
    ids=["terminating while others are ready", "left out by policy"],
)
def test_an_endpoint_that_is_rightly_left_out(known: Truth) -> None:
    assert not of(judge(evidence([], known, rules=(rules(truth(), instead=(ALIVE,)),)), known), "R3")


def test_terminating_endpoints_are_used_when_there_are_no_others() -> None:
    last = service((), terminating=(ALIVE,))
    assert [each.address for each in usable(last, 4, NODE)] == [ALIVE]
    assert usable(last, 6, NODE) == []


# --- R4, R5


def test_unreachable_chains_are_information() -> None:
    left = ("KUBE-SEP-AAAAAAAAAAAAAAAA", "KUBE-SEP-BBBB\x1b[31m")
    diagnosis = judged([replace(rules(TWO), unreachable=left)])
    finding = the(diagnosis, "R4")
    assert (finding.severity, finding.count) == (Severity.INFO, 2)
    assert "\x1b" not in finding.explanation
    assert diagnosis.verdict is Verdict.CLEAN


def test_unequal_shares_are_a_warning() -> None:
    uneven = changed(rules(TWO), targets=(Target(ALIVE, 53, 0.3), Target(ALSO_ALIVE, 53, 0.7)))
    finding = the(judged([uneven]), "R5")
    assert (finding.severity, finding.service) == (Severity.WARNING, f"{DNS}:dns")
    assert "30.0%" in finding.explanation
    assert "50.0%" in finding.explanation


@pytest.mark.parametrize(
    "fields",
    [
        {"targets": (Target(ALIVE, 53, 0.33333333349), Target(ALSO_ALIVE, 53, 0.33333333331), Target(DEAD, 53, 1 / 3))},
        {"targets": (Target(ALIVE, 53, None), Target(ALSO_ALIVE, 53, 0.9))},
        {"targets": (Target(ALIVE, 53, 0.3), Target(ALSO_ALIVE, 53, 0.7)), "affinity": True},
    ],
    ids=["rounding", "unknown", "session affinity"],
)
def test_these_shares_are_not_complained_about(fields: dict[str, Any]) -> None:
    assert not of(judged([changed(rules(TWO), **fields)]), "R5")


def test_ipvs_weights_are_no_probabilities() -> None:
    dump = changed(rules(TWO, mode=Mode.IPVS), targets=(Target(ALIVE, 53, 0.3), Target(ALSO_ALIVE, 53, 0.7)))
    assert not of(judged([dump]), "R5")


def test_flows_that_no_rule_takes_are_a_fault_and_not_clean() -> None:
    lost = changed(rules(TWO), problems=(Reason("fallThrough", "KUBE-SVC-X sends 50.00% of the flows nowhere"),))
    diagnosis = judged([lost])
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert the(diagnosis, "R5").severity is Severity.FAULT


def test_odd_rules_of_no_known_service_are_named_as_the_dump_names_them() -> None:
    stranger = ServiceRules("udp", 99, "10.96.5.5", service="a/b:c", targets=(Target("10.1.1.1", 9, 0.2),) * 2)
    dump = replace(rules(TWO), services=(*rules(TWO).services, stranger))
    assert the(judged([dump]), "R5").service == "a/b:c"


# --- R6


@pytest.mark.parametrize("jumps", [(), ("OUTPUT",)])
def test_rules_that_pods_do_not_get_to_make_a_node_affected(jumps: tuple[str, ...]) -> None:
    diagnosis = judged([replace(rules(TWO), jumps=jumps)])
    assert diagnosis.verdict is Verdict.AFFECTED
    finding = the(diagnosis, "R6")
    assert finding.severity is Severity.FAULT
    assert "PREROUTING" in finding.explanation


def test_a_cut_off_dump_does_not_prove_that_the_jump_is_missing() -> None:
    diagnosis = judged([replace(rules(TWO), jumps=(), completeness=CUT)])
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert the(diagnosis, "R6").severity is Severity.WARNING


def test_obstacles_are_shown() -> None:
    obstacle = "-A PREROUTING -p udp -m udp --dport 53 -j DNAT --to-destination 10.1.1.1\x07"
    diagnosis = judged([replace(rules(TWO), obstacles=(obstacle,))])
    finding = the(diagnosis, "R6")
    assert finding.severity is Severity.WARNING
    assert "--dport 53" in finding.explanation
    assert "\x07" not in finding.explanation
    assert diagnosis.verdict is Verdict.CLEAN


# --- R7


def test_service_rules_in_two_places() -> None:
    diagnosis = judged([rules(TWO, mode=Mode.NFTABLES), rules(TWO)])
    finding = the(diagnosis, "R7")
    assert finding.severity is Severity.WARNING
    assert "nftables, iptables (nf_tables)" in finding.explanation
    assert "Packets reach all of them" in finding.explanation
    unreached = judged([rules(TWO, mode=Mode.NFTABLES), replace(rules(TWO), jumps=())])
    assert "Packets reach all of them" not in the(unreached, "R7").explanation


def test_one_place_is_as_it_should_be() -> None:
    assert not of(judged([rules(TWO), rules(TWO, family=6)]), "R7")


@pytest.mark.parametrize(
    ("canary", "hint", "severity"), [(False, True, Severity.INFO), (True, True, Severity.WARNING), (False, False, None)]
)
def test_marks_of_another_mode(canary: bool, hint: bool, severity: Severity | None) -> None:
    left = replace(rules(TWO), services=(), canary=canary, hint=hint, jumps=())
    found = of(judged([rules(TWO, mode=Mode.NFTABLES), left]), "R7")
    assert [each.severity for each in found] == ([severity] if severity else [])


def test_kube_proxys_mark_without_services() -> None:
    empty = replace(rules(TWO), services=())
    diagnosis = judged([empty])
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert "has not written its rules" in the(diagnosis, "R7").explanation
    elsewhere = judged([empty], mode=Mode.NFTABLES)
    assert not of(elsewhere, "R7")


# --- R8


def test_names_that_fit_are_not_complained_about() -> None:
    dns = f"{DNS}:dns"
    fitting = changed(
        rules(TWO),
        chain=names.service_chain(dns, "udp"),
        targets=(
            Target(ALIVE, 53, 0.5, names.endpoint_chain(dns, "udp", ALIVE, 53)),
            Target(ALSO_ALIVE, 53, 0.5, names.endpoint_chain(dns, "udp", ALSO_ALIVE, 53)),
        ),
    )
    assert not of(judged([fitting]), "R8")


def test_names_that_do_not_fit_even_without_comments() -> None:
    wrong_service = changed(rules(TWO), chain=names.service_chain("default/other", "udp"), service="")
    assert f"stands for {DNS}:dns" in the(judged([wrong_service]), "R8").explanation
    dns = f"{DNS}:dns"
    wrong_endpoint = changed(
        rules(TWO),
        chain=names.service_chain(dns, "udp"),
        service="",
        targets=(
            Target(ALIVE, 53, 0.5, names.endpoint_chain(dns, "udp", DEAD, 53)),
            Target(ALSO_ALIVE, 53, 0.5, names.endpoint_chain(dns, "udp", ALSO_ALIVE, 53)),
        ),
    )
    diagnosis = judged([wrong_endpoint])
    assert f"leads to {ALIVE}:53" in the(diagnosis, "R8").explanation
    assert diagnosis.verdict is Verdict.CLEAN


def test_what_the_parser_said_about_names_is_passed_on_and_does_not_block_clean() -> None:
    said = changed(rules(TWO), problems=(Reason("nameMismatch", "KUBE-SEP-X is not\x1b its name"),))
    diagnosis = judged([said])
    finding = the(diagnosis, "R8")
    assert (finding.severity, finding.count) == (Severity.WARNING, 1)
    assert "\x1b" not in finding.explanation
    assert diagnosis.verdict is Verdict.CLEAN


# --- R9


def counted(before: int, after: int, timeout: int = 110) -> Diagnosis:
    known = truth()
    first = flows(2, timeout=100)
    second = flows(2, timeout=timeout)
    found = live(
        first,
        known,
        second,
        rules=(rules(known, instead=(DEAD,), packets=before), both_families(known)[1]),
        rules_later=(rules(known, instead=(DEAD,), packets=after), both_families(known)[1]),
    )
    return judge(found, known)


def test_a_counter_that_stands_still_is_explained() -> None:
    finding = the(counted(7, 7), "R9")
    assert (finding.severity, finding.count, finding.backends) == (Severity.INFO, 7, (f"{DEAD}:53",))
    assert "expected" in finding.explanation


def test_a_counter_that_moves_or_a_flow_that_does_not_is_not() -> None:
    assert not of(counted(7, 8), "R9")
    assert not of(counted(7, 7, timeout=80), "R9")


def test_counters_of_rules_without_a_known_service_are_left_out() -> None:
    known = truth()
    stranger = ServiceRules("udp", 99, "10.96.5.5", targets=(Target(DEAD, 53, 1.0, packets=7),))
    dump = replace(rules(known), services=(*rules(known).services, stranger))
    found = live(flows(2, timeout=100), known, flows(2, timeout=110), rules=(dump,), rules_later=(dump,))
    assert not of(judge(found, known), "R9")


# --- clusters of another shape


def test_more_than_a_thousand_endpoints_without_comments() -> None:
    addresses = [f"10.1.{each // 250}.{each % 250 + 1}" for each in range(1_200)]
    known = truth(service(addresses))
    dump = changed(rules(known), service="")
    diagnosis = judge(evidence([], known, rules=(replace(dump, unreachable=("KUBE-SEP-X",)),)), known)
    assert diagnosis.verdict is Verdict.CLEAN
    assert [each.id for each in diagnosis.findings] == ["R4"]
    stale = changed(dump, targets=(*dump.services[0].targets[1:], Target(DEAD, 53, 1 / 1_200)))
    stale_diagnosis = judge(evidence([], known, rules=(stale,)), known)
    assert the(stale_diagnosis, "R2").service == f"{DNS}:dns"
    assert the(stale_diagnosis, "R3").backends == (f"{addresses[0]}:53",)
