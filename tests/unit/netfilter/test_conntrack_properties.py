"""The reader on anything: its quick way and its way by tokens agree, blocks do not matter, nothing makes it fail."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnsctl.netfilter import conntrack, flowtext
from kdnsctl.netfilter.addresses import Addresses, shortest
from kdnsctl.netfilter.conntrack import ConntrackReader, Form, Summary, everything, recognise
from kdnsctl.netfilter.conntracksaid import Said
from kdnsctl.netfilter.entries import Entry, FlowTuple, Key, Seen
from tests.fuzz.conntrack import NO_SHAPES
from tests.unit.netfilter.reading import FORMS, NODE, blocks, read
from tests.unit.netfilter.test_conntrack_lines import LINES as SAMPLES


def by_tokens(dump: bytes | Iterable[bytes], wanted: Callable[[Key], bool] = everything) -> tuple[list[Entry], Summary]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conntrack, "LINES", NO_SHAPES)
        return read(dump, wanted=wanted)


# --- lines as the kernel and conntrack print them

ADDRESSES = st.sampled_from(
    ["10.96.0.10", "10.244.1.5", "10.244.1.9", "192.168.255.254", "0.0.0.0", "255.255.255.255"],
)
ADDRESSES6 = st.sampled_from(
    ["fd00::a", "fd00:0000:0000:0000:0000:0000:0000:000a", "::1", "::ffff:10.0.0.1", "2001:db8:0:1:1:1:1:1"]
)
WRONG_ADDRESSES = st.sampled_from(
    ["10.96.0.256", "1.2.3.4.5", "010.0.0.1", "fd00::g", "10.1", ":::", "..", "ff", "f" * 45]
)
PORTS = st.integers(0, 65_535) | st.sampled_from([0, 53, 9_999, 59_999, 60_000, 65_535])
WRONG_PORTS = st.sampled_from([65_536, 70_000, 99_999])
NUMBERS = st.integers(0, 2**64 - 1)

EXTRA = st.sampled_from(
    [
        "secctx=a\tsrc=10.0.0.1",
        "src=10.0.0.1",
        "dst=fd00::1",
        "sport=1",
        "dport=70000",
        "x",
        "7",
        "[ASSURED]",
        "packets=1",
    ]
)


@st.composite
def lines(draw: st.DrawFn, *, wrong: bool = False) -> bytes:
    """A line of text; when `wrong`, one with addresses and ports that may make no sense, or with a token too many."""
    token_too_many = wrong and draw(st.booleans())
    six = draw(st.booleans())
    address = ADDRESSES6 if six else ADDRESSES
    port = PORTS
    if wrong and not token_too_many:
        address, port = st.one_of(address, WRONG_ADDRESSES, ADDRESSES), st.one_of(PORTS, WRONG_PORTS)
    protocol, number = draw(st.sampled_from([("udp", 17), ("tcp", 6), ("sctp", 132), ("icmp", 1), ("unknown", 89)]))
    has_ports = protocol in ("udp", "tcp", "sctp") or draw(st.booleans())
    accounted = draw(st.booleans())

    def maybe(text: str) -> str:
        return text if draw(st.booleans()) else ""

    def side(*, icmp_type: int) -> str:
        text = f"src={draw(address)} dst={draw(address)} "
        if has_ports:
            text += f"sport={draw(port)} dport={draw(port)} "
        elif protocol == "icmp":
            text += f"type={icmp_type} code=0 id={draw(PORTS)} "
        return text + (f"packets={draw(NUMBERS)} bytes={draw(NUMBERS)} " if accounted else "")

    head = maybe(f"{'ipv6     10' if six else 'ipv4     2'} ") + f"{protocol:8} {number} "
    timer = maybe(f"{draw(st.integers(0, 432_000))} ") + (maybe("ESTABLISHED ") if protocol == "tcp" else "")
    tail = (
        maybe(draw(st.sampled_from(["[ASSURED] ", "[OFFLOAD] ", "[HW_OFFLOAD] "])))
        + maybe(f"mark={draw(NUMBERS)} ")
        + maybe("secctx=system_u:object_r:unlabeled_t:s0 ")
        + maybe(f"zone={draw(st.integers(0, 65_535))} ")
        + maybe(f"delta-time={draw(NUMBERS)} ")
        + maybe("[start=Mon Nov 23 02:20:49 2026] ")
        + f"use={draw(st.integers(1, 9))}"
        + maybe(f" id={draw(st.integers(0, 2**32 - 1))}")
    )
    line = head + timer + side(icmp_type=8) + maybe("[UNREPLIED] ") + side(icmp_type=0) + tail
    if token_too_many:
        tokens = line.split(" ")
        tokens.insert(draw(st.integers(0, len(tokens))), draw(EXTRA))
        line = " ".join(tokens)
    return line.encode() + b"\n"


RECORDED = [
    line + b"\n"
    for path in (FORMS / "list.txt", FORMS / "proc.txt", FORMS / "list-extended-id.txt", FORMS / "events.txt")
    for line in path.read_bytes().splitlines()
] + [text.encode() + b"\n" for text, _ in SAMPLES.values()]
TOKENS = [
    *sorted({token for line in RECORDED for token in line.split()}),
    *(
        b"src=",
        b"dst=",
        b"sport=x",
        b"=",
        b"[",
        b"]",
        b"[a b]",
        b"[start=",
        b"\t",
        b"\r",
        b"\x0b",
        b"\xff",
        b"\n",
        b"use=1\n",
    ),
    *(
        b"udp",
        b"ipv4",
        b"2",
        b"secctx=a=b",
        b"secctx=[x]",
        b"-A",
        b"<flow>",
        b"conntrack v1.4.7 (conntrack-tools): 3 flow",
    ),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good line with tokens taken out, doubled, put in or changed, or with other bytes."""
    line = draw(st.sampled_from(RECORDED) | lines())
    parts = re.split(rb"(\s+)", line)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(parts) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del parts[at]
            parts = parts or [b""]
        elif kind == 1:
            parts.insert(at, draw(st.sampled_from(parts)))
        elif kind == 2:
            parts[at] = draw(st.sampled_from(TOKENS))
        else:
            parts[at] = draw(st.binary(max_size=6))
    return b"".join(parts)


DUMPS = st.lists(lines() | lines(wrong=True) | mutated() | st.binary(max_size=40), min_size=1, max_size=12).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 3_000), max_size=10)


def nothing(key: Key) -> bool:
    return not key


WANTED: list[Callable[[Key], bool]] = [
    everything,
    nothing,
    lambda key: key.destination_port == 53,
    lambda key: key.protocol == "udp" and ":" in key.destination,
]


@settings(max_examples=600)
@given(DUMPS, CUTS, st.sampled_from(WANTED))
def test_both_ways_give_the_same_in_any_blocks(dump: bytes, cuts: list[int], wanted: Callable[[Key], bool]) -> None:
    expected = by_tokens(dump, wanted)
    assert read(dump, wanted=wanted) == expected
    assert read(blocks(dump, cuts), wanted=wanted) == expected


FULL = (
    "ipv4     2 tcp      6 119 ESTABLISHED src=10.244.1.9 dst=10.96.0.10 sport=40000 dport=53 packets=1 bytes=2 "
    "[UNREPLIED] src=10.244.1.5 dst=10.244.1.9 sport=53 dport=40000 packets=3 bytes=4 [ASSURED] mark=5 secctx=a zone=6 "
    "delta-time=7 [start=Mon Nov 23 02:20:49 2026] use=1 id=8"
)


@pytest.mark.parametrize(
    ("old", "new", "entries"),
    [
        ("", "", 1),
        ("secctx=a", "secctx=a=b:c,d", 1),
        ("secctx=a", "secctx=a\tsrc=10.0.0.1", 0),
        ("secctx=a", "secctx=a\x0bdst=10.0.0.1", 0),
        ("secctx=a", "secctx=a src=10.0.0.1", 0),
        ("secctx=a", "secctx=[", 1),
        ("packets=1 ", "packets=1 sport=1 ", 0),
        ("packets=3", "packets=99999999999999999999", 1),
        ("packets=3", f"packets={'9' * 5000}", 1),
        ("tcp ", f"tcp{' ' * 20_000}", 0),
        ("ipv4 ", f"ipv4{' ' * 20_000}", 0),
        ("tcp ", "unknown ", 1),
        ("tcp      6 119 ", "unknown ", 0),
        ("ipv4     2 ", "", 1),
        ("ipv4     2 ", "ipv4 ", 0),
        ("119 ESTABLISHED ", "", 1),
        ("ESTABLISHED", "7", 1),
        ("[ASSURED]", "[ASSURED]src=10.0.0.1", 0),
        ("[start=Mon", "[start=src=10.0.0.1", 1),
        ("sport=40000", "sport=65536", 0),
        ("sport=40000", "sport=040000", 0),
        ("sport=40000", "sport=00053", 1),
        ("dport=53 ", "dport=65536 ", 0),
        ("dport=40000", "dport=99999", 0),
        ("src=10.244.1.9", "src=10.244.1.256", 0),
        ("dst=10.244.1.9", "dst=1.2.3.4.5", 0),
        ("src=10.244.1.5", "src=fd00::5", 0),
        ("dst=10.244.1.9", "dst=fd00::9", 0),
        ("use=1", "use=x", 1),
        ("use=1", "dst=10.0.0.1 use=1", 0),
        ("use=1", "use=1 src=10.0.0.1", 0),
        (" id=8", " id=8 ", 1),
        (" id=8", "\r", 1),
        (" id=8", "\0", 1),
    ],
)
def test_lines_that_nearly_have_a_known_shape_are_read_as_by_tokens(old: str, new: str, entries: int) -> None:
    dump = f"{FULL}\n{FULL.replace(old, new, 1)}\n{FULL}\n".encode()
    for wanted in WANTED:
        found = read(dump, wanted=wanted)
        assert found == by_tokens(dump, wanted)
        assert found[1].entries == entries + 2


@given(st.lists(lines(wrong=True), min_size=1, max_size=30))
def test_counts_are_those_of_a_plain_reading(table: list[bytes]) -> None:
    addresses = Addresses()
    parsed = [flowtext.parse(line, 0, addresses) for line in table]
    entries = [entry for entry in parsed if entry]
    _, summary = read(b"".join(table), wanted=nothing)
    assert summary.entries == len(entries)
    assert summary.by_protocol == Counter(entry.protocol for entry in entries)
    assert summary.unreadable == parsed.count(None)
    assert summary.families == {6 if ":" in entry.original.source else 4 for entry in entries}


@given(lines())
def test_a_good_line_is_always_an_entry_and_its_key_is_what_stands_there(line: bytes) -> None:
    found, summary = read(line)
    assert summary.unreadable == 0
    values = dict(re.findall(rb"(src|dst|sport|dport)=(\S+)", line.rpartition(b"src=")[0]))
    reply = dict(re.findall(rb"(src|dst|sport|dport)=(\S+)", b"src=" + line.rpartition(b"src=")[2]))
    key = found[0].key
    assert key.destination == shortest(values[b"dst"].decode())
    assert key.reply_source == shortest(reply[b"src"].decode())
    assert key.destination_port == (int(values[b"dport"]) if b"dport" in values else None)
    assert key.reply_source_port == (int(reply[b"sport"]) if b"sport" in reply else None)


# --- the same entry in every form

ENTRIES = st.builds(
    lambda six, ports, timeout, seen, numbers: Entry(
        "udp",
        FlowTuple(six[0], six[1], ports[0], ports[1]),
        FlowTuple(six[2], six[3], ports[2], ports[3]),
        timeout=timeout,
        seen=seen,
        mark=numbers[0],
        zone=numbers[1],
        id=numbers[2],
    ),
    st.one_of(
        *(
            st.tuples(*[family.filter(lambda text: text == shortest(text))] * 4)
            for family in (ADDRESSES, ADDRESSES6)
        )
    ),
    st.tuples(PORTS, PORTS, PORTS, PORTS),
    st.integers(0, 432_000),
    st.sampled_from([Seen.UNREPLIED, Seen.REPLIED, Seen.ASSURED]),
    st.tuples(NUMBERS, st.integers(0, 65_535), st.integers(0, 2**32 - 1)),
)  # fmt: skip


def as_text(entry: Entry) -> bytes:
    one, two = entry.original, entry.reply
    return (
        f"udp      17 {entry.timeout} src={one.source} dst={one.destination} sport={one.source_port} "
        f"dport={one.destination_port} {'[UNREPLIED] ' if entry.seen is Seen.UNREPLIED else ''}src={two.source} "
        f"dst={two.destination} sport={two.source_port} dport={two.destination_port} "
        f"{'[ASSURED] ' if entry.seen is Seen.ASSURED else ''}mark={entry.mark} zone={entry.zone} use=1 id={entry.id}\n"
    ).encode()


def as_save(entry: Entry) -> bytes:
    one, two = entry.original, entry.reply
    flags = {Seen.UNREPLIED: "UNSET", Seen.REPLIED: "SEEN_REPLY", Seen.ASSURED: "SEEN_REPLY,ASSURED"}[entry.seen]
    return (
        f"-A -t {entry.timeout} -u {flags} -w {entry.zone} -s {one.source} -d {one.destination} -g {two.source} "
        f"-q {two.destination} -p udp --sport {one.source_port} --dport {one.destination_port} "
        f"--reply-port-src {two.source_port} --reply-port-dst {two.destination_port}\n"
    ).encode()


def as_xml(entry: Entry) -> bytes:
    def meta(direction: str, side: FlowTuple) -> str:
        return (
            f'<meta direction="{direction}"><layer3 protonum="2" protoname="ipv4"><src>{side.source}</src>'
            f'<dst>{side.destination}</dst></layer3><layer4 protonum="17" protoname="udp">'
            f"<sport>{side.source_port}</sport><dport>{side.destination_port}</dport></layer4></meta>"
        )

    flag = {Seen.UNREPLIED: "<unreplied/>", Seen.REPLIED: "", Seen.ASSURED: "<assured/>"}[entry.seen]
    return (
        f"<flow>{meta('original', entry.original)}{meta('reply', entry.reply)}"
        f'<meta direction="independent"><timeout>{entry.timeout}</timeout><mark>{entry.mark}</mark>'
        f"<zone>{entry.zone}</zone><use>1</use><id>{entry.id}</id>{flag}</meta></flow>\n"
    ).encode()


@given(st.lists(ENTRIES, min_size=1, max_size=8), CUTS)
def test_an_entry_is_the_same_in_every_form_and_in_any_blocks(entries: list[Entry], cuts: list[int]) -> None:
    text, _ = read(blocks(b"".join(map(as_text, entries)), cuts))
    assert [numbered(entry, 0) for entry in text] == entries
    xml, _ = read(blocks(b"<conntrack>\n" + b"".join(map(as_xml, entries)) + b"</conntrack>\n", cuts))
    assert [numbered(entry, 0) for entry in xml] == entries
    saved, _ = read(blocks(b"".join(map(as_save, entries)), cuts))
    assert [entry.key for entry in saved] == [entry.key for entry in entries]
    assert [(entry.seen, entry.timeout, entry.zone) for entry in saved] == [
        (entry.seen, entry.timeout, entry.zone) for entry in entries
    ]


def numbered(entry: Entry, line: int) -> Entry:
    return Entry(**{name: getattr(entry, name) for name in Entry.__slots__} | {"line": line})


# --- XML and save in pieces, and hostile bytes

TAGS = [
    *(
        b"<?xml version='1.0'?>",
        b"<conntrack>",
        b"</conntrack>",
        b"<flow>",
        b'<flow type="destroy">',
        b"</flow>",
        b"<meta>",
    ),
    *(
        b'<meta direction="reply">',
        b"</meta>",
        b"<src>",
        b"</src>",
        b"10.0.0.1",
        b"<assured/>",
        b"<",
        b">",
        b"&a;",
        b"\n",
    ),
    *(b" ", b"[USERSPACE] portid=1", b"<!DOCTYPE a [", b"<!ENTITY a 'b'>", b"x", b"\xff", b"<fl", b"ow>", b"\0"),
]
RECORDED_XML = (FORMS / "events.xml").read_bytes()


@settings(max_examples=300)
@given(st.lists(st.sampled_from(TAGS) | st.sampled_from(RECORDED_XML.splitlines()), max_size=30).map(b"".join), CUTS)
def test_pieces_of_xml_in_any_order_do_not_depend_on_blocks(document: bytes, cuts: list[int]) -> None:
    document = b"<conntrack>\n" + document
    assert read(blocks(document, cuts)) == read(document)


@given(st.sampled_from(["list.txt", "list.xml", "list-save.txt", "proc.txt", "events.xml"]), CUTS, st.integers(1, 9))
def test_recorded_dumps_do_not_depend_on_blocks(name: str, cuts: list[int], size: int) -> None:
    dump = (FORMS / name).read_bytes()
    expected = read(dump)
    assert read(blocks(dump, cuts)) == expected
    assert read(dump[start : start + size] for start in range(0, len(dump), size)) == expected


@pytest.mark.parametrize("filler", [b"x", b" ", b"<", b"\0"])
@pytest.mark.parametrize("begin", [b"", b"udp 17 src=", b"<flow>", b"<conntrack>\n", b"<conntrack>\n<flow>"])
def test_what_has_no_end_is_bounded_and_counted_once(begin: bytes, filler: bytes) -> None:
    dump = begin + filler * 200_000 + b"\n</flow>\n" + (NODE / "conntrack-stale.txt").read_bytes()
    whole = read(dump)
    assert read(dump[start : start + 1_000] for start in range(0, len(dump), 1_000)) == whole
    reader = ConntrackReader()
    held = 0
    for start in range(0, len(dump), 1_000):
        reader.feed(dump[start : start + 1_000])
        held = max(held, len(reader._carry) + (len(reader._xml._rest) if reader._xml else 0))
    assert held <= 70_000
    assert whole[1].unreadable >= 1
    assert not whole[1].completeness.complete


@given(st.binary(max_size=300))
def test_the_form_of_any_bytes_is_told_without_failing(beginning: bytes) -> None:
    assert recognise(beginning) in {None, *Form}
    Said().hear_all(beginning)


def test_a_form_is_recognised_behind_what_is_none() -> None:
    said = (FORMS / "list.err").read_bytes()
    saved = (FORMS / "list-save.txt").read_bytes()
    assert recognise(said) is Form.MESSAGES
    assert recognise(b"\n\n" + said + saved) is Form.SAVE
    assert recognise(b"") is None
    assert recognise(b"*nat\n:KUBE-SERVICES - [0:0]\n-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -j KUBE-SVC-X\n") is None
    assert recognise(b"-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-X\n") is None
    assert recognise((NODE / "conntrack-stats.txt").read_bytes()) is None
    assert recognise(b'<?xml version="1.0"?>\n<other/>\n') is None


def test_an_xml_document_may_be_laid_out_for_people() -> None:
    dump = (FORMS / "list.xml").read_bytes()
    pretty = re.sub(rb"><(?!/(?:src|dst|sport|dport))", b">\n  <", dump)
    entries, summary = read(pretty)
    plain, expected = read(dump)
    assert [numbered(entry, 0) for entry in entries] == [numbered(entry, 0) for entry in plain]
    assert summary == expected
    assert entries[1].line > plain[1].line


# --- what is remembered


def test_wanted_is_asked_once_for_each_key_even_when_it_is_spelled_differently() -> None:
    asked: list[Key] = []

    def wanted(key: Key) -> bool:
        asked.append(key)
        return key.destination_port == 53

    line = b"udp 17 29 src=fd00::a dst=%b sport=%d dport=%d src=fd00::5 dst=fd00::a sport=53 dport=9 mark=0 use=1\n"
    full = b"fd00:0000:0000:0000:0000:0000:0000:0010"
    dump = b"".join(
        line % (to, number, port) for number in range(50) for to in (b"fd00::10", full) for port in (53, 54)
    )
    entries, summary = read(dump, wanted=wanted)
    assert len(asked) == len(set(asked)) == 2
    assert (len(entries), summary.entries) == (100, 200)


def test_more_keys_and_protocols_than_are_remembered_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conntrack, "MOST_KEYS", 10)
    monkeypatch.setattr(conntrack, "MOST_PROTOCOLS", 5)
    line = (
        b"%b 17 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=%d src=10.0.0.2 dst=10.0.0.1 sport=1 dport=1 mark=0 use=1\n"
    )
    dump = b"".join(line % (b"udp", number % 37) for number in range(1_000))
    dump += b"".join(line % (b"p%c" % (97 + number % 20), 1) for number in range(100))
    entries, summary = read(dump, wanted=lambda key: key.destination_port == 36)
    assert len(entries) == 27
    assert summary.entries == 1_100
    assert summary.by_protocol["udp"] == 1_000
    assert summary.by_protocol[conntrack.OTHERS] == 80
    assert len(summary.by_protocol) == 6
    assert by_tokens(dump)[1] == summary


def test_more_addresses_than_are_remembered_are_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdnsctl.netfilter.addresses.MOST_REMEMBERED", 3)
    addresses = Addresses()
    for number in [*range(20), *range(20)]:
        assert addresses.shortest(b"10.0.0.%d" % number) == f"10.0.0.{number}"
        assert addresses.family(b"fd00::%d" % number) == 6
        assert addresses.family(b"10.0.0.%d." % number) == 0
    assert len(addresses.families) <= 3
