"""The dumps of one node, parsed and put together: files in, `Evidence` out. It opens nothing and judges nothing.

A node can have a table for each address family, rules of several backends, and a later reading of each. What says the
same twice is an error that names both files: which of them is true, nobody can tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from kdnsctl.diagnosis.evidence import Evidence, Item, KubeProxyState, Missing
from kdnsctl.diagnosis.flows import Collector, Reading
from kdnsctl.diagnosis.index import Index
from kdnsctl.diagnosis.proxystate import state_of
from kdnsctl.facts import clocks, numbers
from kdnsctl.facts.clocks import Ahead, NodeClock
from kdnsctl.find.nodefiles import Artefact
from kdnsctl.find.recognise import RULES, Sort
from kdnsctl.model import Reason, UsageError
from kdnsctl.netfilter.conntrack import ConntrackReader, Summary
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.kubeproxy import parse_config_mode, parse_health, parse_metrics, parse_proxy_mode
from kdnsctl.netfilter.rules import Backing, Mode, NodeRules
from kdnsctl.netfilter.trailer import TrailerSplitter, completeness


@dataclass(slots=True)
class Table:
    """One connection tracking dump as it was read. `families` are the address families that were seen in it."""

    file: Artefact
    reading: Reading
    families: frozenset[int]


@dataclass(slots=True)
class Dumps:
    """What there is of one node, file by file; `later` are the files that were read after others of their name."""

    tables: list[Table] = field(default_factory=list)
    rules: list[tuple[Artefact, NodeRules]] = field(default_factory=list)
    texts: dict[Sort, tuple[Artefact, bytes]] = field(default_factory=dict)
    later: set[int] = field(default_factory=set)
    counters_later: bytes = b""

    def add_table(self, file: Artefact, blocks: Iterable[bytes], errors: bytes, index: Index) -> None:
        """Read a dump of the table. `errors` is what conntrack said beside it; `index` tells which entries matter."""
        reader, collector = ConntrackReader(index.wanted), Collector()
        summary, problem = _read(blocks, reader, collector, errors)
        if problem is None and summary.total is not None and summary.total > summary.entries:
            # Which entries a filter let through is not in a dump.
            left_out = f"{summary.total:,} lines were in the table, and a filter has let {summary.entries:,} through"
            problem = Reason("filtered", left_out)
        if problem is None and summary.completeness.complete:
            problem = file.problem
        whole = Completeness(summary.completeness.proof, problem) if problem else summary.completeness
        # Which families were asked for is not in a dump: conntrack 1.4.2 lists IPv4 only when none is named. Of an
        # empty one only its name can tell.
        families = summary.families or frozenset({6 if _NAMED_IPV6.search(file.path) else 4})
        udp = summary.by_protocol.get("udp", 0)
        reading = collector.reading(whole, families=families, at=file.modified, entries=summary.entries, udp=udp)
        self.tables.append(Table(file, reading, families))

    def add_rules(self, file: Artefact, blocks: Iterable[bytes]) -> None:
        """Read a dump of rules."""
        splitter = TrailerSplitter()
        pieces: list[bytes] = []
        problem = None
        try:
            pieces.extend(splitter.feed(block) for block in blocks)
        except DumpError as error:
            problem = error.reason
        rest, trailer = splitter.finish()
        parsed = RULES[file.sort]([*pieces, rest], completeness(trailer) if trailer else None)
        for one in parsed:
            why = problem or (file.problem if one.completeness.complete else None)
            found = replace(one, completeness=Completeness(one.completeness.proof, why)) if why else one
            self.rules.append((file, found))

    def add_text(self, file: Artefact, content: bytes) -> None:
        """Keep a small file. Settings may lie in several, each of which tells others."""
        if file.sort is Sort.COUNTERS and file.ordinal in self.later:
            self.counters_later = content
            return
        known = self.texts.get(file.sort)
        if known is not None and file.sort is Sort.KERNEL_LOG:
            return  # they tell of the same lines, in several forms
        if known is not None:
            if file.sort is Sort.SETTINGS and not numbers.settings(known[1]).keys() & numbers.settings(content).keys():
                self.texts[file.sort] = (known[0], known[1].rstrip(b"\n") + b"\n" + content)
                return
            raise _twice(known[0], file, file.sort.value)
        self.texts[file.sort] = (file, content)

    def text(self, sort: Sort) -> bytes:
        """A small file's content, b"" when there is none."""
        return self.texts[sort][1] if sort in self.texts else b""

    @property
    def clock(self) -> NodeClock | None:
        """The node's clock as it was read."""
        return clocks.clock(self.text(Sort.CLOCK))

    @property
    def clock_ahead(self) -> Ahead | None:
        """How far it is before the clock of whoever collected; None when it was not read, or nobody says when."""
        read = self.clock
        if read is None:
            return None
        file = self.texts[Sort.CLOCK][0]
        return clocks.ahead(read, file.began, file.modified) if file.began and file.modified else None


_NAMED_IPV6 = re.compile(r"(?:ip|inet|v)6[^/]*$")


class DumpError(Exception):
    """A file breaks off; what came before it was delivered."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


def evidence_of(dumps: Dumps, name: str, *, version: str = "", unread: Iterable[Missing] = ()) -> Evidence:
    """All dumps of a node as evidence. Raises UsageError when two of them say the same."""
    first = _table([table for table in dumps.tables if table.file.ordinal not in dumps.later])
    second = _table([table for table in dumps.tables if table.file.ordinal in dumps.later])
    missing = list(unread)
    if first is None and not any(each.item is Item.CONNTRACK for each in missing):
        missing.append(Missing(Item.CONNTRACK, Reason("noFile", "there is no connection tracking table in the files")))
    if not dumps.rules and not any(each.item is Item.RULES for each in missing):
        missing.append(Missing(Item.RULES, Reason("noFile", "there are no rules of kube-proxy in the files")))
    settings = dumps.text(Sort.SETTINGS)
    counters, kernel_log, clock = dumps.text(Sort.COUNTERS), dumps.text(Sort.KERNEL_LOG), dumps.clock
    return Evidence(
        node=name,
        conntrack=first,
        conntrack_later=second,
        rules=_rules([rule for rule in dumps.rules if rule[0].ordinal not in dumps.later]),
        rules_later=_rules([rule for rule in dumps.rules if rule[0].ordinal in dumps.later]),
        counters=numbers.counters(counters) if counters else None,
        counters_later=numbers.counters(dumps.counters_later) if dumps.counters_later else None,
        table_full=clocks.table_full(kernel_log, clock.uptime if clock else None) if kernel_log else None,
        fill=numbers.fill(settings) if settings else None,
        timeouts=numbers.timeouts(settings) if settings else None,
        kube_proxy=_kube_proxy(dumps),
        version=version,
        local_ports=numbers.local_ports(dumps.text(Sort.PORTS)),
        missing=tuple(missing),
    )


def _read(
    blocks: Iterable[bytes], reader: ConntrackReader, collector: Collector, errors: bytes
) -> tuple[Summary, Reason | None]:
    """Read a dump to its end, with or without a trailer of ours, with or without the line numbers of a filter."""
    problem = None
    splitter: TrailerSplitter | None = None
    try:
        for block in blocks:
            splitter = splitter or TrailerSplitter(numbered=_is_numbered(block))
            collector.add_all(reader.feed(splitter.feed(block)))
    except DumpError as error:
        problem = error.reason
    trailer = None
    if splitter is not None:
        rest, trailer = splitter.finish()
        collector.add_all(reader.feed(rest))
    summary = reader.finish(errors=errors, trailer=trailer)
    collector.add_all(summary.last)
    return summary, problem


def _is_numbered(block: bytes) -> bool:
    """Whether lines have their numbers before them, as `grep -n` writes them."""
    digits, colon, _ = block.lstrip()[:20].partition(b":")
    return digits.isdigit() and bool(colon)


def _table(tables: list[Table]) -> Reading | None:
    """The dumps of different address families as one reading."""
    if not tables:
        return None
    together = tables[0]
    for table in tables[1:]:
        shared = together.families & table.families
        if shared and together.reading.entries and table.reading.entries:
            raise _twice(together.file, table.file, Sort.CONNTRACK.value)
        one, other = together.reading, table.reading
        whole = one.completeness if not one.completeness.complete else other.completeness
        reading = Reading(
            {**one.groups, **other.groups},
            whole,
            one.families | other.families,
            at=one.at,
            entries=(one.entries or 0) + (other.entries or 0),
            lost=one.lost + other.lost,
            udp=(one.udp or 0) + (other.udp or 0),
        )
        together = Table(together.file, reading, together.families | table.families)
    return together.reading


def _rules(rules: list[tuple[Artefact, NodeRules]]) -> tuple[NodeRules, ...]:
    kept: dict[tuple[Mode, Backing, int | None], tuple[Artefact, NodeRules]] = {}
    for file, one in sorted(rules, key=lambda rule: rule[0].sort is Sort.NFT_TEXT):  # JSON says more than text
        known = kept.get((one.mode, one.backing, one.family))
        if known is None or not known[1].services:
            kept[one.mode, one.backing, one.family] = (file, one)
        elif one.services and {file.sort, known[0].sort} != {Sort.NFT_JSON, Sort.NFT_TEXT}:
            raise _twice(known[0], file, file.sort.value)
    return tuple(one for _, one in kept.values())


def _twice(one: Artefact, other: Artefact, what: str) -> UsageError:
    return UsageError(
        f"{one.name} and {other.name} are both a {what} of one node, and may be of different moments",
        hint="name one of them, or put each node's files into a folder of its own",
    )


def _kube_proxy(dumps: Dumps) -> KubeProxyState | None:
    """What kube-proxy says of itself, None when none of it is in the files."""
    mode, metrics, health = (dumps.text(sort) for sort in (Sort.MODE, Sort.METRICS, Sort.HEALTH))
    config = dumps.text(Sort.CONFIG)
    if not (mode or metrics or health or config):
        return None
    state = state_of(
        parse_proxy_mode(mode) if mode else None,
        parse_metrics([metrics]) if metrics else None,
        parse_health(health) if health else None,
        configured=parse_config_mode(config) if config else None,
    )
    ahead = dumps.clock_ahead
    if state.at is None and metrics and ahead is not None and (asked := dumps.texts[Sort.METRICS][0].modified):
        return replace(state, at=(asked + ahead.by).timestamp())  # its metrics tell times by the node's clock
    return state


def read_at(dumps: Dumps) -> datetime | None:
    """When the last of a node's tables was written, as far as its file says."""
    return max((table.reading.at for table in dumps.tables if table.reading.at), default=None)
