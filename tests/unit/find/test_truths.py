"""Objects into truth: what flows can be sent to, and who serves it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from kdnsctl.cluster.objects import EndpointSlice, Node, Pod, Service
from kdnsctl.diagnosis.index import Index, Kind
from kdnsctl.diagnosis.truth import Truth
from kdnsctl.find.objectfiles import NotObjectsError, Objects
from kdnsctl.find.truths import only, truth_of
from kdnsctl.model import UsageError
from kdnsctl.netfilter.entries import Key


def service(name: str = "dns", namespace: str = "kube-system", *, status: Any = None, **spec: Any) -> Service:
    ports = spec.pop("ports", [{"name": "dns", "protocol": "UDP", "port": 53}])
    given = {"clusterIP": "10.96.0.10", "ports": ports, **spec}
    return msgspec.convert(
        {"metadata": {"namespace": namespace, "name": name}, "spec": given, "status": status or {}}, Service
    )


def endpoints(*addresses: str, to: str = "dns", family: str = "IPv4", port: int = 53, **endpoint: Any) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {
                "namespace": "kube-system",
                "name": f"{to}-{family}-{port}",
                "labels": {"kubernetes.io/service-name": to},
            },
            "addressType": family,
            "ports": [{"name": "dns", "protocol": "UDP", "port": port}],
            "endpoints": [{"addresses": [address], **endpoint} for address in addresses],
        },
        EndpointSlice,
    )


def backends(truth: Truth) -> list[tuple[str, int]]:
    return [(one.address, one.port) for port in truth.services for one in port.backends]


def test_every_address_of_a_service_is_one_and_each_in_its_shortest_form() -> None:
    one = service(
        clusterIP="10.96.0.10",
        clusterIPs=["10.96.0.10", "fd00:0:0::000a"],
        externalIPs=["192.0.2.1"],
        ports=[{"name": "dns", "protocol": "UDP", "port": 53, "nodePort": 30053}],
        status={"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}, {}]}},
    )
    (port,) = truth_of([one], []).services
    assert port.addresses == ("10.96.0.10", "fd00::a", "192.0.2.1", "192.0.2.2")
    assert (str(port), port.protocol, port.node_port) == ("kube-system/dns:dns", "udp", 30053)


@pytest.mark.parametrize(
    "left_out",
    [
        service(clusterIP="None", clusterIPs=["None"]),
        service(clusterIP=""),
        service(type="ExternalName", clusterIP="10.96.0.9"),
    ],
)
def test_what_kube_proxy_does_not_handle_is_left_out(left_out: Service) -> None:
    assert truth_of([left_out], []).services == ()


@pytest.mark.parametrize("proxy", ["kube-router", ""])
def test_a_service_left_to_another_proxy_is_left_out_and_flows_to_it_are_nobodys_fault(proxy: str) -> None:
    theirs = service("theirs", clusterIP="10.96.0.77", clusterIPs=["10.96.0.77"])
    theirs.metadata.labels["service.kubernetes.io/service-proxy-name"] = proxy
    truth = truth_of([service(), theirs], [endpoints("10.244.1.5")], service_ranges=("10.96.0.0/16",))
    assert [str(port) for port in truth.services] == [str(port) for port in truth_of([service()], []).services]
    index = Index(truth, "a")
    assert index.meaning(Key("udp", "10.96.0.77", 53, "10.244.9.9", 53)) is None
    gone = index.meaning(Key("udp", "10.96.0.78", 53, "10.244.9.9", 53))
    assert gone is not None
    assert gone.kind is Kind.GONE


def test_named_target_ports_are_the_numbers_that_the_slices_carry_and_both_families_count() -> None:
    truth = truth_of(
        [service(ports=[{"name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns"}])],
        [endpoints("10.244.1.5", port=5353), endpoints("fd00:244::0005", family="IPv6", port=5354)],
    )
    assert backends(truth) == [("10.244.1.5", 5353), ("fd00:244::5", 5354)]


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, True),  # kube-proxy keeps it too
        ({"ready": False, "serving": False, "terminating": True}, False),
    ],
)
def test_who_serves(conditions: dict[str, bool], serves: bool) -> None:
    truth = truth_of([service()], [endpoints("10.244.1.5", conditions=conditions)])
    assert bool(backends(truth)) is serves


def test_endpoints_of_another_service_port_or_namespace_are_not_taken() -> None:
    others = [endpoints("10.1.1.1", to="other"), endpoints("api.example.com", family="FQDN")]
    assert backends(truth_of([service(), service("dns", "default")], others)) == []


@pytest.mark.parametrize(
    ("about", "hints"),
    [
        ({"internalTrafficPolicy": "Local"}, {}),
        ({"externalTrafficPolicy": "Local"}, {}),
        ({"trafficDistribution": "PreferClose"}, {}),
        ({}, {"hints": {"forZones": [{"name": "a"}]}}),
    ],
)
def test_policies_and_hints_that_may_leave_endpoints_out(about: dict[str, str], hints: dict[str, Any]) -> None:
    truth = truth_of([service(**about)], [endpoints("10.244.1.5", **hints)])
    assert [port.local_only for port in truth.services] == [True]
    assert [port.local_only for port in truth_of([service()], [endpoints("10.244.1.5")]).services] == [False]


def test_pods_are_known_by_all_their_addresses_unless_they_are_the_nodes_or_over() -> None:
    pods = [
        {
            "metadata": {"name": "a"},
            "status": {"podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}, {"ip": "fd00::0a"}]},
        },
        {"metadata": {"name": "b"}, "spec": {"hostNetwork": True}, "status": {"podIP": "10.0.0.1"}},
        {"metadata": {"name": "c"}, "status": {"podIP": "10.1.1.2", "phase": "Succeeded"}},
        {"metadata": {"name": "d"}, "status": {"podIP": "10.1.1.3", "phase": "Running"}},
    ]
    truth = truth_of([], [], pods=[msgspec.convert(one, Pod) for one in pods])
    assert {address: pod.name for address, pod in truth.pods.items()} == {
        "10.1.1.1": "a",
        "fd00::a": "a",
        "10.1.1.3": "d",
    }


def test_a_nodes_addresses_are_its_own_and_no_names() -> None:
    addresses = [
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "Hostname", "address": "n1"},
        {"type": "ExternalIP", "address": "2001:db8:0::1"},
    ]
    node = msgspec.convert({"metadata": {"name": "n1"}, "status": {"addresses": addresses}}, Node)
    assert truth_of([], [], nodes=[node]).nodes == {"n1": ("10.0.0.1", "2001:db8::1")}


def test_a_service_whose_slices_are_not_among_the_files_is_no_service_without_endpoints() -> None:
    services = [service(), service("other", clusterIP="10.96.0.11")]
    truth = truth_of(services, [endpoints("10.244.1.5")], all_slices=False)
    assert [port.name for port in truth.services] == ["dns"]
    assert not truth.services_known
    live = truth_of(services, [endpoints("10.244.1.5")])
    assert [port.name for port in live.services] == ["dns", "other"]
    assert live.services_known


def test_only_some_services_prove_nothing_about_others() -> None:
    truth = truth_of([service(), service("x", "y")], [])
    assert [port.name for port in only(truth, ["y/x"]).services] == ["x"]
    assert not only(truth, ["y/x"]).services_known
    assert only(truth, []) is truth


def listed(kind: str, *items: Any) -> bytes:
    return json.dumps({"kind": kind, "items": items}).encode()


def test_lists_of_all_sorts_are_taken_and_other_kinds_are_not() -> None:
    objects = Objects()
    service_ = {"kind": "Service", "metadata": {"namespace": "a", "name": "b"}}
    assert objects.add_json(listed("List", service_, {"kind": "Secret", "data": {"k": "djE="}}), "one") == 1
    assert objects.add_json(listed("PodList", {"metadata": {"name": "p"}, "spec": {"nodeName": "n9"}}), "two") == 1
    assert objects.add_json(listed("EndpointSliceList"), "three") == 0
    assert objects.add_json(json.dumps({"kind": "Node", "metadata": {"name": "n1"}}).encode(), "four") == 1
    assert (objects.has("EndpointSlice"), objects.slices) == (True, [])
    assert objects.node_names() == {"n1", "n9"}
    assert objects.all_sources() == {"one", "two", "three", "four"}
    assert not objects.all_services


def test_the_same_object_at_the_same_version_is_no_second_candidate() -> None:
    objects = Objects()
    one = {"kind": "Service", "metadata": {"namespace": "a", "name": "b", "resourceVersion": "7"}}
    objects.add_json(json.dumps(one).encode(), "first")
    objects.add_json(json.dumps(one).encode(), "second")
    assert len(objects.services) == 1
    one["metadata"]["resourceVersion"] = "8"  # type: ignore[index]
    with pytest.raises(UsageError, match="first and third both say what is true of Service a/b"):
        objects.add_json(json.dumps(one).encode(), "third")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"kind": 5}', b'{"kind": "List", "items": [{"kind": "Service", "metadata": []}]}', b"\xff"],
)
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(NotObjectsError):
        Objects().add_json(content, "x")


@pytest.mark.parametrize("content", [b"a: &a 1\nb: *a\n", b"a: [", b"a: !!timestamp x\n", b"x: " + b"[" * 3000])
def test_yaml_that_is_none_or_refers_to_itself_is_refused(content: bytes) -> None:
    with pytest.raises(NotObjectsError):
        Objects().add_yaml(content, "x")
