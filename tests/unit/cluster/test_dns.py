from __future__ import annotations

import msgspec
import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import DnsPort, cache_addresses, dns_services, find_caches, find_dns, serving_endpoints
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.objects import Container, EndpointSlice, Page, Pod, PodSpec, Service
from tests.unit.cluster.apiserver import API, Exchange, Server, recorded, reply, status
from tests.unit.cluster.conftest import Connect

KUBE_DNS = msgspec.json.decode((API / "service-kube-dns.json").read_bytes())
SLICES = "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices"
OPENSHIFT = "/api/v1/namespaces/openshift-dns/services"


def test_the_recorded_service_and_its_backends(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/api/v1/services", reply({"items": [KUBE_DNS]}))
    api.on(SLICES, recorded("endpointslices-kube-dns"))
    (service,) = find_dns(connect_to(api), scope=scope)
    assert (str(service), service.vips) == ("kube-system/kube-dns", ("10.96.0.10",))
    assert service.ports == (DnsPort("dns", "UDP", 53), DnsPort("dns-tcp", "TCP", 53))
    assert sorted({backend.address for backend in service.backends}) == ["10.244.1.2", "10.244.2.2"]
    assert {(backend.protocol, backend.port) for backend in service.backends} == {("UDP", 53), ("TCP", 53)}
    assert api.requests[0].query["labelSelector"] == ["k8s-app=kube-dns"]
    assert api.requests[1].query["labelSelector"] == ["kubernetes.io/service-name=kube-dns"]


def test_the_backends_after_the_rollout() -> None:
    page = msgspec.json.decode((API / "endpointslices-after-rollout.json").read_bytes(), type=Page[EndpointSlice])
    backends = [one for one in serving_endpoints(page.items or ()) if one.protocol == "UDP"]
    assert [(one.address, one.node, one.pod) for one in backends] == [
        ("10.244.1.5", "knode1", "coredns-5575d847cb-sggtm"),
        ("10.244.3.4", "knode3", "coredns-5575d847cb-mq499"),
    ]


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": False, "serving": False, "terminating": True}, False),
        ({"ready": False}, False),
        ({"ready": True}, True),
        ({}, True),
        ({"ready": None, "serving": None}, True),
    ],
)
def test_terminating_but_serving_is_alive(conditions: dict[str, bool], serves: bool) -> None:
    endpoint = {"addresses": ["10.0.0.1"], "conditions": conditions}
    one = msgspec.convert({"endpoints": [endpoint], "ports": [{"name": "dns", "port": 53}]}, EndpointSlice)
    found = serving_endpoints([one, one])
    assert len(found) == (1 if serves else 0)
    assert [backend.terminating for backend in found] == ([conditions.get("terminating", False)] if serves else [])


def test_several_services_all_count_and_what_serves_no_dns_does_not() -> None:
    def service(name: str, **spec: object) -> Service:
        given = {"clusterIP": "10.0.0.1", "ports": [{"port": 53, "protocol": "UDP"}], **spec}
        return msgspec.convert({"metadata": {"name": name, "namespace": "kube-system"}, "spec": given}, Service)

    found = dns_services(
        [
            service("kube-dns-upstream"),
            service("headless", clusterIP="None", clusterIPs=["None"]),
            service("metrics", ports=[{"port": 9153}]),
            service("coredns", clusterIPs=["10.0.0.9", "fd00::9"], ports=[{"port": 53}, {"port": 9153}]),
        ]
    )
    assert [(one.name, one.vips, len(one.ports)) for one in found] == [
        ("coredns", ("10.0.0.9", "fd00::9"), 1),
        ("kube-dns-upstream", ("10.0.0.1",), 1),
    ]


def test_metrics_are_no_backend(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/api/v1/services", reply({"items": [KUBE_DNS]}))
    ports = [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "metrics", "port": 9153, "protocol": "TCP"}]
    api.on(SLICES, reply({"items": [{"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": ports}]}))
    (service,) = find_dns(connect_to(api), scope=scope)
    assert [(one.port_name, one.port) for one in service.backends] == [("dns", 5353)]


def test_openshifts_service_has_another_name(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    def openshift(exchange: Exchange) -> None:
        assert exchange.seen.query["fieldSelector"] == ["metadata.name=dns-default"]
        there = dict(KUBE_DNS, metadata={"name": "dns-default", "namespace": "openshift-dns"})
        reply({"items": [there]})(exchange)

    api.on("/api/v1/services", reply({"items": []}))
    api.on(OPENSHIFT, openshift)
    api.on("/apis/discovery.k8s.io/v1/namespaces/openshift-dns/endpointslices", reply({"items": None}))
    (service,) = find_dns(connect_to(api), scope=scope)
    assert (str(service), service.backends) == ("openshift-dns/dns-default", ())


def test_no_dns_service_is_an_empty_list_and_a_refusal_is_not(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/api/v1/services", status(403, "Forbidden", "not everywhere"))
    api.on("/api/v1/namespaces/kube-system/services", reply({"items": []}))
    api.on(OPENSHIFT, reply({"items": []}))
    connection = connect_to(api)
    assert find_dns(connection, scope=scope) == []
    api.on(OPENSHIFT, status(403, "Forbidden", "not there"))
    with pytest.raises(ForbiddenError, match="not there"):
        find_dns(connection, scope=scope)


@pytest.mark.parametrize(
    ("words", "addresses"),
    [
        (["-localip", "169.254.20.10,10.96.0.10", "-conf", "/etc/Corefile"], ("169.254.20.10", "10.96.0.10")),
        (["-localip=169.254.20.10"], ("169.254.20.10",)),
        (["--localip", "169.254.20.10, fd00::a,169.254.20.10"], ("169.254.20.10", "fd00::a")),
        (["-localip", "$(POD_IP),,x"], ()),
        (["-localip"], ()),
        (["localip", "169.254.20.10"], ()),
        ([], ()),
    ],
)
def test_where_a_nodes_own_cache_listens(words: list[str], addresses: tuple[str, ...]) -> None:
    command, args = tuple(words[:1]), tuple(words[1:])
    for container in (Container(name="node-cache", args=tuple(words)), Container(name="c", command=command, args=args)):
        other = Container(name="other", args=("-v", "2"))
        assert cache_addresses(Pod(spec=PodSpec(containers=(other, container)))) == addresses


def test_nodes_with_a_cache_are_found_by_its_label(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    def pod(node: str, *args: str) -> dict[str, object]:
        return {"spec": {"nodeName": node, "containers": [{"name": "node-cache", "args": list(args)}]}}

    pods = [pod("n1", "-localip", "169.254.20.10"), pod("n2"), pod("", "-localip", "169.254.20.10")]
    api.on("/api/v1/namespaces/kube-system/pods", reply({"items": pods}))
    assert find_caches(connect_to(api), scope=scope) == {"n1": ("169.254.20.10",)}
    assert api.requests[0].query["labelSelector"] == ["k8s-app=node-local-dns"]
