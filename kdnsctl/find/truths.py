"""From the API's objects to what the cluster says is true: Services, serving endpoints, pods and nodes by address.

Pure: lists in, a `Truth` out, whether they come from a server or from files. Nothing is judged here. Of a Service only
what kube-proxy handles counts: ClusterIPs, external IPs, IPs of load balancers and NodePorts; headless Services and
those of type ExternalName have none.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from kdnsctl.cluster.objects import EndpointSlice, Node, Pod, Service
from kdnsctl.cluster.objects import ServicePort as Port
from kdnsctl.diagnosis.truth import Backend, PodRef, ServicePort, Truth

NODE_ADDRESSES = frozenset({"InternalIP", "ExternalIP"})
PROXY = "Proxy"  # ipMode of a load balancer's address that packets do not keep: kube-proxy leaves it alone (KEP-1860)
POLICY_LOCAL = "Local"
OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
OVER = frozenset({"Succeeded", "Failed"})  # phases of pods whose addresses may be others' by now

Slices = Mapping[tuple[str, str], Sequence[EndpointSlice]]


def truth_of(
    services: Iterable[Service] | None,
    slices: Iterable[EndpointSlice] | None,
    *,
    pods: Iterable[Pod] | None = None,
    nodes: Iterable[Node] | None = None,
    at: datetime | None = None,
    all_services: bool = True,
    all_slices: bool = True,
    service_ranges: Sequence[str] = (),
) -> Truth:
    """What the objects say. `services` or `slices` None: not known; `pods` or `nodes` None: nobody has a name.

    `all_services`: there are no others. `all_slices`: a Service without slices has no endpoints. When that is not
    sure (a list from a file may be of one Service), such a Service is left out, and nothing follows from its absence.
    """
    services = None if services is None else list(services)
    by_service = grouped(slices or ())
    ports: list[ServicePort] = []
    complete = all_services and services is not None
    for service in services or ():
        if not handled(service):
            continue
        identity = (service.metadata.namespace, service.metadata.name)
        if slices is not None and not all_slices and identity not in by_service:
            complete = False
            continue
        ports.extend(ports_of(service, by_service.get(identity, ())))
    return Truth(
        services=tuple(sorted(ports, key=lambda port: (port.namespace, port.name, port.port_name, port.protocol))),
        pods=pods_by_address(pods or ()),
        nodes={node.metadata.name: addresses_of(node) for node in nodes or ()},
        service_ranges=tuple(service_ranges),
        at=at,
        services_known=complete,
        endpoints_known=slices is not None,
        others=left_to_others(services or ()),
    )


def grouped(slices: Iterable[EndpointSlice]) -> dict[tuple[str, str], list[EndpointSlice]]:
    """Slices by namespace and name of their Service."""
    found: dict[tuple[str, str], list[EndpointSlice]] = defaultdict(list)
    for one in slices:
        if one.service:
            found[one.metadata.namespace, one.service].append(one)
    return found


def handled(service: Service) -> bool:
    """Whether kube-proxy has anything to do for a Service.

    k8s.io/kubernetes pkg/proxy/util ShouldSkipService; and whoever is named by the label, with any value or none, does
    its work for the Service instead (cmd/kube-proxy, the selector of its informers).
    """
    return (
        not _of_others(service) and service.spec.type != "ExternalName" and service.spec.cluster_ip not in ("", "None")
    )


def left_to_others(services: Iterable[Service]) -> frozenset[str]:
    """The addresses of Services that are not kube-proxy's, but somebody's who translates them too."""
    return frozenset(shortest(each) for service in services if _of_others(service) for each in addresses_for(service))


def ports_of(service: Service, slices: Iterable[EndpointSlice]) -> list[ServicePort]:
    """A Service's ports with the endpoints that serve each. The slices carry the numbers of named target ports."""
    slices = list(slices)
    addresses = tuple(dict.fromkeys(shortest(address) for address in addresses_for(service)))
    return [
        ServicePort(
            namespace=service.metadata.namespace,
            name=service.metadata.name,
            port_name=port.name,
            protocol=port.protocol.lower(),
            port=port.port,
            addresses=addresses,
            node_port=port.node_port,
            backends=backends(port, slices),
            local_only=_may_leave_out(service, slices),
        )
        for port in service.spec.ports
    ]


def backends(port: Port, slices: Iterable[EndpointSlice]) -> tuple[Backend, ...]:
    """The endpoints that serve a Service's port, terminating ones included, each once, sorted."""
    found = {
        (shortest(address), target.port): Backend(
            address=shortest(address),
            port=target.port,
            node=endpoint.node_name,
            pod=PodRef(reference.namespace or one.metadata.namespace, reference.name, endpoint.node_name)
            if (reference := endpoint.target_ref) and reference.kind == "Pod"
            else None,
            terminating=bool(endpoint.conditions.terminating),
        )
        for one in slices
        if one.address_type in ("IPv4", "IPv6")
        for target in one.ports or ()
        if (target.name, target.protocol) == (port.name, port.protocol)
        for endpoint in one.endpoints or ()
        if endpoint.is_serving
        for address in endpoint.addresses or ()
    }
    return tuple(found[key] for key in sorted(found))


def addresses_for(service: Service) -> Iterable[str]:
    """Every address that kube-proxy takes traffic for, as the API spells it."""
    yield from (address for address in service.spec.cluster_ips or (service.spec.cluster_ip,) if address)
    yield from service.spec.external_ips
    yield from (one.ip for one in service.status.load_balancer.ingress if one.ip and one.ip_mode != PROXY)


def pods_by_address(pods: Iterable[Pod]) -> dict[str, PodRef]:
    """Pods by each of their addresses: not those on the host's network, and not those that are over."""
    return {
        shortest(address): PodRef(pod.metadata.namespace, pod.metadata.name, pod.spec.node_name)
        for pod in pods
        if not pod.spec.host_network and pod.status.phase not in OVER
        for address in ([one.ip for one in pod.status.pod_ips] or [pod.status.pod_ip])
        if address
    }


def addresses_of(node: Node) -> tuple[str, ...]:
    """A node's own addresses; names among them are left out."""
    return tuple(dict.fromkeys(shortest(one.address) for one in node.status.addresses if one.type in NODE_ADDRESSES))


def only(truth: Truth, services: Sequence[str]) -> Truth:
    """The truth about `services` ("NAMESPACE/NAME") alone; nothing follows from the absence of others then."""
    if not services:
        return truth
    kept = tuple(port for port in truth.services if f"{port.namespace}/{port.name}" in services)
    return replace(truth, services=kept, services_known=False)


def shortest(address: str) -> str:
    """An address in its shortest standard form (RFC 5952); what is none is given back as it is."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _of_others(service: Service) -> bool:
    return OTHER_PROXY in service.metadata.labels


def _may_leave_out(service: Service, slices: Iterable[EndpointSlice]) -> bool:
    """Whether kube-proxy may rightly use fewer endpoints on a node: by traffic policy, distribution or zone hints."""
    spec = service.spec
    return (
        POLICY_LOCAL in (spec.internal_traffic_policy, spec.external_traffic_policy)
        or bool(spec.traffic_distribution)
        or any(endpoint.hints and endpoint.hints.for_zones for one in slices for endpoint in one.endpoints or ())
    )
