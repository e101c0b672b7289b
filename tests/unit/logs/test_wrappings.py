"""Every example record of the catalogue is exactly its signature, in whatever it is wrapped."""

import re
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kdnsctl.logs.signatures import BY_ID, PHRASES
from tests.unit.logs.scanning import EXAMPLES, OWN, examples, micro, scan
from tests.unit.logs.wrapping import CRI, NODE, POD, STAMP, TIME, WRAPPINGS, Wrapping, bare, compact

RECORDS = [(signature, bare(record)) for signature, record in examples()]
TEXT_STAMP = re.compile(rb"[IWEF](\d\d)(\d\d) (\d\d:\d\d:\d\d\.\d{6})")
JSON_STAMP = re.compile(rb'\{"ts":([0-9.]+)')


def own_time(record: bytes) -> int:
    """The time that a bare record tells; a text record's year is that of `WRITTEN`."""
    text = TEXT_STAMP.match(record)
    if text:
        return micro(f"2026-{text[1].decode()}-{text[2].decode()}T{text[3].decode()}")
    stamp = JSON_STAMP.match(record)
    assert stamp is not None
    return int(Decimal(stamp[1].decode()) * 1000)


def names(records: list[tuple[str, bytes]]) -> list[str]:
    return [f"{signature}-{number}" for number, (signature, _) in enumerate(records)]


TEXT_RECORDS = [pair for pair in RECORDS if not pair[1].startswith(b"{")]
each_record = pytest.mark.parametrize(("signature", "record"), RECORDS, ids=names(RECORDS))


def test_every_signature_has_example_records() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.log")} == set(BY_ID)


@pytest.mark.parametrize(("signature", "record"), examples(), ids=names(examples()))
def test_an_example_as_it_was_found_is_exactly_its_signature(signature: str, record: bytes) -> None:
    found = scan(record + b"\n")
    assert found.ids == [signature]
    assert found.cuts == []
    assert found.klog_records


@pytest.mark.parametrize("wrapping", WRAPPINGS, ids=[wrapping.name for wrapping in WRAPPINGS])
def test_in_this_wrapping_every_record_is_exactly_its_signature(wrapping: Wrapping) -> None:
    records = [
        (signature, record)
        for signature, record in RECORDS
        if not (wrapping.text_only and record.startswith(b"{")) and (not wrapping.json_only or record.startswith(b"{"))
    ]
    assert len(records) >= 8
    for signature, record in records:
        found = scan(wrapping.wrap(record.split(b"\n")))
        ((key, stream),) = ((key, stream) for key, stream in found.streams.items() if stream.hits)
        ((found_signature, time, payload),) = stream.hits
        assert (found_signature, key) == (signature, wrapping.key), record
        assert time == (own_time(record) if wrapping.time is None else wrapping.time), record
        assert found.cuts == [], record
        assert payload == record or not wrapping.exact


@each_record
def test_the_same_record_twice_is_found_twice_in_every_wrapping(signature: str, record: bytes) -> None:
    # The second time the meaning of the beginning is remembered, and it is read in place where that can be.
    for wrapping in WRAPPINGS:
        if not wrapping.json_only and not (wrapping.text_only and record.startswith(b"{")):
            once = wrapping.wrap(record.split(b"\n"))
            twice = scan(once * 2)
            assert twice.hits == scan(once).hits * 2, wrapping.name
            assert twice.ids == [signature] * 2, wrapping.name


@each_record
def test_a_record_split_into_cri_fragments_at_any_position_is_whole_again(signature: str, record: bytes) -> None:
    first, _, rest = record.partition(b"\n")
    more = b"".join(CRI.encode() + line + b"\n" for line in rest.split(b"\n") if rest)
    for cut in range(len(first) + 1):
        text = b"%s stderr P %s\n%s%s\n" % (STAMP.encode(), first[:cut], CRI.encode(), first[cut:])
        found = scan(text + more)
        assert found.hits == [(signature, TIME, record)], cut
        assert found.cuts == []


@each_record
def test_a_record_in_many_small_cri_fragments_is_whole_again(signature: str, record: bytes) -> None:
    first, _, rest = record.partition(b"\n")
    more = b"".join(CRI.encode() + line + b"\n" for line in rest.split(b"\n") if rest)
    pieces = [first[start : start + 3] for start in range(0, len(first), 3)]
    text = b"".join(b"%s stderr P %s\n" % (STAMP.encode(), piece) for piece in pieces)
    found = scan(text + CRI.encode() + b"\n" + more)
    assert found.hits == [(signature, TIME, record)]


@each_record
def test_docker_pieces_without_a_newline_are_joined(signature: str, record: bytes) -> None:
    lines = record.decode().split("\n")
    for cut in (1, 40, 60, len(lines[0]) - 1):
        pieces = [lines[0][:cut], lines[0][cut:] + "\n", *(line + "\n" for line in lines[1:])]
        text = b"".join(compact({"log": piece, "stream": "stderr", "time": STAMP}) + b"\n" for piece in pieces)
        found = scan(text)
        assert found.hits == [(signature, TIME, record)], cut
        assert found.cuts == []


def test_a_listing_longer_than_16_kib_is_joined_from_docker_and_from_cri() -> None:
    entry = r"udp      17 23 src=10.244.2.7 dst=10.96.0.10 sport=34152 dport=53 [UNREPLIED] src=10.244.1.5 use=1\n"
    record = (
        'E0606 16:49:46.155398       1 cleanup.go:99] "Failed to delete endpoint connections" err="error deleting '
        f'conntrack entries for UDP peer {{10.96.0.10, 10.244.1.5}}, error: {entry * 600}" '
        'servicePortName="kube-system/kube-dns:dns"'
    )
    pieces = [record[start : start + 16384] for start in range(0, len(record), 16384)]
    assert len(pieces) > 3
    docker = [compact({"log": piece, "stream": "stderr", "time": STAMP}) for piece in [*pieces[:-1], pieces[-1] + "\n"]]
    cri = [f"{STAMP} stderr {'F' if piece is pieces[-1] else 'P'} {piece}".encode() for piece in pieces]
    bit = [
        compact({"log": piece, "logtag": "F" if piece is pieces[-1] else "P", "kubernetes": {"pod_name": POD}})
        for piece in pieces
    ]
    for lines in (docker, cri):
        assert scan(b"\n".join(lines)).hits == [("CT_DEL_ENDPOINT", TIME, record.encode())]
    assert scan(b"\n".join(bit)).hits == [("CT_DEL_ENDPOINT", own_time(record.encode()), record.encode())]


@each_record
def test_a_record_is_found_behind_escape_sequences_anywhere(signature: str, record: bytes) -> None:
    first = record.partition(b"\n")[0]
    for sequence in (b"\x1b[31m", b"\x1b[0m", b"\x1b[38;5;196m", b"\x1b]8;;http://x\x07", b"\x1b]0;t\x1b\\", b"\x1b(B"):
        for cut in range(0, len(first), 7):
            found = scan(record[:cut] + sequence + record[cut:] + b"\n")
            assert found.hits == [(signature, own_time(record), record)], (sequence, cut)


@each_record
def test_a_record_is_found_behind_escape_sequences_inside_json(signature: str, record: bytes) -> None:
    lines = record.decode().split("\n")
    for cut in range(0, len(lines[0]), 5):
        first = lines[0][:cut] + "\x1b[31m" + lines[0][cut:]
        envelopes = [{"nodeName": NODE, "message": line} for line in [first, *lines[1:]]]
        text = b"".join(compact(envelope).replace(b"\x1b", rb"\u001b") + b"\n" for envelope in envelopes)
        assert b"\x1b" not in text
        assert scan(text).hits == [(signature, own_time(record), record)], cut


def test_an_unfinished_escape_sequence_does_not_swallow_lines() -> None:
    failure = dict(RECORDS)["CT_LIST_FAIL"]
    text = b"\x1b]0;no end\n" + failure + b"\n\x1b[\n" + failure + b"\x07\n"
    assert scan(text).ids == ["CT_LIST_FAIL"] * 2


@each_record
def test_every_record_holds_a_phrase_to_grep_for(signature: str, record: bytes) -> None:
    assert any(phrase.encode() in record for phrase in BY_ID[signature].phrases)
    assert any(phrase.encode() in record for phrase in PHRASES)


@pytest.mark.parametrize(("signature", "record"), TEXT_RECORDS, ids=names(TEXT_RECORDS))
@pytest.mark.parametrize(
    "header",
    [
        b"%c0606 16:49:46.155398 1234567 %s] ",
        b"%c0606 16:49:46.155398   34223 %s] ",
        b"%c0606 16:49:46.155398       1 iptables/%s] ",
        b"%c0606 16:49:46.155398       1 pkg/proxy/conntrack/%s] ",
        b"%c0606 16:49:46.155398 12345678901 %s] ",
    ],
)
def test_thread_ids_of_any_width_and_directories_in_the_header_are_taken(
    header: bytes, signature: str, record: bytes
) -> None:
    place, _, message = record[30:].partition(b"] ")
    changed = header % (record[0], place.split()[-1]) + message
    assert scan(changed + b"\n").hits == [(signature, micro("2026-06-06T16:49:46.155398"), changed)]


MARKUP = st.sampled_from(["[bold]", "[/]", "[link=http://x]y[/link]", ":boom:", "[red on white]", "\\[", "[@click=f]"])


@given(st.lists(st.one_of(MARKUP, st.text(st.characters(exclude_characters="\n\r\x1b"), max_size=20)), max_size=5))
@example(["[bold]", "\x00", "\u202e", "\x85"])
def test_whatever_an_error_says_comes_out_as_it_went_in(parts: list[str]) -> None:
    text = "".join(parts).replace("\\", "").replace('"', "")
    record = f'E0515 23:23:01.196425       1 cleanup.go:53] "Failed to list conntrack entries" err="{text}"'.encode()
    found = scan(record + b"\n" + record + b"\n")
    assert [payload for _, _, payload in found.hits] == [record, record]


def test_invalid_utf8_and_nul_bytes_around_and_inside_a_record_do_not_hide_it() -> None:
    record = b'E0515 23:23:01.196425       1 cleanup.go:53] "Failed to list conntrack entries" err="\xff\xfe\x00\xc3"'
    assert scan(b"\x00\xff\xfe\n" + record + b"\n\xc3\x28\n\x00\n").hits == [
        ("CT_LIST_FAIL", micro("2026-05-15T23:23:01.196425"), record)
    ]
    wrapped = b'{"log":"' + record.replace(b'"', b'\\"') + b'\\n","stream":"stderr","time":"' + STAMP.encode() + b'"}\n'
    ((signature, time, payload),) = scan(wrapped).hits
    assert (signature, time) == ("CT_LIST_FAIL", TIME)
    assert payload.startswith(record[:80])


def test_headings_and_markers_of_journalctl_and_kubectl_are_no_records() -> None:
    failure = dict(RECORDS)["CT_LIST_FAIL"]
    text = (
        b"-- Logs begin at Mon 2026-11-23 02:00:00 UTC, end at Mon 2026-11-23 04:00:00 UTC. --\n"
        b"-- Boot 8a1c0e7a3a5b4a0c9d5c0b6b3c1f2e4d --\n"
        b"-- Reboot --\n\n"
        b"Nov 23 03:03:31 node1 k3s[34223]: " + failure + b"\n-- No entries --\n"
    )
    found = scan(text)
    assert found.ids == ["CT_LIST_FAIL"]
    assert set(found.streams) == {("node1", "", "k3s")}


@each_record
def test_spaces_behind_a_record_do_not_hide_it(signature: str, record: bytes) -> None:
    if "\n" not in record.decode():
        assert scan(record + b"  \n").ids == [signature]


def test_all_containers_without_prefix_are_read_line_by_line() -> None:
    failure = dict(RECORDS)["CT_LIST_FAIL"]
    rbac = b"I1123 03:03:31.000000       1 kube-rbac-proxy.go:395] Reading certificate files\n"
    text = (rbac + failure + b"\n") * 3
    assert scan(text).ids == ["CT_LIST_FAIL"] * 3
    assert set(scan(text).streams) == {OWN}


def test_the_time_of_a_wrapping_without_a_date_is_the_records_own() -> None:
    assert own_time(dict(RECORDS)["CT_PARTIAL"]) == micro("2026-05-15T23:23:01.196425")
    assert datetime.fromisoformat(STAMP[:26]).year == 2026
