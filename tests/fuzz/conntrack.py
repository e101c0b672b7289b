"""Fuzz targets of connection tracking: tables in every form, trailers, counters, and what conntrack says."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import replace
from unittest import mock

from kdnsctl.netfilter import conntrack, counters
from kdnsctl.netfilter.conntrack import ConntrackReader, Summary
from kdnsctl.netfilter.conntracksaid import MOST_SAID, Said
from kdnsctl.netfilter.entries import Entry, Key
from kdnsctl.netfilter.trailer import MARKER, Trailer, TrailerSplitter
from tests.fuzz.target import Target, in_blocks, recorded

NO_SHAPES = re.compile(rb"(?:(?!)()()()()()()())|[^\n]*\n")
"""In the place of `conntrack.LINES`: no line has a known shape, so all go through the tokeniser."""


def _read(blocks: Iterable[bytes]) -> tuple[list[Entry], Summary]:
    reader = ConntrackReader(_every_second)
    entries = [entry for block in blocks for entry in reader.feed(block)]
    summary = reader.finish()
    return [*entries, *summary.last], replace(summary, last=())


def _every_second(key: Key) -> bool:
    return sum(key.destination.encode()) % 2 == 0


def _check_table(data: bytes, random_: random.Random) -> None:
    expected = _read([data])
    assert _read(in_blocks(data, random_)) == expected, "blocks matter"
    with mock.patch.object(conntrack, "LINES", NO_SHAPES):
        assert _read([data]) == expected, "the quick way and the way by tokens differ"
    entries, summary = expected
    assert len(entries) <= summary.entries == sum(summary.by_protocol.values())
    assert bool(summary.unreadable) == bool(summary.example_line)
    assert not (summary.unreadable and summary.completeness.complete)
    assert all(_every_second(entry.key) for entry in entries)
    assert summary.example.isprintable()
    conntrack.recognise(data[:4096])


def _check_trailer(data: bytes, random_: random.Random) -> None:
    payload, trailer = _split(in_blocks(data, random_), numbered=False)
    assert data.startswith(payload), "the payload is not what was printed"
    assert data[len(payload) :].startswith(MARKER.encode() if trailer else b"")
    assert trailer is not None or payload == data, "something was lost"
    assert _split([data], numbered=True) == _split(in_blocks(data, random_), numbered=True), "blocks matter"
    whole = _split([data, f"{MARKER} abc rc=7;\n".encode()], numbered=False)
    assert whole == (data, Trailer(7)), "a trailer was not found"


def _split(blocks: Iterable[bytes], *, numbered: bool) -> tuple[bytes, Trailer | None]:
    splitter = TrailerSplitter("abc", numbered=numbered)
    payload = b"".join(map(splitter.feed, blocks))
    rest, trailer = splitter.finish()
    return payload + rest, trailer


def _check_counters(data: bytes, _: random.Random) -> None:
    found = counters.read_counters(data)
    assert found is None or (found.cpus > 0 and len(found.totals) <= counters.MOST_NAMES)


def _check_messages(data: bytes, _: random.Random) -> None:
    said = Said()
    said.hear_all(data)
    assert said.problem.isprintable()
    assert len(said.problem) <= MOST_SAID


LISTS = recorded("conntrack/list*.txt", "conntrack/proc.txt", "node/*conntrack*.txt", lines=8)
EVENTS = recorded("conntrack/events*.txt", "conntrack/list-save.txt", lines=8)
TRAILED = (
    *(dump + f"{MARKER} abc rc=0;\n".encode() for dump in recorded("conntrack/proc.txt", lines=3)),
    f"1:a\n2:{MARKER} abc rc=0;\n".encode(),
)
TARGETS = (
    Target("conntrack-text", LISTS, _check_table),
    Target("conntrack-xml", recorded("conntrack/*.xml", "node/*.xml", lines=5), _check_table),
    Target("conntrack-events", EVENTS, _check_table),
    Target("conntrack-counters", recorded("node/conntrack-stats.txt", "node/proc-stat-*.txt"), _check_counters),
    Target("conntrack-messages", recorded("conntrack/*.err"), _check_messages),
    Target("trailer", TRAILED, _check_trailer),
)
