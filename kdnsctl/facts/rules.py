"""Facts about Service rules: what kube-proxy has written, in each of its modes, for each address family.

Never `iptables -L`: the legacy one creates the table that it lists, and without -n it asks DNS, which is what is
broken. The save programs and `nft list` do neither.
"""

from __future__ import annotations

from typing import Final, Literal

from kdnsctl.model import Fact, Privilege, Proof, Toolset

RULES: Final = 256 << 20  # bytes at most; about 500 per endpoint
Family = Literal[4, 6]


def _iptables(family: Family, program: str) -> Fact:
    return Fact(
        id=f"iptables.v{family}",
        title=f"iptables rules, IPv{family}",
        privilege=Privilege.NET_ADMIN,
        proof=Proof.COMMIT,
        max_bytes=RULES,
        seconds=60,
        commands={Toolset.KUBE_PROXY: (program, "-c")},
    )


def _nft(family: Family, table: str, *, json: bool) -> Fact:
    return Fact(
        id=f"nft.v{family}" if json else f"nft.v{family}.text",
        title=f"nftables rules, IPv{family}" + ("" if json else ", as text"),
        privilege=Privilege.NET_ADMIN,
        proof=Proof.CLOSED if json else Proof.TRAILER,
        max_bytes=RULES,
        seconds=60,
        commands={Toolset.KUBE_PROXY: ("nft", *(["-j"] if json else []), "list", "table", table, "kube-proxy")},
    )


IPTABLES: Final = {4: _iptables(4, "iptables-save"), 6: _iptables(6, "ip6tables-save")}
NFT: Final = {4: _nft(4, "ip", json=True), 6: _nft(6, "ip6", json=True)}
# What an nft says that was built without JSON (nftables src/main.c), as in distroless-iptables v0.9.4, v0.9.5, v0.8.12
# and v0.8.13 (kubernetes/release).
NO_JSON: Final = b"JSON support not compiled-in"
NFT_TEXT: Final = {4: _nft(4, "ip", json=False), 6: _nft(6, "ip6", json=False)}


def _ipvs(id_: str, title: str, *command: str, privilege: Privilege = Privilege.NONE) -> Fact:
    return Fact(id_, title, privilege, Proof.TRAILER, RULES, 30, {Toolset.KUBE_PROXY: command})


IPVS: Final = _ipvs("ipvs", "ipvs services", "cat", "/proc/net/ip_vs")
IPVS_FLOWS: Final = _ipvs("ipvs.flows", "flows of ipvs", "cat", "/proc/net/ip_vs_conn")
IPVS_COUNTERS: Final = _ipvs("ipvs.counters", "counters of ipvs", "cat", "/proc/net/ip_vs_stats")
IPVS_SETTINGS: Final = _ipvs(
    "ipvs.settings",
    "settings of ipvs",
    "grep",
    "-H",
    "",
    *(
        f"/proc/sys/net/ipv4/vs/{name}"
        for name in ("conntrack", "conn_reuse_mode", "expire_nodest_conn", "expire_quiescent_template")
    ),
)
# Where ip_set is not loaded, asking loads it: so only where kube-proxy is known to work in this mode.
IPVS_SETS: Final = _ipvs("ipvs.sets", "sets of addresses of ipvs", "ipset", "save", privilege=Privilege.NET_ADMIN)
