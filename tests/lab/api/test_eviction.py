"""Disruption budgets and evictions in the lab, with its clock: what the recordings do not show."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from kdnsctl.lab.changes import Change
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.eviction import evict
from kdnsctl.lab.kinds import DAEMON_SETS, DEPLOYMENTS, DISRUPTION_BUDGETS, NAMESPACES, PODS, STATEFUL_SETS
from kdnsctl.lab.replies import JSON, Refused
from kdnsctl.lab.store import DeleteOptions, Store, timestamp, utc_now
from tests.lab.api.client import Client
from tests.lab.api.conftest import ManualClock
from tests.lab.api.fake_kubelet import report_ready, settle

LABELS = {"app": "shop"}
NOTHING_ASKED = DeleteOptions()
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}


@pytest.fixture
def manager(store: Store) -> Iterator[ControllerManager]:
    manager = ControllerManager(store)
    yield manager
    manager.stop()


def workload(store: Store, manager: ControllerManager, replicas: int = 3, kind: str = "Deployment") -> list[JSON]:
    kinds = {"Deployment": DEPLOYMENTS, "StatefulSet": STATEFUL_SETS, "DaemonSet": DAEMON_SETS}
    spec: JSON = {"selector": {"matchLabels": LABELS}, "template": TEMPLATE}
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    store.create(kinds[kind], {"metadata": {"name": "shop", "namespace": "default"}, "spec": spec})
    settle(store, manager)
    return store.select(PODS, "default", labels="app=shop")


def protect(store: Store, manager: ControllerManager, name: str = "shop", **spec: object) -> None:
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"selector": {"matchLabels": LABELS}, **spec}}
    store.create(DISRUPTION_BUDGETS, body)
    manager.step()


def status(store: Store, name: str = "shop") -> JSON:
    found: JSON = store.get(DISRUPTION_BUDGETS, name, "default")["status"]
    return found


def counts(store: Store) -> tuple[int, int, int, int]:
    now = status(store)
    return now["expectedPods"], now["desiredHealthy"], now["currentHealthy"], now["disruptionsAllowed"]


def try_evict(store: Store, pod: JSON, options: DeleteOptions = NOTHING_ASKED) -> Refused | None:
    try:
        evict(store, pod["metadata"]["name"], "default", options)
    except Refused as refusal:
        return refusal
    return None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minAvailable": 2}, (3, 2, 3, 1)),
        ({"minAvailable": 5}, (3, 5, 3, 0)),
        ({"minAvailable": "50%"}, (3, 2, 3, 1)),
        ({"minAvailable": "0%"}, (3, 0, 3, 3)),
        ({"maxUnavailable": 1}, (3, 2, 3, 1)),
        ({"maxUnavailable": "30%"}, (3, 2, 3, 1)),
        ({"maxUnavailable": 9}, (3, 0, 3, 3)),
    ],
)
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_how_many_may_go(
    store: Store, manager: ControllerManager, kind: str, spec: JSON, expected: tuple[int, ...]
) -> None:
    workload(store, manager, kind=kind)
    protect(store, manager, **spec)
    assert counts(store) == expected
    condition = status(store)["conditions"][0]
    wanted = ("True", "SufficientPods") if expected[3] else ("False", "InsufficientPods")
    assert (condition["status"], condition["reason"]) == wanted


def test_a_percentage_over_pods_that_nothing_scales_fails_and_allows_nothing(
    store: Store, manager: ControllerManager
) -> None:
    pods = workload(store, manager, kind="DaemonSet")
    protect(store, manager, minAvailable="50%")
    assert status(store)["disruptionsAllowed"] == 0
    refusal = try_evict(store, pods[0])
    assert refusal is not None
    assert (
        "because it failed sync: daemonsets.apps does not implement"
        in refusal.status()["details"]["causes"][0]["message"]
    )


def test_a_budget_is_used_up_and_comes_back_when_the_replacement_is_ready(
    store: Store, manager: ControllerManager
) -> None:
    pods = workload(store, manager)
    protect(store, manager, minAvailable=2)
    assert try_evict(store, pods[0]) is None
    second = try_evict(store, pods[1])
    assert second is not None
    assert second.code == 429
    manager.step()
    assert counts(store) == (4, 2, 2, 0)
    settle(store, manager)
    assert counts(store) == (3, 2, 3, 1)
    assert "disruptedPods" not in status(store)
    assert try_evict(store, pods[1]) is None


def test_a_wrong_uid_burns_the_budget_for_two_minutes(
    store: Store, manager: ControllerManager, clock: ManualClock
) -> None:
    pods = workload(store, manager)
    protect(store, manager, minAvailable=2)
    wrong = try_evict(store, pods[0], DeleteOptions(uid="00000000-0000-0000-0000-000000000000"))
    assert wrong is not None
    assert wrong.code == 409
    settle(store, manager)
    assert counts(store) == (3, 2, 2, 0)
    clock.advance(120)
    manager.step()
    assert status(store)["disruptionsAllowed"] == 0
    clock.advance(1)
    manager.step()
    assert counts(store) == (3, 2, 3, 1)


def test_a_thread_of_controllers_wakes_up_for_what_time_brings(store: Store) -> None:
    store.clock = utc_now
    with ControllerManager(store) as running:
        changes = store.subscribe([DISRUPTION_BUDGETS])
        body = {"metadata": {"name": "b", "namespace": "default"}, "spec": {"minAvailable": 0, "selector": {}}}
        store.create(DISRUPTION_BUDGETS, body)
        while not status_of_last(changes.wait(30)).get("disruptionsAllowed"):
            pass
        nearly_over = timestamp(utc_now() - timedelta(seconds=119))
        store.change(
            DISRUPTION_BUDGETS, "b", "default",
            lambda old: old | {"status": old["status"] | {"disruptedPods": {"web": nearly_over}}}, subresource="status",
        )  # fmt: skip
        while "disruptedPods" in status_of_last(changes.wait(30)):
            pass
        assert running.errors == []
        changes.close()
    assert status(store, "b")["currentHealthy"] == 1


def status_of_last(changes: list[Change]) -> JSON:
    assert changes, "nothing happened in half a minute"
    found: JSON = changes[-1].obj.get("status") or {}
    return found


@pytest.mark.parametrize(
    ("policy", "least", "code"),
    [(None, 2, None), (None, 3, 429), ("IfHealthyBudget", 3, 429), ("AlwaysAllow", 3, None)],
)
def test_pods_that_are_not_ready(
    store: Store, manager: ControllerManager, policy: str | None, least: int, code: int | None
) -> None:
    pods = workload(store, manager)
    report_ready(store, "default", pods[0]["metadata"]["name"], ready=False)
    protect(store, manager, minAvailable=least, **({"unhealthyPodEvictionPolicy": policy} if policy else {}))
    refusal = try_evict(store, pods[0])
    assert (refusal.code if refusal else None) == code
    assert "disruptedPods" not in status(store), "one that is not ready uses nothing up"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Pending"])
def test_pods_whose_end_is_no_disruption_ask_no_budget(store: Store, manager: ControllerManager, phase: str) -> None:
    pod = workload(store, manager)[0]
    protect(store, manager, minAvailable=3)
    protect(store, manager, "second", minAvailable=3)
    manager.pause("deployment")
    store.change(
        PODS, pod["metadata"]["name"], "default", lambda old: old | {"status": {"phase": phase}}, subresource="status"
    )
    assert try_evict(store, pod) is None


def test_a_terminating_pod_is_evicted_again_with_the_new_grace(store: Store, manager: ControllerManager) -> None:
    pod = workload(store, manager)[0]
    protect(store, manager, minAvailable=3)
    store.delete(PODS, pod["metadata"]["name"], "default")
    assert try_evict(store, pod, DeleteOptions(grace_seconds=1)) is None
    assert store.get(PODS, pod["metadata"]["name"], "default")["metadata"]["deletionGracePeriodSeconds"] == 1


def test_two_dry_runs_are_both_allowed_where_one_eviction_is(store: Store, manager: ControllerManager) -> None:
    pods = workload(store, manager)
    protect(store, manager, minAvailable=2)
    version = store.version
    for pod in pods[:2]:
        assert try_evict(store, pod, DeleteOptions(dry_run=True)) is None
    assert store.version == version


def test_a_stale_version_is_a_conflict(store: Store, manager: ControllerManager) -> None:
    pod = workload(store, manager)[0]
    refusal = try_evict(store, pod, DeleteOptions(version="1"))
    assert refusal is not None
    assert (refusal.code, "ResourceVersion in the precondition (1)" in refusal.message) == (409, True)
    assert "deletionTimestamp" not in store.get(PODS, pod["metadata"]["name"], "default")["metadata"]


def test_a_stateful_pod_comes_back_under_its_name(store: Store, manager: ControllerManager) -> None:
    before = workload(store, manager, 2, "StatefulSet")
    assert [pod["metadata"]["name"] for pod in before] == ["shop-0", "shop-1"]
    assert before[0]["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "shop-0"
    assert try_evict(store, before[0]) is None
    manager.step()
    assert len(store.select(PODS, "default", labels="app=shop")) == 2, "not before the old one is gone"
    settle(store, manager)
    after = store.get(PODS, "shop-0", "default")
    assert after["metadata"]["uid"] != before[0]["metadata"]["uid"]
    shrunk = store.get(STATEFUL_SETS, "shop", "default")
    shrunk["spec"]["replicas"] = 1
    store.update(STATEFUL_SETS, shrunk)
    settle(store, manager)
    assert [pod["metadata"]["name"] for pod in store.select(PODS, "default", labels="app=shop")] == ["shop-0"]
    assert store.get(STATEFUL_SETS, "shop", "default")["status"]["readyReplicas"] == 1


def test_a_namespace_that_is_being_deleted_refuses_evictions(client: Client, store: Store) -> None:
    pod = {"metadata": {"name": "p", "namespace": "going"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    store.create(NAMESPACES, {"metadata": {"name": "going"}})
    store.create(PODS, pod)
    store.delete(NAMESPACES, "going")
    body = {"metadata": {"name": "p", "namespace": "going"}}
    reply = client.send("POST", "/api/v1/namespaces/going/pods/p/eviction", body)
    assert reply.code == 403
    assert reply.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    assert store.find(PODS, "p", "going") is not None


@pytest.mark.parametrize(
    ("body", "query", "code"),
    [
        ({"metadata": {"name": "other"}}, "", 400),
        ({"apiVersion": "policy/v1", "kind": "Pod", "metadata": {"name": "web"}}, "", 400),
        ({"metadata": {"name": "web"}, "deleteOptions": {"gracePeriodSeconds": "1"}}, "", 400),
        ({"metadata": {"name": "web"}, "deleteOptions": {"dryRun": ["Some"]}}, "", 422),
        ({"metadata": {"name": "web", "namespace": "other"}}, "", 400),
        ({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "web"}}, "?dryRun=All", 201),
    ],
)
def test_bodies(client: Client, store: Store, body: JSON, query: str, code: int) -> None:
    reply = client.send("POST", f"/api/v1/namespaces/default/pods/web/eviction{query}", body)
    assert reply.code == code, reply.body
    assert "deletionTimestamp" not in store.get(PODS, "web", "default")["metadata"]
