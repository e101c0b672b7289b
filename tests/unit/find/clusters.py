"""A cluster as the scripted server shows it: nodes, kube-proxy pods and their logs, as far as a test says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from kdnsctl.cluster.objects import Node, Pod
from tests.unit.cluster.apiserver import Answer, Exchange, Server, reply, status
from tests.unit.cluster.test_kubeproxy import node, pod

NODES = "/api/v1/nodes"
PODS = "/api/v1/namespaces/kube-system/pods"
SETS = "/apis/apps/v1/daemonsets"
SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
FORBIDDEN = status(403, "Forbidden", "you may not")
NO_PREVIOUS = status(400, "BadRequest", 'previous terminated container "kube-proxy" in pod "x" not found')
KUBE_DNS = {
    "metadata": {"namespace": "kube-system", "name": "kube-dns", "uid": "u"},
    "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]},
}


def listing(items: Iterable[Any]) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "1"}, "items": [msgspec.to_builtins(item) for item in items]}


def log_path(name: str) -> str:
    return f"{PODS}/{name}/log"


def container_log(current: str | bytes, previous: str | bytes | None = None) -> Answer:
    """Answers as the kubelet does: by container run, from `sinceTime` on, cut after `limitBytes`."""

    def answer(exchange: Exchange) -> None:
        query = exchange.seen.query
        chosen = previous if "previous" in query else current
        if chosen is None:
            NO_PREVIOUS(exchange)
            return
        body = chosen.encode() if isinstance(chosen, str) else chosen
        if "sinceTime" in query:
            since = datetime.fromisoformat(query["sinceTime"][0])
            lines = body.splitlines(keepends=True)
            body = b"".join(line for line in lines if datetime.fromisoformat(line[:19].decode() + "Z") >= since)
        if "limitBytes" in query:
            body = body[: int(query["limitBytes"][0])]
        exchange.send_chunks([body] if body else [])

    return answer


def set_up(
    api: Server,
    nodes: Iterable[Node] | Answer,
    pods: Iterable[Pod] | Answer,
    logs: dict[str, Answer] | None = None,
    *,
    sets: Iterable[Any] = (),
    services: Answer | None = None,
) -> None:
    """Script a cluster. `logs` by pod."""
    api.on(NODES, nodes if callable(nodes) else _by_label(list(nodes)))
    api.on(PODS, pods if callable(pods) else _by_label(list(pods)))
    api.on("/api/v1/namespaces/openshift-kube-proxy/pods", reply(listing(())))
    api.on("/api/v1/namespaces/openshift-sdn/pods", reply(listing(())))
    api.on(SETS, reply(listing(sets)))
    api.on(SERVICES, services or reply({"metadata": {}, "items": [KUBE_DNS]}))
    api.on("/api/v1/namespaces/kube-system/services", services or reply({"metadata": {}, "items": [KUBE_DNS]}))
    api.on(SLICES, reply(listing(())))
    api.on("/api/v1/namespaces/openshift-dns/services", reply(listing(())))
    for name, answer in (logs or {}).items():
        api.on(log_path(name), answer)


def proxied(*names: str, image: str = "registry.k8s.io/kube-proxy:v1.27.3") -> tuple[list[Node], list[Pod]]:
    """Nodes, each with the pod `proxy-NODE`."""
    return [node(name) for name in names], [pod(f"proxy-{name}", on=name, image=image) for name in names]


def _by_label(items: list[Any]) -> Answer:
    def answer(exchange: Exchange) -> None:
        key, _, value = exchange.seen.query.get("labelSelector", [""])[0].partition("=")
        chosen = [one for one in items if not key or one.metadata.labels.get(key) == value]
        exchange.send(200, json.dumps(listing(chosen)).encode())

    return answer
