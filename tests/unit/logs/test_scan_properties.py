"""The scanner on anything: however the bytes arrive and whatever they are, it finds what a plain reader would."""

import random
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdnsctl.logs import finder as finder_module
from kdnsctl.logs import scan as scan_module
from kdnsctl.logs.framing import unwrap
from kdnsctl.logs.headless import record_behind_prefix
from kdnsctl.logs.klog import TextClock, json_time, parse
from kdnsctl.logs.signatures import BY_ID, Kind, recognise
from tests.unit.logs.scanning import WRITTEN, examples, scan, scan_chunks
from tests.unit.logs.wrapping import WRAPPINGS, bare

RECORDS = [(signature, bare(record)) for signature, record in examples()]
LINES = [(signature, record) for signature, record in RECORDS if b"\n" not in record]
OTHERS = [
    b"",
    b'I1123 03:02:40.880272       1 cleanup.go:49] "Started to reconcile conntrack entries" ipFamily="IPv4"',
    b'E0606 16:49:46.155398       1 kubelet_network_linux.go:63] "Failed to ensure chain exists" err="x" table="nat"',
    b'{"ts":1795403022698.7,"caller":"conntrack/cleanup.go:49","msg":"Started to reconcile","v":4}',
    b'{"ts":1795403022698.7,"caller":"other/list.go:1","msg":"Failed to list conntrack entries","err":"x"}',
    b'{"level":"error","ts":1795403022.6,"msg":"Failed to list conntrack entries"}',
    b"goroutine 1 [running]:",
    b"2026-11-23T03:03:31.238869880Z stderr F ",
    b"udp      17 23 src=10.244.2.7 dst=10.96.0.10 sport=34152 dport=53 [UNREPLIED] src=10.244.1.5",
    b"error: content of the proxy server's configuration file was updated",
]
PREFIXES = [
    wrapping
    for wrapping in WRAPPINGS
    if wrapping.exact and not wrapping.json_only and not wrapping.text_only and wrapping.name != "CRLF"
]


REPLACEMENTS = (b"", *(bytes([byte]) for byte in b'_ +-x019.\0\xff\r"\\]{'))


def by_line(text: bytes) -> list[tuple[str, int | None, bytes]]:
    """What a plain reader finds in records of one line: unwrap, parse, recognise, line by line."""
    clock = TextClock(WRITTEN)
    found = []
    for physical in text.split(b"\n"):
        line = unwrap(physical.rstrip(b"\r"))
        head = parse(line.payload)
        behind = record_behind_prefix(line.payload) if head is None else None
        if behind is not None:
            head, line.payload = behind[1], line.payload[behind[0] :]
        if head is None:
            known = recognise(b"", line.payload, structured=False)
            if known is None or known.signature.id != "EXIT_CONFIG_CHANGED":
                continue
            time = line.time
        else:
            known = recognise(head.file, head.message, structured=head.structured)
            time = line.time
            if time is None:
                time = json_time(head.stamp) if head.is_json else clock.time(head.stamp)
        if behind is not None and known is not None and known.signature.kind is not Kind.FAILURE:
            continue
        if known is None or (known.unless and known.unless in line.payload):
            continue
        if any(phrase.encode() in line.payload for phrase in known.signature.phrases):
            found.append((known.signature.id, time, line.payload))
    return found


def opens_a_record(text: bytes) -> bool:
    """Whether some line of the text is continued by the next ones, which a line-by-line reader does not see."""
    for physical in text.split(b"\n"):
        line = unwrap(physical.rstrip(b"\r"))
        head = parse(line.payload)
        if line.partial or (head is not None and line.payload.endswith(b"<")):
            return True
        if head is not None and head.structured is False and line.payload.count(b"(") > line.payload.count(b")"):
            return True
    return False


@st.composite
def wrapped_lines(draw: st.DrawFn) -> bytes:
    record = draw(st.sampled_from(LINES))[1]
    return draw(st.sampled_from(PREFIXES)).wrap([record]).rstrip(b"\n")


@st.composite
def damaged_lines(draw: st.DrawFn) -> bytes:
    line = bytearray(draw(wrapped_lines()))
    for _ in range(draw(st.integers(1, 3))):
        # Most of what decides stands in the first hundred bytes.
        place = draw(st.integers(0, min(len(line), 120)))
        if draw(st.booleans()):
            line[place : place + 1] = draw(st.sampled_from(REPLACEMENTS))
        else:
            del line[place : place + draw(st.integers(1, 30))]
    return bytes(line)


noise = st.binary(max_size=80).map(lambda data: data.replace(b"\n", b" "))
any_line = st.one_of(wrapped_lines(), wrapped_lines(), damaged_lines(), st.sampled_from(OTHERS), noise)
texts = st.lists(any_line, max_size=25).map(lambda lines: b"\n".join(lines) + b"\n")


@settings(max_examples=400)
@given(texts)
@example(b"5 stderr F " + LINES[0][1] + b"\n" + b"5 stderr F " + LINES[0][1] + b"\n")
def test_reading_in_place_and_reading_line_by_line_agree(text: bytes) -> None:
    if opens_a_record(text):
        text = b"\n".join(line for line in text.split(b"\n") if not opens_a_record(line)) + b"\n"
    assert sorted(scan(text).hits, key=repr) == sorted(by_line(text), key=repr)


@settings(max_examples=300)
@given(wrapped_lines(), st.data())
def test_a_damaged_repetition_is_judged_by_itself(line: bytes, data: st.DataObject) -> None:
    # What the first line taught must not be believed of a line that only looks like it.
    place = data.draw(st.integers(0, len(line)))
    replaced = data.draw(st.sampled_from(REPLACEMENTS))
    damaged = line[:place] + replaced + line[place + 1 :]
    text = b"\n".join([line, line, damaged, line]) + b"\n"
    if not opens_a_record(text):
        assert sorted(scan(text).hits, key=repr) == sorted(by_line(text), key=repr)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(RECORDS), max_size=8), st.sampled_from(PREFIXES), st.integers(1, 400))
def test_any_chunking_gives_the_same_result(records: list[tuple[str, bytes]], wrapping: Any, chunk: int) -> None:
    text = b"".join(wrapping.wrap(record.split(b"\n")) for _, record in in_order(records))
    assert scan(text, chunk=chunk).result() == scan(text).result()


def in_order(records: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """A log is written in the order of time; the edges of a chunk stand for what is between them."""

    def time(record: tuple[str, bytes]) -> int:
        ((_, found, _),) = scan(record[1] + b"\n").hits
        assert found is not None
        return found

    return sorted(records, key=time)


@pytest.mark.parametrize("chunk", range(1, 60))
def test_every_small_chunk_gives_the_same_result(chunk: int) -> None:
    prefixes = {wrapping.name: wrapping for wrapping in WRAPPINGS}
    text = b""
    for name in ("kubectl logs --prefix --timestamps", "Docker json-file", "stern -o json"):
        for _, record in RECORDS[::7]:
            text += prefixes[name].wrap(record.split(b"\n"))
    text += b"2026-11-23T03:03:31.238869880Z stderr P E0515 23:23:01.196425       1 clean\n"
    text += b'2026-11-23T03:03:31.238869880Z stderr F up.go:53] "Failed to list conntrack entries" err="x"'
    assert scan(text, chunk=chunk).result() == scan(text).result()


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=300), max_size=10))
@example([b"\x1b", b"\n", b"\x1b[", b"\n\x1b]"])
@example([b"{", b"\n", b'{"log":', b"[" * 300, b"\n"])
@example([b'{"ts":' + b"9" * 200, b',"caller":"a/b.go:1","msg":"Version info"}\n'])
def test_random_bytes_never_raise(chunks: list[bytes]) -> None:
    assert scan_chunks(chunks).hits == []


PUNCTUATION = tuple(bytes([byte]) for byte in b'{}":,[]\\\n\r\0\x1b\xff \t<(')
FRAGMENTS_OF_FORMATS = (
    b"2026-11-23T03:03:31.238869880Z",
    b" stderr P ",
    b" stderr F ",
    b'{"ts":1',
    b'"log":',
    b'"MESSAGE":[',
    b'"stream":"stderr"',
    b"E0606 16:49:46.155398       1 proxier.go:1] ",
    b'"Failed to list conntrack entries"',
    b"Stale endpoint",
    b"Trace[1]: ",
    b"[pod/a/b] ",
    b"kube-proxy-x kube-proxy ",
    b"Nov 23 03:03:31 host k3s[1]: ",
    b'{"hits":{"hits":[',
    b"1795403011.238869 h k: ",
    b"\n >",
)
hostile = st.sampled_from(PUNCTUATION + FRAGMENTS_OF_FORMATS)


@settings(max_examples=400)
@given(st.lists(hostile, max_size=60).map(b"".join), st.integers(1, 64))
def test_pieces_of_formats_in_any_order_never_raise_and_never_depend_on_the_chunks(text: bytes, chunk: int) -> None:
    assert scan(text, chunk=chunk).hits == scan(text).hits


@pytest.mark.parametrize("seed", range(20))
def test_counts_first_and_last_are_right_under_any_interleaving_of_streams(seed: int) -> None:
    rng = random.Random(seed)
    start = datetime(2026, 11, 23, tzinfo=UTC)
    streams: dict[str, list[tuple[str, datetime, bytes]]] = {}
    for number in range(rng.randint(2, 7)):
        moment = start + timedelta(seconds=rng.randint(0, 1000))
        lines = []
        for _ in range(rng.randint(1, 40)):
            moment += timedelta(microseconds=rng.randint(1, 10_000_000))
            signature, record = rng.choice(RECORDS)
            lines.append((signature, moment, record))
        streams[f"kube-proxy-{number:05}"] = lines
    text = b""
    waiting = {pod: list(lines) for pod, lines in streams.items()}
    pieces: dict[str, list[bytes]] = {pod: [] for pod in waiting}
    while waiting or any(pieces.values()):
        pod = rng.choice([pod for pod in streams if pieces[pod] or waiting.get(pod)])
        if not pieces[pod]:
            _, moment, record = waiting[pod].pop(0)
            stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
            pieces[pod] = [f"{pod} kube-proxy {stamp} ".encode() + line for line in record.split(b"\n")]
            if not waiting[pod]:
                del waiting[pod]
        text += pieces[pod].pop(0) + b"\n"
    found = scan(text, chunk=rng.choice([97, 1000, 1 << 20]))
    assert {pod for _, pod, _ in found.streams} == set(streams)
    for pod, lines in streams.items():
        stream = found.streams["", pod, "kube-proxy"]
        assert sorted(signature for signature, _, _ in stream.hits) == sorted(signature for signature, _, _ in lines)
        assert stream.span == (micro_of(lines[0][1]), micro_of(lines[-1][1]))
        assert stream.cuts == []


def micro_of(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def test_without_the_wheel_the_standard_library_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"\n".join(wrapping.wrap([record]) for wrapping in PREFIXES for _, record in LINES[::3])
    expected = scan(text)
    assert len(expected.hits) > 300
    monkeypatch.setitem(sys.modules, "re2", None)
    finder = finder_module._compile()
    assert isinstance(finder, re.Pattern)
    monkeypatch.setattr(scan_module, "FINDER", finder)
    assert scan(text).result() == expected.result()


def test_the_reference_reader_of_this_file_finds_the_examples() -> None:
    text = b"\n".join(record for _, record in LINES)
    assert [signature for signature, _, _ in by_line(text)] == [signature for signature, _ in LINES]
    assert set(BY_ID) - {signature for signature, _ in LINES} <= {"V4_CT_OUT", "IPT_CHAIN_FAIL"}
