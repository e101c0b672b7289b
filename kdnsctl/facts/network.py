"""Facts about the node's network around connection tracking: UDP sockets, counters of errors, neighbours and routes.

From /proc, and not with `ss`, which can load modules. `ip` is asked only for what /proc does not tell.
"""

from __future__ import annotations

from typing import Final

from kdnsctl.model import Fact, Privilege, Proof, Toolset

_LARGE: Final = 16 << 20  # bytes; a node of 250 pods has about 1 MB of each


def _fact(id_: str, title: str, *command: str, tools: Toolset = Toolset.KUBE_PROXY) -> Fact:
    return Fact(id_, title, Privilege.NONE, Proof.TRAILER, _LARGE, 20, {tools: command})


def _files(id_: str, title: str, *names: str) -> Fact:
    return _fact(id_, title, "grep", "-H", "", *(f"/proc/net/{name}" for name in names))


UDP: Final = {
    4: _fact("sockets.udp.v4", "UDP sockets, IPv4", "cat", "/proc/net/udp"),
    6: _fact("sockets.udp.v6", "UDP sockets, IPv6", "cat", "/proc/net/udp6"),
}
COUNTERS: Final = _files(
    "net.counters", "counters of the network's errors", "sockstat", "snmp", "netstat", "softnet_stat"
)
TABLES: Final = {
    4: _files("net.v4", "neighbours, routes and interfaces, IPv4", "arp", "route", "fib_trie", "dev"),
    6: _files("net.v6", "addresses, routes and counters, IPv6", "if_inet6", "ipv6_route", "snmp6"),
}
NEIGHBOURS: Final = _fact(
    "ip.neighbours", "neighbours of both families", "ip", "-j", "neigh", "show", tools=Toolset.HOST
)
ROUTES: Final = {
    family: _fact(
        f"ip.routes.v{family}",
        f"routes of all tables, IPv{family}",
        *("ip", "-j", f"-{family}", "route", "show", "table", "all"),
        tools=Toolset.HOST,
    )
    for family in (4, 6)
}
POLICIES: Final = {
    family: _fact(
        f"ip.rules.v{family}",
        f"which routing table is used when, IPv{family}",
        *("ip", "-j", f"-{family}", "rule", "show"),
        tools=Toolset.HOST,
    )
    for family in (4, 6)
}
