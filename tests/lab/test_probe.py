"""DNS measured from the nodes of a lab in which it really fails: which source ports die, where, and its name."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import watch
from kdnsctl.lab import control
from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import ROOT, Kdnsctl, lab_up
from tests.lab.test_pods import await_none

NAME = "probing"
BROKEN, WELL = "knode2", "knode1"
TOOLS = ("--image", "kdnsctl.io/lab/tools:1")
# Two ports for four seconds: then their entries last as long as a stream's. Answers may be late on a busy machine.
HELD = ("--source-port", "28530", "--source-port", "28531", "--for", "4s", "--timeout", "2s")
STREAM = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream"
SCHEMA = json.loads((ROOT / "docs/schemas/ProbeReport.schema.json").read_text())


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """In which the entries of held ports last until a node is broken, however long that takes."""
    with lab_up(command_home, NAME) as where:
        for node in (BROKEN, WELL):
            control.ask(where, {"op": "run", "node": node, "argv": ["sh", "-c", f"echo 900 > {STREAM}"]})
        yield where


@pytest.fixture(autouse=True)
def speaking_to_it(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(600) as whole:
        yield whole


@pytest.fixture
def connection(lab: LabDir, scope: CancelScope, tmp_path: Path) -> Iterator[Connection]:
    made = connect(ConnectOptions(kubeconfig=str(lab.kubeconfig), environment={"HOME": str(tmp_path)}), scope)
    yield made
    made.close()


Probe = Callable[..., dict[str, Any]]


@pytest.fixture
def probe(kdnsctl: Kdnsctl) -> Probe:
    """Asks from nodes; what came of each."""

    def run(*words: str, code: int | None) -> dict[str, Any]:
        ran = kdnsctl("probe", *words, *HELD, "-o", "json")
        assert code in (ran.code, None), ran.err + ran.out
        report = json.loads(ran.out)
        jsonschema.validate(report, SCHEMA)
        return {node["name"]: node for node in report["nodes"]}

    return run


def part(node: dict[str, Any], **wanted: str) -> dict[str, Any]:
    """The one measurement of this kind."""
    (found,) = [one for one in node["measurements"] if all(one[key] == value for key, value in wanted.items())]
    return found  # type: ignore[no-any-return]


def test_held_ports_die_on_the_broken_node_only_while_fresh_ones_answer(
    probe: Probe, kdnsctl: Kdnsctl, lab: LabDir, connection: Connection, scope: CancelScope
) -> None:
    nodes = ("--from", BROKEN, "--from", WELL, *TOOLS)
    before = probe(*nodes, code=0)
    assert {node["result"] for node in before.values()} == {"answers"}
    assert {node["via"] for node in before.values()} == {"pod"}
    assert kdnsctl("lab", "break", lab.name, "--node", BROKEN, "--mode", "delete-fails").code == 0
    try:
        after = probe(*nodes, code=3)
        assert {name: node["result"] for name, node in after.items()} == {BROKEN: "staleEntries", WELL: "answers"}
        held = part(after[BROKEN], target="vip", ports="held")
        assert {port["state"] for port in held["heldPorts"]} == {"dead"}
        fresh = part(after[BROKEN], target="vip", ports="fresh", protocol="UDP")
        assert (fresh["lost"], fresh["sent"]) == (0, 7)
        assert all(one["lost"] == 0 for one in after[BROKEN]["measurements"] if one is not held)
        assert part(after[WELL], target="vip", ports="held")["lost"] == 0
    finally:
        assert kdnsctl("lab", "heal", lab.name).code == 0
    await_none(connection, scope)


def test_with_kube_proxy_down_no_port_is_answered_while_the_pods_are(
    probe: Probe, kdnsctl: Kdnsctl, lab: LabDir
) -> None:
    assert kdnsctl("lab", "break", lab.name, "--node", BROKEN, "--mode", "down").code == 0
    try:
        node = probe("--from", BROKEN, *TOOLS, "--queries", "2", code=3)[BROKEN]
    finally:
        assert kdnsctl("lab", "heal", lab.name).code == 0
    assert node["result"] == "notProgrammed"
    for one in node["measurements"]:
        assert one["answered"] == (one["sent"] if one["target"] == "pod" else 0), one


def await_ready(connection: Connection, name: str, scope: CancelScope) -> None:
    path = "/api/v1/namespaces/kube-system/pods"
    for event in watch(connection, path, Pod, fields=f"metadata.name={name}", scope=scope):
        if any(status.ready for pod in event.items for status in pod.status.container_statuses):
            return


CACHE = "169.254.20.10"


def node_local_dns(image: str) -> dict[str, Any]:
    """A DNS server of its own in the node's network, as node-local-dns is: pod, labels and arguments."""
    container = {
        "name": "node-cache",
        "image": image,
        "command": ["/coredns"],
        "args": ["-localip", CACHE, "-conf", "/etc/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
    }
    spec = {"nodeName": BROKEN, "hostNetwork": True, "serviceAccountName": "coredns", "containers": [container]}
    metadata = {"name": "node-local-dns", "namespace": "kube-system", "labels": {"k8s-app": "node-local-dns"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**spec, "tolerations": [{"operator": "Exists"}]},
    }


def test_rules_that_lead_to_a_pod_that_is_gone_lose_a_share_and_the_nodes_own_cache_is_asked_too(
    probe: Probe, kdnsctl: Kdnsctl, lab: LabDir, connection: Connection, scope: CancelScope
) -> None:
    def on_node(*words: str) -> None:
        control.ask(lab, {"op": "run", "node": BROKEN, "argv": list(words)})

    dropped = ("INPUT", "-d", CACHE, "-p", "udp", "--dport", "53", "-j", "DROP")
    pods = list_all(connection, "/api/v1/namespaces/kube-system/pods", Pod, labels="k8s-app=kube-dns", scope=scope)
    image = pods.items[0].spec.containers[0].image
    on_node("ip", "address", "add", f"{CACHE}/32", "dev", "lo")
    body = json.dumps(node_local_dns(image)).encode()
    connection.request("POST", "/api/v1/namespaces/kube-system/pods", body=body, scope=scope)
    await_ready(connection, "node-local-dns", scope)
    assert kdnsctl("lab", "break", lab.name, "--node", BROKEN, "--mode", "restore-fails").code == 0
    try:
        on_node("iptables", "-I", *dropped)
        # One of two pods is gone: that 24 flows all meet it, or none does, happens once in eight million runs.
        node = probe("--from", BROKEN, *TOOLS, "--queries", "24", code=3)[BROKEN]
        on_node("iptables", "-D", *dropped)
    finally:
        assert kdnsctl("lab", "heal", lab.name).code == 0
    assert node["result"] == "staleRules"
    fresh = part(node, target="vip", ports="fresh", protocol="UDP")
    assert 0 < fresh["lost"] < fresh["sent"] == 24
    assert all(one["answered"] for one in node["measurements"] if one["target"] == "pod")
    assert [one["about"] for one in node["findings"] if one["result"] == "nodeLocalDown"] == [f"{CACHE}:53"]

    well = probe("--from", BROKEN, *TOOLS, "--queries", "1", code=None)[BROKEN]
    assert not {"nodeLocalDown", "staleRules"} & {one["result"] for one in well["findings"]}
    answered = {(one["address"], one["protocol"]) for one in well["measurements"] if one["answered"]}
    assert {(CACHE, "UDP"), (CACHE, "TCP")} <= answered
    connection.request("DELETE", "/api/v1/namespaces/kube-system/pods/node-local-dns", scope=scope)
    on_node("ip", "address", "delete", f"{CACHE}/32", "dev", "lo")


def test_without_an_image_it_says_what_is_missing_and_makes_no_pod(
    probe: Probe, connection: Connection, scope: CancelScope
) -> None:
    node = probe("--from", WELL, "--via", "pod", code=4)[WELL]
    assert (node["result"], node["measurements"]) == ("unknown", [])
    assert "no image with a prober is named (--image)" in node["message"]
    await_none(connection, scope)


def test_collect_plan_says_by_which_rung_probe_would_ask(kdnsctl: Kdnsctl) -> None:
    ran = kdnsctl("collect", WELL, "--plan", "--via", "pod", *TOOLS, "-o", "json")
    (node,) = json.loads(ran.out)["nodes"]
    assert node["probe"] == {"rung": "pod", "why": "with dnsprobe of the named image"}
    told = kdnsctl("collect", WELL, "--plan", "--via", "exec").out
    assert "by no way: exec: kube-proxy's image has nothing to ask DNS with" in told


def test_ctrl_c_tells_what_is_known_and_leaves_no_pod(
    as_process: tuple[list[str], dict[str, str]], lab: LabDir, connection: Connection, scope: CancelScope
) -> None:
    command, environment = as_process
    words = ["probe", "--from", WELL, *TOOLS, "--for", "5m", "--timeout", "2s", "-o", "json"]
    with subprocess.Popen(
        [*command, *words],
        env={**environment, "KUBECONFIG": str(lab.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:  # it is at work when the Service's fresh ports are over: held ones take minutes
            if "VIP" in line:
                break
        running.send_signal(signal.SIGINT)
        out, err = running.communicate()
    assert running.returncode == 130, err
    (node,) = json.loads(out)["nodes"]
    assert part(node, target="vip", ports="fresh", protocol="UDP")["answered"] == 7
    assert node["reason"]["code"] == "cancelled"
    assert "interrupted" in err
    await_none(connection, scope)
