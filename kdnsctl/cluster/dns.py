"""The cluster's DNS Services, the endpoints behind them that answer, and the nodes' own DNS caches.

`dns_services`, `serving_endpoints` and `cache_addresses` are pure. Where several Services serve DNS (migrations from
kube-dns to CoreDNS, node-local-dns' upstream), all of them count. What the kubelets hand to pods (`clusterDNS`) is not
asked for here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import EndpointSlice, Pod, Service
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection

LABEL: Final = "k8s-app=kube-dns"
LAST_CHANGE: Final = (
    "endpoints.kubernetes.io/last-change-trigger-time"  # k8s.io/api/core/v1/annotation_key_constants.go
)
OPENSHIFT: Final = ("openshift-dns", "dns-default")  # has no such label
CACHES: Final = "k8s-app=node-local-dns"  # kubernetes, cluster/addons/dns/nodelocaldns
SLICES: Final = "/apis/discovery.k8s.io/v1"

NEEDED = (
    Permission("list", "services", without="what is DNS is told by the names of Services and ports in the logs"),
    Permission(
        "list", "endpointslices", group="discovery.k8s.io", without="which CoreDNS pods answer now is not known"
    ),
)


@dataclass(frozen=True, slots=True)
class Backend:
    """One address and port that answers for a Service's port, and the pod and node behind it, where known."""

    address: str
    port: int
    protocol: str
    port_name: str
    node: str = ""
    pod: str = ""
    pod_uid: str = ""
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class DnsPort:
    """A port on which a Service serves DNS."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class DnsService:
    """A Service that serves DNS: its VIPs, its ports, the backends that answer now, and when they last changed.

    `selector` has the labels of its pods; empty when it chooses none by itself.
    """

    namespace: str
    name: str
    uid: str
    vips: tuple[str, ...]
    ports: tuple[DnsPort, ...]
    backends: tuple[Backend, ...] = ()
    changed: datetime | None = None
    selector: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def find_dns(connection: Connection, *, scope: CancelScope) -> list[DnsService]:
    """All DNS Services with their serving backends, by namespace and name; empty when there is none.

    Where Services may not be listed everywhere, those of kube-system are. Raises as `list_all`.
    """
    services = dns_services(_services(connection, scope))
    if not services:
        namespace, name = OPENSHIFT
        # Listed and not got: so it needs no other permission than the first question.
        path = f"/api/v1/namespaces/{namespace}/services"
        services = dns_services(list_all(connection, path, Service, fields=f"metadata.name={name}", scope=scope).items)
    return [with_backends(service, list_slices(connection, service, scope=scope)) for service in services]


def find_caches(connection: Connection, *, scope: CancelScope) -> dict[str, tuple[str, ...]]:
    """Where node-local-dns listens on each node that runs it, by the node's name. Raises as `list_all`."""
    path = "/api/v1/namespaces/kube-system/pods"
    pods = list_all(connection, path, Pod, labels=CACHES, scope=scope).items
    found = {pod.spec.node_name: cache_addresses(pod) for pod in pods}
    return {node: addresses for node, addresses in found.items() if node and addresses}


def cache_addresses(pod: Pod) -> tuple[str, ...]:
    """The addresses in `-localip A,B` of a node-local-dns pod (kubernetes/dns, cmd/node-cache/main.go): its own, and
    with kube-proxy in iptables mode the DNS Service's, too. Empty when there is none.
    """
    for container in pod.spec.containers:
        words = [*container.command, *container.args]
        for number, word in enumerate(words):
            name, equals, value = word.lstrip("-").partition("=")
            if name == "localip" and word.startswith("-"):
                told = value if equals else next(iter(words[number + 1 :]), "")
                return tuple(dict.fromkeys(filter(_is_address, map(str.strip, told.split(",")))))
    return ()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def list_slices(connection: Connection, service: DnsService, *, scope: CancelScope) -> Sequence[EndpointSlice]:
    """The EndpointSlices of a Service, as they are now."""
    path = f"{SLICES}/namespaces/{service.namespace}/endpointslices"
    labels = f"kubernetes.io/service-name={service.name}"
    return list_all(connection, path, EndpointSlice, labels=labels, scope=scope).items


def dns_services(services: Iterable[Service]) -> list[DnsService]:
    """Those that have an address of their own and serve port 53, sorted; without backends."""
    found: list[DnsService] = []
    for service in services:
        spec = service.spec
        vips = tuple(vip for vip in spec.cluster_ips or (spec.cluster_ip,) if vip not in ("", "None"))
        ports = tuple(DnsPort(port.name, port.protocol, port.port) for port in spec.ports if port.port == 53)
        if vips and ports:
            identity = service.metadata
            found.append(
                DnsService(identity.namespace, identity.name, identity.uid, vips, ports, selector=spec.selector)
            )
    return sorted(found, key=lambda one: (one.namespace, one.name))


def serving_endpoints(slices: Iterable[EndpointSlice]) -> tuple[Backend, ...]:
    """Every address and port that answers, terminating ones included as long as they serve; sorted, each once."""
    found = {
        Backend(
            address=address,
            port=port.port,
            protocol=port.protocol,
            port_name=port.name,
            node=endpoint.node_name,
            pod=endpoint.target_ref.name if endpoint.target_ref else "",
            pod_uid=endpoint.target_ref.uid if endpoint.target_ref else "",
            terminating=bool(endpoint.conditions.terminating),
        )
        for one in slices
        for endpoint in one.endpoints or ()
        if endpoint.is_serving
        for address in endpoint.addresses or ()
        for port in one.ports or ()
    }
    return tuple(sorted(found, key=lambda one: (one.protocol, one.port_name, one.address, one.port, one.pod)))


def with_backends(service: DnsService, slices: Iterable[EndpointSlice]) -> DnsService:
    """The Service with those of the backends that stand behind its DNS ports, not its metrics."""
    known = tuple(slices)
    names = {(port.name, port.protocol) for port in service.ports}
    backends = tuple(one for one in serving_endpoints(known) if (one.port_name, one.protocol) in names)
    return replace(service, backends=backends, changed=last_change(known))


def last_change(slices: Iterable[EndpointSlice]) -> datetime | None:
    """When a pod's change last led to one of these slices, to the second; None when none of them says."""
    said = (_moment(one.metadata.annotations.get(LAST_CHANGE, "")) for one in slices)
    return max((moment for moment in said if moment is not None), default=None)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _services(connection: Connection, scope: CancelScope) -> Sequence[Service]:
    try:
        return list_all(connection, "/api/v1/services", Service, labels=LABEL, scope=scope).items
    except ForbiddenError:
        return list_all(connection, "/api/v1/namespaces/kube-system/services", Service, labels=LABEL, scope=scope).items
