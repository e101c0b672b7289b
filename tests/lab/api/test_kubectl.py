"""What issue 3 asks of the lab with a stock kubectl, here with pods in memory."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.kinds import DISRUPTION_BUDGETS, NODES, PODS
from kdnsctl.lab.store import Store
from tests.lab.api.fake_kubelet import Cluster, settle
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.kubectl import Kubectl


def test_get_wide_prints_every_column(kubectl: Kubectl, store: Store) -> None:
    manager = ControllerManager(store)
    settle(store, manager)
    manager.stop()
    lines = kubectl.text("get", "nodes,pods,endpointslices", "-A", "-o", "wide").splitlines()
    headings = [line.split() for line in lines if line.startswith("NA")]
    assert [" ".join(words) for words in headings] == [
        "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
        "NAMESPACE NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES",
        "NAMESPACE NAME ADDRESSTYPE PORTS ENDPOINTS AGE",
    ]
    rows = [line.split() for line in lines if line]
    assert ["node/knode1", "Ready", "<none>", "0s", "v1.36.2", "10.88.0.11"] in [row[:6] for row in rows]
    proxies = [row for row in rows if row[1].startswith("pod/kube-proxy-")]
    assert sorted(row[7] for row in proxies) == ["knode1", "knode2", "knode3"]
    assert {(row[2], row[3]) for row in proxies} == {("1/1", "Running")}
    endpoints = next(row for row in rows if row[1].startswith("endpointslice.discovery.k8s.io/kube-dns-"))
    assert endpoints[2:4] == ["IPv4", "53,53"]
    assert len(endpoints[4].split(",")) == 2


@pytest.mark.parametrize(
    ("resource", "headings"),
    [
        ("daemonsets", "NAME DESIRED CURRENT READY UP-TO-DATE AVAILABLE NODE SELECTOR AGE CONTAINERS IMAGES SELECTOR"),
        ("deployments", "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"),
        ("replicasets", "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR"),
        ("controllerrevisions", "NAME CONTROLLER REVISION AGE"),
        ("services", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR"),
        ("configmaps", "NAME DATA AGE"),
        ("serviceaccounts", "NAME AGE"),
        ("events", "LAST SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST SEEN COUNT NAME"),
        ("namespaces", "NAME STATUS AGE"),
    ],
)
def test_every_kind_has_its_columns(kubectl: Kubectl, store: Store, resource: str, headings: str) -> None:
    manager = ControllerManager(store)
    settle(store, manager)
    manager.stop()
    lines = kubectl.text("get", resource, "-n", "kube-system", "-o", "wide").splitlines()
    assert lines[0].split() == headings.split()
    assert len(lines) > 1


def test_get_watch_prints_changes_as_they_happen(kubectl: Kubectl, store: Store) -> None:
    with kubectl.streaming("get", "nodes", "--watch") as output:
        first = [output.readline().split() for _ in range(4)]
        assert [row[0] for row in first] == [b"NAME", b"knode1", b"knode2", b"knode3"]
        store.change(NODES, "knode2", "", lambda node: node | {"spec": {"unschedulable": True}})
        changed = output.readline().split()
    assert changed[:2] == [b"knode2", b"Ready,SchedulingDisabled"]


def test_logs_with_every_option(kubectl: Kubectl, runtime: MemoryRuntime) -> None:
    runtime.log("default", "web", "main", "old")
    runtime.restart("default", "web", "main")
    runtime.log("default", "web", "main", "one", "two", "three")
    assert kubectl.text("logs", "web") == "one\ntwo\nthree\n"
    assert kubectl.text("logs", "web", "--tail", "1") == "three\n"
    assert kubectl.text("logs", "web", "--previous") == "old\n"
    runtime.now = runtime.now.replace(second=3)
    assert kubectl.text("logs", "web", "--since", "1s") == "three\n"
    assert kubectl.text("logs", "web", "--since-time", "2026-11-23T12:00:01Z") == "two\nthree\n"
    assert kubectl.text("logs", "web", "--limit-bytes", "5") == "one\nt"
    with kubectl.streaming("logs", "web", "-f", "--tail", "1") as output:
        assert output.readline() == b"three\n"
        runtime.log("default", "web", "main", "four")
        assert output.readline() == b"four\n"
        runtime.end("default", "web", "main")
        assert output.read() == b""


def test_a_log_before_no_restart_is_an_error(kubectl: Kubectl) -> None:
    result = kubectl.run("logs", "web", "-p", check=False)
    assert result.returncode == 1
    assert b'previous terminated container "main" in pod "web" not found' in result.stderr


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_exec_passes_the_exit_code_on(kubectl: Kubectl, code: int) -> None:
    result = kubectl.run("exec", "web", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}", check=False)
    assert result.returncode == code
    assert result.stdout == b"out\n"
    assert result.stderr.startswith(b"err\n")


def test_exec_brings_32_megabytes_unharmed(kubectl: Kubectl, server: ApiServer) -> None:
    size = 32 * 1024 * 1024
    result = kubectl.run("exec", "web", "--", "sh", "-c", f"yes 0123456789abcde | head -c {size}")
    assert len(result.stdout) == size
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(b"0123456789abcde\n" * (size // 16)).digest()
    assert not [entry for entry in server.journal.entries() if entry.method == "POST"], "kubectl fell back to SPDY"


def test_exec_takes_standard_input(kubectl: Kubectl) -> None:
    data = os.urandom(1_000_000)
    assert kubectl.run("exec", "-i", "web", "--", "cat", stdin=data).stdout == data


def test_exec_of_what_is_not_there(kubectl: Kubectl) -> None:
    missing = kubectl.run("exec", "web", "--", "no-such-command", check=False)
    assert missing.returncode == 1
    assert b"executable file not found" in missing.stderr


def test_patches_of_all_three_types(kubectl: Kubectl, store: Store) -> None:
    kubectl.run("patch", "node", "knode1", "--type=strategic", "-p", '{"metadata":{"labels":{"a":"1"}}}')
    kubectl.run("patch", "node", "knode1", "--type=merge", "-p", '{"metadata":{"labels":{"b":"2"}}}')
    operations = [
        {"op": "test", "path": "/metadata/labels/a", "value": "1"},
        {"op": "remove", "path": "/metadata/labels/a"},
    ]
    kubectl.run("patch", "node", "knode1", "--type=json", "-p", json.dumps(operations))
    labels = store.get(NODES, "knode1")["metadata"]["labels"]
    assert labels["b"] == "2"
    assert "a" not in labels
    again = kubectl.run("patch", "node", "knode1", "--type=json", "-p", json.dumps(operations), check=False)
    assert again.returncode == 1
    assert b"The request is invalid" in again.stderr


def test_cordon_and_uncordon_and_the_taint_that_follows(kubectl: Kubectl, store: Store) -> None:
    manager = ControllerManager(store)
    assert kubectl.text("cordon", "knode1") == "node/knode1 cordoned\n"
    manager.step()
    spec = store.get(NODES, "knode1")["spec"]
    assert spec["unschedulable"] is True
    assert [taint["key"] for taint in spec["taints"]] == ["node.kubernetes.io/unschedulable"]
    assert kubectl.text("cordon", "knode1") == "node/knode1 already cordoned\n"
    assert kubectl.text("uncordon", "knode1") == "node/knode1 uncordoned\n"
    manager.step()
    assert store.get(NODES, "knode1")["spec"] == {}
    manager.stop()


def test_taint_label_and_annotate(kubectl: Kubectl, store: Store) -> None:
    kubectl.run("taint", "node", "knode1", "kdnsctl.io/quarantine=inc-1:NoSchedule")
    kubectl.run("label", "node", "knode1", "a=b")
    kubectl.run("annotate", "node", "knode1", "kdnsctl.io/note=hello there")
    node = store.get(NODES, "knode1")
    assert node["spec"]["taints"] == [{"key": "kdnsctl.io/quarantine", "value": "inc-1", "effect": "NoSchedule"}]
    assert node["metadata"]["labels"]["a"] == "b"
    assert node["metadata"]["annotations"]["kdnsctl.io/note"] == "hello there"
    kubectl.run("label", "node", "knode1", "a-")
    assert "a" not in store.get(NODES, "knode1")["metadata"]["labels"]


def test_can_i_for_oneself_and_for_others(kubectl: Kubectl) -> None:
    assert kubectl.text("auth", "can-i", "create", "pods/exec").strip() == "yes"
    denied = kubectl.run("auth", "can-i", "list", "nodes", "--as", "jane", check=False)
    assert (denied.returncode, denied.stdout.strip()) == (1, b"no")
    listed = kubectl.text("auth", "can-i", "--list")
    assert "*.*" in listed
    assert "jane" in kubectl.text("auth", "whoami", "--as", "jane")


def test_refusals_name_the_impersonated_user(kubectl: Kubectl, server: ApiServer) -> None:
    result = kubectl.run("get", "nodes", "--as", "jane", "--as-group", "helpers", check=False)
    assert result.returncode == 1
    assert b'nodes is forbidden: User "jane" cannot list resource "nodes"' in result.stderr
    entry = next(entry for entry in server.journal.entries() if entry.path == "/api/v1/nodes")
    assert (entry.sender, entry.user) == ("kubernetes-admin", "jane")
    assert entry.groups == ("helpers", "system:authenticated")
    assert entry.impersonation["Impersonate-User"] == ("jane",)
    assert entry.user_agent.startswith("kubectl/v1.36.3")


def test_a_server_side_dry_run_changes_nothing(kubectl: Kubectl, store: Store) -> None:
    version = store.version
    output = kubectl.text("label", "node", "knode1", "a=b", "--dry-run=server", "-o", "json")
    assert json.loads(output)["metadata"]["labels"]["a"] == "b"
    kubectl.run("cordon", "knode1", "--dry-run=server")
    assert store.version == version


def test_a_rollout_is_restarted_and_followed_to_its_end(kubectl: Kubectl, store: Store) -> None:
    manager = ControllerManager(store)
    settle(store, manager)
    before = {pod["metadata"]["uid"] for pod in store.select(PODS, "kube-system", labels="k8s-app=kube-dns")}
    kubectl.run("rollout", "restart", "deployment/coredns", "-n", "kube-system")
    settle(store, manager)
    output = kubectl.text("rollout", "status", "deployment/coredns", "-n", "kube-system")
    assert 'deployment "coredns" successfully rolled out' in output
    after = {pod["metadata"]["uid"] for pod in store.select(PODS, "kube-system", labels="k8s-app=kube-dns")}
    assert len(after) == 2
    assert not before & after
    manager.stop()


def test_deleting_a_pod_waits_for_its_kubelet(kubectl: Kubectl, store: Store) -> None:
    kubectl.run("delete", "pod", "web", "--wait=false")
    assert kubectl.rows("get", "pod", "web")[1][2] == "Terminating"
    kubectl.run("delete", "pod", "web", "--force")
    assert store.find(PODS, "web", "default") is None


def test_a_drain_evicts_under_a_budget_and_waits_for_the_end(kubectl: Kubectl, store: Store) -> None:
    manager = ControllerManager(store)
    settle(store, manager)
    budget = {"minAvailable": 1, "selector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    store.create(DISRUPTION_BUDGETS, {"metadata": {"name": "dns", "namespace": "kube-system"}, "spec": budget})
    manager.step()
    node = store.select(PODS, "kube-system", labels="k8s-app=kube-dns")[0]["spec"]["nodeName"]
    dry = kubectl.run("drain", node, "--ignore-daemonsets", "--force", "--dry-run=server")
    assert b"(server dry run)" in dry.stdout
    with Cluster(store, manager):
        done = kubectl.run("drain", node, "--ignore-daemonsets", "--force")
    assert f"node/{node} drained" in done.stdout.decode()
    left = store.select(PODS, fields=f"spec.nodeName={node}")
    assert [pod["metadata"]["ownerReferences"][0]["kind"] for pod in left] == ["DaemonSet"]
