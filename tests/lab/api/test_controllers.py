from __future__ import annotations

import threading
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it carries no types; one call is made
import pytest

from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.controllers.ownership import template_hash
from kdnsctl.lab.kinds import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    EVENTS,
    KINDS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
)
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.seed import numbered_nodes, seed_cluster
from kdnsctl.lab.store import DeleteOptions, Store
from tests.lab.api import recordings
from tests.lab.api.conftest import ManualClock
from tests.lab.api.fake_kubelet import report_ready, run_pods, settle

SYSTEM = "kube-system"


@pytest.fixture
def store(clock: ManualClock) -> Store:
    store = new_store(clock, seed=7)
    seed_cluster(store, numbered_nodes(3))
    return store


@pytest.fixture
def manager(store: Store) -> ControllerManager:
    return ControllerManager(store)


def proxies(store: Store) -> dict[str, JSON]:
    return {pod["spec"]["nodeName"]: pod for pod in store.select(PODS, SYSTEM, labels="k8s-app=kube-proxy")}


def dns_pods(store: Store) -> list[JSON]:
    return store.select(PODS, SYSTEM, labels="k8s-app=kube-dns")


def restart(store: Store, kind: Any, name: str, stamp: str = "1") -> None:
    def edit(obj: JSON) -> JSON:
        obj["spec"]["template"]["metadata"]["annotations"] = {"restartedAt": stamp}
        return obj

    store.change(kind, name, SYSTEM, edit)


def change_node(store: Store, name: str, **spec: Any) -> None:
    store.change(NODES, name, "", lambda node: node | {"spec": {**node["spec"], **spec}})


def reasons(store: Store) -> set[str]:
    return {event["reason"] for event in store.select(EVENTS)}


def test_a_fresh_cluster_gets_its_pods(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    assert sorted(proxies(store)) == ["knode1", "knode2", "knode3"]
    assert sorted(pod["spec"]["nodeName"] for pod in dns_pods(store)) == ["knode1", "knode2"]
    status = store.get(DAEMON_SETS, "kube-proxy", SYSTEM)["status"]
    assert status == recordings.body("daemonset-kube-proxy")["status"]
    assert {"SuccessfulCreate", "Scheduled", "ScalingReplicaSet"} <= reasons(store)
    assert manager.step() == 0


def test_every_object_of_a_settled_cluster_fits_its_published_schema(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    checked = set()
    for kind in KINDS:
        for obj in store.select(kind):
            kubernetes_validate.validate(obj, "1.36", strict=True)
            checked.add(kind.kind)
    assert {"Node", "Pod", "Service", "EndpointSlice", "DaemonSet", "Deployment", "ReplicaSet", "Event"} <= checked


def test_daemon_pods_look_like_the_recorded_ones(store: Store, manager: ControllerManager) -> None:
    manager.step()
    recorded = next(
        pod for pod in recordings.body("pods-kube-system")["items"] if pod["metadata"]["name"] == "kube-proxy-5wt8d"
    )
    made = proxies(store)["knode3"]
    for field in ("tolerations", "affinity", "priority", "hostNetwork", "schedulerName", "dnsPolicy"):
        assert made["spec"][field] == recorded["spec"][field], field
    assert set(made["metadata"]["labels"]) == set(recorded["metadata"]["labels"])
    assert set(made["metadata"]["ownerReferences"][0]) == set(recorded["metadata"]["ownerReferences"][0])
    assert made["metadata"]["generation"] == recorded["metadata"]["generation"] == 1


def test_the_same_seed_makes_the_same_cluster(clock: ManualClock) -> None:
    def objects() -> list[JSON]:
        store = new_store(clock, seed=3)
        seed_cluster(store, numbered_nodes(3))
        settle(store, ControllerManager(store))
        return store.select(PODS) + store.select(ENDPOINT_SLICES)

    assert objects() == objects()


def test_a_deleted_daemon_pod_comes_back_on_its_node_once_it_is_gone(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    old = proxies(store)["knode2"]
    store.delete(PODS, old["metadata"]["name"], SYSTEM)
    manager.step()
    assert proxies(store)["knode2"]["metadata"]["uid"] == old["metadata"]["uid"]
    run_pods(store)
    manager.step()
    new = proxies(store)["knode2"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]


def test_rolling_updates_of_daemon_sets_take_one_pod_at_a_time(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    before = {pod["metadata"]["uid"] for pod in proxies(store).values()}
    restart(store, DAEMON_SETS, "kube-proxy")
    for _ in range(30):
        manager.step()
        going = [pod for pod in proxies(store).values() if "deletionTimestamp" in pod["metadata"]]
        assert len(going) <= 1
        if not run_pods(store):
            break
    assert not before & {pod["metadata"]["uid"] for pod in proxies(store).values()}
    revisions = store.select(CONTROLLER_REVISIONS, SYSTEM)
    assert sorted(revision["revision"] for revision in revisions) == [1, 2]
    current = next(item for item in revisions if item["revision"] == 2)
    labels = {pod["metadata"]["labels"]["controller-revision-hash"] for pod in proxies(store).values()}
    assert labels == {current["metadata"]["labels"]["controller-revision-hash"]}
    assert current["data"]["spec"]["template"]["$patch"] == "replace"


def test_on_delete_changes_nothing_until_a_pod_is_deleted(store: Store, manager: ControllerManager) -> None:
    store.change(
        DAEMON_SETS, "kube-proxy", SYSTEM,
        lambda obj: obj | {"spec": {**obj["spec"], "updateStrategy": {"type": "OnDelete"}}},
    )  # fmt: skip
    settle(store, manager)
    before = {node: pod["metadata"]["uid"] for node, pod in proxies(store).items()}
    restart(store, DAEMON_SETS, "kube-proxy")
    settle(store, manager)
    assert {node: pod["metadata"]["uid"] for node, pod in proxies(store).items()} == before
    store.delete(PODS, proxies(store)["knode1"]["metadata"]["name"], SYSTEM)
    settle(store, manager)
    hashes = {node: pod["metadata"]["labels"]["controller-revision-hash"] for node, pod in proxies(store).items()}
    assert hashes["knode2"] == hashes["knode3"] != hashes["knode1"]
    assert store.get(DAEMON_SETS, "kube-proxy", SYSTEM)["status"]["updatedNumberScheduled"] == 1


def test_a_rolled_back_daemon_set_takes_its_old_revision_up_again(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    restart(store, DAEMON_SETS, "kube-proxy", "1")
    settle(store, manager)
    store.change(
        DAEMON_SETS, "kube-proxy", SYSTEM,
        lambda obj: obj | {"spec": {**obj["spec"], "template": _without_annotations(obj["spec"]["template"])}},
    )  # fmt: skip
    settle(store, manager)
    assert sorted(item["revision"] for item in store.select(CONTROLLER_REVISIONS, SYSTEM)) == [2, 3]


def _without_annotations(template: JSON) -> JSON:
    return template | {"metadata": {"labels": template["metadata"]["labels"]}}


def test_a_daemon_pod_that_ended_is_replaced(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    pod = proxies(store)["knode1"]
    store.update(PODS, pod | {"status": pod["status"] | {"phase": "Failed"}}, subresource="status")
    settle(store, manager)
    assert proxies(store)["knode1"]["metadata"]["uid"] != pod["metadata"]["uid"]


def test_daemon_pods_leave_nodes_that_no_longer_want_them(store: Store, manager: ControllerManager) -> None:
    def only_labelled(obj: JSON) -> JSON:
        obj["spec"]["template"]["spec"]["nodeSelector"] = {"proxy": "yes"}
        return obj

    settle(store, manager)
    store.change(DAEMON_SETS, "kube-proxy", SYSTEM, only_labelled)
    settle(store, manager)
    assert proxies(store) == {}
    store.change(
        NODES, "knode2", "",
        lambda node: node | {"metadata": {**node["metadata"], "labels": {"proxy": "yes"}}},
    )  # fmt: skip
    settle(store, manager)
    assert list(proxies(store)) == ["knode2"]


def test_a_new_node_gets_its_daemon_pod_even_when_it_is_cordoned(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    store.create(NODES, {"metadata": {"name": "knode4"}, "spec": {"unschedulable": True}})
    settle(store, manager)
    assert "knode4" in proxies(store)


def test_a_deployment_rolls_without_going_below_what_must_stay(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    old = {pod["metadata"]["uid"] for pod in dns_pods(store)}
    restart(store, DEPLOYMENTS, "coredns")
    for _ in range(30):
        manager.step()
        staying = [pod for pod in dns_pods(store) if "deletionTimestamp" not in pod["metadata"]]
        ready = [pod for pod in staying if any(item["status"] == "True" and item["type"] == "Ready"
                 for item in pod["status"].get("conditions", []))]  # fmt: skip
        assert len(ready) >= 1
        assert len(staying) <= 3
        if not run_pods(store):
            break
    assert len(dns_pods(store)) == 2
    assert not old & {pod["metadata"]["uid"] for pod in dns_pods(store)}
    status = store.get(DEPLOYMENTS, "coredns", SYSTEM)["status"]
    assert (status["updatedReplicas"], status["availableReplicas"]) == (2, 2)
    assert {item["type"]: item["reason"] for item in status["conditions"]} == {
        "Available": "MinimumReplicasAvailable",
        "Progressing": "NewReplicaSetAvailable",
    }
    sets = store.select(REPLICA_SETS, SYSTEM)
    assert sorted(item["spec"]["replicas"] for item in sets) == [0, 2]


def test_recreate_waits_until_the_old_pods_are_gone(store: Store, manager: ControllerManager) -> None:
    store.change(
        DEPLOYMENTS, "coredns", SYSTEM,
        lambda obj: obj | {"spec": {**obj["spec"], "strategy": {"type": "Recreate"}}},
    )  # fmt: skip
    settle(store, manager)
    old = {pod["metadata"]["uid"] for pod in dns_pods(store)}
    restart(store, DEPLOYMENTS, "coredns")
    settle(store, manager)
    assert len(dns_pods(store)) == 2
    assert not old & {pod["metadata"]["uid"] for pod in dns_pods(store)}


@pytest.mark.parametrize("replicas", [0, 1, 5])
def test_a_deployment_is_scaled(store: Store, manager: ControllerManager, replicas: int) -> None:
    settle(store, manager)
    store.change(
        DEPLOYMENTS, "coredns", SYSTEM, lambda obj: obj | {"spec": {**obj["spec"], "replicas": replicas}}
    )  # fmt: skip
    settle(store, manager)
    assert len(dns_pods(store)) == replicas
    per_node = [sum(pod["spec"]["nodeName"] == node for pod in dns_pods(store)) for node in proxies(store)]
    assert max(per_node) - min(per_node) <= 1


def test_endpoints_follow_readiness_and_termination(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)

    def conditions() -> dict[str, tuple[bool, bool, bool]]:
        (slice_,) = store.select(ENDPOINT_SLICES, SYSTEM)
        keys = ("ready", "serving", "terminating")
        return {item["targetRef"]["name"]: tuple(map(item["conditions"].get, keys)) for item in slice_["endpoints"]}

    one, two = (pod["metadata"]["name"] for pod in dns_pods(store))
    assert conditions() == {one: (True, True, False), two: (True, True, False)}
    report_ready(store, SYSTEM, one, ready=False)
    manager.step()
    assert conditions()[one] == (False, False, False)
    report_ready(store, SYSTEM, one)
    store.delete(PODS, one, SYSTEM)
    manager.step()
    assert conditions()[one] == (False, True, True)
    store.delete(PODS, one, SYSTEM, DeleteOptions(grace_seconds=0))
    manager.step()
    assert one not in conditions()


def test_the_slice_of_kube_dns_has_the_recorded_shape(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    (made,) = store.select(ENDPOINT_SLICES, SYSTEM)
    (recorded,) = recordings.body("endpointslices-kube-dns")["items"]
    made = {key: value for key, value in made.items() if key not in ("kind", "apiVersion")}
    assert set(recordings.shape(made)) == set(recordings.shape(recorded))
    assert made["metadata"]["labels"] == recorded["metadata"]["labels"]
    assert made["ports"] == recorded["ports"]


def test_named_target_ports_and_headless_services(store: Store, manager: ControllerManager) -> None:
    spec = {"clusterIP": "None", "selector": {"k8s-app": "kube-dns"}, "publishNotReadyAddresses": True}
    ports = [{"name": "d", "port": 5353, "targetPort": "dns", "protocol": "UDP"}]
    store.create(SERVICES, {"metadata": {"name": "h", "namespace": SYSTEM}, "spec": spec | {"ports": ports}})
    settle(store, manager)
    (made,) = store.select(ENDPOINT_SLICES, SYSTEM, labels="kubernetes.io/service-name=h")
    assert made["ports"] == [{"name": "d", "protocol": "UDP", "port": 53}]
    assert made["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    report_ready(store, SYSTEM, dns_pods(store)[0]["metadata"]["name"], ready=False)
    manager.step()
    (made,) = store.select(ENDPOINT_SLICES, SYSTEM, labels="kubernetes.io/service-name=h")
    assert [endpoint["conditions"]["ready"] for endpoint in made["endpoints"]] == [True, True]


def plain_pod(**spec: Any) -> JSON:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        ({}, "knode3"),
        ({"nodeSelector": {"kubernetes.io/hostname": "knode3"}}, "knode3"),
        ({"tolerations": [{"key": "k", "operator": "Exists"}]}, "knode2"),
        ({"tolerations": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}, "knode2"),
        ({"tolerations": [{"key": "k", "value": "other"}]}, "knode3"),
        ({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}, "knode3"),
        ({"tolerations": [{"operator": "Exists"}]}, "knode1"),
        ({"nodeSelector": {"kubernetes.io/hostname": "knode1"}}, None),
    ],
)
def test_the_scheduler_heeds_cordons_taints_and_selectors(clock: ManualClock, spec: JSON, node: str | None) -> None:
    store = new_store(clock, seed=1)
    seed_cluster(store, numbered_nodes(3), dns_replicas=0)
    manager = ControllerManager(store)
    change_node(store, "knode1", unschedulable=True)
    change_node(store, "knode2", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
    settle(store, manager)
    store.create(PODS, plain_pod(**spec))
    manager.step()
    pod = store.get(PODS, "p", "default")
    assert pod["spec"].get("nodeName") == node
    (condition,) = (item for item in pod["status"]["conditions"] if item["type"] == "PodScheduled")
    assert condition["status"] == ("True" if node else "False")
    if node is None:
        assert condition["message"].startswith("0/3 nodes are available: ")
        assert "FailedScheduling" in reasons(store)


def test_a_pod_that_waits_is_scheduled_once_a_node_is_free(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    for name in ("knode1", "knode2", "knode3"):
        change_node(store, name, unschedulable=True)
    store.create(PODS, plain_pod())
    manager.step()
    assert "nodeName" not in store.get(PODS, "p", "default")["spec"]
    store.change(NODES, "knode2", "", lambda node: node | {"spec": {}})
    manager.step()
    assert store.get(PODS, "p", "default")["spec"]["nodeName"] == "knode2"


def test_what_lost_its_owner_is_collected(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    store.delete(DEPLOYMENTS, "coredns", SYSTEM)
    settle(store, manager)
    assert store.select(REPLICA_SETS) == []
    assert dns_pods(store) == []


def test_orphans_stay(store: Store, manager: ControllerManager) -> None:
    settle(store, manager)
    before = {pod["metadata"]["uid"] for pod in proxies(store).values()}
    store.delete(DAEMON_SETS, "kube-proxy", SYSTEM, DeleteOptions(orphan=True))
    settle(store, manager)
    assert {pod["metadata"]["uid"] for pod in proxies(store).values()} == before


def test_a_namespace_goes_with_all_that_is_in_it(store: Store, manager: ControllerManager) -> None:
    store.create(NAMESPACES, {"metadata": {"name": "temporary"}})
    store.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "temporary"}})
    pod = plain_pod()
    pod["metadata"]["namespace"] = "temporary"
    store.create(PODS, pod)
    settle(store, manager)
    store.delete(NAMESPACES, "temporary")
    settle(store, manager)
    assert store.find(NAMESPACES, "temporary") is None
    assert store.select(PODS, "temporary") == store.select(CONFIG_MAPS, "temporary") == []


def test_a_pod_that_admission_refuses_is_an_event_not_a_crash(store: Store, manager: ControllerManager) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    store.change(NAMESPACES, SYSTEM, "", lambda obj: obj | {"metadata": {**obj["metadata"], "labels": labels}})
    settle(store, manager)
    assert proxies(store) == {}
    assert len(dns_pods(store)) == 2
    failed = [event for event in store.select(EVENTS, SYSTEM) if event["reason"] == "FailedCreate"]
    assert 'violates PodSecurity "baseline:latest"' in failed[0]["message"]


def test_a_paused_controller_rests_and_catches_up(store: Store, manager: ControllerManager) -> None:
    manager.pause("scheduler")
    manager.step()
    assert not [pod for pod in store.select(PODS) if pod["spec"].get("nodeName")]
    manager.resume("scheduler")
    manager.step()
    assert len([pod for pod in store.select(PODS) if pod["spec"].get("nodeName")]) == 5
    with pytest.raises(ValueError, match="no controller 'nobody'"):
        manager.pause("nobody")


def test_in_a_thread_the_controllers_act_on_changes_alone(store: Store) -> None:
    pods = store.subscribe([PODS])
    bound: set[str] = set()
    with ControllerManager(store) as manager:
        while len(bound) < 5:
            changes = pods.wait(30)
            assert changes, "the controllers did nothing for 30 s"
            bound |= {change.obj["metadata"]["uid"] for change in changes if change.obj["spec"].get("nodeName")}
    assert manager.errors == []
    assert not [thread for thread in threading.enumerate() if thread.name == "lab-controllers"]


def test_template_hashes_are_written_in_the_letters_of_names() -> None:
    value = template_hash({"a": 1})
    assert set(value) <= set("bcdfghjklmnpqrstvwxz2456789")
    assert value == template_hash({"a": 1})
    assert value != template_hash({"a": 2})
