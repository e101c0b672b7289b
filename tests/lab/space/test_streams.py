"""What kdnsctl asks of a kube-proxy pod over a websocket, on a node in the kernel: its state by exec, its ports."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest

from kdnsctl.lab.api.execs import V4, V5
from kdnsctl.lab.kubeproxyhttp import Metrics
from kdnsctl.lab.kubeproxylog import Version
from tests.lab.api.client import Operator
from tests.lab.api.websockets import WebSocket
from tests.lab.space.machine import ROOT

PODS = "/api/v1/namespaces/kube-system/pods"
RECORDED = ROOT / "tests/recordings/kube-proxy-1.36/metrics.txt"
Execute = Callable[..., tuple[int, bytes, bytes]]


@pytest.fixture
def proxy(operator: Operator) -> str:
    """The path of knode2's kube-proxy pod."""
    query = "labelSelector=k8s-app%3Dkube-proxy&fieldSelector=spec.nodeName%3Dknode2"
    (pod,) = operator.get(f"{PODS}?{query}").json["items"]
    return f"{PODS}/{pod['metadata']['name']}"


@pytest.fixture(params=[V5, V4])
def execute(operator: Operator, proxy: str, request: pytest.FixtureRequest) -> Execute:
    """Runs a command in that pod; its exit code, stdout and stderr."""

    def run(*command: str) -> tuple[int, bytes, bytes]:
        words = urlencode([("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command)])
        with WebSocket(operator, f"{proxy}/exec?{words}", [request.param]) as socket:
            assert socket.protocol == request.param
            channels = socket.receive_all()
        status = json.loads(channels[3])
        causes = status.get("details", {}).get("causes", [])
        code = 0 if status["status"] == "Success" else int(causes[0]["message"])
        return code, channels.get(1, b""), channels.get(2, b"")

    return run


def test_the_conntrack_table(execute: Execute) -> None:
    code, out, err = execute("cat", "/proc/net/nf_conntrack")
    assert (code, err) == (0, b"")
    assert any(b" udp " in line and b"dst=10.96.0.10 sport=20000 " in line for line in out.splitlines())
    assert out.endswith(b"\n")


@pytest.mark.parametrize("tool", ["iptables-save", "ip6tables-save"])
def test_the_rules_with_their_counters(execute: Execute, tool: str) -> None:
    code, out, err = execute(tool, "-c")
    assert (code, err) == (0, b"")
    if tool == "iptables-save":
        assert b"\n:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]\n" in out
        assert any(line.startswith(b"[") and b"] -A KUBE-SERVICES " in line for line in out.splitlines())
    assert out.count(b"\n*") + out.startswith(b"*") == out.count(b"\nCOMMIT\n")


def test_a_script_that_counts_and_ends_with_a_trailer(execute: Execute) -> None:
    script = (
        "export LC_ALL=C TZ=UTC; cat /proc/net/nf_conntrack; code=$?; "
        "grep -c 'dport=53' /proc/net/nf_conntrack; "
        'echo "trailer $code $(wc -c < /proc/sys/net/netfilter/nf_conntrack_count)"; exit 5'
    )
    code, out, err = execute("sh", "-c", script)
    assert (code, err) == (5, b"")
    *table, count, trailer = out.splitlines()
    assert int(count) > 0
    assert abs(int(count) - len([line for line in table if b"dport=53" in line])) < len(table)
    assert trailer.split()[:2] == [b"trailer", b"0"]


def test_a_tool_that_fails_is_seen_in_the_trailer_and_the_exit_code(execute: Execute) -> None:
    code, out, err = execute("sh", "-c", "cat /no/such/file; echo trailer $?")
    assert (code, out) == (0, b"trailer 1\n")
    assert b"/no/such/file" in err


@pytest.mark.parametrize(
    ("port", "path", "expected"),
    [
        (10249, "/proxyMode", b"iptables"),
        (10249, "/metrics", b"\nkubeproxy_sync_proxy_rules_last_timestamp_seconds "),
        (10256, "/healthz", b'"nodeEligible": true'),
    ],
)
def test_the_proxys_own_ports(operator: Operator, proxy: str, port: int, path: str, expected: bytes) -> None:
    with WebSocket(operator, f"{proxy}/portforward?ports={port}", [V4]) as socket:
        assert socket.protocol == V4
        announced = port.to_bytes(2, "little")
        assert [socket.receive(), socket.receive()] == [(0, announced), (1, announced)]
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        socket.send(0, request.encode())
        channels = socket.receive_all()
    assert set(channels) == {0}
    head, _, body = channels[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert expected in b"\n" + body


def test_a_port_that_nobody_opened(operator: Operator, proxy: str) -> None:
    with WebSocket(operator, f"{proxy}/portforward?ports=9", [V4]) as socket:
        channels = socket.receive_all()
    assert channels[0] == (9).to_bytes(2, "little")
    assert b"refused" in channels[1].lower()


def samples(text: str) -> dict[str, set[str]]:
    """Metric name → the label names of its samples, of kube-proxy's own metrics of IPv4."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("kubeproxy_") and "IPv6" not in line:
            name, _, rest = line.rpartition(" ")[0].partition("{")
            labels = {each.partition("=")[0] for each in rest.rstrip("}").split(",") if each}
            found.setdefault(name, set()).update(labels)
    return found


def metrics_of(version: str, *, failed: bool = False) -> str:
    """What a kube-proxy says after a change, a sync and a reconciliation."""
    metrics = Metrics(Version.parse(version))
    metrics.changed("endpoint")
    metrics.queued()
    if failed:
        metrics.restore_failed()
    metrics.synced(0.02, None, good=not failed)
    metrics.reconciled(60, 0.07)
    return metrics.render().decode()


def test_every_metric_of_1_36_has_the_recorded_name_and_labels() -> None:
    recorded = samples(RECORDED.read_text())
    ours = samples(metrics_of("v1.36.2"))
    assert {name: recorded.get(name) for name in ours} == ours
    wanted = ("last_timestamp_seconds", "last_queued_timestamp_seconds", "endpoint_changes_pending")
    assert {f"kubeproxy_sync_proxy_rules_{each}" for each in wanted} <= set(ours)
    assert "kubeproxy_conntrack_reconciler_deleted_entries_total" in ours
    assert 'kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 60' in metrics_of("v1.36.2")


def test_restore_failures_are_there_from_the_start_until_they_got_a_label() -> None:
    name = "kubeproxy_sync_proxy_rules_iptables_restore_failures_total"
    partial = "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total"
    old, new = metrics_of("v1.30.14").splitlines(), metrics_of("v1.36.2")
    assert {f"{name} 0", f"{partial} 0"} <= set(old)
    assert name not in new
    assert name not in RECORDED.read_text()
    assert f'{name}{{ip_family="IPv4"}} 1' in metrics_of("v1.36.2", failed=True).splitlines()
    assert f"{name} 1" in metrics_of("v1.32.0", failed=True).splitlines()
    assert "conntrack_reconciler" not in "\n".join(old)


def test_a_queued_change_is_pending_until_a_sync_takes_it() -> None:
    metrics = Metrics(Version.parse("v1.36.2"))
    metrics.changed("service")
    assert "kubeproxy_sync_proxy_rules_service_changes_pending 1" in metrics.render().decode().splitlines()
    metrics.queued()
    said = metrics.render().decode().splitlines()
    assert "kubeproxy_sync_proxy_rules_service_changes_pending 0" in said
    assert "kubeproxy_sync_proxy_rules_service_changes_total 1" in said
