"""What one conntrack key means, given what is true: which Service it is about, and whether its backend serves.

The definition of a stale entry lives here and nowhere else. Keys are judged one at a time, without regard to when they
were read or to which Services were asked for; nothing is counted here.

An entry is stale if its original destination is a Service's address and port (ClusterIP, external or load-balancer IP,
an address of the node with a NodePort) and its reply source is not a serving endpoint of that Service port. That is the
rule of kube-proxy's own reconciler (pkg/proxy/conntrack/cleanup.go, 1.32 and later), with two differences: kube-proxy
leaves Services without any serving endpoint out (kubernetes/kubernetes#139628), and takes a NodePort's number for the
NodePort at any destination. Traffic policies and topology are left aside, as kube-proxy does.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from kdnsctl.diagnosis.truth import ServicePort, Truth
from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.rules import ServiceRules

_Networks = tuple[IPv4Network | IPv6Network, ...]


class Kind(enum.Enum):
    """What becomes of flows with a key. Each key is of one kind, so that no entry is counted twice."""

    SERVING = "their backend serves"
    DEAD = "their backend does not serve"
    UNTRANSLATED = "they are not translated at all: the reply source is the Service's own address"
    REUSED = "their backend's address is another pod's now"
    NO_ENDPOINTS = "no endpoint of the Service serves"
    NODE_PORT = "they came to a NodePort, and their backend does not serve"
    GONE = "they are translated, but no Service has that address and port"
    UNALLOCATED = "they are sent to a Service address that no Service has, and are not translated"

    @property
    def stale(self) -> bool:
        """Whether nobody may be answering. Flows to unallocated addresses were never a Service's."""
        return self not in (Kind.SERVING, Kind.UNALLOCATED)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a key means. `service` is None only for keys that no Service has."""

    kind: Kind
    service: ServicePort | None = None


def family_of(address: str) -> int:
    """4 or 6, for an address in any standard form."""
    return 6 if ":" in address else 4


def endpoint_text(address: str, port: int | None) -> str:
    """ADDRESS:PORT as people write it, IPv6 in brackets; without a port where there is none."""
    shown = f"[{address}]" if ":" in address else address
    return shown if port is None else f"{shown}:{port}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The Service port that flows to one address and port are for, and all endpoints that serve it.

    If several Services claim one external address, kube-proxy's choice is not known: an endpoint of any of them serves.
    """

    service: ServicePort
    backends: frozenset[tuple[str, int | None]]

    def serves(self, address: str, port: int | None) -> bool:
        """Whether this is one of the endpoints."""
        return (address, port) in self.backends


class Index:
    """Truth, arranged so that a key's meaning is a few look-ups.

    `node` is the name of the node that is judged. Without it any node's addresses stand for its own; but a flow to
    another node's NodePort is rightly not translated here, so that then only translated flows are judged.
    """

    def __init__(self, truth: Truth, node: str = "") -> None:
        self.truth = truth
        self.node_known = node in truth.nodes
        own = [truth.nodes[node]] if self.node_known else truth.nodes.values()
        self.node_addresses = frozenset(address for addresses in own for address in addresses)
        self._owners: dict[tuple[str, str, int], Owner] = {}
        self._node_ports: dict[tuple[str, int], Owner] = {}
        for service in truth.services:
            owner = Owner(service, frozenset((backend.address, backend.port) for backend in service.backends))
            for address in service.addresses:
                place = (service.protocol, address, service.port)
                self._owners[place] = _joined(self._owners.get(place), owner)
            if service.node_port:
                number = (service.protocol, service.node_port)
                self._node_ports[number] = _joined(self._node_ports.get(number), owner)
        self._addresses = frozenset(address for _, address, _ in self._owners)
        self._ranges: _Networks = tuple(ip_network(each, strict=False) for each in truth.service_ranges)

    def meaning(self, key: Key) -> Meaning | None:
        """What flows with this key are about, None when no Service is concerned or nothing can be concluded."""
        port = key.destination_port
        if port is None:
            return None
        if owner := self.owner(key.protocol, key.destination, port):
            return self._judged(key, owner, by_node_port=False)
        if key.destination in self.node_addresses and (owner := self.owner(key.protocol, None, port)):
            if _untranslated(key) and not self.node_known:
                return None
            return self._judged(key, owner, by_node_port=True)
        return self._unowned(key)

    def wanted(self, key: Key) -> bool:
        """Whether a dump's entries with this key are worth a record: a `Wanted` for parsers.

        Flows of Services whose backend serves are not: only what is, or may be, stale is looked at one by one.
        """
        meaning = self.meaning(key)
        return meaning is not None and meaning.kind is not Kind.SERVING

    def owner(self, protocol: str, address: str | None, port: int) -> Owner | None:
        """Whom flows to an address and port are for; None is any address of the node: a NodePort."""
        if address is None:
            return self._node_ports.get((protocol, port))
        return self._owners.get((protocol, address, port))

    def owner_of(self, rules: ServiceRules) -> Owner | None:
        """Whom rules are for. In ipvs a NodePort has rules for each address of the node."""
        found = self.owner(rules.protocol, rules.address, rules.port)
        if found is None and rules.address in self.node_addresses:
            return self.owner(rules.protocol, None, rules.port)
        return found

    def _judged(self, key: Key, owner: Owner, *, by_node_port: bool) -> Meaning | None:
        service = owner.service
        if owner.serves(key.reply_source, key.reply_source_port):
            return Meaning(Kind.SERVING, service)
        if not self.truth.endpoints_known:
            # A Service's address is nobody's endpoint, whatever the endpoints are; of others nothing can be said.
            return (
                Meaning(Kind.NODE_PORT if by_node_port else Kind.UNTRANSLATED, service) if _untranslated(key) else None
            )
        if not owner.backends:
            return Meaning(Kind.NO_ENDPOINTS, service)
        if by_node_port:
            return Meaning(Kind.NODE_PORT, service)
        if _untranslated(key):
            return Meaning(Kind.UNTRANSLATED, service)
        return Meaning(Kind.REUSED if key.reply_source in self.truth.pods else Kind.DEAD, service)

    def _unowned(self, key: Key) -> Meaning | None:
        if not self.truth.services_known or key.destination in self.truth.others:
            return None
        if key.destination not in self._addresses and not self._in_ranges(key.destination):
            return None
        return Meaning(Kind.UNALLOCATED if _untranslated(key) else Kind.GONE)

    def _in_ranges(self, address: str) -> bool:
        if not self._ranges:
            return False
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._ranges)


def _joined(first: Owner | None, second: Owner) -> Owner:
    return second if first is None else Owner(first.service, first.backends | second.backends)


def _untranslated(key: Key) -> bool:
    return key.reply_source == key.destination
