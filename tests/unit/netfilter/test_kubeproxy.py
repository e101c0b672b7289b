"""What kube-proxy says of itself, in the words of each of its versions."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdnsctl.find.recognise import Sort, sort_of
from kdnsctl.netfilter import kubeproxy
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.kubeproxy import (
    FamilyHealth,
    Health,
    Metric,
    Metrics,
    parse_config_mode,
    parse_health,
    parse_proxy_mode,
)
from kdnsctl.netfilter.rules import Mode

RECORDINGS = Path(__file__).parents[2] / "recordings"
RECORDED = RECORDINGS / "kube-proxy-1.36" / "metrics.txt"
WHOLE = Completeness(Proof.TRAILER)


def read(text: str, trailer: Completeness | None = None) -> Metrics:
    return kubeproxy.parse_metrics([text.encode()], trailer)


def test_the_recorded_metrics_after_the_healing() -> None:
    metrics = kubeproxy.parse_metrics([RECORDED.read_bytes()], WHOLE)
    assert metrics.completeness.complete
    assert metrics.value("conntrack_reconciler_deleted_entries_total", 4) == 60
    assert metrics.value("conntrack_reconciler_deleted_entries_total", 6) is None
    assert metrics.value("conntrack_reconciler_sync_duration_seconds_count", 4) == 3
    last = metrics.value("sync_proxy_rules_last_timestamp_seconds", 4)
    queued = metrics.value("sync_proxy_rules_last_queued_timestamp_seconds", 4)
    assert last
    assert queued
    assert 0 < last - queued < 2
    assert metrics.value("sync_proxy_rules_endpoint_changes_pending", 6) == 0
    assert metrics.value("sync_proxy_rules_iptables_total") == 26 + 4 + 3 + 5
    assert metrics.value("sync_proxy_rules_iptables_restore_failures_total") is None
    assert Metric("sync_proxy_rules_iptables_last", 22, 4, (("table", "nat"),)) in metrics.samples
    assert {each.name for each in metrics.samples} <= kubeproxy.KEPT


def test_metrics_without_a_family_count_for_each() -> None:
    metrics = read("kubeproxy_sync_proxy_rules_iptables_restore_failures_total 3\n")
    assert [metrics.value("sync_proxy_rules_iptables_restore_failures_total", each) for each in (4, 6, None)] == [
        3,
        3,
        3,
    ]


def test_metrics_have_no_end_of_their_own() -> None:
    text = 'kubeproxy_proxy_healthz_total{code="200"} 1\n'
    cut = read(text).completeness
    assert cut.problem
    assert (cut.proof, cut.problem.code) == (Proof.NONE, "noTrailer")
    assert read(text + "# EOF\n").completeness == Completeness(Proof.CLOSED)
    assert read(text, WHOLE).completeness == WHOLE
    assert read("", WHOLE).samples == ()


def test_a_number_that_is_cut_off_is_not_read_as_a_smaller_one() -> None:
    metrics = read("kubeproxy_conntrack_reconciler_deleted_entries_total 60")
    assert metrics.samples == ()
    assert metrics.completeness.problem
    assert metrics.completeness.problem.code == "unreadable"


@pytest.mark.parametrize(
    "line",
    [
        "kubeproxy_proxy_healthz_total",
        "kubeproxy_proxy_healthz_total x",
        "kubeproxy_proxy_healthz_total NaN",
        "kubeproxy_proxy_healthz_total +Inf",
        "kubeproxy_proxy_healthz_total{code} 1",
        'kubeproxy_proxy_healthz_total{code="200} 1',
        'kubeproxy_proxy_healthz_total{code="200"; } 1',
        "kubeproxy_something_else_total 1",
        'kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="+Inf"} 1',
        " kubeproxy_proxy_healthz_total 1",
        "kubelet_proxy_healthz_total 1",
    ],
)
def test_what_is_not_known_is_skipped(line: str) -> None:
    metrics = read(f"{line}\nkubeproxy_proxy_livez_total 7\n", WHOLE)
    assert metrics.samples == (Metric("proxy_livez_total", 7),)


def test_labels_are_unescaped_and_times_are_allowed() -> None:
    text = r'kubeproxy_proxy_healthz_total{ code="a\"b\\c\nd,}", ip_family="IPv6",} 1.5e1 1795402960000' + "\n"
    assert read(text).samples == (Metric("proxy_healthz_total", 15.0, 6, (("code", 'a"b\\c\nd,}'),)),)


def test_samples_without_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeproxy, "MOST_SAMPLES", 2)
    metrics = read("".join(f'kubeproxy_proxy_healthz_total{{code="{n}"}} 1\n' for n in range(9)), WHOLE)
    assert len(metrics.samples) == 2
    assert metrics.completeness.problem
    assert metrics.completeness.problem.code == "tooLarge"


NOW = 1795402959.5
GO_NOW = "2026-11-23 03:02:39.5 +0000 UTC m=+12.3"


@pytest.mark.parametrize(
    ("body", "health"),
    [
        # 1.27 and older, then 1.28 to 1.32: Go's print of a time, quoted
        (f'{{"lastUpdated": "{GO_NOW}","currentTime": "{GO_NOW}"}}', Health(NOW, NOW)),
        (
            f'{{"lastUpdated": "{GO_NOW}","currentTime": "{GO_NOW}", "nodeEligible": true}}',
            Health(NOW, NOW, node_eligible=True),
        ),
        # 1.33 and newer: JSON, with the state of each family
        (
            json.dumps(
                {
                    "lastUpdated": "2026-11-23T03:02:39.5Z", "currentTime": "2026-11-23T04:02:39.5+01:00",
                    "nodeEligible": True, "healthy": False,
                    "status": {
                        "IPv4": {"lastUpdated": "2026-11-23T03:02:39.500000000Z", "healthy": False},
                        "IPv6": {"lastUpdated": "0001-01-01T00:00:00Z", "healthy": True},
                    },
                }
            ),
            Health(NOW, NOW, False, True, (FamilyHealth(4, False, NOW), FamilyHealth(6, True, None))),
        ),
        # what a stranger could answer
        ('{"currentTime": 7, "lastUpdated": null, "healthy": "yes", "status": []}', Health(None, None)),
        ('{"currentTime": "2026-13-45T99:99:99Z", "status": {"IPv9": {}, "IPv4": 7}}', Health(None, None)),
        ('{"currentTime": "2026-11-23 02:02:39.5 -0100 XXX"}', Health(None, NOW)),
    ],
)  # fmt: skip
def test_health_of_every_generation(body: str, health: Health) -> None:
    assert parse_health(body.encode()) == health


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"404 page not found\n",
        b"[]",
        b'{"healthy": true}',
        b"[" * 10_000,
        b"\xff",
        b'{"a": ' + b"1" * 99_999,
    ],
)
def test_what_is_no_health(body: bytes) -> None:
    assert parse_health(body) is None


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        (b"iptables", Mode.IPTABLES),
        (b"nftables\n", Mode.NFTABLES),
        (b" ipvs ", Mode.IPVS),
        (b"userspace", None),
        (b"", None),
        (b"404 page not found\n", None),
        (b"\xffiptables", None),
    ],
)
def test_proxy_mode(body: bytes, mode: Mode | None) -> None:
    assert parse_proxy_mode(body) is mode


@pytest.mark.parametrize(
    ("body", "mode"),
    [
        (b'{"kubeproxy.config.k8s.io":{"FeatureGates":{},"Mode":"ipvs","IPTables":{"SyncPeriod":"30s"}}}', Mode.IPVS),
        (b'{"kubeproxy.config.k8s.io":{"mode":"nftables"}}', Mode.NFTABLES),
        (b'{"kubeproxy.config.k8s.io":{"Mode":""}}', None),
        (b'{"kubeproxy.config.k8s.io":{"Mode":["ipvs"]}}', None),
        (b'{"kubeproxy.config.k8s.io":[]}', None),
        (b'{"kubeletconfig":{"mode":"ipvs"}}', None),
        (b'{"kubeproxy.config.k8s.io":{"Mode":"ipvs"}', None),
        (b"[]", None),
        (b"404 page not found\n", None),
    ],
)
def test_the_mode_that_was_configured(body: bytes, mode: Mode | None) -> None:
    assert parse_config_mode(body) is mode


def as_served(configuration: dict[str, Any], *, versioned: bool) -> bytes:
    """A configuration as /configz has it: the group's name, and under it what kube-proxy set there.

    It sets its internal type (cmd/kube-proxy/app/server.go, newProxyServer: configz.New(GroupName), then Set), whose
    fields have no names for JSON but those of TypeMeta: encoding/json then writes Go's. `versioned`: the names of the
    API's type, v1alpha1.
    """

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key[:1].upper() + key[1:]: named(each) for key, each in value.items()}
        return value

    said = configuration if versioned else named(configuration)
    return json.dumps({"kubeproxy.config.k8s.io": said}).encode()


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(("said", "mode"), [("iptables", Mode.IPTABLES), ("nftables", Mode.NFTABLES), ("", None)])
def test_the_configuration_of_a_recorded_cluster_is_read_as_it_is_served(
    versioned: bool, said: str, mode: Mode | None
) -> None:
    """Without a mode in it, which is the default, it says none: which that is depends on system and release."""
    recorded = json.loads((RECORDINGS / "api" / "configmap-kube-proxy.json").read_text())["data"]["config.conf"]
    configuration = yaml.safe_load(recorded)
    assert configuration["mode"] == "iptables"
    body = as_served({**configuration, "mode": said}, versioned=versioned)
    assert parse_config_mode(body) is mode
    assert sort_of(body) is Sort.CONFIG
