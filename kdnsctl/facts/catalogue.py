"""All facts, and all programs that reading them may run on a node.

The allow-list is written down apart from the facts, so that a new fact cannot bring a new program, or a new flag of
one, without somebody saying so here; tests hold each to the other, and SECURITY.md to both.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from kdnsctl.facts import conntrack, kubeproxy, network, node, rules
from kdnsctl.model import Fact
from kdnsctl.probe.onnode import SCRIPT

FACTS: Final[tuple[Fact, ...]] = (
    node.CLOCK,
    conntrack.TABLE,
    conntrack.WITH_TOOL[4],
    conntrack.WITH_TOOL[6],
    conntrack.COUNTERS,
    conntrack.FILL,
    rules.IPTABLES[4],
    rules.IPTABLES[6],
    rules.NFT[4],
    rules.NFT[6],
    rules.NFT_TEXT[4],
    rules.NFT_TEXT[6],
    rules.IPVS,
    rules.IPVS_FLOWS,
    rules.IPVS_COUNTERS,
    rules.IPVS_SETS,
    kubeproxy.MODE,
    kubeproxy.HEALTH,
    kubeproxy.METRICS,
    kubeproxy.CONFIG,
    network.UDP[4],
    network.UDP[6],
    network.COUNTERS,
    network.TABLES[4],
    network.TABLES[6],
    network.NEIGHBOURS,
    network.ROUTES[4],
    network.ROUTES[6],
    network.POLICIES[4],
    network.POLICIES[6],
    conntrack.TIMEOUTS,
    conntrack.PORT_RANGE,
    conntrack.TOOL,
    conntrack.SETTINGS,
    rules.IPVS_SETTINGS,
    node.KERNEL_LOG,
    node.RESOLVER,
    node.IDENTITY,
    node.NAMESPACE,
    node.RELEASE,
    node.MODULES,
)
"""In order of volatility: what changes fastest is read first."""

KEPT: Final[tuple[Fact, ...]] = (
    rules.IPVS_FLOWS,
    rules.IPVS_COUNTERS,
    rules.IPVS_SETS,
    rules.IPVS_SETTINGS,
    *network.UDP.values(),
    network.COUNTERS,
    *network.TABLES.values(),
    network.NEIGHBOURS,
    *network.ROUTES.values(),
    *network.POLICIES.values(),
    conntrack.SETTINGS,
    node.RESOLVER,
    node.IDENTITY,
    node.NAMESPACE,
    node.RELEASE,
    node.MODULES,
)
"""Those that no check uses, and nothing here parses: kept for whoever looks into a bundle."""

_FILE = r"/proc/[a-z0-9_/]+"
_CLOCK = r"-h -e '\^btime ' -e '\^\[0-9\]\*\[\.\]\[0-9\]\* ' /proc/stat /proc/uptime"
# What may follow each program, quoted as for a shell. Nothing here can write, load a module, or ask a name server.
ALLOWED: Final[Mapping[str, str]] = {
    "cat": rf"{_FILE}|/etc/resolv\.conf|/etc/os-release",
    "grep": rf"-H ''( {_FILE})+|{_CLOCK}",
    "iptables-save": "-c",
    "ip6tables-save": "-c",
    "nft": "(-j )?list table ip6? kube-proxy",
    "conntrack": "-L (-f ipv[46] )?-o extended,id|--version",
    "ipset": "save",
    "ip": "-j neigh show|-j -[46] (route show table all|rule show)",
    "dmesg": "-r",
    "readlink": "/proc/self/ns/net",
}


_ADDRESS, _NAME = r"[0-9a-fA-F.:]+", r"[A-Za-z0-9_.-]+"
PROBERS: Final[Mapping[str, str]] = {
    "dnsprobe": rf"-s {_ADDRESS} -P \d+ -n {_NAME} -c \d+ -i \d+ -w \d+( -p \d+(,\d+)*)?( -e \d+)?( -t)?",
    "python3": rf"-I -c {re.escape(shlex.quote(SCRIPT))} "
    rf"""'\["{_ADDRESS}",\d+,"{_NAME}",\d+,\d+,\d+,\[(\d+(,\d+)*)?\],(true|false),\d+\]'""",
}
"""What `probe` runs: DNS queries are sent, and nothing else; no fact that is collected comes by these."""


def allowed(command: tuple[str, ...]) -> bool:
    """Whether the allow-list has this command, arguments included."""
    form = ALLOWED.get(command[0]) or PROBERS.get(command[0])
    return form is not None and re.fullmatch(form, shlex.join(command[1:])) is not None
