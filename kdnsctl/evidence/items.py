"""What is collected of a node, in order of volatility: what changes fastest is read first. Data only."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from kdnsctl.facts import conntrack, kubeproxy, rules
from kdnsctl.model import Fact, UsageError
from kdnsctl.netfilter.rules import Mode


@dataclass(frozen=True, slots=True)
class Item:
    """One artefact of a node: a fact, or (without one) a log of kube-proxy, `previous` that of the run before.

    `name` is the file's. `sealed`: the trailer that proves the output whole is kept at its end, where the format itself
    does not tell. `modes`: it is read where kube-proxy runs in one of these modes (none: always). Where the mode is not
    known it is tried, and its absence is no gap.
    """

    id: str
    name: str
    fact: Fact | None = None
    sealed: bool = False
    compress: bool = False
    previous: bool = False
    modes: frozenset[Mode] = frozenset()


def _fact(name: str, fact: Fact, *modes: Mode, id: str = "", sealed: bool = False, compress: bool = False) -> Item:  # noqa: A002
    return Item(id or fact.id, name, fact, sealed=sealed, compress=compress, modes=frozenset(modes))


MODE: Final = _fact("proxy-mode.txt", kubeproxy.MODE)
ITEMS: Final[tuple[Item, ...]] = (
    MODE,  # a few bytes, and it tells which rules there are to read
    _fact("conntrack.a.txt", conntrack.TABLE, id="conntrack.a", sealed=True, compress=True),
    _fact("conntrack-counters.txt", conntrack.COUNTERS),
    _fact("conntrack-fill.txt", conntrack.FILL),
    _fact("iptables-save.txt", rules.IPTABLES[4], compress=True),  # in every mode: leftovers hurt too
    _fact("ip6tables-save.txt", rules.IPTABLES[6], compress=True),
    _fact("nft-ip.json", rules.NFT[4], Mode.NFTABLES, compress=True),
    _fact("nft-ip6.json", rules.NFT[6], Mode.NFTABLES, compress=True),
    _fact("nft-ip.txt", rules.NFT_TEXT[4], Mode.NFTABLES, sealed=True, compress=True),
    _fact("nft-ip6.txt", rules.NFT_TEXT[6], Mode.NFTABLES, sealed=True, compress=True),
    _fact("ip_vs.txt", rules.IPVS, Mode.IPVS, sealed=True, compress=True),
    _fact("healthz.json", kubeproxy.HEALTH),
    _fact("metrics.txt", kubeproxy.METRICS, compress=True),
    _fact("conntrack.b.txt", conntrack.TABLE, id="conntrack.b", sealed=True, compress=True),
    _fact("conntrack-timeouts.txt", conntrack.TIMEOUTS),
    _fact("local-port-range.txt", conntrack.PORT_RANGE),
    Item("kubeProxy.log", "kube-proxy.log", compress=True),
    Item("kubeProxy.log.previous", "kube-proxy-previous.log", compress=True, previous=True),
)
AS_TEXT: Final = {rules.NFT_TEXT[family].id: rules.NFT[family].id for family in (4, 6)}
"""Rules as text are read only where the same could not be had as JSON (an nft built without it)."""


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
