"""Rules as kube-proxy writes them, for tests: a second writer's view of what the parsers read.

Hashes are made here again and not taken from `names`, so that a wrong one is found. The order of arguments is that of
kube-proxy, which iptables-save then changes; `tests/recordings/rules` has what the kernel printed of `EXAMPLES`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[str, int]
POD_RANGES = {4: "10.244.0.0/16", 6: "fd00:10:244::/64"}


@dataclass(frozen=True)
class Service:
    """One Service port. `outside` are external and load-balancer addresses; `local`, the endpoints of this node, count
    when `local_only` (externalTrafficPolicy Local)."""

    name: str
    protocol: str
    port: int
    cluster_ip: str
    endpoints: tuple[Place, ...] = ()
    node_port: int = 0
    outside: tuple[str, ...] = ()
    affinity: bool = False
    local_only: bool = False
    local: tuple[Place, ...] = ()


def examples(family: int) -> list[Service]:
    """One Service of every kind."""

    def pods(*numbers: int, port: int = 53) -> tuple[Place, ...]:
        return tuple((f"fd00:10:244::{n:x}" if family == 6 else f"10.244.{n}.5", port) for n in numbers)

    def vip(number: int) -> str:
        return f"fd00:10:96::{number:x}" if family == 6 else f"10.96.0.{number}"

    def public(number: int) -> str:
        return f"2001:db8::{number:x}" if family == 6 else f"192.0.2.{number}"

    return [
        Service("kube-system/kube-dns:dns", "udp", 53, vip(10), pods(1, 2, 3)),
        Service("kube-system/kube-dns:dns-tcp", "tcp", 53, vip(10), pods(1, 2, 3)),
        Service("demo/node-port:dns", "udp", 53, vip(20), pods(4, 5), node_port=30053),
        Service("demo/external:dns", "udp", 53, vip(30), pods(6), outside=(public(5), public(9))),
        Service("demo/local:dns", "udp", 53, vip(40), pods(7, 8), 30054, (public(10),), local_only=True, local=pods(7)),
        Service("demo/elsewhere:dns", "udp", 53, vip(50), pods(9), 30055, (public(11),), local_only=True),
        Service("demo/sticky:dns", "udp", 53, vip(60), pods(11, 12), affinity=True),
        Service("demo/unnamed", "udp", 5353, vip(70), pods(13, port=5353)),
        Service("demo/empty:dns", "udp", 53, vip(80), node_port=30080),
    ]


def _hash(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:length]


def joined(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def chain(prefix: str, service: Service) -> str:
    return f"KUBE-{prefix}-{_hash(service.name + service.protocol, 16)}"


def endpoint_chain(service: Service, place: Place) -> str:
    return "KUBE-SEP-" + _hash(service.name + service.protocol + joined(place), 16)


class IptablesWriter:
    """Collects chains and rules of all Services, in the parts that kube-proxy keeps apart."""

    def __init__(self, family: int, *, comments: bool) -> None:
        self.family = family
        self.comments = comments
        self.chains = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY"]
        self.services: list[str] = []
        self.node_ports: list[str] = []
        self.bodies: list[str] = []
        self.refusals: list[str] = []

    def comment(self, text: str) -> str:
        return f'-m comment --comment "{text}" ' if self.comments else ""

    def to(self, address: str, service: Service) -> str:
        length = 128 if self.family == 6 else 32
        return f"-m {service.protocol} -p {service.protocol} -d {address}/{length} --dport {service.port}"

    def add(self, service: Service) -> None:
        name, protocol = service.name, service.protocol
        cluster = self.to(service.cluster_ip, service)
        node_port = f"-m {protocol} -p {protocol} --dport {service.node_port}"
        local_node_port = f"-m addrtype --dst-type LOCAL {node_port}"
        if not service.endpoints:
            title = self.comment(f"{name} has no endpoints")
            self.refusals.append(f"-A KUBE-SERVICES {title}{cluster} -j REJECT")
            self.refusals += [
                f"-A KUBE-EXTERNAL-SERVICES {title}{self.to(address, service)} -j REJECT" for address in service.outside
            ]
            if service.node_port:
                self.refusals.append(f"-A KUBE-EXTERNAL-SERVICES {title}{local_node_port} -j REJECT")
            return
        all_chain, outside_chain, local_chain = (chain(kind, service) for kind in ("SVC", "EXT", "SVL"))
        title = self.comment(f"{name} cluster IP")
        self.chains.append(all_chain)
        self.services.append(f"-A KUBE-SERVICES {title}{cluster} -j {all_chain}")
        self.bodies.append(f"-A {all_chain} {title}{cluster} ! -s {POD_RANGES[self.family]} -j KUBE-MARK-MASQ")
        if service.node_port or service.outside:
            self.chains.append(outside_chain)
            self._outside(service, all_chain, outside_chain, local_chain)
        refused = service.local_only and not service.local
        title = self.comment(f"{name} has no local endpoints")
        for address in service.outside:
            where = self.to(address, service)
            self.services.append(f"-A KUBE-SERVICES {self.comment(f'{name} external IP')}{where} -j {outside_chain}")
            if refused:
                self.refusals.append(f"-A KUBE-EXTERNAL-SERVICES {title}{where} -j DROP")
        if service.node_port:
            self.node_ports.append(f"-A KUBE-NODEPORTS {self.comment(name)}{node_port} -j {outside_chain}")
            if refused:
                self.refusals.append(f"-A KUBE-EXTERNAL-SERVICES {title}{local_node_port} -j DROP")
        self._spread(service, all_chain, service.endpoints)
        if service.local_only:
            self._spread(service, local_chain, service.local)
        for place in service.endpoints:
            self._endpoint(service, place)

    def _outside(self, service: Service, all_chain: str, outside_chain: str, local_chain: str) -> None:
        what = f"{service.name} external destinations"
        if not service.local_only:
            self.bodies.append(f"-A {outside_chain} {self.comment(f'masquerade traffic for {what}')}-j KUBE-MARK-MASQ")
            self.bodies.append(f"-A {outside_chain} -j {all_chain}")
            return
        pods = f"-s {POD_RANGES[self.family]}"
        local = "-m addrtype --src-type LOCAL"
        self.bodies += [
            f"-A {outside_chain} {self.comment(f'pod traffic for {what}')}{pods} -j {all_chain}",
            f"-A {outside_chain} {self.comment(f'masquerade LOCAL traffic for {what}')}{local} -j KUBE-MARK-MASQ",
            f"-A {outside_chain} {self.comment(f'route LOCAL traffic for {what}')}{local} -j {all_chain}",
        ]
        if service.local:
            self.chains.append(local_chain)
            self.bodies.append(f"-A {outside_chain} -j {local_chain}")

    def _spread(self, service: Service, start: str, places: Sequence[Place]) -> None:
        if service.affinity:
            for place in places:
                end = endpoint_chain(service, place)
                self.bodies.append(
                    f"-A {start} {self.comment(f'{service.name} -> {joined(place)}')}-m recent --name {end} "
                    f"--rcheck --seconds 10800 --reap -j {end}"
                )
        for index, place in enumerate(places):
            left = len(places) - index
            odds = f"-m statistic --mode random --probability {1 / left:0.10f} " if left > 1 else ""
            title = self.comment(f"{service.name} -> {joined(place)}")
            self.bodies.append(f"-A {start} {title}{odds}-j {endpoint_chain(service, place)}")

    def _endpoint(self, service: Service, place: Place) -> None:
        end = endpoint_chain(service, place)
        self.chains.append(end)
        length = 128 if self.family == 6 else 32
        title = self.comment(service.name)
        remember = f"-m recent --name {end} --set " if service.affinity else ""
        match = f"-m {service.protocol} -p {service.protocol}"
        self.bodies += [
            f"-A {end} {title}-s {place[0]}/{length} -j KUBE-MARK-MASQ",
            f"-A {end} {title}{remember}{match} -j DNAT --to-destination {joined(place)}",
        ]


def iptables_text(
    services: Iterable[Service],
    *,
    family: int = 4,
    comments: bool = True,
    before: Sequence[str] = (),
    more: Sequence[str] = (),
    raw: Sequence[str] = (),
) -> str:
    """A text that iptables-restore takes and that reads like a dump. `before` are rules that stand before the jumps,
    `more` are lines of the nat table; chains among them (`:NAME`) are declared."""
    writer = IptablesWriter(family, comments=comments)
    for service in services:
        writer.add(service)
    portals = writer.comment("kubernetes service portals")
    last = writer.comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain")
    lines = [
        *(["*raw", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", *raw, "COMMIT"] if raw else []),
        *("*mangle", ":KUBE-PROXY-CANARY - [0:0]", ":KUBE-IPTABLES-HINT - [0:0]", "COMMIT"),
        *("*filter", ":KUBE-SERVICES - [0:0]", ":KUBE-EXTERNAL-SERVICES - [0:0]"),
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        "-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
        *writer.refusals,
        *("COMMIT", "*nat", ":PREROUTING ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"),
        *(f":{name} - [0:0]" for name in writer.chains),
        *(f"{line} - [0:0]" for line in more if line.startswith(":")),
        *before,
        f"-A PREROUTING {portals}-j KUBE-SERVICES",
        f"-A OUTPUT {portals}-j KUBE-SERVICES",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        *writer.services,
        f"-A KUBE-SERVICES {last}-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
        *writer.node_ports,
        *writer.bodies,
        *(line for line in more if not line.startswith(":")),
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def nft_name(prefix: str, service: Service, place: Place | None = None) -> str:
    name, _, port = service.name.partition(":")
    path = f"{name}/{service.protocol}/{port}"
    if place is not None:
        path += f"__{place[0].replace(':', '.')}/{place[1]}"
    return f"{prefix}-{_hash(path, 8)}-{path}"


class NftWriter:
    """kube-proxy's nftables table, as nft prints it: `text` without `-j`, `document` with.

    `chains_for_endpoints`: the generation before 1.36, which Services with affinity still have.
    """

    def __init__(self, services: Iterable[Service], *, family: int = 4, chains_for_endpoints: bool = False) -> None:
        self.ip = "ip6" if family == 6 else "ip"
        self.maps: dict[str, list[tuple[list[Any], str, str]]] = {
            name: [] for name in ("no-endpoint-services", "no-endpoint-nodeports", "service-ips", "service-nodeports")
        }
        self.chains: dict[str, list[tuple[str, list[dict[str, Any]]]]] = {}
        self.old = chains_for_endpoints
        for service in services:
            self._add(service)
        daddr = {"payload": {"protocol": self.ip, "field": "daddr"}}
        where = [{"meta": {"key": "l4proto"}}, {"payload": {"protocol": "th", "field": "dport"}}]
        self.chains["services"] = [
            (
                f"{self.ip} daddr . meta l4proto . th dport vmap @service-ips",
                [{"vmap": {"key": {"concat": [daddr, *where]}, "data": "@service-ips"}}],
            ),
            (
                f"{self.ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports",
                [
                    {"match": {"op": "==", "left": daddr, "right": "@nodeport-ips"}},
                    {"vmap": {"key": {"concat": where}, "data": "@service-nodeports"}},
                ],
            ),
        ]
        for hook in ("prerouting", "output"):
            self.chains[f"nat-{hook}"] = [("jump services", [{"jump": {"target": "services"}}])]

    def _add(self, service: Service) -> None:
        outside = [[address, service.protocol, service.port] for address in service.outside]
        node_ports = [[service.protocol, service.node_port]] if service.node_port else []
        vip: list[Any] = [service.cluster_ip, service.protocol, service.port]
        no_endpoints = not service.endpoints
        if no_endpoints or (service.local_only and not service.local):
            verdict = "goto reject-chain" if no_endpoints else "drop"
            refused = [vip, *outside] if no_endpoints else outside
            self.maps["no-endpoint-services"] += [(key, verdict, service.name) for key in refused]
            self.maps["no-endpoint-nodeports"] += [(key, verdict, service.name) for key in node_ports]
        if no_endpoints:
            return
        all_chain, outside_chain = nft_name("service", service), nft_name("external", service)
        self.maps["service-ips"].append((vip, f"goto {all_chain}", ""))
        self.maps["service-ips"] += [(key, f"goto {outside_chain}", "") for key in outside]
        self.maps["service-nodeports"] += [(key, f"goto {outside_chain}", "") for key in node_ports]
        self._spread(service, all_chain, service.endpoints)
        if outside or node_ports:
            self._outside(service, all_chain, outside_chain)

    def _outside(self, service: Service, all_chain: str, outside_chain: str) -> None:
        rules = self.chains[outside_chain] = []
        mark = [{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 16384]}}}]
        if not service.local_only:
            rules.append(('meta mark set meta mark | 0x00004000 comment "masquerade"', mark))
            rules.append((f"goto {all_chain}", [{"goto": {"target": all_chain}}]))
            return
        local = {"match": {"op": "==", "left": {"fib": {"result": "type", "flags": ["saddr"]}}, "right": "local"}}
        rules.append(
            (f'fib saddr type local goto {all_chain} comment "short"', [local, {"goto": {"target": all_chain}}])
        )
        if service.local:
            local_chain = nft_name("local", service)
            self._spread(service, local_chain, service.local)
            rules.append((f"goto {local_chain}", [{"goto": {"target": local_chain}}]))

    def _spread(self, service: Service, name: str, places: Sequence[Place]) -> None:
        rules = self.chains.setdefault(name, [])
        count = len(places)
        key = {"numgen": {"mode": "random", "mod": count, "offset": 0}}
        protocol = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": service.protocol}}
        if not (self.old or service.affinity):
            if count == 1:
                host, port = places[0]
                rules.append(
                    (
                        f"meta l4proto {service.protocol} dnat to {joined(places[0])}",
                        [protocol, {"dnat": {"addr": host, "port": port}}],
                    )
                )
                return
            elements = ", ".join(f"{index} : {host} . {port}" for index, (host, port) in enumerate(places))
            data = {"set": [[index, {"concat": list(place)}] for index, place in enumerate(places)]}
            rules.append(
                (
                    f"meta l4proto {service.protocol} dnat {self.ip} to numgen random mod {count} map {{ {elements} }}",
                    [protocol, {"dnat": {"family": self.ip, "addr": {"map": {"key": key, "data": data}}}}],
                )
            )
            return
        ends = [nft_name("endpoint", service, place) for place in places]
        saddr = {"payload": {"protocol": self.ip, "field": "saddr"}}
        for place, end in zip(places, ends, strict=True):
            known = nft_name("affinity", service, place)
            end_rules = self.chains[end] = []
            if service.affinity:
                match = {"match": {"op": "==", "left": saddr, "right": f"@{known}"}}
                rules.append((f"{self.ip} saddr @{known} goto {end}", [match, {"goto": {"target": end}}]))
                update = {"set": {"op": "update", "elem": saddr, "set": f"@{known}"}}
                end_rules.append((f"update @{known} {{ {self.ip} saddr }}", [update]))
            end_rules.append(
                (
                    f"meta l4proto {service.protocol} dnat to {joined(place)}",
                    [protocol, {"dnat": {"addr": place[0], "port": place[1]}}],
                )
            )
        elements = ", ".join(f"{index} : goto {end}" for index, end in enumerate(ends))
        data = {"set": [[index, {"goto": {"target": end}}] for index, end in enumerate(ends)]}
        rules.append((f"numgen random mod {count} vmap {{ {elements} }}", [{"vmap": {"key": key, "data": data}}]))

    def text(self) -> str:
        lines = [f"table {self.ip} kube-proxy {{", '\tcomment "rules for kube-proxy"']
        for name, elements in self.maps.items():
            lines += [f"\tmap {name} {{", "\t\ttype inet_proto : verdict", '\t\tcomment "a { b } ; c"']
            shown = [
                " . ".join(str(part) for part in key) + (f' comment "{comment}"' if comment else "") + f" : {verdict}"
                for key, verdict, comment in elements
            ]
            if shown:
                lines.append("\t\telements = { " + ",\n\t\t\t     ".join(shown) + " }")
            lines += ["\t}", ""]
        for name, rules in self.chains.items():
            lines.append(f"\tchain {name} {{")
            if name.startswith("nat-"):
                lines.append(f"\t\ttype nat hook {name[4:]} priority -100; policy accept;")
            lines += [f"\t\t{text}" for text, _ in rules]
            lines += ["\t}", ""]
        return "\n".join([*lines, "}", ""])

    def document(self) -> str:
        head = {"family": self.ip, "table": "kube-proxy"}
        items: list[dict[str, Any]] = [
            {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
            {"table": {"family": self.ip, "name": "kube-proxy", "handle": 1}},
        ]
        for name, elements in self.maps.items():
            body: dict[str, Any] = {**head, "name": name, "type": ["inet_proto"], "map": "verdict"}
            if elements:
                body["elem"] = [_json_element(*element) for element in elements]
            items.append({"map": body})
        for name in self.chains:
            hook = {"type": "nat", "hook": name[4:], "prio": -100, "policy": "accept"} if name[:4] == "nat-" else {}
            items.append({"chain": {**head, "name": name, **hook}})
        for name, rules in self.chains.items():
            items += [{"rule": {**head, "chain": name, "handle": 1, "expr": expr}} for _, expr in rules]
        return json.dumps({"nftables": items})


def _json_element(key: list[Any], verdict: str, comment: str) -> list[Any]:
    plain: dict[str, Any] = {"concat": key}
    word, _, target = verdict.partition(" ")
    return [
        {"elem": {"val": plain, "comment": comment}} if comment else plain,
        {word: {"target": target} if target else None},
    ]


@dataclass(frozen=True)
class Expected:
    """What the model must say about one address and port. `shares` has None where they depend on the client."""

    service: str
    shares: dict[Place, float | None]
    rejected: bool
    affinity: bool


def expected(services: Iterable[Service]) -> dict[tuple[str, str | None, int], Expected]:
    found: dict[tuple[str, str | None, int], Expected] = {}
    for service in services:
        count = len(service.endpoints)
        even: dict[Place, float | None] = dict.fromkeys(service.endpoints, 1 / max(count, 1))
        outside: dict[Place, float | None] = dict.fromkeys(service.endpoints) if service.local_only else even
        affinity = service.affinity and bool(count)
        refused = not count or (service.local_only and not service.local)
        found[service.protocol, service.cluster_ip, service.port] = Expected(service.name, even, not count, affinity)
        keys: list[tuple[str, str | None, int]] = [
            (service.protocol, address, service.port) for address in service.outside
        ]
        if service.node_port:
            keys.append((service.protocol, None, service.node_port))
        for key in keys:
            found[key] = Expected(service.name, outside, refused, affinity)
    return found
