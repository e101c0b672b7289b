"""Which entries are stale, and by which check they are reported (C1 to C6)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdnsctl.diagnosis.findings import Severity
from kdnsctl.diagnosis.index import Index, Kind
from kdnsctl.diagnosis.truth import PodRef, Truth
from kdnsctl.diagnosis.wording import deletion
from kdnsctl.model import Verdict
from kdnsctl.netfilter.entries import Entry, Key
from kdnsctl.netfilter.rules import Mode
from tests.unit.diagnosis.nodes import (
    ALIVE,
    ALIVE6,
    CLIENT,
    CLIENT6,
    DEAD,
    DEAD6,
    DEAD_TOO,
    DNS,
    NODE,
    NODE_IP,
    OTHER_IP,
    VIP,
    VIP6,
    entry,
    evidence,
    flows,
    judge,
    of,
    rules,
    service,
    the,
    truth,
)

DUAL = truth(service((ALIVE, ALIVE6), addresses=(VIP, VIP6)))
BY_NODE_PORT = truth(service(node_port=30_053))
EMPTY = truth(service(()))
REUSED = replace(truth(), pods={DEAD: PodRef("shop", "cart-0")})


@pytest.mark.parametrize(
    ("what", "known", "found", "check"),
    [
        ("dead backend", truth(), entry(), "C1"),
        ("dead backend that never answered", truth(), replace(entry(), timeout=29), "C1"),
        ("right pod, wrong port", truth(), entry(ALIVE, backend_port=5353), "C1"),
        ("external address", truth(service(addresses=(VIP, "192.0.2.7"))), entry(destination="192.0.2.7"), "C1"),
        ("not translated", truth(), entry(VIP), "C2"),
        ("address reused", REUSED, entry(), "C3"),
        ("no endpoints", EMPTY, entry(), "C4"),
        ("no endpoints, not translated", EMPTY, entry(VIP), "C4"),
        ("no endpoints, address reused", replace(EMPTY, pods=REUSED.pods), entry(), "C4"),
        ("Service gone", truth(), entry(destination="10.96.9.9"), "C5"),
        ("Service port gone", truth(), entry(port=5300), "C5"),
        ("NodePort", BY_NODE_PORT, entry(destination=NODE_IP, port=30_053), "C6"),
        ("NodePort, not translated", BY_NODE_PORT, entry(NODE_IP, destination=NODE_IP, port=30_053), "C6"),
        ("IPv6", DUAL, entry(DEAD6, client=CLIENT6, destination=VIP6), "C1"),
        ("IPv6, not translated", DUAL, entry(VIP6, client=CLIENT6, destination=VIP6), "C2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_stale_entry_is_found_once_and_makes_the_node_affected(
    what: str, known: Truth, found: Entry, check: str
) -> None:
    diagnosis = judge(evidence([found], known), known)
    assert diagnosis.verdict is Verdict.AFFECTED, what
    assert diagnosis.stale_entries == 1
    assert [each.id for each in diagnosis.findings if each.id in ("C1", "C2", "C3", "C4", "C5", "C6")] == [check]
    finding = the(diagnosis, check)
    assert finding.count == 1
    assert finding.protocol == "udp"
    assert finding.explanation
    assert finding.advice
    assert [client.count for client in finding.clients] == [1]


@pytest.mark.parametrize(
    ("what", "known", "found"),
    [
        ("serving", truth(), entry(ALIVE)),
        ("terminating but serving", truth(service((ALIVE,), terminating=(DEAD,))), entry(DEAD)),
        ("only terminating endpoints", truth(service((), terminating=(DEAD,))), entry(DEAD)),
        ("serving, by NodePort", BY_NODE_PORT, entry(ALIVE, destination=NODE_IP, port=30_053)),
        ("a NodePort's number at another node", BY_NODE_PORT, entry(DEAD, destination=OTHER_IP, port=30_053)),
        ("another node's NodePort", BY_NODE_PORT, entry(OTHER_IP, destination=OTHER_IP, port=30_053)),
        ("a NodePort's number somewhere else", BY_NODE_PORT, entry(DEAD, destination="8.8.8.8", port=30_053)),
        ("no Service's address", truth(), entry("8.8.8.8", destination="8.8.8.8")),
        ("a Service's address, a port of none", truth(), entry(VIP, port=5300)),
        ("an address no Service has", truth(), entry("10.96.9.9", destination="10.96.9.9")),
        ("no ports at all", truth(), replace(entry(), original=replace(entry().original, destination_port=None))),
        ("a target port of its own", truth(service(target_port=5353)), entry(ALIVE, backend_port=5353)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_stale_leaves_the_node_clean(what: str, known: Truth, found: Entry) -> None:
    diagnosis = judge(evidence([found], known), known)
    assert diagnosis.verdict is Verdict.CLEAN, what
    assert diagnosis.stale_entries == 0
    assert not [each for each in diagnosis.findings if each.id in ("C1", "C2", "C3", "C4", "C6")]


def test_a_finding_names_service_backends_and_clients() -> None:
    found = [*flows(3), *flows(2, DEAD_TOO, first=40_000, client="10.244.2.9")]
    finding = the(judge(evidence(found)), "C1")
    assert (finding.service, finding.port, finding.protocol, finding.family) == (f"{DNS}:dns", 53, "udp", 4)
    assert finding.severity is Severity.FAULT
    assert finding.count == 5
    assert finding.backends == (f"{DEAD}:53", f"{DEAD_TOO}:53")
    assert [(each.address, each.count, each.pod, each.namespace) for each in finding.clients] == [
        ("10.244.2.3", 3, "web-1", "shop"),
        ("10.244.2.9", 2, "", ""),
    ]
    assert finding.more == 0


def test_clients_beyond_the_hundredth_are_counted_not_listed() -> None:
    found = [entry(client=f"10.244.2.{each}") for each in range(150)]
    finding = the(judge(evidence(found)), "C1")
    assert finding.count == 150
    assert len(finding.clients) == 100
    assert finding.more == 50


def test_tcp_is_shown_and_never_counted() -> None:
    known = truth(service(), service(port_name="dns-tcp", protocol="tcp"))
    diagnosis = judge(evidence(flows(5, protocol="tcp"), known), known)
    assert diagnosis.verdict is Verdict.CLEAN
    assert diagnosis.stale_entries == 0
    finding = the(diagnosis, "C1")
    assert (finding.severity, finding.count, finding.protocol) == (Severity.INFO, 5, "tcp")
    assert "not counted" in finding.explanation
    assert not finding.advice


def test_an_unallocated_address_is_told_apart_from_a_stale_entry() -> None:
    finding = the(judge(evidence([entry("10.96.9.9", destination="10.96.9.9")])), "C5")
    assert finding.severity is Severity.INFO
    assert "10.96.9.9:53" in finding.explanation


def test_nothing_is_concluded_from_services_that_are_not_known() -> None:
    known = replace(truth(), services_known=False)
    found = evidence([entry(destination="10.96.9.9"), entry("10.96.9.9", destination="10.96.9.9")], known)
    assert not of(judge(found, known), "C5")


def test_a_service_outside_the_ranges_that_are_known_is_not_missed() -> None:
    known = replace(truth(), service_ranges=())
    assert not of(judge(evidence([entry(destination="10.96.9.9")], known), known), "C5")


def test_a_destination_that_is_no_address_is_in_no_range() -> None:
    key = Key("udp", "not-an-address", 53, DEAD, 53)
    assert Index(truth(), NODE).meaning(key) is None


def test_without_endpoints_only_the_untranslated_are_known_to_be_stale() -> None:
    known = replace(truth(service((), node_port=30_053)), endpoints_known=False)
    at_node_port = entry(NODE_IP, destination=NODE_IP, port=30_053)
    diagnosis = judge(evidence([entry(), entry(VIP), at_node_port], known, rules=()), known)
    assert diagnosis.verdict is Verdict.AFFECTED
    assert diagnosis.stale_entries == 2
    assert [each.id for each in diagnosis.findings if each.id.startswith("C") and each.count == 1][:2] == ["C2", "C6"]
    assert not diagnosis.complete


def test_a_node_without_a_name_takes_any_nodes_addresses_but_only_translated_flows() -> None:
    index = Index(BY_NODE_PORT)
    elsewhere = Key("udp", OTHER_IP, 30_053, DEAD, 53)
    meaning = index.meaning(elsewhere)
    assert meaning is not None
    assert meaning.kind is Kind.NODE_PORT
    assert index.meaning(Key("udp", OTHER_IP, 30_053, OTHER_IP, 30_053)) is None
    assert not index.wanted(Key("udp", OTHER_IP, 30_053, OTHER_IP, 30_053))


def test_two_services_with_one_external_address_share_their_endpoints() -> None:
    shared = truth(service(), service((DEAD,), name="other", addresses=(VIP,)))
    diagnosis = judge(evidence([entry(DEAD), entry(ALIVE)], shared, rules=()), shared)
    assert diagnosis.stale_entries == 0


def test_dual_stack_is_reported_by_family() -> None:
    found = [entry(), entry(DEAD6, client=CLIENT6, destination=VIP6)]
    four, six = of(judge(evidence(found, DUAL), DUAL), "C1")
    assert (four.family, six.family) == (4, 6)
    assert six.backends == (f"[{DEAD6}]:53",)


# --- scope


def test_other_services_are_shown_but_the_verdict_is_about_those_asked_for() -> None:
    other = service(name="syslog", namespace="logs", port_name="", port=514, addresses=("10.96.7.7",))
    known = truth(service(), other)
    found = flows(4, destination="10.96.7.7", port=514)
    diagnosis = judge(evidence(found, known), known, DNS)
    assert diagnosis.verdict is Verdict.CLEAN
    assert diagnosis.stale_entries == 0
    finding = the(diagnosis, "C1")
    assert (finding.service, finding.count, finding.severity) == ("logs/syslog", 4, Severity.FAULT)
    assert "not about this Service" in finding.explanation
    assert judge(evidence(found, known), known, DNS, "logs/syslog").stale_entries == 4
    assert judge(evidence(found, known), known).verdict is Verdict.AFFECTED


def test_a_service_that_is_gone_counts_if_it_may_be_one_of_those_asked_for() -> None:
    found = evidence([entry(destination="10.96.9.9")])
    assert judge(found, truth(), DNS).verdict is Verdict.CLEAN
    assert the(judge(found, truth(), DNS), "C5").count == 1
    assert judge(found, truth(), "kube-system/old-dns").verdict is Verdict.AFFECTED


# --- advice


def test_the_command_deletes_this_group_and_no_healed_flow() -> None:
    finding = the(judge(evidence(flows(2))), "C1")
    command = "conntrack -D -p udp --orig-dst 10.96.0.10 --orig-port-dst 53 --reply-src 10.244.1.2 --reply-port-src 53"
    assert finding.commands == (command,)
    assert finding.advice.startswith("Collect the evidence first")
    assert "conntrack -D" not in finding.advice
    assert finding.repair == "kdnsctl repair flush knode2"


def test_the_repair_names_the_node_and_a_service_that_is_not_dns() -> None:
    known = truth(service(name="syslog", namespace="logs", port=514, addresses=("10.96.7.7",)))
    found = replace(evidence(flows(4, destination="10.96.7.7", port=514), known), node="knode2; reboot")
    assert the(judge(found, known), "C1").repair == "kdnsctl repair flush NODE --service logs/syslog"
    wrong = replace(evidence(flows(2)), rules=(rules(truth(), instead=(DEAD,)),))
    assert the(judge(wrong), "C1").repair == ""
    assert the(judge(wrong), "R2").repair == "kdnsctl repair restart-kube-proxy knode2"


def test_nothing_is_to_be_deleted_that_kube_proxy_may_be_about_to_delete() -> None:
    finding = the(judge(replace(evidence(flows(2)), live=True)), "C1")
    assert finding.severity is Severity.WARNING
    assert finding.commands == ()
    assert finding.advice.startswith("Read the node again")


def test_names_from_strangers_reach_no_terminal_and_no_shell() -> None:
    hostile = truth(service(name="kube\x1b[2J-dns"))
    hostile = replace(hostile, pods={DEAD: PodRef("shop", "cart\x07"), CLIENT: PodRef("sh\x1bop", "web")})
    found = replace(evidence(flows(2), hostile), rules=(rules(hostile, instead=(DEAD,)),), replacement="x\x1by")
    diagnosis = judge(found, hostile)
    said = [diagnosis.reason.message]
    for each in diagnosis.findings:
        said += [each.explanation, each.advice, each.service, *each.commands, *(client.pod for client in each.clients)]
        said += [client.namespace for client in each.clients]
    assert all(text.isprintable() for text in said)
    assert any("kube?[2J-dns" in text for text in said)
    odd = Key("udp", "10.96.0.10; reboot", 53, DEAD, 53)
    assert "'10.96.0.10; reboot'" in deletion(odd)


def test_the_command_names_the_family_of_ipv6() -> None:
    finding = the(judge(evidence([entry(DEAD6, client=CLIENT6, destination=VIP6)], DUAL), DUAL), "C1")
    assert finding.commands == (
        f"conntrack -D -f ipv6 -p udp --orig-dst {VIP6} --orig-port-dst 53 --reply-src {DEAD6} --reply-port-src 53",
    )


def test_no_deletion_is_advised_while_the_rules_lead_to_the_dead() -> None:
    known = truth()
    bad = rules(known, instead=(DEAD, ALIVE))
    finding = the(judge(evidence(flows(2), known, rules=(bad,)), known), "C1")
    assert finding.commands == ()
    assert "R2" in finding.advice


def test_unread_rules_are_a_caveat() -> None:
    assert "rules were not read" in the(judge(evidence(flows(1), rules=())), "C1").advice


def test_in_ipvs_mode_no_command_is_promised_to_help() -> None:
    finding = the(judge(evidence(flows(1), mode=Mode.IPVS)), "C1")
    assert finding.commands == ()
    assert "ip_vs_conn" in finding.advice


def test_many_commands_are_cut_short() -> None:
    found = [entry(f"10.244.9.{each}") for each in range(12)]
    finding = the(judge(evidence(found)), "C1")
    assert len(finding.commands) == 10
    assert "2 more" in finding.advice


def test_a_service_without_endpoints_needs_endpoints_first() -> None:
    advice = the(judge(evidence(flows(1), EMPTY), EMPTY), "C4").advice
    assert advice.startswith("Bring the Service's endpoints back first")
