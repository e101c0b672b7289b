"""One line at a time: what kernels and conntrack have really printed, and what is no entry."""

from __future__ import annotations

import pytest

from kdnsctl.netfilter.addresses import LONGEST, Addresses, shortest
from kdnsctl.netfilter.entries import Entry, FlowTuple, Seen
from tests.unit.netfilter.reading import read

TO_DNS = FlowTuple("10.244.1.9", "10.96.0.10", 40000, 53)
FROM_DNS = FlowTuple("10.244.1.5", "10.244.1.9", 53, 40000)

LINES = {
    "accounting on, unreplied": (
        (
            "udp      17 29 src=10.244.1.9 dst=10.244.1.5 sport=40001 dport=5353 packets=1 bytes=29 [UNREPLIED] "
            "src=10.244.1.5 dst=10.244.1.9 sport=5353 dport=40001 packets=0 bytes=0 mark=0 delta-time=0 use=1"
        ),
        Entry(
            "udp",
            FlowTuple("10.244.1.9", "10.244.1.5", 40001, 5353, 1, 29),
            FlowTuple("10.244.1.5", "10.244.1.9", 5353, 40001, 0, 0),
            timeout=29,
            seen=Seen.UNREPLIED,
            mark=0,
        ),
    ),
    "extended, with a time of start that has spaces": (
        (
            "ipv4     2 udp      17 119 src=10.244.1.9 dst=10.96.0.10 sport=40000 dport=53 packets=5 bytes=145 "
            "src=10.244.1.5 dst=10.244.1.9 sport=53 dport=40000 packets=5 bytes=145 [ASSURED] mark=16384 "
            "delta-time=3 [start=Mon Nov 23 02:20:49 2026] use=1 id=1249929393"
        ),
        Entry(
            "udp",
            FlowTuple("10.244.1.9", "10.96.0.10", 40000, 53, 5, 145),
            FlowTuple("10.244.1.5", "10.244.1.9", 53, 40000, 5, 145),
            timeout=119,
            seen=Seen.ASSURED,
            mark=16384,
            start="Mon Nov 23 02:20:49 2026",
            id=1249929393,
        ),
    ),
    "IPv6": (
        (
            "ipv6     10 udp      17 29 src=fd00::a dst=fd00::10 sport=40002 dport=53 packets=1 bytes=49 "
            "[UNREPLIED] src=fd00::a dst=fd00::a sport=53 dport=40002 packets=0 bytes=0 mark=0 delta-time=1 use=1"
        ),
        Entry(
            "udp",
            FlowTuple("fd00::a", "fd00::10", 40002, 53, 1, 49),
            FlowTuple("fd00::a", "fd00::a", 53, 40002, 0, 0),
            timeout=29,
            seen=Seen.UNREPLIED,
            mark=0,
        ),
    ),
    "IPv6 as /proc prints it": (
        (
            "ipv6     10 udp      17 28 src=0000:0000:0000:0000:0000:ffff:0a01:0203 "
            "dst=fd00:0000:0000:0000:0000:0000:0000:0010 sport=40001 dport=53 [UNREPLIED] "
            "src=fd00:0000:0000:0000:0000:0000:0000:0005 dst=0000:0000:0000:0000:0000:ffff:0a01:0203 sport=53 "
            "dport=40001 mark=0 zone=0 delta-time=0 use=2"
        ),
        Entry(
            "udp",
            FlowTuple("::ffff:10.1.2.3", "fd00::10", 40001, 53),
            FlowTuple("fd00::5", "::ffff:10.1.2.3", 53, 40001),
            timeout=28,
            seen=Seen.UNREPLIED,
            mark=0,
            zone=0,
        ),
    ),
    "TCP with a zone of one direction": (
        (
            "tcp      6 431999 ESTABLISHED src=10.244.1.5 dst=10.244.1.5 sport=37016 dport=9999 zone-orig=7 "
            "packets=2 bytes=112 src=10.244.1.5 dst=10.244.1.5 sport=9999 dport=37016 packets=1 bytes=60 "
            "[ASSURED] mark=0 delta-time=0 use=1"
        ),
        Entry(
            "tcp",
            FlowTuple("10.244.1.5", "10.244.1.5", 37016, 9999, 2, 112),
            FlowTuple("10.244.1.5", "10.244.1.5", 9999, 37016, 1, 60),
            timeout=431999,
            state="ESTABLISHED",
            seen=Seen.ASSURED,
            mark=0,
        ),
    ),
    "offloaded: no timeout, no state, no ASSURED": (
        (
            "ipv4 2 tcp 6 src=1.1.1.17 dst=1.1.1.16 sport=56394 dport=5001 src=1.1.1.16 dst=1.1.1.17 sport=5001 "
            "dport=56394 [HW_OFFLOAD] mark=0 zone=0 use=3"
        ),
        Entry(
            "tcp",
            FlowTuple("1.1.1.17", "1.1.1.16", 56394, 5001),
            FlowTuple("1.1.1.16", "1.1.1.17", 5001, 56394),
            seen=Seen.HW_OFFLOAD,
            mark=0,
            zone=0,
        ),
    ),
    "ICMP: two ids, of which the last is the entry's": (
        (
            "ipv4     2 icmp     1 19 src=10.1.1.1 dst=10.1.1.2 type=8 code=0 id=77 packets=0 bytes=0 "
            "[UNREPLIED] src=10.1.1.2 dst=10.1.1.1 type=0 code=0 id=78 packets=0 bytes=0 mark=0 use=1 "
            "id=350899455"
        ),
        Entry(
            "icmp",
            FlowTuple("10.1.1.1", "10.1.1.2", packets=0, octets=0),
            FlowTuple("10.1.1.2", "10.1.1.1", packets=0, octets=0),
            timeout=19,
            seen=Seen.UNREPLIED,
            mark=0,
            id=350899455,
        ),
    ),
    "GRE in /proc: a comma": (
        (
            "ipv4     2 gre      47 28 timeout=0, stream_timeout=0 src=10.1.1.1 dst=10.1.1.2 srckey=0x1 "
            "dstkey=0x2 [UNREPLIED] src=10.1.1.2 dst=10.1.1.1 srckey=0x2 dstkey=0x1 mark=0 zone=0 use=2"
        ),
        Entry(
            "gre",
            FlowTuple("10.1.1.1", "10.1.1.2"),
            FlowTuple("10.1.1.2", "10.1.1.1"),
            timeout=28,
            seen=Seen.UNREPLIED,
            mark=0,
            zone=0,
        ),
    ),
    "a protocol without a name": (
        ("ipv4     2 unknown  89 19 src=10.1.1.1 dst=10.1.1.2 [UNREPLIED] src=10.1.1.2 dst=10.1.1.1 mark=0 use=1"),
        Entry(
            "unknown 89",
            FlowTuple("10.1.1.1", "10.1.1.2"),
            FlowTuple("10.1.1.2", "10.1.1.1"),
            timeout=19,
            seen=Seen.UNREPLIED,
            mark=0,
        ),
    ),
    "SELinux, labels and a helper": (
        (
            "udp      17 29 src=10.244.1.9 dst=10.96.0.10 sport=40000 dport=53 src=10.244.1.5 dst=10.244.1.9 "
            "sport=53 dport=40000 mark=0 secctx=system_u:object_r:unlabeled_t:s0 labels=one,two helper=ftp use=1 "
            "id=3032703296"
        ),
        Entry("udp", TO_DNS, FROM_DNS, timeout=29, mark=0, id=3032703296),
    ),
    "an event, and who did it": (
        (
            "[1795400551.110243]	[DESTROY] ipv4     2 udp      17 99 src=10.244.1.9 dst=10.96.0.10 sport=40000 "
            "dport=53 src=10.244.1.5 dst=10.244.1.9 sport=53 dport=40000 mark=9 delta-time=0 [start=Mon Nov 23 "
            "02:22:31 2026] [stop=Mon Nov 23 02:22:31 2026] id=2764639539 [USERSPACE] portid=4164559136 "
            "progname=conntrack"
        ),
        Entry(
            "udp",
            TO_DNS,
            FROM_DNS,
            timeout=99,
            mark=9,
            id=2764639539,
            start="Mon Nov 23 02:22:31 2026",
            event="DESTROY",
        ),
    ),
    "tokens that nobody knows": (
        (
            "udp      17 29 wonder src=10.244.1.9 dst=10.96.0.10 sport=40000 dport=53 [NEW_FLAG] src=10.244.1.5 "
            "dst=10.244.1.9 sport=53 dport=40000 mark=many colour=blue word use=1"
        ),
        Entry(
            "udp", TO_DNS, FROM_DNS, timeout=29, unknown=("wonder", "[NEW_FLAG]", "mark=many", "colour=blue", "word")
        ),
    ),
    "save": (
        (
            "-A -t 119 -u SEEN_REPLY,ASSURED -s 10.244.1.9 -d 10.96.0.10 -g 10.244.1.5 -q 10.244.1.9 -p udp "
            "--sport 40000 --dport 53 --reply-port-src 53 --reply-port-dst 40000"
        ),
        Entry("udp", TO_DNS, FROM_DNS, timeout=119, seen=Seen.ASSURED),
    ),
    "save: SNAT, zone, mark, offload, a protocol by number, options that nobody knows": (
        (
            "-I -t 119 -w 5 -m 3 -u SEEN_REPLY,OFFLOAD -s fd00::9 -d fd00::8 -r fd00::8 -n fd00::7 -p 132 "
            "--sport 1 --dport 2 --reply-port-src 2 --reply-port-dst 1 --state ESTABLISHED --orig-vtag 5 --flag"
        ),
        Entry(
            "sctp",
            FlowTuple("fd00::9", "fd00::8", 1, 2),
            FlowTuple("fd00::8", "fd00::7", 2, 1),
            timeout=119,
            state="ESTABLISHED",
            seen=Seen.OFFLOAD,
            mark=3,
            zone=5,
            unknown=("--orig-vtag 5", "--flag"),
        ),
    ),
    "save: an event of a deletion": (
        (
            "-D -t 28 -u SEEN_REPLY -s 10.244.1.9 -d 10.96.0.10 -g 10.244.1.5 -q 10.244.1.9 -p udp --sport 40000 "
            "--dport 53 --reply-port-src 53 --reply-port-dst 40000 [USERSPACE] portid=2216697154"
        ),
        Entry("udp", TO_DNS, FROM_DNS, timeout=28, event="DESTROY"),
    ),
    "XML": (
        (
            '<flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>10.244.1.9</src>'
            '<dst>10.96.0.10</dst></layer3><layer4 protonum="17" protoname="udp"><sport>40000</sport><dport>53'
            '</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4">'
            '<src>10.244.1.5</src><dst>10.244.1.9</dst></layer3><layer4 protonum="17" protoname="udp"><sport>53'
            '</sport><dport>40000</dport></layer4></meta><meta direction="independent"><timeout>119</timeout>'
            "<mark>16384</mark><zone>5</zone><colour>blue</colour><use>1</use><id>7</id><assured/><wonder/>"
            "<timestamp><start>1795400449110243000</start></timestamp><deltatime>0</deltatime></meta></flow>"
        ),
        Entry(
            "udp",
            TO_DNS,
            FROM_DNS,
            timeout=119,
            seen=Seen.ASSURED,
            mark=16384,
            zone=5,
            id=7,
            start="1795400449110243000",
            unknown=("colour=blue", "<wonder/>"),
        ),
    ),
}


@pytest.mark.parametrize(("line", "expected"), LINES.values(), ids=LINES)
def test_a_line_is_read(line: str, expected: Entry) -> None:
    entries, summary = read(line.encode() + b"\n")
    assert [(entry, entry.line) for entry in entries] == [(with_line(expected), 1)]
    assert (summary.entries, summary.unreadable) == (1, 0)


def with_line(entry: Entry, line: int = 1) -> Entry:
    return Entry(**{name: getattr(entry, name) for name in Entry.__slots__} | {"line": line})


GOOD = LINES["SELinux, labels and a helper"][0]
SAVED = LINES["save"][0]
XML = LINES["XML"][0]

NO_ENTRIES = {
    "nothing of it": "# a comment",
    "no protocol": GOOD.removeprefix("udp      17 "),
    "no number of the protocol": GOOD.replace("udp      17 29", "udp"),
    "a protocol that is no name": GOOD.replace("udp", "u/dp"),
    "a protocol without end": GOOD.replace("udp", "u" * 40),
    "unknown, and no number": GOOD.replace("udp      17 29", "unknown"),
    "one tuple": GOOD.partition(" src=10.244.1.5")[0],
    "three tuples": GOOD.replace(" mark=0", " src=10.0.0.1 dst=10.0.0.2 mark=0"),
    "no destination": GOOD.replace(" dst=10.96.0.10", ""),
    "two destinations": GOOD.replace(" dst=10.96.0.10", " dst=10.96.0.10 dst=10.96.0.11"),
    "an address that is none": GOOD.replace("10.96.0.10", "10.96.0.256"),
    "an address with a zone": GOOD.replace("10.96.0.10", "fe80::1%eth0"),
    "an address without end": GOOD.replace("10.96.0.10", "1" * 100),
    "a name for an address": GOOD.replace("10.96.0.10", "kube-dns.kube-system"),
    "two families in a tuple": GOOD.replace("10.96.0.10", "fd00::10"),
    "two families in a flow": GOOD.replace("10.244.1.5", "fd00::5").replace(" dst=10.244.1.9", " dst=fd00::9"),
    "ports in one tuple only": GOOD.replace(" sport=53 dport=40000", ""),
    "one port in a tuple": GOOD.replace(" dport=40000", ""),
    "a port that is none": GOOD.replace("sport=53", "sport=domain"),
    "a port that is too high": GOOD.replace("dport=53", "dport=65536"),
    "a negative port": GOOD.replace("dport=53", "dport=-1"),
    "a line without end": GOOD + " " + "x" * 20_000,
    "save: no reply": SAVED.replace("-g 10.244.1.5 ", ""),
    "save: two replies": SAVED.replace("-g 10.244.1.5", "-g 10.244.1.5 -r 10.244.1.5"),
    "save: no protocol": SAVED.replace("-p udp ", ""),
    "save: a protocol that is none": SAVED.replace("-p udp", "-p u/dp"),
    "save: nothing": "-A",
    "XML: two sources": XML.replace("<src>10.244.1.9</src>", "<src>10.244.1.9</src><src>10.244.1.9</src>"),
    "XML: a tag in a tag": XML.replace("<src>10.244.1.9</src>", "<src>10.244<.1.9</src>"),
    "XML: not closed": XML.replace("</src>", "", 1),
    "XML: text outside": XML.replace("</flow>", "</flow>").replace("<flow>", "<flow></flow>text"),
    "XML: an entity": XML.replace("10.96.0.10", "&vip;"),
    "XML: a flow without end": XML.replace("<timeout>", "<timeout>" + "9" * 70_000),
    "XML: a flow that is nothing": "<flow></flow>",
}  # fmt: skip


@pytest.mark.parametrize("line", NO_ENTRIES.values(), ids=NO_ENTRIES)
def test_what_a_judgement_cannot_rest_on_is_no_entry_and_is_told(line: str) -> None:
    other = XML if line.startswith("<") else GOOD
    entries, summary = read(f"{other}\n{line}\n{other}\n".encode())
    assert [entry.line for entry in entries] == [1, 3]
    assert summary.entries == 2
    assert summary.unreadable >= 1
    assert summary.example_line == 2
    assert summary.example
    assert line.startswith(summary.example[:20])
    assert len(summary.example) <= 200
    assert not summary.completeness.complete


def test_an_entity_bomb_is_nothing_but_unreadable() -> None:
    bomb = '<?xml version="1.0"?>\n<!DOCTYPE conntrack [\n<!ENTITY a "aaaaaaaaaa">\n<!ENTITY b "&a;&a;&a;&a;">\n]>\n'
    entries, summary = read(f"{bomb}<conntrack>\n{XML.replace('10.96.0.10', '&b;')}\n{XML}\n</conntrack>\n".encode())
    assert len(entries) == 1
    assert summary.unreadable == 5
    assert not summary.completeness.complete


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("fd00:0000:0000:0000:0000:0000:0000:000a", "fd00::a"),
        ("FD00::A", "fd00::a"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("0:0:0:0:0:ffff:a00:1", "::ffff:10.0.0.1"),
        ("::10.1.2.4", "::a01:204"),
        ("::", "::"),
        ("0.0.0.0", "0.0.0.0"),
        ("010.0.0.1", None),
        ("10.0.0", None),
        ("10.0.0.256", None),
        ("1.2.3.4.5", None),
        ("fe80::1%eth0", None),
        ("", None),
        ("localhost", None),
        ("1" * (LONGEST + 1), None),
        ("fd00:0000:0000:0000:0000:0000:0000:000g", None),
        ("\u0660.\u0660.\u0660.\u0660", None),
    ],
)
def test_addresses_have_one_form(address: str, expected: str | None) -> None:
    addresses = Addresses()
    for _ in range(2):
        assert shortest(address) == expected
        assert addresses.shortest(address.encode()) == expected
        assert addresses.family(address.encode()) == (0 if expected is None else 6 if ":" in expected else 4)
