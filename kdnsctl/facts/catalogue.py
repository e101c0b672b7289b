"""All facts, and all programs that reading them may run on a node.

The allow-list is written down apart from the facts, so that a new fact cannot bring a new program, or a new flag of
one, without somebody saying so here; tests hold each to the other, and SECURITY.md to both.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from kdnsctl.facts import conntrack, kubeproxy, rules
from kdnsctl.model import Fact

FACTS: Final[tuple[Fact, ...]] = (
    conntrack.TABLE,
    conntrack.COUNTERS,
    conntrack.FILL,
    rules.IPTABLES[4],
    rules.IPTABLES[6],
    rules.NFT[4],
    rules.NFT[6],
    rules.NFT_TEXT[4],
    rules.NFT_TEXT[6],
    rules.IPVS,
    kubeproxy.MODE,
    kubeproxy.HEALTH,
    kubeproxy.METRICS,
    conntrack.TIMEOUTS,
    conntrack.PORT_RANGE,
    conntrack.TOOL,
)
"""In order of volatility: what changes fastest is read first."""

_FILE = r"/proc/[a-z0-9_/]+"
# What may follow each program, quoted as for a shell. Nothing here can write, load a module, or ask a name server.
ALLOWED: Final[Mapping[str, str]] = {
    "cat": _FILE,
    "grep": rf"-H ''( {_FILE})+",
    "iptables-save": "-c",
    "ip6tables-save": "-c",
    "conntrack": "-L -o extended,id|--version",
    "nft": "(-j )?list table ip6? kube-proxy",
}


def allowed(command: tuple[str, ...]) -> bool:
    """Whether the allow-list has this command, arguments included."""
    form = ALLOWED.get(command[0])
    return form is not None and re.fullmatch(form, shlex.join(command[1:])) is not None
