"""Recorded tables in every form: the same flows from all of them, and the proof that each form can give."""

from __future__ import annotations

from collections import Counter

import pytest

from kdnsctl.netfilter.conntrack import Form, recognise
from kdnsctl.netfilter.dump import Proof
from kdnsctl.netfilter.entries import Key, Seen
from kdnsctl.netfilter.trailer import Trailer
from tests.unit.netfilter.reading import FORMS, NODE, read

STALE = ["conntrack-stale.txt", "conntrack-stale-extended-id.txt", "conntrack-stale.xml", "proc-nf_conntrack-stale.txt"]
DEAD = {"10.244.1.2", "10.244.2.2"}


def to_dns(key: Key) -> bool:
    return key.protocol == "udp" and key.destination == "10.96.0.10" and key.destination_port == 53


@pytest.mark.parametrize("name", STALE)
def test_sixty_stale_entries_are_found_in_every_form(name: str) -> None:
    entries, summary = read((NODE / name).read_bytes(), wanted=to_dns)
    assert len(entries) == 60
    assert {entry.reply.source for entry in entries} == DEAD
    assert {entry.original.source for entry in entries} == {"10.244.2.3"}
    assert Counter(entry.seen for entry in entries) == {Seen.ASSURED: 40, Seen.UNREPLIED: 20}
    assert summary.by_protocol["udp"] == 60
    assert summary.unreadable == 0
    assert summary.families == {4}


def test_every_form_gives_the_same_flows() -> None:
    tables = [read((NODE / name).read_bytes())[0] for name in STALE[1:]]
    flows = [
        [(entry.key, entry.original, entry.reply, entry.timeout, entry.seen) for entry in table] for table in tables
    ]
    assert len(flows[0]) == 146
    assert flows[0] == flows[1] == flows[2]
    ids = [[entry.id for entry in table] for table in tables]
    assert ids[0] == ids[1]
    assert None not in ids[0]


def test_the_count_line_proves_the_recorded_list() -> None:
    dump, said = (NODE / "conntrack-stale.txt").read_bytes(), (NODE / "conntrack-stale.err").read_bytes()
    _, summary = read(dump, errors=said)
    assert summary.completeness.complete
    assert summary.completeness.proof is Proof.COUNT_LINE
    assert not read(dump)[1].completeness.complete
    assert read((NODE / STALE[2]).read_bytes())[1].completeness.proof is Proof.CLOSED
    assert read((NODE / STALE[3]).read_bytes(), trailer=Trailer(0))[1].completeness.complete


@pytest.mark.parametrize(
    ("name", "form", "entries"),
    [
        ("list.txt", Form.TEXT, 13),
        ("list-extended-id.txt", Form.TEXT, 13),
        ("list-save.txt", Form.SAVE, 13),
        ("list.xml", Form.XML, 13),
        ("proc.txt", Form.TEXT, 13),
        ("events.txt", Form.EVENTS, 26),
        ("events.xml", Form.XML, 26),
        ("events-save.txt", Form.SAVE, 26),
    ],
)
def test_every_protocol_is_read_in_every_form(name: str, form: Form, entries: int) -> None:
    dump = (FORMS / name).read_bytes()
    _, summary = read(dump)
    assert (summary.form, recognise(dump[:4096])) == (form, form)
    assert (summary.entries, summary.unreadable) == (entries, 0)
    assert summary.families == {4, 6}
    assert set(summary.by_protocol) - {"dccp", "unknown 33"} == {
        "gre", "icmp", "icmpv6", "sctp", "tcp", "udp", "udplite", "unknown 89",
    }  # fmt: skip
