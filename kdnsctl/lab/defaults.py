"""The fields a real server fills in when they are left out, for the kinds and fields the lab serves.

Checked against the recorded objects (`api/daemonset-kube-proxy.json`, `api/pods-kube-system.json`,
`api/service-kube-dns.json`). Changes the object it is given; given a complete object it changes nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from kdnsctl.lab.kinds import (
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Kind,
)
from kdnsctl.lab.replies import JSON

SERVICE_NETWORK: Final = ipaddress.IPv4Network("10.96.0.0/12")
# pkg/apis/scheduling: the two classes every cluster has.
_PRIORITIES: Final = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_TOLERATED_SECONDS: Final = 300


def set_defaults(kind: Kind, obj: JSON) -> None:
    """Fill in what was left out."""
    if kind is PODS:
        _pod(obj)
    elif kind is SERVICES:
        _service(obj)
    elif kind is DAEMON_SETS:
        _daemon_set(obj)
    elif kind is DEPLOYMENTS:
        _deployment(obj)
    elif kind is REPLICA_SETS:
        obj.setdefault("spec", {}).setdefault("replicas", 1)
        pod_spec_defaults(obj["spec"].setdefault("template", {}).setdefault("spec", {}))
        obj.setdefault("status", {"replicas": 0})
    elif kind is STATEFUL_SETS:
        _stateful_set(obj)
    elif kind is NAMESPACES:
        obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
        obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
        obj.setdefault("status", {}).setdefault("phase", "Active")
    elif kind is SECRETS:
        obj.setdefault("type", "Opaque")
    elif kind is CUSTOM_RESOURCE_DEFINITIONS:
        _definition(obj)


def pod_spec_defaults(spec: JSON) -> None:
    """What pods and pod templates have in common."""
    for volume in spec.get("volumes", []):
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if source in volume:
                volume[source].setdefault("defaultMode", 420)
        if "hostPath" in volume:
            volume["hostPath"].setdefault("type", "")
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        _container(container)
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")


def _container(container: JSON) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    image = str(container.get("image", ""))
    latest = "@" not in image and (":" not in image.rpartition("/")[2] or image.endswith(":latest"))
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        field = variable.get("valueFrom", {}).get("fieldRef")
        if field is not None:
            field.setdefault("apiVersion", "v1")
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if name in container:
            probe = container[name]
            if "httpGet" in probe:
                probe["httpGet"].setdefault("scheme", "HTTP")
                probe["httpGet"].setdefault("path", "/")
            for key, value in (
                ("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)
            ):  # fmt: skip
                probe.setdefault(key, value)


def _pod(pod: JSON) -> None:
    spec = pod.setdefault("spec", {})
    spec.setdefault("serviceAccountName", "default")
    pod_spec_defaults(spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        # The DefaultTolerationSeconds admission plugin.
        if not any(_covers(toleration, key) for toleration in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATED_SECONDS}
            )
    spec.setdefault("priority", _PRIORITIES.get(spec.get("priorityClassName", ""), 0))
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    if spec.get("hostNetwork"):
        for container in spec.get("containers", []):
            for port in container.get("ports", []):
                port.setdefault("hostPort", port.get("containerPort", 0))
    pod.setdefault("status", {}).setdefault("phase", "Pending")
    pod["status"].setdefault("qosClass", _quality(spec))


def _covers(toleration: JSON, key: str) -> bool:
    return bool(toleration.get("key", key) == key and toleration.get("effect", "NoExecute") == "NoExecute")


def _quality(spec: JSON) -> str:
    resources = [container.get("resources", {}) for container in spec.get("containers", [])]
    if not any(item.get("requests") or item.get("limits") for item in resources):
        return "BestEffort"
    for item in resources:
        limits = item.get("limits", {})
        if set(limits) < {"cpu", "memory"} or item.get("requests", limits) != limits:
            return "Burstable"
    return "Guaranteed"


def _service(service: JSON) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    for port in spec.get("ports", []):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port", 0))
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def give_cluster_ip(service: JSON, others: Iterable[JSON]) -> None:
    """Give a new Service an address of the service network that the specs of `others` do not use."""
    spec = service["spec"]
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIP"):
        used = {other.get("clusterIP") for other in others}
        # Addresses that are asked for by name lie low; a real server hands out from the upper range, too.
        free = (str(address) for address in SERVICE_NETWORK.hosts() if int(address) & 0xFFFF > 0x1000)
        spec["clusterIP"] = next(address for address in free if address not in used)
    spec.setdefault("clusterIPs", [spec["clusterIP"]])


def _daemon_set(obj: JSON) -> None:
    spec = obj.setdefault("spec", {})
    pod_spec_defaults(spec.setdefault("template", {}).setdefault("spec", {}))
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    obj.setdefault(
        "status",
        {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0},
    )


def _deployment(obj: JSON) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    pod_spec_defaults(spec.setdefault("template", {}).setdefault("spec", {}))
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    obj.setdefault("status", {})


def _stateful_set(obj: JSON) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    pod_spec_defaults(spec.setdefault("template", {}).setdefault("spec", {}))
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("updateStrategy", {}).setdefault("type", "RollingUpdate")
    spec.setdefault("revisionHistoryLimit", 10)
    obj.setdefault("status", {"replicas": 0})


def _definition(obj: JSON) -> None:
    """Its names are accepted and it is served at once; a real server's controllers take a moment for that."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    names.setdefault("singular", str(names.get("kind", "")).lower())
    names.setdefault("listKind", f"{names.get('kind', '')}List")
    conditions = [{"type": kind, "status": "True"} for kind in ("NamesAccepted", "Established")]
    stored = [one["name"] for one in spec.get("versions", ()) if one.get("storage")]
    obj.setdefault("status", {"conditions": conditions, "acceptedNames": dict(names), "storedVersions": stored})
