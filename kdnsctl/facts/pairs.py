"""Facts and their parsers, as pairs, and the reading of one.

A parser takes blocks of bytes cut anywhere, and at the end how the reading went; so a table of any size is parsed in
little memory. Parsers raise nothing for bad output: their records say what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Generic, Literal, Protocol, TypeVar

from kdnsctl.cancel import CancelScope
from kdnsctl.facts import clocks, conntrack, kubeproxy, node, numbers, rules
from kdnsctl.model import Fact
from kdnsctl.netfilter import deletion, iptables, ipvs, nft
from kdnsctl.netfilter.conntrack import ConntrackReader, Summary
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.entries import Entry, Wanted
from kdnsctl.netfilter.kubeproxy import Health, parse_config_mode, parse_health, parse_metrics, parse_proxy_mode
from kdnsctl.netfilter.rules import NodeRules
from kdnsctl.reach.shell import NodeShell, Reading

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Parser(Protocol[T_co]):
    """Bytes in, a record out."""

    def feed(self, block: bytes, /) -> object:
        """Take the next bytes."""

    def finish(self, reading: Reading, /) -> T_co:
        """The output is over, and went as `reading` says: what it was."""


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    """A fact, and what makes a parser for one output of it."""

    fact: Fact
    parser: Callable[[], Parser[T]]


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A fact's value, and the reading it comes from."""

    value: T
    reading: Reading


def read(shell: NodeShell, pair: Pair[T], *, scope: CancelScope) -> Answer[T]:
    """Read and parse one fact. Raises what `NodeShell.read` raises."""
    parser = pair.parser()
    reading = shell.read(pair.fact, parser.feed, scope=scope)
    return Answer(parser.finish(reading), reading)


def read_nft(shell: NodeShell, family: Literal[4, 6], *, scope: CancelScope) -> Answer[tuple[NodeRules, ...]]:
    """kube-proxy's nftables rules of one family: as JSON, or as text where nft was built without JSON."""
    answer = read(shell, NFT[family], scope=scope)
    if rules.NO_JSON in answer.reading.stderr:
        return read(shell, NFT_TEXT[family], scope=scope)
    return answer


def table(fact: Fact, wanted: Wanted, take: Callable[[Entry], object]) -> Pair[Summary]:
    """A connection tracking table, whole or filtered on the node; each wanted entry goes to `take` as it comes."""
    return Pair(fact, lambda: _Table(wanted, take))


class _Table:
    def __init__(self, wanted: Wanted, take: Callable[[Entry], object]) -> None:
        self._reader = ConntrackReader(wanted)
        self._take = take

    def feed(self, block: bytes, /) -> None:
        for entry in self._reader.feed(block):
            self._take(entry)

    def finish(self, reading: Reading, /) -> Summary:
        summary = self._reader.finish(trailer=reading.trailer)
        for entry in summary.last:
            self._take(entry)
        return summary


class _Blocks(Generic[T]):
    """A parser for outputs of moderate size: keeps them, and has them parsed at the end. `Fact.max_bytes` bounds it."""

    def __init__(self, parse: Callable[[list[bytes], Reading], T]) -> None:
        self._parse = parse
        self._blocks: list[bytes] = []

    def feed(self, block: bytes, /) -> None:
        self._blocks.append(block)

    def finish(self, reading: Reading, /) -> T:
        return self._parse(self._blocks, reading)


def _pair(fact: Fact, parse: Callable[[bytes], T]) -> Pair[T]:
    return Pair(fact, lambda: _Blocks(lambda blocks, _: parse(b"".join(blocks))))


def _dump(fact: Fact, parse: Callable[[Iterable[bytes], Completeness], T]) -> Pair[T]:
    return Pair(fact, lambda: _Blocks(lambda blocks, reading: parse(blocks, reading.completeness)))


def _health(blocks: list[bytes], reading: Reading) -> Health | None:
    """A /healthz answer: before 1.33 only HTTP's status said whether kube-proxy is healthy."""
    health = parse_health(b"".join(blocks))
    if health is not None and health.healthy is None and reading.exit_code in (200, 503):
        return replace(health, healthy=reading.exit_code == 200)
    return health


CLOCK: Final = _pair(node.CLOCK, clocks.clock)
KERNEL_LOG: Final = _pair(node.KERNEL_LOG, clocks.table_full)
FILL: Final = _pair(conntrack.FILL, numbers.fill)
COUNTERS: Final = _pair(conntrack.COUNTERS, numbers.counters)
TIMEOUTS: Final = _pair(conntrack.TIMEOUTS, numbers.timeouts)
TOOL: Final = _pair(conntrack.TOOL, deletion.version)
LOCAL_PORTS: Final = _pair(conntrack.PORT_RANGE, numbers.local_ports)
MODE: Final = _pair(kubeproxy.MODE, parse_proxy_mode)
CONFIG: Final = _pair(kubeproxy.CONFIG, parse_config_mode)
HEALTH: Final = Pair(kubeproxy.HEALTH, lambda: _Blocks(_health))
METRICS: Final = _dump(kubeproxy.METRICS, parse_metrics)
IPVS: Final = _dump(rules.IPVS, ipvs.parse)
IPTABLES: Final = {family: _dump(fact, iptables.parse) for family, fact in rules.IPTABLES.items()}
NFT: Final = {family: _dump(fact, nft.parse) for family, fact in rules.NFT.items()}
NFT_TEXT: Final = {family: _dump(fact, nft.parse) for family, fact in rules.NFT_TEXT.items()}
