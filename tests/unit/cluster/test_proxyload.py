from __future__ import annotations

import json

import msgspec
import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.kubeproxy import Kind
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.proxyload import discover, list_nodes, read_config
from tests.unit.cluster.apiserver import Exchange, Server, recorded, reply, status
from tests.unit.cluster.conftest import Connect
from tests.unit.cluster.test_kubeproxy import node, pod

PODS = "/api/v1/namespaces/kube-system/pods"
SETS = "/apis/apps/v1/daemonsets"
CILIUM_CONFIG = "/api/v1/namespaces/kube-system/configmaps/cilium-config"
FORBIDDEN = status(403, "Forbidden", "you may not")


def listing(*items: object) -> dict[str, object]:
    return {"metadata": {"resourceVersion": "1"}, "items": [msgspec.to_builtins(item) for item in items]}


def pods_by_label(api: Server, pods: list[Pod], namespace: str = "kube-system") -> None:
    def answer(exchange: Exchange) -> None:
        wanted = exchange.seen.query.get("labelSelector", [""])[0]
        key, _, value = wanted.partition("=")
        chosen = [one for one in pods if not wanted or one.metadata.labels.get(key) == value]
        exchange.send(200, json.dumps(listing(*chosen)).encode())

    api.on(f"/api/v1/namespaces/{namespace}/pods", answer)


def asked(api: Server, path: str) -> list[str | None]:
    return [request.query.get("labelSelector", [None])[0] for request in api.requests if request.path == path]


def test_the_recorded_cluster_needs_two_questions(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/api/v1/nodes", recorded("nodes"))
    api.on(PODS, recorded("pods-kube-system"))
    connection = connect_to(api)
    found = discover(connection, list_nodes(connection, scope=scope), scope=scope)
    assert [proxy.kind for proxy in found.proxies.values()] == [Kind.DAEMON_SET] * 3
    assert asked(api, PODS) == ["k8s-app=kube-proxy"]
    assert sorted(one.spec.node_name for one in found.pods.values()) == ["knode1", "knode2", "knode3"]
    api.on("/api/v1/namespaces/kube-system/configmaps/kube-proxy", recorded("configmap-kube-proxy"))
    settings = read_config(connection, next(iter(found.pods.values())), scope=scope)
    assert settings is not None
    assert (settings.mode, settings.verbosity) == ("iptables", 2)
    api.on("/api/v1/namespaces/kube-system/configmaps/kube-proxy", FORBIDDEN)
    unread = read_config(connection, next(iter(found.pods.values())), scope=scope)
    assert unread is not None
    assert (unread.mode, unread.verbosity) == (None, 2)


def test_labels_are_tried_in_order_until_every_node_has_one(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    pods_by_label(api, [pod("a", on="n1"), pod("b", on="n2", labels={"component": "kube-proxy"}, static=True)])
    found = discover(connect_to(api), [node("n1"), node("n2"), node("w", os="windows")], scope=scope)
    kinds = [proxy.kind for proxy in found.proxies.values()]
    assert kinds == [Kind.DAEMON_SET, Kind.STATIC_POD, Kind.ABSENT]
    assert asked(api, PODS) == ["k8s-app=kube-proxy", "component=kube-proxy"]


def test_unlabelled_pods_are_found_by_their_container(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    pods_by_label(api, [pod("odd", labels={})])
    for namespace in ("openshift-kube-proxy", "openshift-sdn"):
        pods_by_label(api, [], namespace)
    api.on(SETS, reply(listing()))
    found = discover(connect_to(api), [node()], scope=scope)
    assert found.proxies["n1"].kind is Kind.DAEMON_SET
    assert asked(api, PODS)[-1] is None


@pytest.mark.parametrize("version", ["v1.31.2", "v1.31.2+k3s1"])
def test_cilium_is_asked_whether_it_replaces_kube_proxy(
    api: Server, connect_to: Connect, scope: CancelScope, version: str
) -> None:
    pods_by_label(api, [])
    pods_by_label(api, [], "openshift-kube-proxy")
    api.on(SETS, reply({"items": [{"metadata": {"name": "cilium", "namespace": "kube-system"}, "spec": {}}]}))
    api.on(CILIUM_CONFIG, reply({"data": {"kube-proxy-replacement": "true"}}))
    found = discover(connect_to(api), [node(version=version)], scope=scope)
    assert (found.proxies["n1"].kind, found.notes) == (Kind.ABSENT, ())
    assert None not in asked(api, PODS)  # all pods of a large cluster are not asked for


def test_what_may_not_be_read_is_noted(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    pods_by_label(api, [])
    for path in (SETS, "/apis/apps/v1/namespaces/kube-system/daemonsets"):
        api.on(path, FORBIDDEN)
    for namespace in ("openshift-kube-proxy", "openshift-sdn"):
        api.on(f"/api/v1/namespaces/{namespace}/pods", FORBIDDEN)
    found = discover(connect_to(api), [node()], scope=scope)
    assert found.proxies["n1"].kind is Kind.MISSING
    assert [note.partition(":")[0] for note in found.notes] == [
        "DaemonSets may not be listed everywhere",
        "whether something replaces kube-proxy is not known",
        "pods in openshift-kube-proxy may not be listed",
        "pods in openshift-sdn may not be listed",
    ]


def test_other_namespaces_are_asked_only_where_a_daemon_set_stands_in_them(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    pods_by_label(api, [])
    api.on(SETS, reply(listing()))
    assert discover(connect_to(api), [node()], scope=scope).notes == ()
    assert not {request.path for request in api.requests if "openshift" in request.path}
    there = {"metadata": {"name": "openshift-kube-proxy", "namespace": "openshift-kube-proxy"}, "spec": {}}
    api.on(SETS, reply({"items": [there]}))
    app = {"app": "kube-proxy"}
    pods_by_label(api, [pod("p", labels=app, namespace="openshift-kube-proxy")], "openshift-kube-proxy")
    assert discover(connect_to(api), [node()], scope=scope).proxies["n1"].kind is Kind.DAEMON_SET


def test_without_nodes_the_readable_pods_are_the_scope(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    pods_by_label(api, [pod("a", on="n1"), pod("b", on="n2", labels={"component": "kube-proxy"})])
    found = discover(connect_to(api), None, scope=scope)
    assert list(found.proxies) == ["n1", "n2"]


def test_pods_that_may_not_be_listed_are_the_callers_affair(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on(PODS, FORBIDDEN)
    with pytest.raises(ForbiddenError):
        discover(connect_to(api), [node()], scope=scope)


def test_a_pod_without_kube_proxy_has_no_settings(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    assert read_config(connect_to(api), Pod(), scope=scope) is None
    assert not api.requests
