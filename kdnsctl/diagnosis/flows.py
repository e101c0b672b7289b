"""A conntrack table reduced to what a judgement needs, while it streams by: groups of flows with one key.

Memory is bounded, whatever a node sends: so many groups, and of each group so many clients and flows; what is left out
is counted. Nothing is judged here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from zlib import crc32

from kdnsctl.netfilter.dump import Completeness
from kdnsctl.netfilter.entries import Entry, Key, Seen

MOST_GROUPS = 10_000
MOST_CLIENTS = 1_000  # of one group
MOST_FLOWS = 16_384  # of one group
MOST_DETAILS = 100_000  # flows, and again clients, of all groups together, but for the FEWEST that every group keeps
FEWEST = 16


class FlowId(NamedTuple):
    """What tells the flows of one group apart."""

    source: str
    source_port: int | None
    zone: int


class Sight(NamedTuple):
    """One flow as it was read: seconds left, whether on the longer timer, packets both ways, the entry's id."""

    timeout: int | None
    assured: bool
    packets: int | None
    id: int | None


@dataclass(frozen=True, slots=True)
class Group:
    """All entries with one key in one reading.

    `clients` are entries by original source; `more` counts the entries of clients that were too many to keep. `flows`
    are all flows, or, when `mask` is not 0, those whose hash has none of its bits set: so that two readings of one
    table keep the same flows and can be compared.
    """

    key: Key
    count: int
    clients: Mapping[str, int] = field(default_factory=dict)
    more: int = 0
    flows: Mapping[FlowId, Sight] = field(default_factory=dict)
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """A node's conntrack table at one time: groups by key, as far as they were wanted.

    `entries` counts all entries seen, None when that is not known. `families` and `addresses` say what was asked of
    the node: address families, and, when the node filtered, the original destinations it let through (None: all).
    `began` and `at` are when reading began and ended. `lost` counts wanted entries of groups that were too many. `udp`
    counts the entries of UDP among all, None when nothing follows from their absence.
    """

    groups: Mapping[Key, Group]
    completeness: Completeness
    families: frozenset[int] = frozenset({4, 6})
    addresses: frozenset[str] | None = None
    began: datetime | None = None
    at: datetime | None = None
    entries: int | None = None
    lost: int = 0
    udp: int | None = None


# Only these are on the stream timer; an entry that saw a reply but is not assured is on the short one
# (net/netfilter/nf_conntrack_proto_udp.c).
_ON_LONG_TIMER = frozenset({Seen.ASSURED, Seen.OFFLOAD, Seen.HW_OFFLOAD})


class _Growing:
    """A group while it is read."""

    __slots__ = ("clients", "count", "flows", "mask", "more")

    def __init__(self) -> None:
        self.count = 0
        self.more = 0
        self.mask = 0
        self.clients: dict[str, int] = {}
        self.flows: dict[FlowId, Sight] = {}


class Collector:
    """Takes the wanted entries of one dump, one after the other, and keeps groups."""

    def __init__(
        self,
        *,
        groups: int = MOST_GROUPS,
        clients: int = MOST_CLIENTS,
        flows: int = MOST_FLOWS,
        details: int = MOST_DETAILS,
    ) -> None:
        self._groups: dict[Key, _Growing] = {}
        self._most_groups = groups
        self._most_clients = clients
        self._most_flows = flows
        self._details = details
        self._flows = 0
        self._clients = 0
        self._lost = 0

    def add(self, entry: Entry) -> None:
        """Count an entry into its group."""
        key = entry.key
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= self._most_groups:
                self._lost += 1
                return
            group = self._groups[key] = _Growing()
        group.count += 1
        source = sys.intern(entry.original.source)
        self._count_client(group, source)
        self._keep_flow(group, FlowId(source, entry.original.source_port, entry.zone or 0), entry)

    def add_all(self, entries: Iterable[Entry]) -> None:
        """Count many entries."""
        for entry in entries:
            self.add(entry)

    def reading(
        self,
        completeness: Completeness,
        *,
        families: frozenset[int] = frozenset({4, 6}),
        addresses: frozenset[str] | None = None,
        began: datetime | None = None,
        at: datetime | None = None,
        entries: int | None = None,
        udp: int | None = None,
    ) -> Reading:
        """What was read, now that the dump has ended; see `Reading` for the arguments."""
        groups = {
            key: Group(key, group.count, group.clients, group.more, group.flows, group.mask)
            for key, group in self._groups.items()
        }
        return Reading(groups, completeness, families, addresses, began, at, entries, self._lost, udp)

    def _count_client(self, group: _Growing, source: str) -> None:
        known = group.clients.get(source)
        room = len(group.clients) < (FEWEST if self._clients >= self._details else self._most_clients)
        if known is not None:
            group.clients[source] = known + 1
        elif room:
            group.clients[source] = 1
            self._clients += 1
        else:
            group.more += 1

    def _keep_flow(self, group: _Growing, flow: FlowId, entry: Entry) -> None:
        if group.mask and _hash(flow) & group.mask:
            return
        if flow not in group.flows:
            self._flows += 1
        group.flows[flow] = Sight(entry.timeout, entry.seen in _ON_LONG_TIMER, _packets(entry), entry.id)
        if len(group.flows) > self._most_flows:
            self._thin(group)
        if self._flows > self._details and self._most_flows > FEWEST:
            self._most_flows = max(FEWEST, self._most_flows // 2)
            for each in self._groups.values():
                self._thin(each)

    def _thin(self, group: _Growing) -> None:
        """Keep every second flow, or of those again, by a hash that is the same in every reading."""
        before = len(group.flows)
        while len(group.flows) > self._most_flows:
            group.mask = group.mask * 2 + 1
            group.flows = {flow: sight for flow, sight in group.flows.items() if not _hash(flow) & group.mask}
        self._flows -= before - len(group.flows)


def persisted(earlier: Group, later: Group) -> int:
    """How many entries of `later` are flows that `earlier` had too; an estimate once either is a sample."""
    mask = earlier.mask | later.mask
    if not mask:
        return len(earlier.flows.keys() & later.flows.keys())
    first = {flow for flow in earlier.flows if not _hash(flow) & mask}
    second = {flow for flow in later.flows if not _hash(flow) & mask}
    common = len(first & second)
    if not common:
        return 0
    return max(1, round(later.count * common / len(second)))


def _hash(flow: FlowId) -> int:
    return crc32(f"{flow.source} {flow.source_port} {flow.zone}".encode())


def _packets(entry: Entry) -> int | None:
    original, reply = entry.original.packets, entry.reply.packets
    return None if original is None else original + (reply or 0)
