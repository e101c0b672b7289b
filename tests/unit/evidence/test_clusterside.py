"""The cluster's side of a bundle: each pod once, nothing that can hold a secret, and what is forbidden is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import Failure, ForbiddenError, NotFoundError
from kdnsctl.cluster.transport import Connection, Reply
from kdnsctl.evidence import clusterside
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.clusterside import ClusterCollector, without_secrets
from kdnsctl.model import SilentReporter

SECRET = "hunter2"
SYSTEM = "/api/v1/namespaces/kube-system"


def pod(namespace: str, name: str, node: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "annotations": {"note": SECRET}, "labels": {"l": SECRET}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "i", "args": [SECRET], "env": [{"name": "T", "value": SECRET}]}],
        },
        "status": {"podIP": "10.244.2.3", "phase": "Running", "message": SECRET},
    }


class Api:
    """Answers lists and objects by path; what it does not have is not there, what is in `forbidden` is refused."""

    def __init__(self, objects: Mapping[str, Any], forbidden: frozenset[str] = frozenset()) -> None:
        self.objects = objects
        self.forbidden = forbidden
        self.asked: list[tuple[str, str]] = []

    def request(self, method: str, path: str, *, query: Any = None, **_: Any) -> Reply:
        assert method == "GET"
        assert "secrets" not in path
        self.asked.append((path, (query or {}).get("fieldSelector") or ""))
        if path in self.forbidden or path.endswith("/endpointslices"):  # watching is another test's
            raise ForbiddenError(Failure(f"GET {path}", 403, message="it is forbidden"))
        found = self.objects.get(path)
        if found is None and "/configmaps/" in path:
            raise NotFoundError(Failure(f"GET {path}", 404))
        body = {"items": found or [], "metadata": {"resourceVersion": "7"}} if not isinstance(found, dict) else found
        return Reply(200, json.dumps(body).encode(), date="Mon, 23 Nov 2026 03:00:00 GMT")


PODS = {
    f"{SYSTEM}/pods": [pod("kube-system", "kube-proxy-x", "knode1"), pod("kube-system", "coredns-x", "knode9")],
    "/api/v1/pods": [
        pod("kube-system", "kube-proxy-x", "knode1"),
        pod("shop", "client", "knode1"),
        pod("shop", "elsewhere", "knode9"),
    ],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    with Bundle.create(tmp_path / "evidence", {}) as made:
        yield made


def collected(bundle: Bundle, api: Api, *nodes: str) -> ClusterCollector:
    collector = ClusterCollector(bundle, cast("Connection", api), nodes or ("knode1",), SilentReporter())
    with CancelScope() as scope, collector.during(scope):
        pass
    return collector


def content(bundle: Bundle, name: str) -> Any:
    return json.loads((bundle.directory / "cluster/01" / f"{name}.json").read_text())


def test_pods_are_there_once_and_those_of_others_only_by_name_and_address(bundle: Bundle) -> None:
    collected(bundle, Api(PODS))
    found = {one["metadata"]["name"]: one for one in content(bundle, "pods")["items"]}
    assert set(found) == {"kube-proxy-x", "coredns-x", "client"}
    assert len(content(bundle, "pods")["items"]) == 3
    assert SECRET not in json.dumps(found["client"])
    assert found["client"]["status"] == {"phase": "Running", "podIP": "10.244.2.3"}
    assert found["client"]["spec"] == {"nodeName": "knode1", "containers": [{"name": "c", "image": "i"}]}
    assert found["kube-proxy-x"]["spec"]["containers"][0]["args"]  # kube-proxy's command line


def test_the_pods_of_few_nodes_are_asked_for_by_node_and_of_many_all_at_once(bundle: Bundle) -> None:
    few, many = Api(PODS), Api(PODS)
    collected(bundle, few, "knode1", "knode2")
    assert [fields for path, fields in few.asked if path == "/api/v1/pods"] == [
        "spec.nodeName=knode1",
        "spec.nodeName=knode2",
    ]
    collected(bundle, many, *(f"knode{number}" for number in range(clusterside.FEW_NODES + 1)))
    assert [fields for path, fields in many.asked if path == "/api/v1/pods"] == [""]


def test_what_no_verdict_hangs_on_is_lacking_where_it_is_forbidden_and_the_rest_is_there(bundle: Bundle) -> None:
    names = {f"{SYSTEM}/configmaps/{name}" for kind in clusterside.KINDS for name in kind.names}
    refused = frozenset({f"{SYSTEM}/events", "/api/v1/pods", "/version", *names})
    collector = collected(bundle, Api(PODS, refused), "knode1", "knode2")
    assert {gap.item for gap in collector.lacking} == {"events", "pods.clients", "clock", "configmaps"}
    assert len(collector.lacking) == 4
    assert {gap.reason.code for gap in collector.lacking} == {"forbidden"}
    assert not {"services", "pods", "nodes"} & {gap.item for gap in collector.gaps}
    assert [one["metadata"]["name"] for one in content(bundle, "pods")["items"]] == ["kube-proxy-x", "coredns-x"]


def test_what_verdicts_hang_on_is_a_gap(bundle: Bundle) -> None:
    collector = collected(bundle, Api(PODS, frozenset({"/api/v1/services", f"{SYSTEM}/pods"})))
    assert {"services", "pods"} <= {gap.item for gap in collector.gaps}


def test_config_maps_that_are_not_there_are_no_gap_and_one_may_be_forbidden(bundle: Bundle) -> None:
    data = {"config.conf": "mode: ipvs\n", "kubeconfig.conf": SECRET}
    kube_proxy = {"metadata": {"name": "kube-proxy"}, "data": data}
    api = Api({**PODS, f"{SYSTEM}/configmaps/kube-proxy": kube_proxy}, frozenset({f"{SYSTEM}/configmaps/coredns"}))
    collector = collected(bundle, api)
    assert "configmaps" not in {gap.item for gap in (*collector.gaps, *collector.lacking)}
    (one,) = content(bundle, "configmaps")["items"]
    assert one["data"] == {"config.conf": "mode: ipvs\n"}
    assert not any(path.endswith("/configmaps") for path, _ in api.asked)  # never all: others' can hold anything


def test_the_servers_clock_stands_between_two_of_ours(bundle: Bundle) -> None:
    collected(bundle, Api({**PODS, "/version": {"gitVersion": "v1.36.2"}}))
    said = content(bundle, "clock")
    assert said["began"] <= said["ended"]
    assert said["date"] == "Mon, 23 Nov 2026 03:00:00 GMT"
    assert said["version"]["gitVersion"] == "v1.36.2"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("    forward . /etc/resolv.conf", True),
        ("    credentials root hunter2", False),
        ("    aws_access_key AKIA:hunter2", False),
        ("    client-key-data: hunter2", False),
        ("    password=hunter2", False),
        ("    Authorization: Bearer hunter2", False),
    ],
)
def test_lines_of_configuration_that_could_hold_a_secret_are_left_out(line: str, kept: bool) -> None:
    corefile = f".:53 {{\n{line}\n    cache 30\n}}\n"
    left = json.loads(without_secrets(json.dumps({"data": {"Corefile": corefile}}).encode()))["data"]["Corefile"]
    assert SECRET not in left
    assert (line in left) is kept
    assert "    cache 30" in left
    assert left.count("\n") == corefile.count("\n")


def test_a_file_with_a_private_key_is_left_out_as_a_whole() -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----\n"
    data = {"data": {"tls.pem": key}, "binaryData": {"x": SECRET}}
    assert SECRET not in without_secrets(json.dumps(data).encode()).decode()


def test_environment_variables_are_left_out_of_templates_too() -> None:
    daemon_set = {"spec": {"template": {"spec": pod("n", "p", "x")["spec"]}}}
    left = json.loads(without_secrets(json.dumps(daemon_set).encode()))
    assert left["spec"]["template"]["spec"]["containers"] == [{"name": "c", "image": "i", "args": [SECRET]}]
