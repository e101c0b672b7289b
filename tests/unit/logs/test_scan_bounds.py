"""What a hostile or broken log can cost: memory stays bounded, and what was left out is said."""

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from kdnsctl.logs import scan as scan_module
from kdnsctl.logs.klog import TextClock, parse
from kdnsctl.logs.scan import EDGE_LINES, MOST_LINE, MOST_OPEN_LINES, MOST_STREAMS, Scanner
from kdnsctl.logs.signatures import Known
from kdnsctl.logs.sinks import StreamKey, StreamSink
from tests.unit.logs.scanning import OWN, WRITTEN, scan, scan_chunks

MIB = 1024 * 1024
FAILURE = b'E0515 23:23:01.196425       1 cleanup.go:53] "Failed to list conntrack entries" err="x"\n'
FAILURE_HEAD = FAILURE.rstrip(b'x"\n')
CUT_LINE = f"a line longer than {MOST_LINE // MIB} MiB"
EARLY = "a record that ends too early"
P = b"2026-11-23T03:03:31.238869880Z stderr P "


def peak(work: Callable[[], object]) -> int:
    """The most memory that Python held at once while it did the work, in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def repeated(piece: bytes, times: int, *, first: bytes = b"", last: bytes = b"") -> Iterator[bytes]:
    yield first
    for _ in range(times):
        yield piece
    yield last


class Counting:
    """Keeps no payloads: what memory is used is the scanner's."""

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}

    def stream(self, _key: StreamKey, _line: object) -> StreamSink:
        return _Counter(self.counted)


class _Counter:
    def __init__(self, counted: dict[str, int]) -> None:
        self._counted = counted

    def hit(self, known: Known, _time: int | None, _payload: bytes) -> None:
        self._add(known.signature.id)

    def seen(self, _time: int, _file: str) -> None:
        self._add("seen")

    def cut(self, why: str) -> None:
        self._add(why)

    def _add(self, what: str) -> None:
        self._counted[what] = self._counted.get(what, 0) + 1


def count(chunks: Iterator[bytes]) -> dict[str, int]:
    sink = Counting()
    scanner = Scanner(sink, TextClock(WRITTEN))
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.finish()
    sink.counted.pop("seen", None)
    return sink.counted


def test_a_line_of_10_mb_is_read_whole_and_its_neighbours_too() -> None:
    line = FAILURE_HEAD + b"y" * (10 * MIB) + b'"\n'
    found = scan(FAILURE + line + FAILURE)
    assert [len(payload) for _, _, payload in found.hits] == [len(FAILURE) - 1, len(line) - 1, len(FAILURE) - 1]
    assert found.cuts == []


def test_a_line_longer_than_the_limit_is_cut_counted_and_reported() -> None:
    chunks = repeated(b"y" * MIB, 20, first=FAILURE + FAILURE_HEAD, last=b'"\n' + FAILURE)
    found = scan_chunks(chunks)
    assert found.ids == ["CT_LIST_FAIL"] * 3
    assert len(found.hits[1][2]) == MOST_LINE
    assert found.cuts == [CUT_LINE]


def test_a_line_without_end_is_cut_once_and_memory_stays_bounded() -> None:
    piece = b"y" * MIB
    result: dict[str, int] = {}
    used = peak(lambda: result.update(count(repeated(piece, 60, first=FAILURE + FAILURE_HEAD))))
    assert result == {"CT_LIST_FAIL": 2, CUT_LINE: 1}
    assert used < 5 * MOST_LINE


def test_a_fragment_longer_than_the_limit_that_arrives_at_once_is_cut_and_reported() -> None:
    found = scan(P + FAILURE_HEAD + b"y" * MOST_LINE + b"\n" + FAILURE, chunk=4 * MOST_LINE)
    assert found.ids == ["CT_LIST_FAIL"] * 2
    assert len(found.hits[0][2]) == MOST_LINE
    assert found.cuts == [EARLY]


def test_many_lines_of_no_klog_are_not_searched_for_a_time() -> None:
    other = b"nothing of klog's\n" * (EDGE_LINES + 1)
    found = scan(other + b"2026-11-23T03:03:31Z x\n" + other)
    assert found.streams == {}
    assert not found.klog_records


def test_a_long_line_of_a_named_stream_is_reported_there() -> None:
    chunks = repeated(b"y" * MIB, 20, first=b"[pod/kube-proxy-a/kube-proxy] " + FAILURE_HEAD, last=b"\n")
    found = scan_chunks(chunks)
    assert found.streams["", "kube-proxy-a", "kube-proxy"].cuts == [CUT_LINE]


SHAPES = {
    "quoted message": ('E0606 16:49:46.155398       1 cleanup.go:99] "', "a", '" Stale endpoint'),
    "quoted message of escapes": ('E0606 16:49:46.155398       1 cleanup.go:99] "', "\\n", '" Stale endpoint'),
    "JSON message": ('{"ts":1795403011238.2,"caller":"a/b.go:1","msg":"', "a", '","x":"Stale endpoint"}'),
    "JSON message of escapes": ('{"ts":1795403011238.2,"caller":"a/b.go:1","msg":"', "\\n", '","x":"Stale endpoint"}'),
    "directories": ("E0606 16:49:46.155398       1 ", "a/", "b.go:1] Stale endpoint"),
    "nested JSON": ("", '{"log":', "Stale endpoint"),
    "pod name": ("", "a", " Stale endpoint"),
    "pod name of dashes": ("", "a-", " kube-proxy Stale endpoint"),
    "prefix": ("[pod/", "a", "/b] Stale endpoint"),
    "decimals": ("2026-11-23T03:03:31.", "1", "Z Stale endpoint"),
    "parentheses": ("E0606 16:49:46.155398       1 proxier.go:1] Stale endpoint", "(", ""),
    "escape sequences": ("", "\x1b]", "Stale endpoint"),
    "conntrack entries": (
        'E0606 16:49:46.155398       1 cleanup.go:99] "x" peer {',
        "udp 17 1 src=1 sport=",
        " Stale endpoint",
    ),
}
READ_IN_BOUNDS = """
import resource, sys
from kdnsctl.logs.details import details_of
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.tally import Tally

class Sink:
    def stream(self, key, line):
        return Tally()

before, piece, after = sys.argv[1:]
record = (before + piece * (8 * 1024 * 1024 // len(piece)) + after).encode("utf-8", "surrogateescape")
resource.setrlimit(resource.RLIMIT_DATA, (400 * 1024 * 1024,) * 2)
scanner = Scanner(Sink(), TextClock(0))
scanner.feed(record + b"\\n")
scanner.finish()
print(details_of(record).cause)
"""


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_line_of_8_mb_of_any_shape_is_read_within_400_mb(shape: tuple[str, str, str]) -> None:
    # In a process of its own: the engine of `re` keeps its records outside of what Python counts.
    done = subprocess.run(
        [sys.executable, "-c", READ_IN_BOUNDS, *shape], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.stderr, done.stdout) == ("", "other\n")


def test_a_message_with_more_escapes_than_a_message_has_is_no_message() -> None:
    # A repetition that could go on for megabytes would cost the engine a hundred bytes for each of them.
    head = parse(b'E0606 16:49:46.155398       1 cleanup.go:99] "' + b"\\n" * 1_001 + b'" x')
    assert head is not None
    assert head.structured is False
    head = parse(b'E0606 16:49:46.155398       1 cleanup.go:99] "' + b"\\n" * 1_000 + b'" x')
    assert head is not None
    assert head.structured is True


def test_an_endless_block_is_given_up_by_lines() -> None:
    head = b'E0606 16:49:46.155398       1 proxier.go:1579] "Failed to execute iptables-restore" err=<\n'
    result = count(repeated(b"\tmore\n" * 1_000, 100, first=head, last=FAILURE))
    assert result == {"IPT_RESTORE_FAIL": 1, EARLY: 1, "CT_LIST_FAIL": 1}


def test_an_endless_block_is_given_up_by_bytes() -> None:
    head = b'E0606 16:49:46.155398       1 proxier.go:1579] "Failed to execute iptables-restore" err=<\n'
    result: dict[str, int] = {}
    line = b"\t" + b"y" * MIB + b"\n"
    used = peak(lambda: result.update(count(repeated(line, 40, first=head, last=FAILURE))))
    assert result == {"IPT_RESTORE_FAIL": 1, EARLY: 1, "CT_LIST_FAIL": 1}
    assert used < 5 * MOST_LINE


def test_an_endless_chain_of_fragments_is_given_up_and_read_on() -> None:
    result: dict[str, int] = {}
    piece = P + b"y" * MIB + b"\n"
    used = peak(lambda: result.update(count(repeated(piece, 60, first=P + FAILURE_HEAD + b"\n", last=FAILURE))))
    assert result["CT_LIST_FAIL"] == 2
    assert result[EARLY] == 4
    assert used < 5 * MOST_LINE


def test_many_open_fragments_together_hold_no_more_than_one_may() -> None:
    def chunks() -> Iterator[bytes]:
        for number in range(100):
            yield b"kube-proxy-%05d kube-proxy " % number + P + FAILURE_HEAD + b"y" * MIB + b"\n"

    result: dict[str, int] = {}
    used = peak(lambda: result.update(count(chunks())))
    assert result == {"CT_LIST_FAIL": 100, EARLY: 100}
    assert used < 5 * MOST_LINE


def test_a_hundred_thousand_streams_with_open_records_are_each_counted() -> None:
    def chunks(streams: int) -> Iterator[bytes]:
        for start in range(0, streams, 1_000):
            yield b"".join(
                b"kube-proxy-%06d kube-proxy " % number + P + FAILURE for number in range(start, start + 1_000)
            )

    assert count(chunks(MOST_STREAMS)) == {"CT_LIST_FAIL": MOST_STREAMS, EARLY: MOST_STREAMS}
    assert peak(lambda: count(chunks(MOST_STREAMS // 50))) < 20 * MIB


@pytest.mark.parametrize("own", [True, False])
def test_streams_beyond_the_limit_are_dropped_and_that_is_said_once(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "MOST_STREAMS", 50)
    text = FAILURE if own else b""
    text += b"".join(b"kube-proxy-%03d kube-proxy " % number + FAILURE for number in range(60))
    text += b"kube-proxy-070 kube-proxy "
    text += b'E0606 16:49:46.155398       1 proxier.go:1579] "Failed to execute iptables-restore" err=<\n'
    found = scan(text + b"kube-proxy-000 kube-proxy " + FAILURE)
    assert found.streams[OWN].cuts == ["more than 50 streams in one input"]
    named = {key: stream for key, stream in found.streams.items() if key != OWN}
    assert len(named) == (50 if own else 51)
    assert found.streams["", "kube-proxy-000", "kube-proxy"].hits == scan(FAILURE).hits * 2


def test_what_beginnings_mean_is_remembered_within_bounds() -> None:
    # Every line begins differently and holds a phrase: none of it may pile up.
    def chunks() -> Iterator[bytes]:
        for start in range(0, 60_000, 500):
            yield b"".join(
                b'I0606 16:49:46.155398       1 other.go:%d] "Seen" x="%0400d Stale endpoint"\n' % (number, number)
                for number in range(start, start + 500)
            )

    sink = Counting()
    scanner = Scanner(sink, TextClock(WRITTEN))
    for chunk in chunks():
        scanner.feed(chunk)
    assert scanner._decided == {}
    for number in range(60_000):
        scanner._decide(b"%d" % number, b'I0606 16:49:46.155398       1 other.go:1] "Seen" x')
    assert len(scanner._decided) == 50_000


def test_open_lines_are_bounded_where_they_are_many_streams() -> None:
    text = b"".join(b"kube-proxy-%04d kube-proxy " % number + P + FAILURE for number in range(MOST_OPEN_LINES + 50))
    found = scan(text)
    assert found.ids == ["CT_LIST_FAIL"] * (MOST_OPEN_LINES + 50)
    assert found.cuts == [EARLY] * (MOST_OPEN_LINES + 50)
