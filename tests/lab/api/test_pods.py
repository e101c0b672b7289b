"""collect through pods of kdnsctl's own, as typed, on the lab's API: refused, never started, interrupted, left behind.

A kubelet that does as each test says stands in for the nodes; what runs in pods runs on this machine.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.faults import Disturb, Fault
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.changes import ChangeType
from kdnsctl.lab.kinds import NAMESPACES, PODS
from kdnsctl.lab.store import DeleteOptions, Store
from kdnsctl.model import KdnsctlError, Reason
from kdnsctl.reach import ownpod
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings, operator
from kdnsctl.reach.podspec import Image, PodRung
from tests.lab.api.fake_kubelet import report_ready
from tests.lab.api.test_roles import apply
from tests.lab.conftest import ROOT, Kdnsctl, Ran
from tests.lab.space.machine import eventually

NODES: Final = ("knode1", "knode2", "knode3")
DIGEST: Final = "registry.k8s.io/kube-proxy@sha256:" + "1" * 64
FEW: Final = ("--item", "conntrack.ports", "--item", "conntrack.a")
SSH: Final = {"ssh": "untested", "openssh": "untested"}
NEVER: Final = "kdnsctl.example/never:1"
PULL: Final = {"waiting": {"reason": "ErrImageNeverPull", "message": f'Container image "{NEVER}" is not present'}}


def schema(kind: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / f"docs/schemas/{kind}.schema.json").read_text())
    return read


def ours(store: Store) -> list[dict[str, Any]]:
    return store.select(PODS, labels="app.kubernetes.io/managed-by=kdnsctl")


class Kubelet:
    """Does with each of our pods what `act` says, when it appears; removes those that are being deleted."""

    def __init__(self, store: Store) -> None:
        self.act: Callable[[dict[str, Any]], None] = self.run
        self.seen: list[dict[str, Any]] = []
        self._store = store
        self._changes = store.subscribe([PODS])
        self._thread = threading.Thread(target=self._work, name="kubelet", daemon=True)
        self._thread.start()

    def run(self, pod: dict[str, Any]) -> None:
        report_ready(self._store, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def leave(self, pod: dict[str, Any]) -> None:
        """Its node is not there."""

    def state(self, pod: dict[str, Any], phase: str, state: dict[str, Any], **more: str) -> None:
        now = self._store.get(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"])
        container = {"name": "node", "image": "", "ready": False, "restartCount": 0, "state": state}
        now["status"] |= {"phase": phase, "containerStatuses": [container], **more}
        self._store.update(PODS, now, subresource="status")

    def stop(self) -> None:
        self._changes.close()
        self._thread.join()

    def _work(self) -> None:
        while changes := self._changes.wait():
            for change in changes:
                pod = change.obj
                if pod["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != "kdnsctl":
                    continue
                if change.type is ChangeType.ADDED:
                    self.seen.append(pod)
                    self.act(pod)
                elif "deletionTimestamp" in pod["metadata"] and change.type is not ChangeType.DELETED:
                    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
                    self._store.delete(PODS, name, namespace, DeleteOptions(grace_seconds=0))


@pytest.fixture
def kubelet(store: Store) -> Iterator[Kubelet]:
    """Three nodes with a kube-proxy that runs, and what runs our pods on them."""
    for number, node in enumerate(NODES):
        meta = {"name": f"kube-proxy-{number}", "namespace": "kube-system", "labels": {"k8s-app": "kube-proxy"}}
        image = "registry.k8s.io/kube-proxy:v1.36.2"
        made = store.create(
            PODS, {"metadata": meta, "spec": {"nodeName": node, "containers": [{"name": "kube-proxy", "image": image}]}}
        )
        running = {"name": "kube-proxy", "image": image, "imageID": DIGEST, "ready": True, "restartCount": 0}
        made["status"] = {"phase": "Running", "containerStatuses": [{**running, "state": {"running": {}}}]}
        store.update(PODS, made, subresource="status")
    kubelet = Kubelet(store)
    yield kubelet
    kubelet.stop()


@pytest.fixture
def collect(
    kubelet: Kubelet,  # noqa: ARG001  # there is something to collect
    server: ApiServer,
    kdnsctl: Kdnsctl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Ran]:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig(), encoding="utf-8")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*words: str) -> Ran:
        return kdnsctl(
            "collect", "knode1", "--via", "pod", "-O", str(tmp_path / "evidence"), "--no-archive", *words, "-o", "json"
        )

    return run


def row(ran: Ran) -> dict[str, Any]:
    report = json.loads(ran.out)
    jsonschema.validate(report, schema("CollectReport"))
    (node,) = report["nodes"]
    assert isinstance(node, dict)
    return node


def gone(store: Store) -> bool:
    """No pod of ours is left, but for those that are being deleted."""
    return all("deletionTimestamp" in pod["metadata"] for pod in ours(store))


def posted(server: ApiServer) -> list[dict[str, Any]]:
    """The pods that the server was asked to make, for good or in a dry run."""
    asked = server.journal.entries(lambda entry: entry.method == "POST" and entry.path.endswith("/pods"))
    return [entry.body for entry in asked if isinstance(entry.body, dict)]


def privileged(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pod for pod in pods if pod["spec"]["containers"][0]["securityContext"].get("privileged")]


def test_a_pod_with_the_image_of_its_node_is_made_read_through_and_deleted(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store, server: ApiServer
) -> None:
    ran = collect("--item", "conntrack.ports")
    assert ran.code == 0, ran.err + ran.out
    assert (row(ran)["status"], row(ran)["via"]) == ("complete", "pod")
    (pod,) = kubelet.seen
    assert pod["spec"]["nodeName"] == "knode1"
    assert pod["spec"]["containers"][0]["image"] == DIGEST
    assert pod["metadata"]["labels"]["kdnsctl.io/run"] == json.loads(ran.out)["run"]
    node = next(each for each in pod["metadata"]["ownerReferences"])
    assert (node["kind"], node["name"]) == ("Node", "knode1")
    assert gone(store)
    deleted = server.journal.entries(lambda entry: entry.method == "DELETE")
    assert [entry.body["preconditions"]["uid"] for entry in deleted if isinstance(entry.body, dict)] == [
        pod["metadata"]["uid"]
    ]


def test_auto_makes_a_pod_only_where_exec_does_not_do(
    collect: Callable[..., Ran], kubelet: Kubelet, server: ApiServer, store: Store, tmp_path: Path
) -> None:
    ran = collect("--via", "auto", "--item", "conntrack.ports")
    assert (row(ran)["status"], row(ran)["via"]) == ("complete", "exec")
    assert kubelet.seen == []
    server.policy.grant_user("jane", Rule(("get", "list", "watch"), ("*",), ("pods", "nodes", "services")))
    server.policy.grant_user("jane", Rule(("*",), ("discovery.k8s.io",), ("*",)))
    server.policy.grant_user("jane", Rule(("*",), ("",), ("*",), namespaces=("default",)))
    (tmp_path / "kubeconfig").write_text(server.kubeconfig("jane", ()), encoding="utf-8")
    (tmp_path / "evidence").rename(tmp_path / "first")
    ran = collect("--via", "auto", "--pod-namespace", "default", "--item", "conntrack.ports")
    assert (row(ran)["status"], row(ran)["via"]) == ("complete", "pod")
    assert len(kubelet.seen) == 1
    assert gone(store)


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_forbids_such_pods_is_named_with_what_to_do(
    collect: Callable[..., Ran], store: Store, level: str
) -> None:
    store.create(NAMESPACES, {"metadata": {"name": "tight", "labels": {"pod-security.kubernetes.io/enforce": level}}})
    ran = collect("--pod-namespace", "tight", *FEW)
    assert ran.code == 4
    node = row(ran)
    assert (node["status"], {gap["code"] for gap in node["missing"]}) == ("failed", {"podRefused"})
    for part in (f'violates PodSecurity "{level}:latest"', "hostNetwork=true", "--pod-namespace", "exec or SSH"):
        assert part in node["missing"][0]["message"]
    assert ours(store) == []


def test_who_may_make_no_pods_is_told_which_role_is_lacking(
    collect: Callable[..., Ran], server: ApiServer, store: Store, tmp_path: Path
) -> None:
    server.policy.grant_user("jane", Rule(("get", "list", "watch"), ("*",), ("*",)))
    (tmp_path / "kubeconfig").write_text(server.kubeconfig("jane", ()), encoding="utf-8")
    node = row(collect(*FEW))
    assert {gap["code"] for gap in node["missing"]} == {"podRefused"}
    assert "rbac collect --with-pods" in node["missing"][0]["message"]
    asked = server.journal.entries(lambda entry: entry.method == "POST" and entry.path.endswith("/pods"))
    assert len(asked) == 1  # not again for the second item
    assert ours(store) == []


def test_an_image_that_is_not_there_is_said_at_once_and_nothing_is_left(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store
) -> None:
    kubelet.act = lambda pod: kubelet.state(pod, "Pending", PULL)
    node = row(collect("--image", NEVER, "--item", "conntrack.ports"))
    (gap,) = node["missing"]
    assert gap["code"] == "podImage"
    assert f'ErrImageNeverPull: Container image "{NEVER}" is not present' in gap["message"]
    assert gone(store)


def test_an_image_that_is_not_found_by_its_digest_is_tried_by_its_tag(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store
) -> None:
    def act(pod: dict[str, Any]) -> None:
        if pod["spec"]["containers"][0]["image"] == DIGEST:
            kubelet.state(pod, "Pending", PULL)
        else:
            kubelet.run(pod)

    kubelet.act = act
    assert row(collect("--item", "conntrack.ports"))["status"] == "complete"
    images = [pod["spec"]["containers"][0]["image"] for pod in kubelet.seen]
    assert images == [DIGEST, "registry.k8s.io/kube-proxy:v1.36.2"]
    assert gone(store)


def test_a_pod_that_its_kubelet_refuses_is_said_with_the_kubelets_words(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store
) -> None:
    kubelet.act = lambda pod: kubelet.state(
        pod, "Failed", {}, reason="OutOfpods", message="Node didn't have enough pods"
    )
    (gap,) = row(collect("--item", "conntrack.ports"))["missing"]
    assert gap["message"].endswith("does not start: OutOfpods: Node didn't have enough pods")
    assert gone(store)


def test_a_pod_that_nobody_starts_is_given_up_and_deleted(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownpod, "PATIENCE", 0.2)
    kubelet.act = kubelet.leave
    missing = row(collect("--item", "conntrack.ports", "--item", "iptables.v4"))["missing"]
    (why,) = {gap["message"] for gap in missing}
    assert len(missing) == 2
    assert "did not start within 0.2s: its node's kubelet has not taken it" in why
    assert gone(store)
    assert eventually(lambda: len(kubelet.seen) == 1)  # and no other is tried there


def test_the_deadline_of_the_run_leaves_no_pod(
    kubelet: Kubelet, server: ApiServer, store: Store, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig(), encoding="utf-8")
    late = Reason("deadline", "not finished within 5s")
    with CancelScope() as scope:
        kubelet.act = lambda _: scope.cancel(late)  # while the pod is waited for
        options = ConnectOptions(kubeconfig=str(kubeconfig), environment={"HOME": str(tmp_path)})
        connection = connect(options, CancelScope())
        keeper = PodKeeper(connection, PodSettings())
        order = keeper.order(PodRung.PLAIN, "knode1", "", Image("x:1", ()), scope)
        with pytest.raises(KdnsctlError, match="not finished within 5s"):
            keeper.open(order, scope)
        assert len(kubelet.seen) == 1
        assert keeper.close() == ()
        assert gone(store)
        with pytest.raises(KdnsctlError):
            keeper.open(order, CancelScope())
        assert len(kubelet.seen) == 1  # none is made when the run is over
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_being_ended_leave_no_pod(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store, number: signal.Signals
) -> None:
    # The pod appears while it is waited for, so the signal comes then.
    kubelet.act = lambda _: os.kill(os.getpid(), number)
    # As a shell in the foreground starts programs, whatever started the tests.
    before = signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    try:
        ran = collect("--item", "conntrack.ports")
    finally:
        signal.signal(number, before)
    assert ran.code == 130, ran.err
    assert len(kubelet.seen) == 1
    assert gone(store)
    assert json.loads(ran.out)["podsLeft"] == []


def test_a_pod_is_deleted_too_whose_making_was_not_heard_of(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store, server: ApiServer
) -> None:
    server.faults.add(Fault(Disturb(after_bytes=10), method="POST", path="/pods"))
    node = row(collect("--item", "conntrack.ports"))
    assert node["status"] == "failed"
    assert len(kubelet.seen) == 1
    assert gone(store)


def test_a_pod_that_cannot_be_deleted_is_named_and_the_run_is_not_whole(
    collect: Callable[..., Ran], kubelet: Kubelet, store: Store, server: ApiServer, tmp_path: Path
) -> None:
    server.policy.grant_user("jane", Rule(("get", "list", "watch", "create"), ("*",), ("*",)))
    (tmp_path / "kubeconfig").write_text(server.kubeconfig("jane", ()), encoding="utf-8")
    ran = collect("--item", "conntrack.ports")
    report = json.loads(ran.out)
    (pod,) = kubelet.seen
    assert ran.code == 4
    assert row(ran)["status"] == "complete"
    (left,) = report["podsLeft"]
    assert pod["metadata"]["name"] in left
    assert f"kdnsctl cleanup --run {report['run']}" in left
    assert left in ran.err
    assert len(ours(store)) == 1


def test_a_privileged_pod_is_never_made_without_being_allowed(
    collect: Callable[..., Ran], kubelet: Kubelet, server: ApiServer, store: Store, tmp_path: Path
) -> None:
    kubelet.act = lambda pod: kubelet.state(pod, "Pending", PULL)  # so that every rung that there is gets tried
    collect("--image", NEVER, *FEW)
    assert len(posted(server)) == 2
    assert privileged(posted(server)) == []
    server.journal.clear()
    (tmp_path / "evidence").rename(tmp_path / "first")
    ran = collect("--image", NEVER, "--allow-privileged", *FEW)
    assert ran.code == 4
    assert len(posted(server)) == 3
    assert len(privileged(posted(server))) == 1
    assert gone(store)


def test_a_plan_asks_the_server_and_makes_nothing(
    kubelet: Kubelet, kdnsctl: Kdnsctl, collect: Callable[..., Ran], server: ApiServer, store: Store, tmp_path: Path
) -> None:
    del collect  # only the connection is used
    ran = kdnsctl("collect", "--all", "--plan", "-o", "json")
    plan = json.loads(ran.out)
    jsonschema.validate(plan, schema("CollectPlan"))
    assert ran.code == 0
    assert [node["name"] for node in plan["nodes"]] == list(NODES)
    for node in plan["nodes"]:
        states = {rung["rung"]: rung["state"] for rung in node["rungs"]}
        assert states == {"exec": "works", "pod": "works", "pod-netadmin": "works", **SSH}
        rungs = {item["item"]: item["rung"] for item in node["items"]}
        assert (rungs["conntrack.a"], rungs["kubeProxy.log"]) == ("exec", "api")
        assert "kubeProxy.log.previous" not in rungs  # it has not been restarted
        conditions = {item["item"]: item["onlyIf"] for item in node["items"] if item["onlyIf"]}
        assert conditions["nft.v4"] == "kube-proxy runs in nftables mode, or does not tell its mode"
        assert conditions["nft.v4.text"] == "nft.v4 cannot be read"
        assert not conditions.keys() & {"conntrack.a", "iptables.v4", "kubeProxy.metrics"}
        # Of a pod of the same image is nothing to be hoped.
        assert node["flush"]["rung"] == "exec"
        assert "if kube-proxy's image has conntrack (up to about 1.31); else by ssh, " in node["flush"]["why"]
    dry = server.journal.entries(lambda entry: entry.method == "POST" and entry.path.endswith("/pods"))
    assert len(dry) == 6
    assert all(entry.query["dryRun"] == "All" for entry in dry)
    assert kubelet.seen == []
    assert ours(store) == []
    assert not (tmp_path / "evidence").exists()
    asked = server.journal.entries(lambda entry: "exec" in entry.path)
    assert asked == []


def test_a_plan_says_with_which_conntrack_flush_would_delete(
    kubelet: Kubelet, kdnsctl: Kdnsctl, collect: Callable[..., Ran]
) -> None:
    del collect
    words = ("collect", "knode2", "--plan", "-o", "json", "--image", "kdnsctl.io/lab/tools:1")
    for via, rung, why in (
        ("auto", "exec", "; else by pod-netadmin, with conntrack of the named image"),
        ("pod", "pod-netadmin", "with conntrack of the named image"),
    ):
        (node,) = json.loads(kdnsctl(*words, "--via", via).out)["nodes"]
        assert node["flush"]["rung"] == rung
        assert node["flush"]["why"].endswith(why)
    (alone,) = json.loads(kdnsctl(*words[:-2], "--via", "exec").out)["nodes"]
    assert "; else by no way: name the tools image (--image)" in alone["flush"]["why"]
    assert kubelet.seen == []


def test_a_plan_says_what_is_missing_for_what(
    kubelet: Kubelet, kdnsctl: Kdnsctl, collect: Callable[..., Ran], server: ApiServer, store: Store, tmp_path: Path
) -> None:
    del collect, kubelet
    label = {"pod-security.kubernetes.io/enforce": "baseline"}
    store.create(NAMESPACES, {"metadata": {"name": "tight", "labels": label}})
    everything = Rule(("*",), ("*",), ("*",), namespaces=("tight",))
    server.policy.grant_user("jane", Rule(("get", "list", "watch"), ("*",), ("nodes", "pods", "services")))
    server.policy.grant_user("jane", everything)
    (tmp_path / "kubeconfig").write_text(server.kubeconfig("jane", ()), encoding="utf-8")
    ran = kdnsctl("collect", "knode2", "--plan", "--via", "auto", "--pod-namespace", "tight", "-o", "json")
    (node,) = json.loads(ran.out)["nodes"]
    rungs = {rung["rung"]: rung for rung in node["rungs"]}
    assert rungs["exec"]["state"] == rungs["pod"]["state"] == "refused"
    assert "get pods/exec in kube-system" in rungs["exec"]["why"]
    assert 'violates PodSecurity "baseline:latest"' in rungs["pod"]["why"]
    items = {item["item"]: item["rung"] for item in node["items"]}
    assert items["conntrack.a"] == "ssh"
    assert items["kubeProxy.metrics"] is None
    assert node["flush"]["rung"] == "ssh"
    assert ran.code == 4
    text = kdnsctl("collect", "knode2", "--plan", "--via", "pod", "--pod-namespace", "tight")
    assert "0 of 1 nodes would be read whole" in text.out
    assert "missing of knode2: conntrack.a" in text.out
    told = " ".join(text.out.split())
    assert "repair flush would run conntrack for knode2 by no way: pod-netadmin: " in told
    assert "name the tools image (--image), or allow SSH" in told


def test_with_the_printed_role_a_stranger_reads_through_pods_and_cleans_up(
    collect: Callable[..., Ran], kdnsctl: Kdnsctl, server: ApiServer, store: Store, tmp_path: Path
) -> None:
    printed = kdnsctl("rbac", "collect", "cleanup", "--only-needed", "--with-pods", "--bind-to", "user:jane")
    assert printed.code == 0, printed.err
    apply(server, list(yaml.safe_load_all(printed.out)))
    (tmp_path / "kubeconfig").write_text(server.kubeconfig("jane", ()), encoding="utf-8")
    ran = collect("--item", "conntrack.ports")
    assert (row(ran)["status"], json.loads(ran.out)["podsLeft"]) == ("complete", [])
    assert gone(store)
    assert kdnsctl("cleanup", "--yes").code == 0
    without = kdnsctl("rbac", "collect", "cleanup", "--only-needed")
    assert not {"delete"} & {
        verb for role in yaml.safe_load_all(without.out) for rule in role["rules"] for verb in rule["verbs"]
    }


@pytest.fixture
def left(store: Store, kubelet: Kubelet, collect: Callable[..., Ran]) -> dict[str, str]:
    """Pods that were left: two of ours in one run, one of somebody else that still runs; name by run."""
    del collect
    kubelet.act = kubelet.leave
    for name, run, who, phase in (
        ("kdnsctl-a", "run-a", operator(), "Running"),
        ("kdnsctl-b", "run-b", "jane@laptop", "Running"),
        ("kdnsctl-c", "run-c", "jane@laptop", "Failed"),
    ):
        labels = {"app.kubernetes.io/managed-by": "kdnsctl", "kdnsctl.io/run": run}
        annotations = {"kdnsctl.io/operator": who}
        spec = {"nodeName": "knode1", "containers": [{"name": "node", "image": "x"}]}
        meta = {"name": name, "namespace": "default", "labels": labels, "annotations": annotations}
        pod = store.create(PODS, {"metadata": meta, "spec": spec})
        pod["status"]["phase"] = phase
        store.update(PODS, pod, subresource="status")
    return {"run-a": "kdnsctl-a", "run-b": "kdnsctl-b", "run-c": "kdnsctl-c"}


def fates(ran: Ran) -> dict[str, str]:
    report = json.loads(ran.out)
    jsonschema.validate(report, schema("CleanupReport"))
    return {pod["name"]: pod["fate"] for pod in report["pods"]}


def names(store: Store) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in ours(store) if "deletionTimestamp" not in pod["metadata"])


@pytest.mark.usefixtures("left")
def test_cleanup_deletes_what_is_ours_and_what_has_ended_and_not_what_somebody_runs(
    kdnsctl: Kdnsctl, store: Store
) -> None:
    planned = kdnsctl("cleanup", "--dry-run", "client", "-o", "json")
    assert fates(planned) == {"kdnsctl-a": "found", "kdnsctl-b": "kept", "kdnsctl-c": "found"}
    checked = kdnsctl("cleanup", "--dry-run", "server", "-o", "json")
    assert fates(checked) == {"kdnsctl-a": "wouldDelete", "kdnsctl-b": "kept", "kdnsctl-c": "wouldDelete"}
    assert len(names(store)) == 3
    done = kdnsctl("cleanup", "--yes", "-o", "json")
    assert (done.code, fates(done)) == (0, {"kdnsctl-a": "deleted", "kdnsctl-b": "kept", "kdnsctl-c": "deleted"})
    assert names(store) == ["kdnsctl-b"]
    assert store.find(PODS, "web", "default") is not None


@pytest.mark.usefixtures("left")
def test_cleanup_of_a_run_deletes_that_run_and_nothing_else(kdnsctl: Kdnsctl, store: Store) -> None:
    assert fates(kdnsctl("cleanup", "--run", "run-b", "-y", "-o", "json")) == {"kdnsctl-b": "deleted"}
    assert names(store) == ["kdnsctl-a", "kdnsctl-c"]


@pytest.mark.usefixtures("left")
def test_cleanup_by_age_spares_what_is_younger(kdnsctl: Kdnsctl, store: Store) -> None:
    # The store's clock stands at a day in the past: its pods are old, but not as old as a hundred years.
    assert set(fates(kdnsctl("cleanup", "--older-than", "36500d", "-y", "-o", "json")).values()) == {"kept"}
    assert len(names(store)) == 3


@pytest.mark.usefixtures("left")
def test_cleanup_changes_nothing_without_an_answer(kdnsctl: Kdnsctl, store: Store) -> None:
    ran = kdnsctl("cleanup", "--no-input")
    assert (ran.code, ran.out) == (5, "")
    assert "nothing was changed" in ran.err
    assert "default/kdnsctl-a" in ran.err  # what it was about
    assert len(names(store)) == 3


@pytest.mark.usefixtures("left")
def test_cleanup_says_when_it_could_see_one_namespace_only(
    kdnsctl: Kdnsctl, server: ApiServer, store: Store, tmp_path: Path
) -> None:
    server.policy.grant_user("jane", Rule(("*",), ("",), ("pods",), namespaces=("kube-system",)))
    (tmp_path / "kubeconfig").write_text(server.kubeconfig("jane", ()), encoding="utf-8")
    ran = kdnsctl("cleanup", "-y")
    assert ran.code == 4
    assert "only kube-system was seen" in ran.err
    assert "No pod is left in kube-system." in ran.out
    assert len(names(store)) == 3
