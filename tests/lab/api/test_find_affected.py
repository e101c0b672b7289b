"""find-affected, as typed, on three hundred nodes of the lab's API: every one of them is accounted for, exactly.

Store, API and controllers run in this process, without the kernel; the logs are in memory.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from kdnsctl.lab.api.faults import Disturb, Fault, Respond
from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.seed import Images, numbered_nodes, seed_cluster
from kdnsctl.lab.store import Store
from tests.lab.api.fake_kubelet import settle
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.conftest import Kdnsctl

NODES: Final = 300
BEGAN: Final = datetime(2024, 11, 23, 12, 0, tzinfo=UTC)
START: Final = (
    'I1123 12:00:00.000000       1 server.go:872] "Version info" version="v1.30.14"',
    'I1123 12:00:01.000000       1 server_linux.go:165] "Using iptables Proxier"',
    'I1123 12:00:02.000000       1 proxier.go:799] "SyncProxyRules complete" elapsed="31.5ms"',
)
FAILURE: Final = (
    'E1123 12:00:03.000000       1 cleanup.go:99] "Failed to delete endpoint connections" err="error deleting '
    "conntrack entries for UDP peer {10.96.0.10, 10.244.9.9}, error: conntrack command returned: "
    '\\"conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn\'t exist\\\\n\\", error message: '
    'exit status 1" servicePortName="kube-system/kube-dns:dns"'
)
# Nodes by number. What is not named here is healthy.
SUSPECT: Final = (7, 77, 177, 277)
SUSPECT_THEN_RESET: Final = 250
EMPTY: Final = 42
UNREACHABLE: Final = (100, 200, 300)
FORBIDDEN: Final = (5, 55)
RESET: Final = 150
OVERLOADED_ONCE: Final = 60
SLOW: Final = 30

UNKNOWN: Final = {
    "emptyLog": [EMPTY],
    "kubeletUnreachable": list(UNREACHABLE),
    "forbidden": list(FORBIDDEN),
    "cutOff": [RESET],
}


@pytest.fixture(scope="module")
def store() -> Store:
    """The cluster: its controllers have made a kube-proxy pod for every node, and all run."""
    store = new_store(lambda: BEGAN, seed=7)
    seed_cluster(store, numbered_nodes(NODES), images=Images(kube_proxy="registry.k8s.io/kube-proxy:v1.30.14"))
    manager = ControllerManager(store)
    settle(store, manager)
    return store


@pytest.fixture(scope="module")
def pods(store: Store) -> dict[str, str]:
    """Name of the kube-proxy pod by node."""
    found = [pod for pod in store.select(PODS) if pod["metadata"]["labels"].get("k8s-app") == "kube-proxy"]
    return {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in found}


@pytest.fixture
def server(store: Store, pods: dict[str, str]) -> Iterator[ApiServer]:
    runtime = MemoryRuntime()
    for node, pod in pods.items():
        number = int(node.removeprefix("knode"))
        lines: tuple[str, ...] = () if number == EMPTY else START
        if number in SUSPECT or number == SUSPECT_THEN_RESET:
            lines += (FAILURE,)
        runtime.log("kube-system", pod, "kube-proxy", *lines, at=BEGAN)
        if number in UNREACHABLE:
            runtime.unreachable[pod] = f'Get "https://10.88.0.{number}:10250/containerLogs/": dial tcp: i/o timeout'
    with ApiServer(store, runtime, [listen()], bookmark_seconds=3600) as server:
        yield server
    assert server.errors == []


def log_of(pods: dict[str, str], number: int) -> str:
    return f"/pods/{pods[f'knode{number}']}/log"


def spoil(server: ApiServer, pods: dict[str, str]) -> dict[int, Fault]:
    """The faults on the way to single logs, by node."""
    faults = {}
    for number in FORBIDDEN:
        refusal = Refused(403, "Forbidden", "pods is forbidden: you may not", details={}).status()
        faults[number] = Fault(Respond(403, status=refusal), path=log_of(pods, number))
    for number in (RESET, SUSPECT_THEN_RESET):
        enough = 700 if number == SUSPECT_THEN_RESET else 150  # bytes: of all lines, or of the first
        faults[number] = Fault(Disturb(after_bytes=enough), path=log_of(pods, number), times=None)
    faults[OVERLOADED_ONCE] = Fault(Respond(429, "Too many requests\n"), path=log_of(pods, OVERLOADED_ONCE))
    faults[SLOW] = Fault(Disturb(delay=0.1, piece=64), path=log_of(pods, SLOW))
    for fault in faults.values():
        server.faults.add(fault)
    return faults


def test_three_hundred_nodes_are_accounted_for(
    server: ApiServer, pods: dict[str, str], kdnsctl: Kdnsctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    faults = spoil(server, pods)

    ran = kdnsctl("find-affected", "-o", "json")

    report: dict[str, Any] = json.loads(ran.out)
    by_node = {node["name"]: node for node in report["nodes"]}
    assert len(report["nodes"]) == len(by_node) == NODES
    suspects = {f"knode{number}" for number in (*SUSPECT, SUSPECT_THEN_RESET)}
    unknown = {f"knode{number}": code for code, numbers in UNKNOWN.items() for number in numbers}
    assert {name for name, node in by_node.items() if node["verdict"] == "suspect"} == suspects
    assert {name: node["reasonCode"] for name, node in by_node.items() if node["verdict"] == "unknown"} == unknown
    assert Counter(node["verdict"] for node in by_node.values()) == {
        "clean": NODES - len(suspects) - len(unknown),
        "suspect": len(suspects),
        "unknown": len(unknown),
    }
    assert report["coverage"] == {
        "inScope": NODES,
        "judged": NODES - len(unknown),
        "unknown": len(unknown),
        "notApplicable": 0,
        "scope": "full",
    }
    assert ran.code == 3
    assert all([peer["endpoint"] for peer in by_node[name]["peers"]] == ["10.244.9.9"] for name in suspects)
    # The cut-off log shows its failure, and is known to be cut off; the slow and the overloaded one are whole.
    assert {name for name, node in by_node.items() if not node["complete"]} == {
        f"knode{SUSPECT_THEN_RESET}",
        *(name for name, code in unknown.items() if code != "emptyLog"),
    }
    assert all(fault.met for fault in faults.values())
    assert by_node[f"knode{OVERLOADED_ONCE}"]["verdict"] == by_node[f"knode{SLOW}"]["verdict"] == "clean"
    read = {entry.path for entry in server.journal.entries() if entry.path.endswith("/log")}
    assert len(read) == NODES
