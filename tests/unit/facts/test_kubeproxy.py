from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.diagnosis.evidence import FamilyState
from kdnsctl.facts import kubeproxy
from kdnsctl.facts.kubeproxy import Health
from kdnsctl.netfilter.rules import Mode

METRICS = Path(__file__).parents[2] / "recordings" / "kube-proxy-1.36" / "metrics.txt"


@pytest.mark.parametrize(
    ("data", "mode"),
    [(b"iptables", Mode.IPTABLES), (b"nftables\n", Mode.NFTABLES), (b"ipvs", Mode.IPVS), (b"", None), (b"\xff", None)],
)
def test_mode(data: bytes, mode: Mode | None) -> None:
    assert kubeproxy.mode(data) is mode


def test_the_recorded_metrics_by_address_family() -> None:
    assert kubeproxy.families(METRICS.read_bytes()) == {
        4: FamilyState(
            last_queued=1.7954029597663038e09, last_synced=1.7954029608802555e09, deleted_entries=60, reconciled=3
        ),
        6: FamilyState(last_queued=1.795402889681629e09, last_synced=1.7954028902559702e09),
    }


def test_metrics_that_do_not_tell_families_apart_and_failures_that_add_up() -> None:
    text = b"""# HELP kubeproxy_sync_proxy_rules_iptables_restore_failures_total x
kubeproxy_sync_proxy_rules_iptables_restore_failures_total 3
kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total 2
kubeproxy_sync_proxy_rules_last_timestamp_seconds 1.5e+09
kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv9"} 7
kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds NaN
"""
    assert kubeproxy.families(text) == {0: FamilyState(last_synced=1.5e9, restore_failures=5)}


HEALTHY_136 = (
    b'{"lastUpdated": "2026-11-23 02:21:35.5 +0000 UTC", "currentTime": "2026-11-23 02:21:35.5 +0000 UTC",'
    b' "nodeEligible": true, "healthy": false, "status": {"IPv4": {"lastUpdated": "x", "healthy": false},'
    b' "IPv6": {"healthy": true}}}'
)


def test_health_by_family_and_its_clock() -> None:
    said = kubeproxy.health(HEALTHY_136)
    assert said == Health(at=1795400495.5, healthy={4: False, 6: True})


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-23T02:21:35Z", 1795400495.0),
        ("2026-11-23T02:21:35.25+01:00", 1795396895.25),
        ("2026-11-23 02:21:35.123456789 +0000 UTC m=+0.1", 1795400495.123456789),
        ("9999-99-99 02:21:35 +0000 UTC", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_the_clock_in_every_form(text: str, at: float | None) -> None:
    assert kubeproxy.health(f'{{"currentTime": "{text}"}}'.encode()).at == at


def test_health_of_old_releases_is_in_the_status_code() -> None:
    said = kubeproxy.health(b'{"lastUpdated": "x", "currentTime": "y"}')
    assert said == Health()
    assert kubeproxy.state(Mode.IPTABLES, {}, said, 503).families == {0: FamilyState(healthy=False)}
    assert kubeproxy.state(None, {}, said, 200).families == {0: FamilyState(healthy=True)}
    assert kubeproxy.state(None, {}, said, None).families == {}


def test_state_joins_all_three() -> None:
    state = kubeproxy.state(Mode.IPTABLES, {4: FamilyState(reconciled=3)}, kubeproxy.health(HEALTHY_136), 503)
    assert state.mode is Mode.IPTABLES
    assert state.at == 1795400495.5
    assert dict(state.families) == {4: FamilyState(reconciled=3, healthy=False), 6: FamilyState(healthy=True)}


@given(st.binary(max_size=300))
def test_nothing_breaks_them(data: bytes) -> None:
    assert kubeproxy.families(data) == {} or b"kubeproxy_" in data
    assert isinstance(kubeproxy.health(data), Health)
