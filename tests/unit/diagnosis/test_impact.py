"""Who is hurt, how much, and whether it heals by itself (C7 to C10)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdnsctl.diagnosis.evidence import FamilyState, KubeProxyState, Timeouts
from kdnsctl.diagnosis.findings import Severity
from kdnsctl.diagnosis.healing import behaviours, release_of
from kdnsctl.diagnosis.impact import odds
from kdnsctl.diagnosis.truth import PodRef, Truth
from kdnsctl.netfilter.entries import Seen
from tests.unit.diagnosis.nodes import (
    ALIVE,
    CLIENT,
    DEAD,
    both_families,
    entry,
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

# --- C7: in use, or residue


@pytest.mark.parametrize(
    ("timeout", "seen", "active"),
    [
        (120, Seen.ASSURED, True),
        (115, Seen.ASSURED, True),
        (114, Seen.ASSURED, False),
        (29, Seen.UNREPLIED, True),
        (24, Seen.UNREPLIED, False),
        (29, Seen.REPLIED, True),
        (119, Seen.REPLIED, True),  # longer than the short timer lasts: it is on the long one
        (118, Seen.OFFLOAD, True),
    ],
)
def test_one_reading_tells_use_by_the_timer(timeout: int, seen: Seen, active: bool) -> None:
    finding = the(judge(evidence([entry(timeout=timeout, seen=seen)])), "C7")
    assert finding.count == int(active)
    assert finding.severity is (Severity.FAULT if active else Severity.INFO)
    assert ("losing queries now" in finding.explanation) is active
    assert ("1 of 1 stale UDP entry was used in the last 5 s" in finding.explanation) is active


def test_the_nodes_own_timeouts_are_used_and_defaults_are_said_to_be_assumed() -> None:
    found = evidence([entry(timeout=120)])
    longer = replace(found, timeouts=Timeouts(60, 300))
    finding = the(judge(longer), "C7")
    assert finding.count == 0
    assert "300 s" in finding.explanation
    assert "defaults" not in finding.explanation
    assumed = the(judge(evidence([entry(timeout=60)])), "C7").explanation
    assert "kernel's defaults" in assumed


def test_entries_without_a_timer_tell_nothing() -> None:
    assert not of(judge(evidence([entry(timeout=None)])), "C7")


@pytest.mark.parametrize(
    ("before", "after", "active"),
    [
        ({"timeout": 100}, {"timeout": 110}, True),
        ({"timeout": 100}, {"timeout": 83}, True),  # 20 s later, renewed after 17 or more
        ({"timeout": 100}, {"timeout": 82}, False),  # within what whole seconds can err
        ({"timeout": 100}, {"timeout": 80}, False),
        ({"timeout": 100, "packets": 5}, {"timeout": 80, "packets": 6}, True),
        ({"timeout": 100, "packets": 5}, {"timeout": 80, "packets": 5}, False),
        ({"timeout": 100, "id": 1}, {"timeout": 80, "id": 2}, True),
        ({"timeout": 100, "id": 1}, {"timeout": 80, "id": 1}, False),
    ],
)
def test_two_readings_tell_use_by_what_changed(before: dict[str, int], after: dict[str, int], active: bool) -> None:
    known = truth()
    diagnosis = judge(live([entry(**before)], known, [entry(**after)]), known)  # type: ignore[arg-type]
    finding = the(diagnosis, "C7")
    assert finding.count == int(active)
    assert "between the two readings" in finding.explanation


def test_two_readings_without_timers_tell_nothing_but_packets() -> None:
    known = truth()
    assert not of(judge(live([entry(timeout=None)], known, [entry(timeout=None)]), known), "C7")


def test_readings_without_a_time_are_judged_by_the_timer() -> None:
    known = truth()
    found = live([entry(timeout=100)], known, [entry(timeout=118)])
    assert found.conntrack is not None
    untimed = replace(found, live=False, conntrack=replace(found.conntrack, at=None))
    assert "in the last 5 s" in the(judge(untimed, known), "C7").explanation


def test_unsettled_entries_are_no_fault_yet() -> None:
    known = truth()
    finding = the(judge(live([entry(timeout=120)], known), known), "C7")
    assert finding.severity is Severity.INFO


# --- C8: clients


def test_clients_are_named_by_pod_and_counted_by_namespace() -> None:
    known = replace(truth(), pods={CLIENT: PodRef("shop", "web-1"), "10.244.2.9": PodRef("shop", "web-2")})
    found = [*flows(3), *flows(1, client="10.244.2.9"), *flows(2, client="10.244.2.77")]
    finding = the(judge(evidence(found, known), known), "C8")
    assert finding.count == 3
    assert [(client.pod, client.count) for client in finding.clients] == [("web-1", 3), ("", 2), ("web-2", 1)]
    assert "shop (2)" in finding.explanation
    assert "1 client could not be matched" in finding.explanation


def test_no_clients_no_finding_and_tcp_hurts_nobody() -> None:
    known = truth(service(), service(port_name="dns-tcp", protocol="tcp"))
    assert not of(judge(evidence([entry(ALIVE)], known), known), "C8")
    assert not of(judge(evidence(flows(3, protocol="tcp"), known), known), "C8")


def test_entries_of_clients_that_are_not_listed_are_counted() -> None:
    found = [entry(client=f"10.244.2.{each}") for each in range(120)]
    finding = the(judge(evidence(found)), "C8")
    assert "20 more entries" in finding.explanation


def test_a_new_source_port_is_not_recommended_while_the_rules_are_wrong() -> None:
    known = truth()
    bad = evidence(flows(1), known, rules=(rules(known, instead=(DEAD,)), both_families(known)[1]))
    assert "mend them first" in the(judge(bad, known), "C8").advice
    assert "recover at once" in the(judge(evidence(flows(1))), "C8").advice


# --- C9: odds


def test_the_odds_of_the_worst_hit_client() -> None:
    found = [*flows(282, first=40_000), *flows(3, first=40_000, client="10.244.2.9")]
    finding = the(judge(evidence(found)), "C9")
    assert finding.count == 282
    assert [client.address for client in finding.clients] == [CLIENT]
    assert "32768 to 60999" in finding.explanation
    assert "1.00%" in finding.explanation
    assert f"{odds(282, 28_232, 100):.2%}" in finding.explanation
    assert "web-1" in finding.explanation


def test_ports_outside_the_range_are_no_odds() -> None:
    finding = the(judge(evidence(flows(60))), "C9")
    assert finding.count == 0
    assert "only those that choose these ports" in finding.explanation


def test_few_losses_are_not_predicted_where_the_rules_lose_queries_of_any_port() -> None:
    known = truth()
    found = flows(282, first=40_000)
    alone = the(judge(evidence(found)), "C9")
    assert "will mostly succeed" in alone.advice
    assert "rules" not in alone.explanation
    wrong = evidence(found, known, rules=(rules(known, instead=(DEAD,)), both_families(known)[1]))
    finding = the(judge(wrong, known), "C9")
    assert finding.count == 282
    assert finding.explanation.endswith("This comes on top of what the rules lose.")
    assert finding.advice == ""


def test_the_nodes_own_range_is_used() -> None:
    finding = the(judge(replace(evidence(flows(60)), local_ports=(20_000, 20_099))), "C9")
    assert finding.count == 60
    assert "60.00%" in finding.explanation
    assert not of(judge(replace(evidence(flows(60)), local_ports=(9, 8))), "C9")


@pytest.mark.parametrize(
    ("stale", "ports", "queries", "expected"),
    [(0, 100, 10, 0.0), (50, 100, 1, 0.5), (50, 100, 2, 0.75), (100, 100, 1, 1.0), (200, 100, 3, 1.0)],
)
def test_odds(stale: int, ports: int, queries: int, expected: float) -> None:
    assert odds(stale, ports, queries) == pytest.approx(expected)


# --- C10: will it heal


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v1.30.3", (30, 3)),
        ("1.30", (30, None)),
        ("v1.29.4-gke.1", (29, 4)),
        ("v1.36.2+k3s1", (36, 2)),
        ("", None),
        ("2.0", None),
        ("v0.0.0-master+$Format", None),
    ],
)
def test_releases(version: str, expected: tuple[int, int | None] | None) -> None:
    assert release_of(version) == expected


@pytest.mark.parametrize(
    ("version", "says", "does_not_say"),
    [
        ("v1.20.0", ["neither retried"], ["compares the whole table", "#105657"]),
        ("v1.22.3", ["#105657"], ["#127780"]),
        ("v1.22.4", ["neither retried"], ["#105657"]),
        ("v1.22", ["neither retried"], ["#105657"]),
        ("v1.29.9", ["#127780"], []),
        ("v1.29.10", [], ["#127780"]),
        ("v1.30.5", ["#127780"], []),
        ("v1.30.6", [], ["#127780"]),
        ("v1.31.1", ["#127780", "neither retried"], []),
        ("v1.31.14", ["neither retried"], ["#127780"]),
        ("v1.32.0", ["#127318", "#129982", "#129562"], ["neither retried", "#130256"]),
        ("v1.32.3", ["#129562"], ["#129982"]),
        ("v1.33.0", ["#130256", "#135323"], ["#129562"]),
        ("v1.36.2", ["#130256", "#127318"], ["#135323"]),
    ],
)
def test_what_a_release_does(version: str, says: list[str], does_not_say: list[str]) -> None:
    release = release_of(version)
    assert release is not None
    text = " ".join(behaviours(release))
    assert all(each in text for each in says), text
    assert not any(each in text for each in does_not_say), text
    explained = the(judge(replace(evidence(flows(1)), version=version)), "C10").explanation
    assert text in explained


def healing(version: str, known: Truth, sends_to: str = DEAD, **more: object) -> str:
    found = replace(evidence([entry(sends_to, **more)], known), version=version)  # type: ignore[arg-type]
    return the(judge(found, known), "C10").explanation


def test_a_service_without_endpoints_by_release() -> None:
    known = truth(service(()))
    assert "#139628" in healing("v1.36.2", known)
    assert "#139628" not in healing("v1.37.0", known)
    assert "#139629" in healing("v1.37.0", known)
    assert "#48370" in healing("v1.30.3", known)


def test_a_deleted_service_by_release() -> None:
    assert "#141371" in healing("v1.36.2", truth(), destination="10.96.9.9")
    assert "deleted once" in healing("v1.30.3", truth(), destination="10.96.9.9")


def test_an_unknown_version_gets_both_stories() -> None:
    assert "version is not known" in healing("", truth())


def test_nothing_heals_while_the_rules_are_wrong() -> None:
    known = truth()
    bad = evidence(flows(1), known, rules=(rules(known, instead=(DEAD,)), both_families(known)[1]))
    assert "Not while the rules are wrong" in the(judge(bad, known), "C10").explanation
    only_rules = replace(bad, conntrack=evidence([], known).conntrack, version="v1.30.3")
    text = the(judge(only_rules, known), "C10").explanation
    assert "first sync that succeeds" in text
    assert "neither retried" not in text


def test_failed_syncs_lose_the_cleanup() -> None:
    state = KubeProxyState(families={4: FamilyState(restore_failures=3), 6: FamilyState()})
    text = the(judge(replace(evidence(flows(1)), kube_proxy=state)), "C10").explanation
    assert "3 syncs" in text
    assert "#112604" in text


def test_restarting_is_advised_with_its_limits_and_after_collecting() -> None:
    advice = the(judge(evidence(flows(1))), "C10").advice
    assert advice.startswith("Collect the evidence first")
    assert "normally heals" in advice
    assert not of(judge(evidence([])), "C10")
