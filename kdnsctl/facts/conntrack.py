"""Facts about connection tracking: the table, whole or filtered, how full it is, its counters and its timeouts.

The table is read from /proc and not with `conntrack`: kube-proxy's image has had none since January 2026
(kubernetes/release#4223), and reading it needs uid 0 and no capability. Whoever filters on the node spares its network,
and the memory of kube-proxy's cgroup, in which the commands run: they stream, and keep nothing.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable
from typing import Final

from kdnsctl.model import Fact, Privilege, Proof, Toolset

PROC_TABLE: Final = "/proc/net/nf_conntrack"
SYSCTLS: Final = "/proc/sys/net/netfilter"
MAX_PATTERNS: Final = 4096  # bytes: an exec's command travels in the URL, and proxies allow 8 KiB of that

TABLE: Final = Fact(
    id="conntrack",
    title="connection tracking table",
    privilege=Privilege.ROOT,
    proof=Proof.TRAILER,
    max_bytes=1 << 30,  # 1,048,576 entries, kube-proxy's highest default, have about 215 MB
    seconds=60,
    commands={
        Toolset.KUBE_PROXY: ("cat", PROC_TABLE),
        # Where the kernel has no such file (CONFIG_NF_CONNTRACK_PROCFS). Both families at once: since 1.4.7 it lists
        # both, and the tools image has no older one.
        Toolset.TOOLS: ("conntrack", "-L", "-o", "extended,id"),
    },
    privileges={Toolset.TOOLS: Privilege.NET_ADMIN},
    filterable=True,
)


# The same with a node's own conntrack, which may be old: 1.4.2 lists IPv4 only when no family is named.
WITH_TOOL: Final = {
    family: Fact(
        id=f"conntrack.tool.v{family}",
        title=f"connection tracking table by conntrack, IPv{family}",
        privilege=Privilege.NET_ADMIN,
        proof=Proof.TRAILER,
        max_bytes=1 << 30,
        seconds=60,
        commands={Toolset.HOST: ("conntrack", "-L", "-f", f"ipv{family}", "-o", "extended,id")},
    )
    for family in (4, 6)
}


def _numbers(id_: str, title: str, *command: str, max_bytes: int = 4 << 10) -> Fact:
    """A small file or a few that anybody may read."""
    return Fact(
        id=f"conntrack.{id_}",
        title=title,
        privilege=Privilege.NONE,
        proof=Proof.TRAILER,
        max_bytes=max_bytes,
        seconds=10,
        commands={Toolset.KUBE_PROXY: command},
    )


def _settings(*names: str) -> tuple[str, ...]:
    return ("grep", "-H", "", *(f"{SYSCTLS}/nf_conntrack_{name}" for name in names))


FILL: Final = _numbers("fill", "fill of the connection tracking table", *_settings("count", "max", "buckets"))
COUNTERS: Final = _numbers(
    "counters",
    "counters of connection tracking",
    "cat",
    "/proc/net/stat/nf_conntrack",
    max_bytes=1 << 20,  # a line per CPU
)
TIMEOUTS: Final = _numbers(
    "timeouts", "UDP timeouts of connection tracking", *_settings("udp_timeout", "udp_timeout_stream")
)
# Whether flows are counted and timed, and how long the kernel keeps those of other protocols.
SETTINGS: Final = _numbers(
    "settings",
    "other settings of connection tracking",
    *_settings("acct", "timestamp", "events", "generic_timeout", "tcp_be_liberal", "tcp_timeout_established"),
)
PORT_RANGE: Final = _numbers("ports", "range of local ports", "cat", "/proc/sys/net/ipv4/ip_local_port_range")

TOOL: Final = Fact(
    id="conntrack.release",
    title="release of the conntrack program",
    privilege=Privilege.NET_ADMIN,  # not to say its name, but there is no use for it without
    proof=Proof.TRAILER,
    max_bytes=4 << 10,
    seconds=10,
    commands=dict.fromkeys(Toolset, ("conntrack", "--version")),
)
"""Which conntrack there is, asked before a step relies on it: kube-proxy's image has one or not, by its release."""


def table_of(addresses: Iterable[str], node_ports: Iterable[int] = ()) -> Fact:
    """`TABLE`, filtered on the node: every entry whose original destination is one of `addresses` comes, and every one
    to one of `node_ports`; others may come too. Without either, or with more than fit into a command: the whole table.

    Raises ValueError for what is no address.
    """
    patterns = tuple(dict.fromkeys([*_addresses(addresses), *(f" dport={port} " for port in node_ports)]))
    if sum(len(pattern) + 1 for pattern in patterns) > MAX_PATTERNS:
        return TABLE
    return dataclasses.replace(TABLE, patterns=patterns)


def _addresses(addresses: Iterable[str]) -> list[str]:
    """The patterns for addresses: in /proc IPv6 stands in full, `conntrack -L` prints the short form (kernel %pI6)."""
    patterns = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        patterns.append(f" dst={address.exploded} ")
        if address.version == 6:
            patterns.append(f" dst={address.compressed} ")
    return patterns
