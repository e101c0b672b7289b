from __future__ import annotations

import threading
from typing import Any

import pytest

from kdnsctl.lab.changes import Change, ChangeType, seen_through
from kdnsctl.lab.kinds import CONFIG_MAPS, DEPLOYMENTS, EVENTS, LEASES, NAMESPACES, NODES, PODS, SERVICES
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.paging import decode_token
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.selectors import object_filter
from kdnsctl.lab.store import DeleteOptions, Store
from tests.lab.api.conftest import ManualClock


def config(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def refused(code: int, action: Any, *arguments: Any, **options: Any) -> Refused:
    with pytest.raises(Refused) as refusal:
        action(*arguments, **options)
    assert refusal.value.code == code
    return refusal.value


def test_every_write_counts_and_uids_differ(store: Store) -> None:
    first = store.create(CONFIG_MAPS, config("a"))
    second = store.create(CONFIG_MAPS, config("b"))
    assert int(second["metadata"]["resourceVersion"]) == int(first["metadata"]["resourceVersion"]) + 1
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert first["metadata"]["creationTimestamp"] == "2026-11-23T12:00:00Z"
    assert (first["apiVersion"], first["kind"]) == ("v1", "ConfigMap")


def test_the_same_seed_gives_the_same_names(clock: ManualClock) -> None:
    def made(seed: int) -> list[str]:
        store = new_store(clock, seed=seed)
        store.create(NAMESPACES, {"metadata": {"name": "default"}})
        nameless = {"metadata": {"generateName": "x-", "namespace": "default"}}
        return [store.create(CONFIG_MAPS, nameless)["metadata"][key] for key in ("name", "uid")]

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_what_the_store_hands_out_is_a_copy(store: Store) -> None:
    store.create(CONFIG_MAPS, config("a", key="1"))
    store.get(CONFIG_MAPS, "a", "default")["data"]["key"] = "changed"
    assert store.get(CONFIG_MAPS, "a", "default")["data"] == {"key": "1"}


def test_a_stale_version_is_a_conflict_and_an_unchanged_object_no_write(store: Store) -> None:
    made = store.create(CONFIG_MAPS, config("a", key="1"))
    version = store.version
    assert store.update(CONFIG_MAPS, made) == made
    assert store.version == version
    changed = store.update(CONFIG_MAPS, made | {"data": {"key": "2"}})
    refused(409, store.update, CONFIG_MAPS, made | {"data": {"key": "3"}})
    assert store.get(CONFIG_MAPS, "a", "default") == changed


def test_a_lease_is_only_updated_with_its_version(store: Store) -> None:
    made = store.create(LEASES, {"metadata": {"name": "l", "namespace": "default"}, "spec": {"holderIdentity": "a"}})
    without = {"metadata": {"name": "l", "namespace": "default"}, "spec": {"holderIdentity": "b"}}
    refusal = refused(422, store.update, LEASES, without)
    assert "must be specified for an update" in refusal.message
    assert store.update(LEASES, made | {"spec": {"holderIdentity": "b"}})["spec"] == {"holderIdentity": "b"}


def test_an_update_of_another_incarnation_is_a_conflict(store: Store) -> None:
    store.create(CONFIG_MAPS, config("a"))
    other = config("a")
    other["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    assert "UID in precondition" in refused(409, store.update, CONFIG_MAPS, other).message


def test_generation_counts_changes_of_the_spec_only(store: Store) -> None:
    deployment = store.get(DEPLOYMENTS, "coredns", "kube-system")
    assert deployment["metadata"]["generation"] == 1
    deployment["metadata"]["labels"]["x"] = "y"
    deployment = store.update(DEPLOYMENTS, deployment)
    assert deployment["metadata"]["generation"] == 1
    deployment["spec"]["replicas"] = 3
    assert store.update(DEPLOYMENTS, deployment)["metadata"]["generation"] == 2


def test_status_is_written_through_its_subresource_and_nothing_else_is(store: Store) -> None:
    node = store.get(NODES, "knode1")
    node["status"]["phase"] = "x"
    node["spec"]["unschedulable"] = True
    ordinary = store.update(NODES, node)
    assert "phase" not in ordinary["status"]
    assert ordinary["spec"] == {"unschedulable": True}
    ordinary["status"]["phase"] = "y"
    ordinary["spec"] = {}
    through = store.update(NODES, ordinary, subresource="status")
    assert through["status"]["phase"] == "y"
    assert through["spec"] == {"unschedulable": True}


def test_a_status_write_leaves_the_owner_alone(store: Store) -> None:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"}
    pod = {
        "metadata": {"name": "owned", "namespace": "default", "ownerReferences": [owner], "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    store.create(PODS, pod)
    bare = {"metadata": {"name": "owned", "namespace": "default"}, "status": {"phase": "Running"}}
    metadata = store.update(PODS, bare, subresource="status")["metadata"]
    assert metadata["ownerReferences"] == [owner]
    assert "labels" not in metadata


def test_a_dry_run_shows_the_result_and_changes_nothing(store: Store) -> None:
    version = store.version
    made = store.create(CONFIG_MAPS, config("dry"), dry_run=True)
    assert "resourceVersion" not in made["metadata"]
    node = store.get(NODES, "knode1")
    shown = store.update(NODES, node | {"spec": {"unschedulable": True}}, dry_run=True)
    assert shown["spec"] == {"unschedulable": True}
    assert shown["metadata"]["resourceVersion"] == node["metadata"]["resourceVersion"]
    assert store.delete(PODS, "web", "default", DeleteOptions(dry_run=True)).gone is False
    assert store.version == version
    assert store.find(CONFIG_MAPS, "dry", "default") is None
    assert "deletionTimestamp" not in store.get(PODS, "web", "default")["metadata"]


def test_a_pod_on_a_node_terminates_until_its_kubelet_confirms(store: Store) -> None:
    deleted = store.delete(PODS, "web", "default")
    assert not deleted.gone
    assert deleted.obj["metadata"]["deletionGracePeriodSeconds"] == 30
    assert deleted.obj["metadata"]["deletionTimestamp"] == "2026-11-23T12:00:30Z"
    assert deleted.obj["metadata"]["generation"] == 2
    assert store.delete(PODS, "web", "default", DeleteOptions(grace_seconds=60)).obj == deleted.obj
    shorter = store.delete(PODS, "web", "default", DeleteOptions(grace_seconds=5)).obj["metadata"]
    assert (shorter["deletionTimestamp"], shorter["deletionGracePeriodSeconds"]) == ("2026-11-23T12:00:05Z", 5)
    assert store.delete(PODS, "web", "default", DeleteOptions(grace_seconds=0)).gone
    assert store.find(PODS, "web", "default") is None


def test_a_terminating_pod_may_still_report_its_state(store: Store) -> None:
    store.delete(PODS, "web", "default")
    pod = store.get(PODS, "web", "default")
    pod["status"]["phase"] = "Succeeded"
    store.update(PODS, pod, subresource="status")
    assert store.get(PODS, "web", "default")["status"]["phase"] == "Succeeded"
    assert store.delete(PODS, "web", "default").gone


def test_a_pod_without_a_node_goes_at_once(store: Store) -> None:
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    store.create(PODS, pod)
    assert store.delete(PODS, "p", "default").gone


def test_preconditions_of_a_deletion(store: Store) -> None:
    wrong = "00000000-0000-0000-0000-000000000000"
    refusal = refused(409, store.delete, PODS, "web", "default", DeleteOptions(uid=wrong))
    assert f"the UID in the precondition ({wrong}) does not match" in refusal.message
    refused(409, store.delete, PODS, "web", "default", DeleteOptions(version="1"))
    uid = store.get(PODS, "web", "default")["metadata"]["uid"]
    assert not store.delete(PODS, "web", "default", DeleteOptions(uid=uid)).gone


def test_finalizers_hold_an_object_until_they_are_gone(store: Store) -> None:
    held = config("held")
    held["metadata"]["finalizers"] = ["example.org/wait"]
    store.create(CONFIG_MAPS, held)
    assert not store.delete(CONFIG_MAPS, "held", "default").gone
    current = store.get(CONFIG_MAPS, "held", "default")
    del current["metadata"]["finalizers"]
    store.update(CONFIG_MAPS, current)
    assert store.find(CONFIG_MAPS, "held", "default") is None


def test_what_cannot_change_is_invalid(store: Store) -> None:
    pod = store.get(PODS, "web", "default")
    pod["spec"]["nodeName"] = "knode2"
    assert "pod updates may not change fields" in refused(422, store.update, PODS, pod).message
    refused(422, store.change, PODS, "web", "default", lambda obj: obj | {"metadata": {"name": "other"}})
    deployment = store.get(DEPLOYMENTS, "coredns", "kube-system")
    deployment["spec"]["selector"] = {"matchLabels": {"x": "y"}}
    refused(422, store.update, DEPLOYMENTS, deployment)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": "Capital"}, "metadata.name"),
        ({}, "metadata.name"),
        ({"name": "a", "labels": {"k": "not valid"}}, "metadata.labels"),
        ({"name": "a", "labels": {"k": "x" * 64}}, "metadata.labels"),
        ({"name": "a", "labels": {"/k": ""}}, "metadata.labels"),
        ({"name": "a", "annotations": {"k": "x" * 262144}}, "metadata.annotations"),
    ],
)
def test_bad_metadata_is_invalid(store: Store, metadata: dict[str, Any], field: str) -> None:
    refusal = refused(422, store.create, CONFIG_MAPS, {"metadata": metadata})
    assert refusal.details is not None
    assert [cause["field"] for cause in refusal.details["causes"]] == [field]


def test_taints_are_checked(store: Store) -> None:
    node = store.get(NODES, "knode1")
    node["spec"]["taints"] = [{"key": "a", "effect": "Never"}]
    refused(422, store.update, NODES, node)
    node["spec"]["taints"] = [{"key": "a", "effect": "NoSchedule"}] * 2
    assert "Duplicate value" in refused(422, store.update, NODES, node).message


def test_nothing_is_created_in_a_namespace_that_is_missing_or_going(store: Store) -> None:
    lost = {"metadata": {"name": "a", "namespace": "nowhere"}}
    assert refused(404, store.create, CONFIG_MAPS, lost).message == 'namespaces "nowhere" not found'
    store.create(NAMESPACES, {"metadata": {"name": "going"}})
    assert not store.delete(NAMESPACES, "going").gone
    refusal = refused(403, store.create, CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "going"}})
    assert refusal.details is not None
    assert refusal.details["causes"][0]["reason"] == "NamespaceTerminating"


def test_services_get_an_address_of_their_own(store: Store) -> None:
    def make(name: str) -> str:
        service = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
        return str(store.create(SERVICES, service)["spec"]["clusterIP"])

    assert len({make("a"), make("b"), "10.96.0.10"}) == 3


def test_pages_show_one_moment_whatever_happens_in_between(store: Store) -> None:
    first = store.page(NODES, limit=2)
    assert [node["metadata"]["name"] for node in first.items] == ["knode1", "knode2"]
    assert first.remaining == 1
    store.delete(NODES, "knode3")
    store.create(NODES, {"metadata": {"name": "knode4"}})
    second = store.page(NODES, limit=2, token=first.token)
    assert [node["metadata"]["name"] for node in second.items] == ["knode3"]
    assert (second.version, second.token) == (first.version, "")
    assert len(store.page(NODES).items) == 3


def test_a_page_of_a_forgotten_moment_expires_with_a_way_to_go_on(store: Store) -> None:
    first = store.page(NODES, limit=1)
    store.create(CONFIG_MAPS, config("later"))
    store.compact()
    refusal = refused(410, store.page, NODES, limit=1, token=first.token)
    token = refusal.metadata["continue"]
    assert decode_token(token) == (-1, "knode1")
    rest = store.page(NODES, limit=5, token=token)
    assert [node["metadata"]["name"] for node in rest.items] == ["knode2", "knode3"]
    assert rest.version == store.version


def test_selectors_hide_how_many_remain(store: Store) -> None:
    page = store.page(NODES, "", object_filter(NODES, "kubernetes.io/os=linux"), limit=1)
    assert page.token
    assert page.remaining is None


def test_an_exact_old_version_and_one_of_the_future(store: Store) -> None:
    then = store.version
    store.delete(NODES, "knode3")
    assert len(store.page(NODES, at_version=then).items) == 3
    refused(504, store.page, NODES, at_version=store.version + 1)
    store.compact()
    refused(410, store.page, NODES, at_version=then)


def test_a_subscription_goes_on_where_a_list_ended(store: Store) -> None:
    page = store.page(CONFIG_MAPS)
    store.create(CONFIG_MAPS, config("a"))
    store.create(EVENTS, {"metadata": {"name": "e", "namespace": "default"}})
    subscription = store.subscribe([CONFIG_MAPS], since=page.version)
    store.delete(CONFIG_MAPS, "a", "default")
    changes = subscription.take()
    assert [change.type for change in changes] == [ChangeType.ADDED, ChangeType.DELETED]
    assert changes[1].obj["metadata"]["resourceVersion"] == str(store.version)
    subscription.close()
    store.create(CONFIG_MAPS, config("b"))
    assert subscription.take() == []


def test_a_version_that_is_too_old_to_watch_from(store: Store) -> None:
    store.compact()
    store.subscribe(since=store.version).close()
    refusal = refused(410, store.subscribe, since=1)
    assert refusal.message == f"too old resource version: 1 ({store.version})"


def test_the_history_is_bounded(clock: ManualClock) -> None:
    store = new_store(clock, history=5)
    for number in range(10):
        store.create(NAMESPACES, {"metadata": {"name": f"n{number}"}})
    store.subscribe(since=store.version - 5).close()
    refused(410, store.subscribe, since=store.version - 6)


def test_waiting_for_a_change_ends_with_it_and_with_close(store: Store) -> None:
    subscription = store.subscribe([CONFIG_MAPS])
    results: list[list[Change]] = []
    for end in (lambda: store.create(CONFIG_MAPS, config("a")), subscription.close):
        thread = threading.Thread(target=lambda: results.append(subscription.wait(30)))
        thread.start()
        end()
        thread.join()
    assert [change.obj["metadata"]["name"] for change in results[0]] == ["a"]
    assert results[1] == []


def test_a_selector_turns_changes_into_arrivals_and_departures(store: Store) -> None:
    subscription = store.subscribe([NODES])

    def label(value: str | None) -> None:
        def edit(node: dict[str, Any]) -> dict[str, Any]:
            node["metadata"]["labels"] |= {"role": value}
            if value is None:
                del node["metadata"]["labels"]["role"]
            return node

        store.change(NODES, "knode1", "", edit)

    label("x")
    label("y")
    label(None)
    matches = object_filter(NODES, "role")
    seen = [seen_through(change, "", matches) for change in subscription.take()]
    assert [change.type if change else None for change in seen] == [
        ChangeType.ADDED,
        ChangeType.MODIFIED,
        ChangeType.DELETED,
    ]
    gone = seen[2]
    assert gone is not None
    assert gone.obj["metadata"]["labels"]["role"] == "y"
    assert gone.obj["metadata"]["resourceVersion"] == str(store.version)


def test_admission_sees_and_may_refuse_every_write(store: Store) -> None:
    seen = []

    def check(admission: Any) -> None:
        seen.append((admission.kind.kind, admission.old is None, admission.dry_run))
        if admission.obj["metadata"]["name"] == "bad":
            raise Refused(403, "Forbidden", "no")

    store.admission.append(check)
    store.create(CONFIG_MAPS, config("good"), dry_run=True)
    refused(403, store.create, CONFIG_MAPS, config("bad"))
    store.change(NODES, "knode1", "", lambda node: node | {"spec": {"unschedulable": True}})
    assert seen == [("ConfigMap", True, True), ("ConfigMap", True, False), ("Node", False, False)]
