"""Which conntrack entries are stale, and which of those may be counted yet.

Settling is decided here: an endpoint that went away a second ago leaves entries on every healthy node, until kube-proxy
has cleaned up. A dump that is no longer live cannot be read again, so all of it counts. Nothing is worded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kdnsctl.diagnosis.case import StaleGroup, in_scope
from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.flows import Group, Reading, persisted
from kdnsctl.diagnosis.index import Index, Kind, family_of
from kdnsctl.diagnosis.truth import ServicePort, Truth
from kdnsctl.netfilter.entries import Key


def stale_groups(evidence: Evidence, truth: Truth, terms: Terms, index: Index) -> Iterator[StaleGroup]:
    """The groups of both readings that nobody serves, and those sent to no Service's address."""
    first, second = evidence.conntrack, evidence.conntrack_later
    readings = [each for each in (first, second) if each is not None]
    for key in dict.fromkeys(key for reading in readings for key in reading.groups):
        meaning = index.meaning(key)
        if meaning is None or meaning.kind is Kind.SERVING:
            continue
        gone = gone_since(truth, meaning.service, key.reply_source, key.reply_source_port)
        if key.reply_source == key.destination:
            gone = None  # a Service's address never was an endpoint
        count, waiting, group = _counted(evidence, terms, key, gone)
        if group is not None and (count or waiting):
            scope = meaning.kind.stale and in_scope(meaning.service, truth, terms)
            yield StaleGroup(meaning.kind, meaning.service, group, count, waiting, scope)


def _counted(evidence: Evidence, terms: Terms, key: Key, gone: datetime | None) -> tuple[int, int, Group | None]:
    """How many entries of a group count, how many have to be looked at again, and the group as last read."""
    first, second = evidence.conntrack, evidence.conntrack_later
    earlier = first.groups.get(key) if first else None
    later = second.groups.get(key) if second else None
    if second is not None and later is not None:
        if not evidence.live or long_gone(gone, second.at, terms):
            return later.count, 0, later
        if first is not None and earlier is not None and _apart(first, second, terms):
            kept = min(persisted(earlier, later), later.count)
            return kept, later.count - kept, later
        return 0, later.count, later
    if first is None or earlier is None or (second is not None and _refutes(second, key)):
        return 0, 0, None
    if not evidence.live or long_gone(gone, first.at, terms):
        return earlier.count, 0, earlier
    return 0, earlier.count, earlier


def _refutes(reading: Reading, key: Key) -> bool:
    """Whether the absence of a key in a reading shows that there are no such entries any more."""
    return reading.completeness.complete and not reading.lost and covers(reading, key.destination)


def covers(reading: Reading, destination: str) -> bool:
    """Whether a reading would have shown entries to a destination."""
    if family_of(destination) not in reading.families:
        return False
    return reading.addresses is None or destination in reading.addresses


def _apart(first: Reading, second: Reading, terms: Terms) -> bool:
    began, ended = second.began or second.at, first.at
    return began is not None and ended is not None and began - ended >= terms.recheck


def gone_since(truth: Truth, service: ServicePort | None, address: str, port: int | None) -> datetime | None:
    """Since when an endpoint that does not serve has not served, at the latest; None when that is not known."""
    if service is None or port is None:
        return None
    return truth.gone.get((str(service), address, port), truth.since)


def long_gone(gone: datetime | None, at: datetime | None, terms: Terms) -> bool:
    """Whether, at the time of a reading, an endpoint had been gone for so long that kube-proxy should have noticed."""
    return gone is not None and at is not None and at - gone >= terms.settle
