"""A stock kubectl against a lab in the kernel: what it shows, runs, follows and changes is really there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import lab_up
from tests.lab.kubectl import Kubectl
from tests.lab.space.machine import eventually

NAME = "kubectl"
SYSTEM = ("-n", "kube-system")
BIG = 32 * 1024 * 1024


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    with lab_up(command_home, NAME) as where:
        yield where


@pytest.fixture(scope="module")
def kubectl(lab: LabDir, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(lab.kubeconfig, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def proxy(kubectl: Kubectl) -> str:
    """The kube-proxy pod of knode2."""
    selectors = ["-l", "k8s-app=kube-proxy", "--field-selector", "spec.nodeName=knode2"]
    return kubectl.text(*SYSTEM, "get", "pods", *selectors, "-o", "name").strip().removeprefix("pod/")


def test_get_shows_what_runs(kubectl: Kubectl) -> None:
    rows = kubectl.rows("get", "nodes,pods,endpointslices", "-A", "-o", "wide")
    nodes = [row for row in rows if row[0].startswith("node/")]
    assert [(row[0], row[1], row[5]) for row in nodes] == [
        ("node/knode1", "Ready", "10.88.0.11"),
        ("node/knode2", "Ready", "10.88.0.12"),
        ("node/knode3", "Ready", "10.88.0.13"),
    ]
    pods = [row for row in rows if len(row) > 3 and row[1].startswith("pod/")]
    kinds = sorted(row[1].removeprefix("pod/").split("-")[0] for row in pods)
    assert kinds == [*["coredns"] * 2, *["dns"] * 3, *["kube"] * 3]
    assert {row[3] for row in pods} == {"Running"}
    dns = {row[6] for row in pods if row[1].startswith("pod/coredns")}
    (endpoints,) = (
        row[4] for row in rows if len(row) > 4 and row[1].startswith("endpointslice.discovery.k8s.io/kube-dns")
    )
    assert set(endpoints.split(",")) == dns


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exec_gives_the_commands_exit_code(kubectl: Kubectl, proxy: str, code: int) -> None:
    ran = kubectl.run(*SYSTEM, "exec", proxy, "--", "sh", "-c", f"echo out; echo err >&2; exit {code}", check=False)
    assert (ran.returncode, ran.stdout) == (code, b"out\n")
    assert ran.stderr.startswith(b"err\n")


def test_exec_passes_a_large_input_and_output_whole(kubectl: Kubectl, proxy: str) -> None:
    data = os.urandom(1 << 20) * (BIG >> 20)
    ran = kubectl.run(*SYSTEM, "exec", "-i", proxy, "--", "cat", stdin=data)
    assert len(ran.stdout) == BIG
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()


def test_exec_sees_the_nodes_kernel_and_only_the_images_files(kubectl: Kubectl, proxy: str) -> None:
    # kube-proxy may just have deleted the entry; the next query makes it again.
    table = ("exec", proxy, "--", "cat", "/proc/net/nf_conntrack")
    assert eventually(lambda: "dst=10.96.0.10 sport=20000 " in kubectl.text(*SYSTEM, *table))
    absent = kubectl.run(*SYSTEM, "exec", proxy, "--", "tar", "--version", check=False)
    assert absent.returncode != 0
    assert b"executable file not found" in absent.stderr


def test_logs_are_followed_while_they_grow(kubectl: Kubectl, proxy: str) -> None:
    whole = kubectl.text(*SYSTEM, "logs", proxy)
    assert '"Version info" version="v1.30.14"' in whole

    def last_is_the_last() -> bool:
        said = kubectl.text(*SYSTEM, "logs", proxy).splitlines(keepends=True)
        return kubectl.text(*SYSTEM, "logs", proxy, "--tail=1") == said[-1]

    assert eventually(last_is_the_last)  # kube-proxy may say more in between
    with kubectl.streaming(*SYSTEM, "logs", "-f", proxy, "--tail=1") as stream:
        stream.readline()  # what was there: it follows now
        # Every change of the endpoints makes kube-proxy speak.
        kubectl.run(*SYSTEM, "rollout", "restart", "deployment/coredns")
        assert any(b"Syncing iptables rules" in line for line in stream)
    kubectl.run(*SYSTEM, "rollout", "status", "deployment/coredns", "--timeout=120s")


def test_a_watch_tells_of_a_change(kubectl: Kubectl) -> None:
    with kubectl.streaming("get", "node", "knode1", "--watch", "-L", "seen", "--no-headers") as stream:
        assert b" yes" not in stream.readline()  # the node as it was: it watches now
        kubectl.run("label", "node", "knode1", "seen=yes")
        assert any(line.split()[-1] == b"yes" for line in stream)
    kubectl.run("label", "node", "knode1", "seen-")


def test_drain_without_eviction_speaks_protobuf(kubectl: Kubectl) -> None:
    kubectl.run("run", "stray", "--image=registry.k8s.io/pause:3.10", "--overrides", '{"spec": {"nodeName": "knode1"}}')
    options = ["--disable-eviction", "--ignore-daemonsets", "--force", "--pod-selector=run=stray"]
    try:
        drained = kubectl.text("drain", "knode1", *options)
    finally:
        kubectl.run("uncordon", "knode1")
    assert "node/knode1 drained" in drained
    assert not kubectl.text("get", "pods", "-l", "run=stray", "-o", "name")


def test_label_annotate_patch_and_cordon_change_the_node(kubectl: Kubectl) -> None:
    kubectl.run("label", "node", "knode3", "rack=7")
    kubectl.run("annotate", "node", "knode3", "kdnsctl.io/note=seen")
    kubectl.run("patch", "node", "knode3", "-p", '{"metadata": {"labels": {"strategic": "a"}}}')
    kubectl.run("patch", "node", "knode3", "--type=merge", "-p", '{"metadata": {"labels": {"merge": "b"}}}')
    operations = '[{"op": "add", "path": "/metadata/labels/json", "value": "c"}]'
    kubectl.run("patch", "node", "knode3", "--type=json", "-p", operations)
    node = json.loads(kubectl.text("get", "node", "knode3", "-o", "json"))
    labels = node["metadata"]["labels"]
    assert {key: labels.get(key) for key in ("rack", "strategic", "merge", "json")} == {
        "rack": "7",
        "strategic": "a",
        "merge": "b",
        "json": "c",
    }
    assert node["metadata"]["annotations"]["kdnsctl.io/note"] == "seen"
    kubectl.run("cordon", "knode3")
    try:
        assert kubectl.rows("get", "node", "knode3", "--no-headers")[0][1] == "Ready,SchedulingDisabled"
    finally:
        kubectl.run("uncordon", "knode3")
    assert kubectl.rows("get", "node", "knode3", "--no-headers")[0][1] == "Ready"
    assert kubectl.text("auth", "can-i", "delete", "nodes").strip() == "yes"
