"""EndpointSlices that follow the readiness of a Service's pods, as `api/endpointslices-*.json` shows them.

ready: the pod is ready and stays; serving: it is ready, even if it is going; terminating: it is going. A pod that
ended, or has no address yet, is no endpoint. One slice per Service and IPv4 only; a real server splits at 100.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kdnsctl.lab.controllers.ownership import has_ended, is_ready, is_terminating, owned_by, owner_reference
from kdnsctl.lab.kinds import ENDPOINT_SLICES, PODS, SERVICES
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.selectors import labels_of
from kdnsctl.lab.store import Store, timestamp

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER: Final = "endpointslice-controller.k8s.io"
_TRIGGER: Final = "endpoints.kubernetes.io/last-change-trigger-time"


def reconcile_endpoint_slices(store: Store) -> None:
    """One pass over all Services with a selector."""
    slices = store.select(ENDPOINT_SLICES)
    for service in store.select(SERVICES):
        selector = service["spec"].get("selector")
        if not selector or is_terminating(service):
            continue
        namespace = service["metadata"]["namespace"]
        labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        pods = store.select(PODS, namespace, labels=labels)
        mine = [item for item in owned_by(service, slices) if labels_of(item).get(MANAGED_BY) == _CONTROLLER]
        _write(store, service, pods, mine[0] if mine else None)


def _write(store: Store, service: JSON, pods: list[JSON], current: JSON | None) -> None:
    before = current["endpoints"] if current is not None and current.get("endpoints") else []
    publish: bool = service["spec"].get("publishNotReadyAddresses", False)
    wanted = {pod["metadata"]["uid"]: _endpoint(pod, publish=publish) for pod in pods if _has_address(pod)}
    # Known endpoints keep their place, as on a real server.
    kept = [uid for endpoint in before if (uid := endpoint["targetRef"]["uid"]) in wanted]
    endpoints = [wanted[uid] for uid in [*kept, *(uid for uid in wanted if uid not in kept)]]
    ports = _ports(service, pods)
    if current is None:
        name = service["metadata"]["name"]
        store.create(
            ENDPOINT_SLICES,
            {
                "metadata": {
                    "generateName": f"{name}-",
                    "namespace": service["metadata"]["namespace"],
                    "labels": _labels(service),
                    "annotations": {_TRIGGER: timestamp(store.clock())},
                    "ownerReferences": [owner_reference(SERVICES, service)],
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": ports,
            },
        )
        return
    new = current | {"endpoints": endpoints, "ports": ports}
    new["metadata"] = current["metadata"] | {"labels": _labels(service)}
    if new == current:
        return
    annotations = current["metadata"].get("annotations") or {}
    new["metadata"]["annotations"] = {**annotations, _TRIGGER: timestamp(store.clock())}
    store.update(ENDPOINT_SLICES, new)


def _labels(service: JSON) -> JSON:
    labels = {MANAGED_BY: _CONTROLLER, **labels_of(service), SERVICE_NAME: service["metadata"]["name"]}
    if service["spec"].get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    return labels


def _has_address(pod: Mapping[str, Any]) -> bool:
    return bool(pod.get("status", {}).get("podIP")) and not has_ended(pod)


def _endpoint(pod: Mapping[str, Any], *, publish: bool) -> JSON:
    metadata, serving, terminating = pod["metadata"], is_ready(pod), is_terminating(pod)
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": publish or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "nodeName": pod["spec"]["nodeName"],
    }


def _ports(service: JSON, pods: list[JSON]) -> list[JSON]:
    ports = []
    for port in service["spec"].get("ports") or []:
        number = _number(port, pods)
        if number is not None:
            ports.append({"name": port.get("name", ""), "protocol": port["protocol"], "port": number})
    return ports


def _number(port: JSON, pods: list[JSON]) -> int | None:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for pod in pods:
        for container in pod["spec"]["containers"]:
            for known in container.get("ports") or []:
                if known.get("name") == target and known.get("protocol", "TCP") == port["protocol"]:
                    return int(known["containerPort"])
    return None
