"""The lab's replies beside the recorded ones: status, headers that matter, bodies or their shapes."""

from __future__ import annotations

from typing import Any

import pytest

from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import DISRUPTION_BUDGETS, EVENTS, NAMESPACES, NODES, PODS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import Store
from tests.lab.api import recordings
from tests.lab.api.client import Client, Reply
from tests.lab.api.memory_runtime import MemoryRuntime

POD = "/api/v1/namespaces/kube-system/pods/kube-proxy-l7sqf"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


@pytest.fixture
def proxy_pod(store: Store, runtime: MemoryRuntime) -> None:
    """The recorded pod that log requests were made for."""
    pod = {
        "metadata": {"name": "kube-proxy-l7sqf", "namespace": "kube-system"},
        "spec": {"nodeName": "knode1", "containers": [{"name": "kube-proxy", "image": "x"}]},
    }
    store.create(PODS, pod)
    runtime.log("kube-system", "kube-proxy-l7sqf", "kube-proxy", "I1123 03:04:20 a line of one hundred" + "." * 80)


def same(reply: Reply, name: str) -> None:
    recordings.same_headers(reply, name)
    assert reply.json == recordings.body(name)


def test_a_missing_object(client: Client) -> None:
    same(client.get("/api/v1/nodes/nope"), "missing-node")


@pytest.mark.usefixtures("proxy_pod")
@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"{POD}/log?container=nope", "log-bad-container"),
        (f"{POD}/log?sinceSeconds=0", "log-bad-option"),
        (f"{POD}/log?previous=true", "log-previous-missing"),
        ("/api/v1/namespaces/kube-system/pods/nope/log", "log-pod-missing"),
    ],
)
def test_log_requests_that_fail(client: Client, path: str, name: str) -> None:
    same(client.get(path), name)


@pytest.mark.usefixtures("proxy_pod")
def test_an_empty_log_and_one_cut_by_limit_bytes(client: Client) -> None:
    empty = client.get(f"{POD}/log?sinceTime=2030-01-01T00:00:00Z")
    recordings.same_headers(empty, "log-empty-window")
    assert empty.body == b""
    cut = client.get(f"{POD}/log?limitBytes=60&timestamps=true")
    recordings.same_headers(cut, "log-limit-bytes")
    assert len(cut.body) == 60
    assert not cut.body.endswith(b"\n")


def test_refusals_for_somebody_without_rights(server: ApiServer, client: Client) -> None:
    server.policy.grant_user("helper", Rule(("impersonate",), ("",), ("users",)))
    with Client(server, "helper", ()) as helper:
        as_nobody = {"Impersonate-User": "nobody@example"}
        same(helper.get("/api/v1/nodes", as_nobody), "forbidden-list-nodes")
        same(helper.get("/api/v1/namespaces/kube-system/pods/x/log", as_nobody), "forbidden-pod-log")
    same(client.get("/api/v1/nodes", {"Impersonate-User": "nobody@example"}), "forbidden-list-nodes")


def test_a_json_patch_whose_test_fails(client: Client) -> None:
    patch = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
    media = {"Content-Type": "application/json-patch+json"}
    same(client.send("PATCH", "/api/v1/nodes/knode1", patch, media), "patch-json-test-conflict")


def test_a_cordon_as_a_dry_run(client: Client, store: Store) -> None:
    version = store.version
    media = {"Content-Type": "application/strategic-merge-patch+json"}
    reply = client.send("PATCH", "/api/v1/nodes/knode1?dryRun=All", {"spec": {"unschedulable": True}}, media)
    assert reply.code == 200
    assert reply.json["spec"] == recordings.body("patch-cordon-dryrun")["spec"]
    assert reply.json["metadata"]["resourceVersion"] == store.get(NODES, "knode1")["metadata"]["resourceVersion"]
    assert store.version == version


@pytest.fixture
def budget(store: Store) -> JSON:
    """The budget `web` over the pod `web`, counted as in the recordings."""
    return make_budget(store, "web", desired=3, healthy=3, allowed=0)


def make_budget(store: Store, name: str, *, desired: int, healthy: int, allowed: int) -> JSON:
    spec = {"minAvailable": desired, "selector": {"matchLabels": {"app": "web"}}}
    made = store.create(DISRUPTION_BUDGETS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    made["status"] = {
        "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired,
        "expectedPods": 4,
    }  # fmt: skip
    return store.update(DISRUPTION_BUDGETS, made, subresource="status")


def evict(client: Client, pod: str, options: JSON | None = None, query: str = "") -> Reply:
    body: JSON = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
    if options is not None:
        body["deleteOptions"] = options
    return client.send("POST", f"/api/v1/namespaces/default/pods/{pod}/eviction{query}", body)


def test_an_eviction_and_its_dry_run(client: Client, store: Store) -> None:
    same(evict(client, "web", {"dryRun": ["All"]}, "?dryRun=All"), "evict-dryrun")
    assert "deletionTimestamp" not in store.get(PODS, "web", "default")["metadata"]
    same(evict(client, "web"), "evict-ok")
    pod = store.get(PODS, "web", "default")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 30
    condition = next(one for one in pod["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert (condition["status"], condition["reason"]) == ("True", "EvictionByEvictionAPI")


def test_an_eviction_of_what_is_not_there(client: Client) -> None:
    same(evict(client, "nope"), "evict-missing")


def test_an_eviction_that_a_budget_refuses(client: Client, store: Store, budget: JSON) -> None:
    budget["spec"]["minAvailable"] = budget["status"]["desiredHealthy"] = 4
    store.update(DISRUPTION_BUDGETS, budget)
    current = store.get(DISRUPTION_BUDGETS, "web", "default")
    current["status"] |= {"observedGeneration": 2, "desiredHealthy": 4}
    store.update(DISRUPTION_BUDGETS, current, subresource="status")
    same(evict(client, "web"), "evict-pdb-blocked")


@pytest.mark.usefixtures("budget")
def test_an_eviction_before_the_budget_was_counted(client: Client, store: Store) -> None:
    current = store.get(DISRUPTION_BUDGETS, "web", "default")
    current["spec"]["minAvailable"] = 2
    store.update(DISRUPTION_BUDGETS, current)
    same(evict(client, "web"), "evict-pdb-not-observed")


@pytest.mark.usefixtures("budget")
def test_an_eviction_under_two_budgets(client: Client, store: Store) -> None:
    make_budget(store, "web-too", desired=1, healthy=3, allowed=2)
    same(evict(client, "web"), "evict-two-pdbs")


def test_an_eviction_of_another_pod_of_that_name_costs_a_disruption_all_the_same(client: Client, store: Store) -> None:
    make_budget(store, "web", desired=2, healthy=3, allowed=1)
    recorded = recordings.body("evict-wrong-uid")
    uid = store.get(PODS, "web", "default")["metadata"]["uid"]
    for old, new in (("web-6bcb8b477f-7r8l7", "web"), ("80c68e22-4bcd-4af6-a6ca-c81be6d576b4", uid)):
        recorded["message"] = recorded["message"].replace(old, new)
    recorded["details"]["name"] = "web"
    reply = evict(client, "web", {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}})
    recordings.same_headers(reply, "evict-wrong-uid")
    assert reply.json == recorded
    assert store.get(DISRUPTION_BUDGETS, "web", "default")["status"]["disruptedPods"] == {"web": "2026-11-23T12:00:00Z"}
    assert evict(client, "web", {"preconditions": {"uid": uid}}).code == 429


def test_leases_that_collide(client: Client) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    lease = {"metadata": {"name": "kdnsctl-test"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 60}}
    made = client.send("POST", path, lease)
    recordings.same_headers(made, "lease-create")
    assert set(recordings.shape(made.json)) == set(recordings.shape(recordings.body("lease-create")))
    same(client.send("POST", path, lease), "lease-create-conflict")
    stale = {"metadata": {"name": "kdnsctl-test", "resourceVersion": "1"}, "spec": {"holderIdentity": "b"}}
    same(client.send("PUT", f"{path}/kdnsctl-test", stale), "lease-update-conflict")


def test_a_continue_token_that_expired(client: Client, store: Store) -> None:
    token = client.get("/api/v1/nodes?limit=1").json["metadata"]["continue"]
    store.create(NAMESPACES, {"metadata": {"name": "later"}})
    store.compact()
    same(client.get(f"/api/v1/nodes?limit=1&continue={token}"), "nodes-expired-continue")


def test_a_watch_from_too_old_a_version(client: Client, store: Store) -> None:
    store.compact()
    reply = client.get("/api/v1/nodes?watch=true&resourceVersion=1")
    recordings.same_headers(reply, "watch-expired")
    recorded = recordings.body("watch-expired")
    recorded["object"]["message"] = f"too old resource version: 1 ({store.version})"
    assert reply.json == recorded


def test_pod_security_refuses_a_host_network_even_on_a_dry_run(client: Client, store: Store) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    store.create(NAMESPACES, {"metadata": {"name": "safe", "labels": labels}})
    pod = {"metadata": {"name": "p"}, "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "i"}]}}
    for query in ("?dryRun=All", ""):
        same(client.send("POST", f"/api/v1/namespaces/safe/pods{query}", pod), "psa-denied")
    assert store.select(PODS, "safe") == []


def test_an_access_review(client: Client) -> None:
    recorded = recordings.body("selfsubjectaccessreview")
    reply = client.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": recorded["spec"]})
    assert reply.code == 201
    assert reply.json == recorded


def test_the_version(client: Client) -> None:
    same(client.get("/version"), "version")


def test_discovery_of_the_core_group_equals_the_recorded_one_as_far_as_it_is_served(client: Client) -> None:
    reply = client.get("/api/v1")
    recordings.same_headers(reply, "discovery-api-v1")
    recorded = recordings.body("discovery-api-v1")
    served = reply.json
    by_name = {resource["name"]: resource for resource in recorded["resources"]}
    assert {key: served[key] for key in recorded if key != "resources"} == {
        key: recorded[key] for key in recorded if key != "resources"
    }
    assert len(served["resources"]) > 10
    for resource in served["resources"]:
        assert resource == by_name[resource["name"]]


def test_discovery_of_groups_equals_the_recorded_one_as_far_as_it_is_served(client: Client) -> None:
    reply = client.get("/apis")
    recordings.same_headers(reply, "discovery-apis")
    recorded = recordings.body("discovery-apis")
    order = [group for group in recorded["groups"] if group in reply.json["groups"]]
    assert reply.json == {**recorded, "groups": order}
    assert len(order) == 7


def test_node_lists(client: Client) -> None:
    reply = client.get("/api/v1/nodes")
    recordings.same_headers(reply, "nodes")
    missing, added = difference(reply.json, recordings.body("nodes"))
    # The images on a node are the kubelet's to report.
    assert {path for path in missing if ".images[]" not in path} == set()
    assert added == set()


def test_a_page_of_nodes(client: Client) -> None:
    reply = client.get("/api/v1/nodes?limit=2")
    recordings.same_headers(reply, "nodes-page")
    recorded = recordings.body("nodes-page")
    assert set(reply.json["metadata"]) == set(recorded["metadata"])
    assert reply.json["metadata"]["remainingItemCount"] == recorded["metadata"]["remainingItemCount"]
    assert len(reply.json["items"]) == 2


def test_nodes_as_metadata_only(client: Client) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    reply = client.get("/api/v1/nodes", {"Accept": accept})
    recorded = recordings.body("nodes-partial-metadata")
    assert set(recordings.shape(reply.json)) == set(recordings.shape(recorded))


@pytest.mark.parametrize(("resource", "name"), [("nodes", "table-nodes"), ("pods", "table-pods")])
def test_tables(client: Client, resource: str, name: str) -> None:
    reply = client.get(f"/api/v1/{resource}", {"Accept": TABLE})
    recordings.same_headers(reply, name)
    recorded = recordings.body(name)

    assert recordings.columns(reply.json) == recordings.columns(recorded)
    assert set(reply.json) == set(recorded)
    row, other = reply.json["rows"][0], recorded["rows"][0]
    assert set(row) == set(other)
    assert [type(cell) for cell in row["cells"]] == [type(cell) for cell in other["cells"]]
    assert set(row["object"]) == set(other["object"])


def test_the_cells_of_a_recorded_node_are_the_recorded_ones(client: Client) -> None:
    rows = client.get("/api/v1/nodes", {"Accept": TABLE}).json["rows"]
    recorded = recordings.body("table-nodes")["rows"]
    # Age and kernel differ from machine to machine.
    for place in (0, 1, 2, 4, 5, 6, 7, 9):
        assert [row["cells"][place] for row in rows] == [row["cells"][place] for row in recorded]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/api/v1/namespaces/kube-system/configmaps/kube-proxy", "configmap-kube-proxy"),
        ("/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy", "daemonset-kube-proxy"),
        ("/api/v1/namespaces/kube-system/services/kube-dns", "service-kube-dns"),
    ],
)
def test_the_seeded_objects_look_like_the_recorded_ones(client: Client, path: str, name: str) -> None:
    reply = client.get(path)
    recordings.same_headers(reply, name)
    missing, added = difference(reply.json, recordings.body(name))
    # `kubectl apply` left its annotation on the real objects; status is counted by controllers, which do not run here.
    unlike = {place for place in missing | added if ".annotations." not in place and not place.startswith(".status")}
    assert unlike == set()


def test_initial_events_end_with_a_bookmark(client: Client, store: Store) -> None:
    path = "/api/v1/events?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    event = recordings.lines("watch-initial-events-and-bookmark")[0]["object"]
    store.create(EVENTS, event)
    events = client.events(path)
    first, bookmark = next(events), next(events)
    assert set(recordings.shape(first)) == set(recordings.shape({"type": "ADDED", "object": event}))
    recorded = recordings.lines("watch-initial-events-and-bookmark")[-1]
    recorded["object"]["metadata"]["resourceVersion"] = str(store.version)
    assert bookmark == recorded


def test_the_changes_of_one_node(client: Client, store: Store) -> None:
    recorded = recordings.lines("watch-node-modified")
    events = client.events("/api/v1/nodes?watch=true&fieldSelector=metadata.name%3Dknode3")
    seen = [next(events)]
    for label in ("1", None):
        media = {"Content-Type": "application/merge-patch+json"}
        client.send("PATCH", "/api/v1/nodes/knode3", {"metadata": {"labels": {"x": label}}}, media)
        seen.append(next(events))
    assert [event["type"] for event in seen] == [event["type"] for event in recorded]
    assert [event["object"]["metadata"]["labels"] for event in seen] == [
        event["object"]["metadata"]["labels"] for event in recorded
    ]
    assert int(seen[2]["object"]["metadata"]["resourceVersion"]) == store.version


def difference(ours: Any, recorded: Any) -> tuple[set[str], set[str]]:
    """The shapes that only the recording has, and those that only the lab has."""
    left, right = set(recordings.shape(ours)), set(recordings.shape(recorded))
    return right - left, left - right
