"""A lab in the kernel beside the recorded cluster: status, headers that matter, bodies by shape, over the network.

What differs is written down here, by the beginnings of paths, and in docs/lab-api.md; a difference that is gone fails
the test as well as one that is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kdnsctl.lab.kubeclient import ApiError, KubeClient
from tests.lab.api import recordings
from tests.lab.api.client import Operator

SYSTEM = "/api/v1/namespaces/kube-system"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
APPLIED = ".metadata.annotations.kubectl.kubernetes.io/last-applied-configuration:"
LABELLED = ".metadata.labels.kubernetes.io/cluster-service:"
# The lab's manifests say more about CoreDNS and less about mounts than those of the recorded cluster.
POD_MISSING = (
    ".items[].spec.containers[].volumeMounts[].readOnly:",
    ".items[].spec.volumes[].projected.",
    ".items[].status.conditions[].observedGeneration:",
    ".items[].status.containerStatuses[].volumeMounts[]",
    ".items[].status.observedGeneration:",
)
POD_ADDED = (
    ".items[].spec.containers[].args[]",
    ".items[].spec.containers[].ports[]",
    ".items[].spec.tolerations[].tolerationSeconds:",
)


def outside(paths: set[str], beginnings: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Paths that begin with none of `beginnings`, and beginnings that none of the paths has."""
    unexplained = {path for path in paths if not path.startswith(beginnings)}
    idle = {each for each in beginnings if not any(path.startswith(each) for path in paths)}
    return unexplained, idle


def is_as_it_began(pod: dict[str, Any]) -> bool:
    status = pod["status"]["containerStatuses"]
    return "deletionTimestamp" not in pod["metadata"] and all(not each["restartCount"] for each in status)


@pytest.mark.parametrize(
    ("path", "name", "missing", "added"),
    [
        (
            "/api/v1/nodes",
            "nodes",
            (
                ".items[].metadata.annotations.node.alpha.kubernetes.io/ttl:",
                ".items[].status.declaredFeatures[]",
                ".items[].status.images[]",
            ),
            (".items[].spec.podCIDR:", ".items[].spec.podCIDRs[]"),
        ),
        (f"{SYSTEM}/configmaps/kube-proxy", "configmap-kube-proxy", (".data.kubeconfig:", APPLIED), ()),
        (
            "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
            "daemonset-kube-proxy",
            (".metadata.annotations.deprecated.daemonset.template.generation:", APPLIED),
            (),
        ),
        (f"{SYSTEM}/services/kube-dns", "service-kube-dns", (APPLIED,), (LABELLED,)),
        (
            f"{SLICES}?labelSelector=kubernetes.io/service-name%3Dkube-dns",
            "endpointslices-kube-dns",
            (),
            (f".items[]{LABELLED}",),
        ),
        (f"{SYSTEM}/pods", "pods-kube-system", POD_MISSING, POD_ADDED),
        ("/version", "version", (), ()),
        ("/api/v1", "discovery-api-v1", (), ()),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value else "",
)
def test_an_answer_has_the_recorded_shape(
    operator: Operator, path: str, name: str, missing: tuple[str, ...], added: tuple[str, ...]
) -> None:
    reply = operator.get(path)
    recordings.same_headers(reply, name)
    body = reply.json
    if name == "pods-kube-system":  # no recorded container was restarted, and CoreDNS had not been rolled out again
        items = [pod for pod in body["items"] if is_as_it_began(pod)]
        body = recordings.without({**body, "items": items}, frozenset({"kubectl.kubernetes.io/restartedAt"}))
    ours, recorded = set(recordings.shape(body)), set(recordings.shape(recordings.body(name)))
    assert outside(recorded - ours, missing) == (set(), set())
    assert outside(ours - recorded, added) == (set(), set())


def test_nodes_as_metadata_only_and_by_pages(operator: Operator) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    reply = operator.get("/api/v1/nodes", {"Accept": accept})
    recorded = set(recordings.shape(recordings.body("nodes-partial-metadata")))
    ttl = ".items[].metadata.annotations.node.alpha.kubernetes.io/ttl:str"
    assert recorded ^ set(recordings.shape(reply.json)) == {ttl}
    page = operator.get("/api/v1/nodes?limit=2")
    recordings.same_headers(page, "nodes-page")
    assert set(page.json["metadata"]) == set(recordings.body("nodes-page")["metadata"])
    rest = operator.get(f"/api/v1/nodes?limit=2&continue={page.json['metadata']['continue']}")
    names = [item["metadata"]["name"] for answer in (page, rest) for item in answer.json["items"]]
    assert names == ["knode1", "knode2", "knode3"]


@pytest.mark.parametrize(
    ("path", "name"), [("/api/v1/nodes", "table-nodes"), (f"{SYSTEM}/pods?labelSelector=k8s-app", "table-pods")]
)
def test_tables(operator: Operator, path: str, name: str) -> None:
    reply = operator.get(path, {"Accept": TABLE})
    recordings.same_headers(reply, name)
    recorded = recordings.body(name)

    assert recordings.columns(reply.json) == recordings.columns(recorded)
    row, other = reply.json["rows"][0], recorded["rows"][0]
    assert [type(cell) for cell in row["cells"]] == [type(cell) for cell in other["cells"]]
    assert {key: set(value) for key, value in row.items() if isinstance(value, dict)} == {
        key: set(value) for key, value in other.items() if isinstance(value, dict)
    }


@pytest.fixture
def proxy(operator: Operator) -> str:
    """The name of knode1's kube-proxy pod."""
    query = "labelSelector=k8s-app%3Dkube-proxy&fieldSelector=spec.nodeName%3Dknode1"
    (pod,) = operator.get(f"{SYSTEM}/pods?{query}").json["items"]
    name = pod["metadata"]["name"]
    assert isinstance(name, str)
    return name


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (f"{SYSTEM}/pods/PROXY/log?container=nope", "log-bad-container"),
        (f"{SYSTEM}/pods/PROXY/log?sinceSeconds=0", "log-bad-option"),
        (f"{SYSTEM}/pods/PROXY/log?previous=true", "log-previous-missing"),
        (f"{SYSTEM}/pods/nope/log", "log-pod-missing"),
        ("/api/v1/nodes/nope", "missing-node"),
    ],
)
def test_refusals_are_word_for_word(operator: Operator, proxy: str, request_: str, name: str) -> None:
    reply = operator.get(request_.replace("PROXY", proxy))
    recordings.same_headers(reply, name)
    said = json.loads(reply.body.replace(proxy.encode(), b"kube-proxy-l7sqf"))
    assert said == recordings.body(name)


def test_logs_that_are_empty_or_cut(operator: Operator, proxy: str) -> None:
    empty = operator.get(f"{SYSTEM}/pods/{proxy}/log?sinceTime=2099-01-01T00:00:00Z")
    recordings.same_headers(empty, "log-empty-window")
    assert empty.body == b""
    cut = operator.get(f"{SYSTEM}/pods/{proxy}/log?limitBytes=60&timestamps=true")
    recordings.same_headers(cut, "log-limit-bytes")
    assert len(cut.body) == 60


def test_somebody_without_rights(operator: Operator) -> None:
    nobody = {"Impersonate-User": "nobody@example"}
    for path, name in (("/api/v1/nodes", "forbidden-list-nodes"), (f"{SYSTEM}/pods/x/log", "forbidden-pod-log")):
        reply = operator.get(path, nobody)
        recordings.same_headers(reply, name)
        assert reply.json == recordings.body(name)
    recorded = recordings.body("selfsubjectaccessreview")
    review = {"spec": recorded["spec"]}
    reply = operator.send("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    assert (reply.code, reply.json) == (201, recorded)


@pytest.fixture
def cleared(api: KubeClient) -> Iterator[list[str]]:
    """Paths of objects that are removed afterwards."""
    paths: list[str] = []
    yield paths
    for path in paths:
        try:
            api.delete(path)
        except ApiError as error:
            assert error.code == 404  # noqa: PT017  # never made


def test_leases_that_collide(operator: Operator, cleared: list[str]) -> None:
    cleared.append(f"{LEASES}/kdnsctl-test")
    lease = {"metadata": {"name": "kdnsctl-test"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 60}}
    made = operator.send("POST", LEASES, lease)
    recordings.same_headers(made, "lease-create")
    assert set(recordings.shape(made.json)) == set(recordings.shape(recordings.body("lease-create")))
    again = operator.send("POST", LEASES, lease)
    recordings.same_headers(again, "lease-create-conflict")
    assert again.json == recordings.body("lease-create-conflict")
    stale = {"metadata": {"name": "kdnsctl-test", "resourceVersion": "1"}, "spec": {"holderIdentity": "b"}}
    late = operator.send("PUT", f"{LEASES}/kdnsctl-test", stale)
    recordings.same_headers(late, "lease-update-conflict")
    assert late.json == recordings.body("lease-update-conflict")


def test_patches_that_change_nothing(operator: Operator) -> None:
    patch = [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}]
    reply = operator.send("PATCH", "/api/v1/nodes/knode1", patch, {"Content-Type": "application/json-patch+json"})
    recordings.same_headers(reply, "patch-json-test-conflict")
    assert reply.json == recordings.body("patch-json-test-conflict")
    media = {"Content-Type": "application/strategic-merge-patch+json"}
    cordon = operator.send("PATCH", "/api/v1/nodes/knode1?dryRun=All", {"spec": {"unschedulable": True}}, media)
    recorded = recordings.body("patch-cordon-dryrun")["spec"]
    assert {key: cordon.json["spec"].get(key) for key in recorded} == recorded
    assert "unschedulable" not in operator.get("/api/v1/nodes/knode1").json["spec"]


def test_pod_security_refuses_a_host_network_even_on_a_dry_run(operator: Operator, cleared: list[str]) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    cleared.append("/api/v1/namespaces/safe")
    operator.send("POST", "/api/v1/namespaces", {"metadata": {"name": "safe", "labels": labels}})
    pod = {"metadata": {"name": "p"}, "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "i"}]}}
    for query in ("?dryRun=All", ""):
        reply = operator.send("POST", f"/api/v1/namespaces/safe/pods{query}", pod)
        recordings.same_headers(reply, "psa-denied")
        assert reply.json == recordings.body("psa-denied")


def test_the_changes_of_one_node(operator: Operator) -> None:
    recorded = recordings.lines("watch-node-modified")
    events = operator.events("/api/v1/nodes?watch=true&fieldSelector=metadata.name%3Dknode3")
    seen = [next(events)]
    media = {"Content-Type": "application/merge-patch+json"}
    for label in ("1", None):
        operator.send("PATCH", "/api/v1/nodes/knode3", {"metadata": {"labels": {"x": label}}}, media)
        # The kubelet reports the node now and then, which is an event, too.
        seen.append(next(event for event in events if event["object"]["metadata"]["labels"].get("x") == label))
    assert [event["type"] for event in seen] == [event["type"] for event in recorded]
    assert [set(event) for event in seen] == [set(event) for event in recorded]
