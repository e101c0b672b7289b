"""What is collected of a node, in order of volatility: what changes fastest is read first. Data only."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from kdnsctl.facts import conntrack, kubeproxy, network, node, rules
from kdnsctl.model import Fact, UsageError
from kdnsctl.netfilter.rules import Mode


@dataclass(frozen=True, slots=True)
class Item:
    """One artefact of a node: a fact, or (without one) a log of kube-proxy, `previous` that of the run before.

    `name` is the file's. `sealed`: the trailer that proves the output whole is kept at its end, where the format itself
    does not tell. `modes`: it is read where kube-proxy runs in one of these modes (none: always). Where the mode is not
    known it is tried, and its absence is no gap; but not if it is only for `known` modes: asking would load a module.

    `extra`: it helps to understand, and no verdict hangs on it, so a node that has no such file, tool or permission
    lacks nothing. `instead` is the id of the item in whose place it is read when that could not be had: not when a part
    of it was, if `never_beside` it.
    """

    id: str
    name: str
    fact: Fact | None = None
    sealed: bool = False
    compress: bool = False
    previous: bool = False
    modes: frozenset[Mode] = frozenset()
    known: bool = False
    extra: bool = False
    instead: str = ""
    never_beside: bool = False


def _fact(name: str, fact: Fact, *modes: Mode, id: str = "", sealed: bool = False, compress: bool = False) -> Item:  # noqa: A002
    return Item(id or fact.id, name, fact, sealed=sealed, compress=compress, modes=frozenset(modes))


def _extra(name: str, fact: Fact, *modes: Mode, compress: bool = False, known: bool = False) -> Item:
    return Item(fact.id, name, fact, compress=compress, modes=frozenset(modes), known=known, extra=True)


def _as_text(family: Literal[4, 6], name: str) -> Item:
    fact = rules.NFT_TEXT[family]
    instead = rules.NFT[family].id
    return Item(fact.id, name, fact, sealed=True, compress=True, modes=frozenset({Mode.NFTABLES}), instead=instead)


def _with_tool(which: str, family: Literal[4, 6]) -> Item:
    """The table by `conntrack`, where /proc has none. Two tables of one family would contradict each other."""
    fact, first = conntrack.WITH_TOOL[family], f"conntrack.{which}"
    name = f"{first}.v{family}"
    return Item(name, f"{name}.txt", fact, sealed=True, compress=True, instead=first, never_beside=True)


MODE: Final = _fact("proxy-mode.txt", kubeproxy.MODE)
ITEMS: Final[tuple[Item, ...]] = (
    MODE,  # a few bytes, and it tells which rules there are to read
    _extra("clock.txt", node.CLOCK),
    _fact("conntrack.a.txt", conntrack.TABLE, id="conntrack.a", sealed=True, compress=True),
    _with_tool("a", 4),
    _with_tool("a", 6),
    _fact("conntrack-counters.a.txt", conntrack.COUNTERS),
    _fact("conntrack-fill.txt", conntrack.FILL),
    _fact("iptables-save.txt", rules.IPTABLES[4], compress=True),  # in every mode: leftovers hurt too
    _fact("ip6tables-save.txt", rules.IPTABLES[6], compress=True),
    _fact("nft-ip.json", rules.NFT[4], Mode.NFTABLES, compress=True),
    _fact("nft-ip6.json", rules.NFT[6], Mode.NFTABLES, compress=True),
    _as_text(4, "nft-ip.txt"),
    _as_text(6, "nft-ip6.txt"),
    _fact("ip_vs.txt", rules.IPVS, Mode.IPVS, sealed=True, compress=True),
    _extra("ip_vs_conn.txt", rules.IPVS_FLOWS, Mode.IPVS, compress=True),
    _extra("ip_vs_stats.txt", rules.IPVS_COUNTERS, Mode.IPVS),
    _extra("ipset.txt", rules.IPVS_SETS, Mode.IPVS, compress=True, known=True),
    _fact("healthz.json", kubeproxy.HEALTH),
    _fact("metrics.txt", kubeproxy.METRICS, compress=True),
    _extra("configz.json", kubeproxy.CONFIG),
    _extra("udp.txt", network.UDP[4], compress=True),
    _extra("udp6.txt", network.UDP[6], compress=True),
    _extra("net-counters.txt", network.COUNTERS),
    _extra("net-ipv4.txt", network.TABLES[4], compress=True),
    _extra("net-ipv6.txt", network.TABLES[6], compress=True),
    _extra("ip-neigh.json", network.NEIGHBOURS, compress=True),
    _extra("ip-route4.json", network.ROUTES[4], compress=True),
    _extra("ip-route6.json", network.ROUTES[6], compress=True),
    _extra("ip-rule4.json", network.POLICIES[4]),
    _extra("ip-rule6.json", network.POLICIES[6]),
    _fact("conntrack.b.txt", conntrack.TABLE, id="conntrack.b", sealed=True, compress=True),
    _with_tool("b", 4),
    _with_tool("b", 6),
    _fact("conntrack-counters.b.txt", conntrack.COUNTERS, id="conntrack.counters.b"),
    _fact("conntrack-timeouts.txt", conntrack.TIMEOUTS),
    _fact("local-port-range.txt", conntrack.PORT_RANGE),
    _extra("conntrack-settings.txt", conntrack.SETTINGS),
    _extra("ip_vs-settings.txt", rules.IPVS_SETTINGS, Mode.IPVS),
    Item("kubeProxy.log", "kube-proxy.log", compress=True),
    Item("kubeProxy.log.previous", "kube-proxy-previous.log", compress=True, previous=True),
    _extra("kernel.log", node.KERNEL_LOG, compress=True),
    _extra("resolv.conf", node.RESOLVER),
    _extra("identity.txt", node.IDENTITY),
    _extra("netns.txt", node.NAMESPACE),
    _extra("os-release.txt", node.RELEASE),
    _extra("modules.txt", node.MODULES, compress=True),
)
HAVE_TEXT: Final = frozenset(item.instead for item in ITEMS if item.instead and not item.never_beside)
"""Items whose failure is answered on the node itself: by the same in another form."""


def chosen(only: Collection[str], without: Iterable[str]) -> tuple[Item, ...]:
    """The items of --item (none: all), but for those of --skip. Raises UsageError for an unknown id, or no item."""
    left_out = set(without)
    known = {item.id for item in ITEMS}
    for one in (*only, *left_out):
        if one not in known:
            raise UsageError(f"there is no item '{one}'", hint=f"there are {', '.join(sorted(known))}")
    found = tuple(item for item in ITEMS if (not only or item.id in only) and item.id not in left_out)
    if not found:
        raise UsageError("no item is left to collect: --skip names all of them")
    return found
