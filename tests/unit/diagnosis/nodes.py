"""Nodes to be judged, made of few words: a truth, readings of the table, and rules that fit the truth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.findings import Diagnosis, Finding
from kdnsctl.diagnosis.flows import Collector, Reading
from kdnsctl.diagnosis.index import Index, family_of
from kdnsctl.diagnosis.truth import Backend, PodRef, ServicePort, Truth
from kdnsctl.diagnosis.verdict import diagnose
from kdnsctl.model import Reason
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.entries import Entry, FlowTuple, Seen
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules, ServiceRules, Target

VIP, VIP6 = "10.96.0.10", "fd00:96::a"
ALIVE, ALSO_ALIVE, DEAD, DEAD_TOO = "10.244.1.5", "10.244.3.4", "10.244.1.2", "10.244.2.2"
ALIVE6, DEAD6 = "fd00:1::5", "fd00:1::2"
CLIENT, CLIENT6 = "10.244.2.3", "fd00:2::3"
NODE, NODE_IP, OTHER_IP = "knode2", "10.88.0.12", "10.88.0.13"
DNS = "kube-system/kube-dns"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WHOLE = Completeness(Proof.TRAILER)
CUT = Completeness(problem=Reason("cutOff", "the dump is cut off"))


def service(
    backends: Iterable[str] = (ALIVE, ALSO_ALIVE),
    *,
    name: str = "kube-dns",
    namespace: str = "kube-system",
    port_name: str = "dns",
    protocol: str = "udp",
    port: int = 53,
    target_port: int = 53,
    addresses: Sequence[str] = (VIP,),
    node_port: int = 0,
    terminating: Iterable[str] = (),
    local_only: bool = False,
) -> ServicePort:
    """A Service port with these serving endpoints, of which some may be terminating."""
    serving = [
        *(Backend(each, target_port) for each in backends),
        *(Backend(each, target_port, terminating=True) for each in terminating),
    ]
    return ServicePort(
        namespace, name, port_name, protocol, port, tuple(addresses), node_port, tuple(serving), local_only
    )


def truth(*services: ServicePort) -> Truth:
    """What is true of two nodes and these Services; the DNS Service over UDP without any."""
    return Truth(
        services=services or (service(),),
        pods={CLIENT: PodRef("shop", "web-1", NODE), CLIENT6: PodRef("shop", "web-6", NODE)},
        nodes={NODE: (NODE_IP,), "knode3": (OTHER_IP,)},
        service_ranges=("10.96.0.0/16", "fd00:96::/112"),
    )


def entry(
    backend: str = DEAD,
    *,
    client: str = CLIENT,
    sport: int = 20_000,
    destination: str = VIP,
    port: int = 53,
    backend_port: int = 53,
    protocol: str = "udp",
    timeout: int | None = 100,
    seen: Seen = Seen.ASSURED,
    packets: int | None = None,
    id: int | None = None,  # noqa: A002 - the field's name
) -> Entry:
    """One entry, of a flow that a client sent to the DNS Service and that went to a dead pod."""
    return Entry(
        protocol,
        FlowTuple(client, destination, sport, port, packets=packets),
        FlowTuple(backend, client, backend_port, sport, packets=0 if packets is not None else None),
        timeout,
        seen=seen,
        id=id,
    )


def flows(number: int, backend: str = DEAD, *, first: int = 20_000, **more: object) -> list[Entry]:
    """Entries that differ in their source port only."""
    return [entry(backend, sport=first + each, **more) for each in range(number)]  # type: ignore[arg-type]


def reading(
    entries: Iterable[Entry],
    known: Truth,
    *,
    completeness: Completeness = WHOLE,
    at: datetime | None = None,
    node: str = NODE,
    families: Iterable[int] = (4, 6),
    addresses: Iterable[str] | None = None,
) -> Reading:
    """A table as a diagnosis gets it: only the wanted entries, in groups."""
    index = Index(known, node)
    collector = Collector()
    collector.add_all(each for each in entries if index.wanted(each.key))
    return collector.reading(
        completeness,
        families=frozenset(families),
        addresses=None if addresses is None else frozenset(addresses),
        began=at,
        at=at,
    )


def rules(
    known: Truth,
    *,
    family: int = 4,
    mode: Mode = Mode.IPTABLES,
    completeness: Completeness = WHOLE,
    instead: Sequence[str] | None = None,
    packets: int | None = None,
) -> NodeRules:
    """The rules that kube-proxy would write for a family; `instead` are the endpoints that it still has in them."""
    written = []
    for each in known.services:
        backends = [backend for backend in each.backends if not backend.terminating] or list(each.backends)
        port = each.backends[0].port if each.backends else 53
        ends = [(backend.address, backend.port) for backend in backends]
        if instead is not None:
            ends = [(address, port) for address in instead]
        ends = [end for end in ends if family_of(end[0]) == family]
        targets = tuple(Target(*end, 1 / len(ends), packets=packets) for end in ends)
        places: list[tuple[str | None, int]] = [
            (address, each.port) for address in each.addresses if family_of(address) == family
        ]
        if each.node_port:
            places.append((None, each.node_port))
        written += [
            ServiceRules(each.protocol, number, address, service=str(each), targets=targets, rejected=not targets)
            for address, number in places
        ]
    backing = Backing.NFT if mode is Mode.IPTABLES else Backing.NATIVE
    return NodeRules(mode, completeness, backing, family, tuple(written), jumps=("PREROUTING", "OUTPUT"), canary=True)


def both_families(known: Truth) -> tuple[NodeRules, ...]:
    """Rules for IPv4 and IPv6 that are as they should be."""
    return (rules(known), rules(known, family=6))


def evidence(entries: Iterable[Entry] = (), known: Truth | None = None, **more: object) -> Evidence:
    """A node of which all was read: these entries, and rules that fit the truth. Fields can be replaced."""
    known = known or truth()
    whole = Evidence(node=NODE, conntrack=reading(entries, known), rules=both_families(known))
    return replace(whole, **more)  # type: ignore[arg-type]


def live(
    entries: Iterable[Entry],
    known: Truth,
    later: Iterable[Entry] | None = None,
    *,
    apart: float = 20,
    completeness: Completeness = WHOLE,
    **more: object,
) -> Evidence:
    """A node that was read at noon, and perhaps once more `apart` seconds later (as `completeness` says)."""
    second = None
    at = NOON + timedelta(seconds=apart)
    if later is not None:
        second = reading(later, known, at=at, completeness=completeness)
    found = Evidence(
        node=NODE,
        live=True,
        conntrack=reading(entries, known, at=NOON),
        conntrack_later=second,
        rules=both_families(known),
        rules_at=NOON,
    )
    return replace(found, **more)  # type: ignore[arg-type]


def judge(found: Evidence, known: Truth | None = None, *services: str) -> Diagnosis:
    """The judgement; about the Services named, or about all."""
    return diagnose(found, known or truth(), Terms(services=services))


def of(diagnosis: Diagnosis, check: str) -> list[Finding]:
    """What one check found."""
    return [each for each in diagnosis.findings if each.id == check]


def the(diagnosis: Diagnosis, check: str) -> Finding:
    """The one thing that a check found."""
    (finding,) = of(diagnosis, check)
    return finding
