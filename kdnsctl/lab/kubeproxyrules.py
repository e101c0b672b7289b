"""kube-proxy's iptables rules as a text for iptables-restore, computed from Services and EndpointSlices. Pure.

Chain names, rule order and comments are those of kube-proxy's iptables mode (pkg/proxy/iptables/proxier.go, the same
from 1.9 to 1.36 as far as they appear here), so that an iptables-save of a lab node reads like one of a real node.
Left out: IPv6, session affinity, traffic policies, load-balancer source ranges.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

POD_RANGE = "10.244.0.0/16"


@dataclass(frozen=True, slots=True, order=True)
class ServicePort:
    """One port of a Service. `name` is kube-proxy's name of it: namespace/service:port."""

    name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0

    @property
    def lower(self) -> str:
        return self.protocol.lower()


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address of a Service port. Serving endpoints count as alive, ready ones get new connections."""

    ip: str
    port: int
    ready: bool
    serving: bool

    @property
    def text(self) -> str:
        return f"{self.ip}:{self.port}"


def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def service_chain(port: ServicePort) -> str:
    """KUBE-SVC-…, from name and protocol."""
    return "KUBE-SVC-" + _hash(port.name + port.lower)


def external_chain(port: ServicePort) -> str:
    """KUBE-EXT-…, the way in for NodePorts."""
    return "KUBE-EXT-" + _hash(port.name + port.lower)


def endpoint_chain(port: ServicePort, endpoint: Endpoint) -> str:
    """KUBE-SEP-…, from name, protocol and address."""
    return "KUBE-SEP-" + _hash(port.name + port.lower + endpoint.text)


def service_ports(service: Mapping[str, Any]) -> list[ServicePort]:
    """The ports kube-proxy serves for a Service object; none for headless and external-name Services."""
    spec, metadata = service["spec"], service["metadata"]
    address = spec.get("clusterIP")
    if not address or address == "None" or ":" in address or spec.get("type") == "ExternalName":
        return []
    found = []
    for port in spec.get("ports") or ():
        suffix = f":{port['name']}" if port.get("name") else ""
        name = f"{metadata['namespace']}/{metadata['name']}{suffix}"
        found.append(
            ServicePort(name, port.get("protocol", "TCP"), address, int(port["port"]), int(port.get("nodePort") or 0))
        )
    return found


def slice_endpoints(endpoint_slice: Mapping[str, Any]) -> dict[tuple[str, str], set[Endpoint]]:
    """(namespace/service:port, protocol) → endpoints of one EndpointSlice."""
    metadata = endpoint_slice["metadata"]
    service = (metadata.get("labels") or {}).get("kubernetes.io/service-name")
    found: dict[tuple[str, str], set[Endpoint]] = {}
    if not service or endpoint_slice.get("addressType") != "IPv4":
        return found
    for port in endpoint_slice.get("ports") or ():
        if port.get("port") is None:
            continue
        suffix = f":{port['name']}" if port.get("name") else ""
        key = (f"{metadata['namespace']}/{service}{suffix}", port.get("protocol") or "TCP")
        members = found.setdefault(key, set())
        for endpoint in endpoint_slice.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            ready = conditions.get("ready") is not False
            serving = ready if conditions.get("serving") is None else bool(conditions["serving"])
            for address in endpoint.get("addresses") or ():
                members.add(Endpoint(address, int(port["port"]), ready, serving))
    return found


def used_endpoints(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Those that get new connections: the ready ones, else the ones that terminate but still serve (KEP-1669)."""
    members = sorted(endpoints)
    return [each for each in members if each.ready] or [each for each in members if each.serving]


@dataclass(frozen=True, slots=True)
class Rules:
    """The text for iptables-restore and the numbers kube-proxy logs about it."""

    text: str
    services: int
    endpoints: int
    filter_chains: int
    filter_rules: int
    nat_chains: int
    nat_rules: int


_NEW_STATE = "-m conntrack --ctstate NEW "
_JUMPS = {
    "filter": (
        ("INPUT", "KUBE-PROXY-FIREWALL", _NEW_STATE, "kubernetes load balancer firewall"),
        ("INPUT", "KUBE-NODEPORTS", "", "kubernetes health check service ports"),
        ("INPUT", "KUBE-EXTERNAL-SERVICES", _NEW_STATE, "kubernetes externally-visible service portals"),
        ("FORWARD", "KUBE-PROXY-FIREWALL", _NEW_STATE, "kubernetes load balancer firewall"),
        ("FORWARD", "KUBE-FORWARD", "", "kubernetes forwarding rules"),
        ("FORWARD", "KUBE-SERVICES", _NEW_STATE, "kubernetes service portals"),
        ("FORWARD", "KUBE-EXTERNAL-SERVICES", _NEW_STATE, "kubernetes externally-visible service portals"),
        ("OUTPUT", "KUBE-PROXY-FIREWALL", _NEW_STATE, "kubernetes load balancer firewall"),
        ("OUTPUT", "KUBE-SERVICES", _NEW_STATE, "kubernetes service portals"),
    ),
    "nat": (
        ("PREROUTING", "KUBE-SERVICES", "", "kubernetes service portals"),
        ("OUTPUT", "KUBE-SERVICES", "", "kubernetes service portals"),
        ("POSTROUTING", "KUBE-POSTROUTING", "", "kubernetes postrouting rules"),
    ),
}
_FILTER_CHAINS = (
    "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY", "KUBE-PROXY-FIREWALL",
    "KUBE-SERVICES",
)  # fmt: skip
_NAT_CHAINS = ("KUBE-MARK-MASQ", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-PROXY-CANARY", "KUBE-SERVICES")


def _jumps(table: str, saved: Sequence[str]) -> list[str]:
    """Rules that lead from the built-in chains to kube-proxy's, where they are missing, in its order from the top."""
    lines = []
    position: dict[str, int] = {}
    for chain, target, match, comment in _JUMPS[table]:
        rule = f'{match}-m comment --comment "{comment}" -j {target}'
        position[chain] = position.get(chain, 0) + 1
        if f"-A {chain} {rule}" not in saved:
            lines.append(f"-I {chain} {position[chain]} {rule}")
    return lines


def split_save(saved: str) -> dict[str, list[str]]:
    """An iptables-save output as table → lines."""
    tables: dict[str, list[str]] = {}
    current: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:], [])
        elif line and not line.startswith(("#", "COMMIT")):
            current.append(line)
    return tables


def render(ports: Iterable[ServicePort], endpoints: Mapping[tuple[str, str], Iterable[Endpoint]], saved: str) -> Rules:
    """All of kube-proxy's rules. `saved` is the present iptables-save: jumps that exist are kept, dead chains go."""
    tables = split_save(saved)
    filter_rules: list[str] = []
    chains: list[str] = list(_NAT_CHAINS)
    services: list[str] = []
    node_ports: list[str] = []
    bodies: list[str] = []
    count = 0
    ordered = sorted(ports)
    for port in ordered:
        used = used_endpoints(endpoints.get((port.name, port.protocol), ()))
        where = f"-d {port.cluster_ip}/32 -p {port.lower} -m {port.lower} --dport {port.port}"
        if not used:
            comment = f'-m comment --comment "{port.name} has no endpoints"'
            filter_rules.append(f"-A KUBE-SERVICES {comment} {where} -j REJECT")
            continue
        count += len(used)
        chain = service_chain(port)
        chains.append(chain)
        title = f'-m comment --comment "{port.name} cluster IP"'
        services.append(f"-A KUBE-SERVICES {title} {where} -j {chain}")
        bodies.append(f"-A {chain} {title} {where} ! -s {POD_RANGE} -j KUBE-MARK-MASQ")
        if port.node_port:
            external = external_chain(port)
            chains.append(external)
            node_ports.append(
                f'-A KUBE-NODEPORTS -m comment --comment "{port.name}" -m {port.lower} -p {port.lower} '
                f"--dport {port.node_port} -j {external}"
            )
            bodies.append(
                f'-A {external} -m comment --comment "masquerade traffic for {port.name} external destinations" '
                "-j KUBE-MARK-MASQ"
            )
            bodies.append(f"-A {external} -j {chain}")
        for index, endpoint in enumerate(used):
            target = endpoint_chain(port, endpoint)
            share = len(used) - index
            odds = f" -m statistic --mode random --probability {1 / share:0.10f}" if share > 1 else ""
            bodies.append(f'-A {chain} -m comment --comment "{port.name} -> {endpoint.text}"{odds} -j {target}')
        for endpoint in used:
            target = endpoint_chain(port, endpoint)
            chains.append(target)
            name = f'-m comment --comment "{port.name}"'
            bodies.append(f"-A {target} {name} -s {endpoint.ip}/32 -j KUBE-MARK-MASQ")
            bodies.append(
                f"-A {target} {name} -m {port.lower} -p {port.lower} -j DNAT --to-destination {endpoint.text}"
            )
    filter_rules += [
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
        (
            '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" '
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
        ),
    ]
    nat_rules = [
        *services,
        (
            "-A KUBE-SERVICES "
            '-m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" '
            "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
        ),
        *node_ports,
        "-A KUBE-POSTROUTING -m mark ! --mark 0x00004000/0x00004000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x00004000",
        (
            '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" '
            "-j MASQUERADE --random-fully"
        ),
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000",
        *bodies,
    ]
    dead = _dead_chains(tables.get("nat", ()), chains)
    lines = ["*mangle", ":KUBE-PROXY-CANARY - [0:0]", "COMMIT", "*filter"]
    lines += [f":{chain} - [0:0]" for chain in _FILTER_CHAINS]
    lines += [*_jumps("filter", tables.get("filter", ())), *filter_rules, "COMMIT", "*nat"]
    lines += [f":{chain} - [0:0]" for chain in (*chains, *dead)]
    lines += [*_jumps("nat", tables.get("nat", ())), *nat_rules, *(f"-X {chain}" for chain in dead), "COMMIT"]
    text = "\n".join(lines) + "\n"
    return Rules(text, len(ordered), count, len(_FILTER_CHAINS), len(filter_rules), len(chains), len(nat_rules))


def _dead_chains(saved: Sequence[str], wanted: Sequence[str]) -> list[str]:
    keep = set(wanted)
    present = [line[1:].split()[0] for line in saved if line.startswith(":")]
    return [name for name in present if name.startswith(("KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-")) and name not in keep]
