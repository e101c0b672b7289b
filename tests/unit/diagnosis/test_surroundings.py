"""The table itself, kube-proxy's own words, the path of queries, the quality of evidence (T, P, N, Q)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdnsctl.diagnosis.evidence import Evidence, FamilyState, Fill, Item, KubeProxyState, Missing
from kdnsctl.diagnosis.findings import Severity
from kdnsctl.diagnosis.proxystate import state_of
from kdnsctl.model import Reason, Verdict
from kdnsctl.netfilter.kubeproxy import parse_health, parse_metrics
from kdnsctl.netfilter.rules import Mode
from tests.unit.diagnosis.nodes import VIP, both_families, entry, evidence, flows, judge, of, rules, the, truth

RECORDINGS = Path(__file__).parents[2] / "recordings"


def with_fields(**fields: object) -> Evidence:
    return replace(evidence([]), **fields)  # type: ignore[arg-type]


# --- T1 to T3


@pytest.mark.parametrize(
    ("fill", "severity"),
    [
        (Fill(80, 100), None),
        (Fill(81, 100), Severity.WARNING),
        (Fill(96, 100), Severity.FAULT),
        (Fill(5, 0), None),
        (None, None),
    ],
)
def test_fill(fill: Fill | None, severity: Severity | None) -> None:
    diagnosis = judge(with_fields(fill=fill))
    assert [each.severity for each in of(diagnosis, "T1")] == ([severity] if severity else [])
    assert diagnosis.verdict is Verdict.CLEAN


def test_the_kernels_own_words_are_a_fault() -> None:
    assert the(judge(with_fields(table_full=3)), "T1").severity is Severity.FAULT
    assert not of(judge(with_fields(table_full=0)), "T1")


@pytest.mark.parametrize(
    ("before", "after", "severity"),
    [
        ({"drop": 4}, None, Severity.INFO),
        ({"drop": 4}, {"drop": 4}, None),
        ({"drop": 4}, {"drop": 9}, Severity.WARNING),
        (None, {"early_drop": 2}, Severity.INFO),
        ({"drop": 9}, {"drop": 4}, None),
        # Packets that lost a race are in both counters, as recorded in the node of the lab that has them.
        ({"drop": 41, "insert_failed": 41}, {"drop": 48, "insert_failed": 48}, None),
        ({"drop": 41, "insert_failed": 41}, {"drop": 49, "insert_failed": 48}, Severity.WARNING),
        ({}, None, None),
    ],
)
def test_drops(before: dict[str, int] | None, after: dict[str, int] | None, severity: Severity | None) -> None:
    found = of(judge(with_fields(counters=before, counters_later=after)), "T1")
    assert [each.severity for each in found] == ([severity] if severity else [])


def test_rising_insert_failures_are_another_fault_and_say_so() -> None:
    found = with_fields(counters={"insert_failed": 1}, counters_later={"insert_failed": 8, "clash_resolve": 2})
    finding = the(judge(found), "T2")
    assert (finding.count, finding.severity) == (7, Severity.WARNING)
    assert "clash_resolve 2" in finding.explanation
    assert "another fault" in finding.explanation
    once = the(judge(with_fields(counters={"insert_failed": 5})), "T2")
    assert once.severity is Severity.INFO
    assert "does not tell when" in once.explanation
    assert not of(judge(with_fields(counters={"insert_failed": 0})), "T2")


@pytest.mark.parametrize(
    ("fields", "severity"),
    [
        ({"fill": Fill(1, 1600, 100)}, Severity.INFO),
        ({"fill": Fill(1, 1599, 100)}, None),
        ({"fill": Fill(1, 1600, None)}, None),
        ({"counters": {"chaintoolong": 2}}, Severity.WARNING),
        ({"counters": {"search_restart": 2}}, None),
        ({"counters": {"search_restart": 2}, "counters_later": {"search_restart": 5}}, Severity.INFO),
    ],
)
def test_slow_searches(fields: dict[str, object], severity: Severity | None) -> None:
    found = of(judge(with_fields(**fields)), "T3")
    assert [each.severity for each in found] == ([severity] if severity else [])


# --- P1 to P3


def said(**fields: object) -> KubeProxyState:
    return KubeProxyState(families={4: FamilyState(**fields)})  # type: ignore[arg-type]


def asked(at: float | None, **fields: object) -> KubeProxyState:
    return replace(said(**fields), at=at)


@pytest.mark.parametrize(
    ("state", "severity"),
    [
        (None, None),
        (asked(1000.0, last_queued=100.0, last_synced=100.0), None),
        (asked(4131.0, last_queued=4130.0, last_synced=100.0), None),  # idle for an hour, and just asked
        (asked(130.0, last_queued=100.0, last_synced=99.0), None),
        (asked(131.0, last_queued=100.0, last_synced=99.0), Severity.FAULT),
        (asked(None, last_queued=4130.0, last_synced=100.0), None),
        (asked(9000.0, last_queued=100.0), None),
        (said(healthy=True), None),
        (said(healthy=False), Severity.FAULT),
        (said(restore_failures=0), None),
        (said(restore_failures=2), Severity.WARNING),
        (KubeProxyState(families={0: FamilyState(healthy=False)}), Severity.FAULT),
    ],
)
def test_a_kube_proxy_that_does_not_get_its_rules_written(
    state: KubeProxyState | None, severity: Severity | None
) -> None:
    diagnosis = judge(with_fields(kube_proxy=state))
    assert [each.severity for each in of(diagnosis, "P1")] == ([severity] if severity else [])
    assert diagnosis.verdict is Verdict.CLEAN


@pytest.mark.parametrize(("code", "found"), [("deadline", 1), ("portForward", 1), ("forbidden", 0)])
def test_a_kube_proxy_that_does_not_answer_is_reported_and_one_that_may_not_be_asked_is_not(
    code: str, found: int
) -> None:
    missing = (Missing(Item.KUBE_PROXY, Reason(code, "port 10249 did not answer within 10s")),)
    diagnosis = judge(with_fields(missing=missing))
    warned = of(diagnosis, "P1")
    assert len(warned) == found
    assert all("port 10249 did not answer within 10s." in each.explanation for each in warned)
    assert diagnosis.verdict is Verdict.CLEAN  # its tables prove it, whatever becomes of them


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (said(deleted_entries=0, reconciled=4), "in 4 runs"),
        (said(deleted_entries=0), "since it started,"),
        (said(deleted_entries=5), None),
        (said(), None),
        (None, None),
    ],
)
def test_a_reconciler_that_deletes_nothing(state: KubeProxyState | None, found: str | None) -> None:
    findings = of(judge(replace(evidence(flows(2)), kube_proxy=state)), "P2")
    assert len(findings) == (found is not None)
    assert not found or found in findings[0].explanation
    assert not of(judge(with_fields(kube_proxy=state)), "P2")


def test_modes_that_disagree() -> None:
    fell_back = KubeProxyState(mode=Mode.IPTABLES, configured=Mode.IPVS)
    assert "configured for ipvs" in the(judge(with_fields(kube_proxy=fell_back)), "P3").explanation
    elsewhere = KubeProxyState(mode=Mode.NFTABLES)
    diagnosis = judge(with_fields(kube_proxy=elsewhere))
    assert "iptables (nf_tables)" in the(diagnosis, "P3").explanation
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert not of(judge(with_fields(kube_proxy=KubeProxyState(Mode.IPTABLES, Mode.IPTABLES))), "P3")
    assert not of(judge(with_fields(mode=Mode.NFTABLES, rules=())), "P3")


def test_kube_proxys_words_from_its_recorded_metrics() -> None:
    metrics = parse_metrics([(RECORDINGS / "kube-proxy-1.36" / "metrics.txt").read_bytes()])
    state = state_of(Mode.IPTABLES, metrics)
    assert sorted(state.families) == [4, 6]
    four, six = state.families[4], state.families[6]
    assert (four.deleted_entries, four.reconciled, four.restore_failures) == (60, 3, None)
    assert six.deleted_entries is None
    assert four.last_queued is not None
    assert four.last_synced is not None
    assert four.healthy is None


def test_health_by_family_and_as_a_whole() -> None:
    health = parse_health(
        b'{"lastUpdated":"2026-11-23T03:02:39Z","currentTime":"2026-11-23T03:02:40Z","healthy":false,'
        b'"status":{"IPv4":{"lastUpdated":"2026-11-23T03:02:39Z","healthy":false},"IPv6":{"healthy":true}}}'
    )
    state = state_of(health=health)
    assert {family: its.healthy for family, its in state.families.items()} == {4: False, 6: True}
    assert state.at is not None
    whole = parse_health(b'{"currentTime":"2026-11-23T03:02:40Z","healthy":false}')
    assert state_of(health=whole).families == {0: FamilyState(healthy=False)}
    assert state_of(health=parse_health(b'{"currentTime":"2026-11-23T03:02:40Z"}')).families == {}
    assert state_of() == KubeProxyState()


# --- N1, N2, Q1


def test_node_local_dns_changes_which_flows_matter() -> None:
    known = truth()
    exempt = replace(rules(known), notrack=("169.254.20.10", VIP))
    diagnosis = judge(evidence([], known, rules=(exempt,)), known)
    finding = the(diagnosis, "N1")
    assert finding.backends == ("169.254.20.10", VIP)
    assert "answered on the node" in finding.explanation
    assert diagnosis.verdict is Verdict.CLEAN
    local_only = replace(exempt, notrack=("169.254.20.10",))
    text = the(judge(evidence([], known, rules=(local_only,)), known), "N1").explanation
    assert "still take the way" in text


def test_stale_entries_count_beside_node_local_dns() -> None:
    known = truth()
    exempt = replace(rules(known), notrack=("169.254.20.10",))
    assert judge(evidence(flows(2), known, rules=(exempt,)), known).verdict is Verdict.AFFECTED


@pytest.mark.parametrize("address", ["10.1.1.1", "no address"])
def test_other_untracked_addresses_are_not_node_local_dns(address: str) -> None:
    known = truth()
    other = replace(rules(known), notrack=(address,))
    assert not of(judge(evidence([], known, rules=(other,)), known), "N1")


def test_what_replaces_kube_proxy_is_named_without_control_characters() -> None:
    finding = the(judge(with_fields(replacement="Cil\x1bium", rules=())), "N2")
    assert "Cil?ium" in finding.explanation
    assert "not the same as clean" in finding.explanation


def test_gaps_are_listed_once_and_cleaned() -> None:
    why = Reason("failed", "exec: \x1b[31mrefused" + "x" * 400)
    found = with_fields(conntrack=None, missing=(Missing(Item.CONNTRACK, why), Missing(Item.OTHER, why)))
    finding = the(judge(found), "Q1")
    assert (finding.severity, finding.count) == (Severity.WARNING, 1)
    assert "\x1b" not in finding.explanation
    assert "…" in finding.explanation
    assert "health is not proven" in finding.explanation


def test_without_gaps_nothing_is_said() -> None:
    assert not of(judge(evidence([entry("10.244.1.5")])), "Q1")
    assert len(both_families(truth())) == 2
