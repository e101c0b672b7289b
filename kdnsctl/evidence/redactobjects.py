"""Kubernetes objects without what says whose they are: an allow-list of fields, each with what becomes of it. Pure.

A field that is not listed here is left out. What is kept are those that a judgement reads (`cluster.objects`), with
names, addresses and UIDs as pseudonyms. Free text (messages, arguments, annotations) is never kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from kdnsctl.cluster.kubeproxy import version_of
from kdnsctl.cluster.objects import MIRROR_ANNOTATION
from kdnsctl.evidence.pseudonyms import COMMON
from kdnsctl.evidence.renaming import Renaming

Made = Callable[[Any, Renaming, str], Any]
"""What becomes of a field: its value, the pseudonyms, and the kind of the object that it is in."""

SERVICE_NAME: Final = "kubernetes.io/service-name"
KINDS: Final = {"Service": "service", "Pod": "pod", "Node": "node", "EndpointSlice": "slice", "Namespace": "namespace"}

# Labels that say what something is: kept with their values. Of the second kind only that they are there matters.
_LABELS: Final = frozenset(
    {
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "eks.amazonaws.com/compute-type",
        "k8s-app",
        "component",
        "role",
        "app",
        "type",
    }
)
_MARKS: Final = frozenset({"microk8s.io/cluster", "juju-application", "service.kubernetes.io/service-proxy-name"})
_ROLES: Final = re.compile(
    r"node-role\.kubernetes\.io/(?:control-plane|master|worker|node|etcd|infra|compute|ingress|agent|controlplane|edge)"
)
_SAYS_WHAT: Final = COMMON | {
    "linux", "windows", "amd64", "arm64", "proxy", "sdn", "auto", "fargate", "virtual-kubelet", "true", "false",
}  # fmt: skip
# Those of Kubernetes itself (kubernetes.io, "Well-Known Labels, Annotations and Taints"): others name their owners.
_TAINTS: Final = re.compile(
    r"node\.kubernetes\.io/(?:not-ready|unreachable|unschedulable|memory-pressure|disk-pressure|pid-pressure"
    r"|network-unavailable|out-of-service)|node\.cloudprovider\.kubernetes\.io/(?:uninitialized|shutdown)"
    r"|node-role\.kubernetes\.io/(?:control-plane|master|etcd|infra)|virtual-kubelet\.io/provider"
)
_CONTAINERS: Final = frozenset({"kube-proxy", "sdn", "coredns", "node-cache"})
_VERSION: Final = re.compile(r"v?\d[\w.+~-]{0,60}")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,40}")


def redacted(item: bytes, kind: str, renaming: Renaming) -> bytes:
    """An object of that kind. Raises msgspec.DecodeError for what is none."""
    one = msgspec.json.decode(item, type=dict[str, Any])
    return msgspec.json.encode(_object(one, renaming, str(one.get("kind") or kind)))


def learn(item: bytes, kind: str, renaming: Renaming) -> None:
    """Take the names of an object: its own, and those of Services, nodes and hosts in it. Raises as `redacted`."""
    one = msgspec.json.decode(item, type=dict[str, Any])
    kind = str(one.get("kind") or kind)
    metadata = _mapping(one.get("metadata"))
    name, namespace = str(metadata.get("name", "")), str(metadata.get("namespace", ""))
    renaming.learn(KINDS.get(kind, "object"), name)
    renaming.learn("namespace", namespace)
    spec, status = _mapping(one.get("spec")), _mapping(one.get("status"))
    if kind == "Service":
        for port in _mappings(spec.get("ports")):
            service = f"{namespace}/{name}:{port['name']}" if port.get("name") else f"{namespace}/{name}"
            renaming.learn_service(service)
    elif kind == "Node":
        for address in _mappings(status.get("addresses")):
            if address.get("type") in _HOSTS:
                renaming.learn("node" if address.get("address") == name else "host", str(address.get("address", "")))
    elif kind == "Pod":
        renaming.learn("node", str(spec.get("nodeName", "")))
    elif kind == "EndpointSlice":
        _learn_slice(one, namespace, renaming)


def _learn_slice(one: Mapping[str, Any], namespace: str, renaming: Renaming) -> None:
    name = str(_mapping(_mapping(one.get("metadata")).get("labels")).get(SERVICE_NAME, ""))
    ports = _mappings(one.get("ports"))
    for endpoint in _mappings(one.get("endpoints")):
        renaming.learn("node", str(endpoint.get("nodeName", "")))
        reference = _mapping(endpoint.get("targetRef"))
        renaming.learn(KINDS.get(str(reference.get("kind")), "object"), str(reference.get("name", "")))
        for port in ports:
            service = f"{namespace}/{name}:{port['name']}" if port.get("name") else f"{namespace}/{name}"
            for address in endpoint.get("addresses") or ():
                if isinstance(address, str) and isinstance(port.get("port"), int):
                    renaming.learn_endpoint(service, str(port.get("protocol", "TCP")), address, port["port"])


def _object(one: Mapping[str, Any], renaming: Renaming, kind: str) -> dict[str, Any]:
    """All fields of the allow-list, at any depth: each name means the same wherever it stands, but for `name`."""
    return {
        key: made(value, renaming, kind)
        for key, value in one.items()
        if (made := FIELDS.get(key)) and value is not None
    }


def _as_it_is(value: Any, renaming: Renaming, _: str) -> Any:
    """Numbers, booleans, times, and words of the API's own; a word that is known as a name is none of those."""
    if isinstance(value, (bool, int, float)):
        return value
    if not isinstance(value, str) or TIME.fullmatch(value):
        return value if isinstance(value, str) else ""
    return renaming.prose(value) if _WORD.fullmatch(value) else ""


TIME: Final = re.compile(
    r"[0-9]{1,20}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9.]{2,12}(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


def _version(value: Any, _: Renaming, __: str) -> Any:
    return value if isinstance(value, str) and _VERSION.fullmatch(value) else ""


def _api_version(value: Any, _: Renaming, __: str) -> Any:
    return value if value in ("v1", "apps/v1", "discovery.k8s.io/v1", "networking.k8s.io/v1") else ""


def _addresses(value: Any, renaming: Renaming, kind: str) -> Any:
    if isinstance(value, list):
        return [
            _node_address(each, renaming) if isinstance(each, dict) else _addresses(each, renaming, kind)
            for each in value
        ]
    return value if value in ("None", "") else _address(value, renaming) if isinstance(value, str) else ""


def _address(said: str, renaming: Renaming) -> str:
    """An address or a network; anything else that stands there, as in EndpointSlices of hosts, is a host's name."""
    return renaming.address(said) if _ADDRESS.fullmatch(said) else renaming.name("host", said)


_ADDRESS: Final = re.compile(r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?")
_HOSTS: Final = frozenset({"Hostname", "InternalDNS", "ExternalDNS"})
_TYPES: Final = _HOSTS | {"InternalIP", "ExternalIP"}


def _node_address(value: Mapping[str, Any], renaming: Renaming) -> dict[str, str]:
    kind, address = str(value.get("type", "")), str(value.get("address", ""))
    if kind in _HOSTS:
        return {"type": kind, "address": renaming.prose(address)}
    return {"type": kind if kind in _TYPES else "", "address": _address(address, renaming)}


def _uid(value: Any, renaming: Renaming, _: str) -> str:
    return renaming.uid(str(value))


def _named(kind: str) -> Made:
    return lambda value, renaming, _: renaming.name(kind, str(value))


def _own_name(value: Any, renaming: Renaming, kind: str) -> str:
    return renaming.name(KINDS.get(kind, "object"), str(value))


def _within(kind: str) -> Made:
    """A field with fields, whose `name` is of that kind; "": of the object's own."""

    def made(value: Any, renaming: Renaming, own: str) -> Any:
        if isinstance(value, list):
            return [_object(each, renaming, kind or own) for each in _mappings(value)]
        return _object(value, renaming, kind or own) if isinstance(value, dict) else {}

    return made


def _status(value: Any, renaming: Renaming, kind: str) -> Any:
    """An object's, or a word of a condition."""
    return _object(value, renaming, kind) if isinstance(value, dict) else _as_it_is(value, renaming, kind)


def _reference(value: Any, renaming: Renaming, _: str) -> Any:
    return _object(value, renaming, str(value.get("kind", ""))) if isinstance(value, dict) else {}


def _owners(value: Any, renaming: Renaming, _: str) -> Any:
    return [
        {**_object(each, renaming, "Owner"), "name": renaming.name("workload", str(each.get("name", "")))}
        for each in _mappings(value)
    ]


def _ports(value: Any, renaming: Renaming, _: str) -> Any:
    return [
        {**_object(each, renaming, ""), "name": renaming.name("port", str(each.get("name") or ""))}
        for each in _mappings(value)
    ]


def _containers(value: Any, renaming: Renaming, _: str) -> Any:
    return [
        {
            **_object(each, renaming, "Container"),
            "name": name if (name := str(each.get("name", ""))) in _CONTAINERS else renaming.name("container", name),
        }
        for each in _mappings(value)
    ]


def _zones(value: Any, renaming: Renaming, _: str) -> Any:
    return [{"name": renaming.name("zone", str(each.get("name", "")))} for each in _mappings(value)]


def _image(value: Any, renaming: Renaming, _: str) -> str:
    """What it is, where that is somebody's well-known image, and its version; not where it is kept."""
    image = str(value)
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    kept = (
        "kube-proxy" if "kube-proxy" in name else name if name in COMMON | _CONTAINERS else renaming.name("image", name)
    )
    version = version_of(image)
    return f"{kept}:{version}" if version else kept


def _labels(value: Any, renaming: Renaming, _: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, said in _mapping(value).items():
        if key == SERVICE_NAME:
            found[key] = renaming.name("service", str(said))
        elif key in _LABELS:
            found[key] = said if said in _SAYS_WHAT else renaming.name("label", str(said))
        elif key in _MARKS or _ROLES.fullmatch(key):
            found[key] = renaming.name("label", str(said)) if said else ""
    return found


def _annotations(value: Any, renaming: Renaming, _: str) -> dict[str, str]:
    said = _mapping(value)
    return (
        {MIRROR_ANNOTATION: renaming.name("mirror", str(said[MIRROR_ANNOTATION]))} if MIRROR_ANNOTATION in said else {}
    )


def _taints(value: Any, renaming: Renaming, kind: str) -> Any:
    return [
        {"key": each["key"], **_object({key: each[key] for key in each if key != "key"}, renaming, kind)}
        for each in _mappings(value)
        if isinstance(each.get("key"), str) and _TAINTS.fullmatch(each["key"])
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> Iterable[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _all(made: Made, fields: str) -> dict[str, Made]:
    return dict.fromkeys(fields.split(), made)


FIELDS: Final[Mapping[str, Made]] = {
    **_all(
        _as_it_is,
        """
        kind resourceVersion creationTimestamp deletionTimestamp controller type reason phase ready serving
        terminating port protocol nodePort hostNetwork restartCount exitCode signal startedAt finishedAt time
        lastTransitionTime unschedulable effect operatingSystem architecture addressType ipMode internalTrafficPolicy
        externalTrafficPolicy trafficDistribution
        """,
    ),
    **_all(_version, "kubeletVersion kernelVersion"),
    "apiVersion": _api_version,
    "status": _status,
    **_all(_addresses, "clusterIP clusterIPs externalIPs ip podIP hostIP address addresses cidrs"),
    **_all(_uid, "uid bootID"),
    "name": _own_name,
    "namespace": _named("namespace"),
    "nodeName": _named("node"),
    "image": _image,
    "labels": _labels,
    "selector": _labels,
    "annotations": _annotations,
    "taints": _taints,
    "targetRef": _reference,
    "ownerReferences": _owners,
    "ports": _ports,
    **_all(_containers, "containers containerStatuses"),
    "forZones": _zones,
    "managedFields": _within("Manager"),
    **_all(
        _within(""),
        """
        metadata spec nodeInfo loadBalancer ingress conditions endpoints hints podIPs state lastState waiting
        running terminated
        """,
    ),
}
"""Every field that is kept, and what becomes of it."""
