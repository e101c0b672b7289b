"""Scanning in tests: a sink that keeps everything, the example records, and the recordings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Scanner
from kdnsctl.logs.signatures import Known
from kdnsctl.logs.sinks import StreamKey, StreamSink
from kdnsctl.logs.times import from_datetime

RECORDINGS = Path(__file__).parents[2] / "recordings"
EXAMPLES = RECORDINGS / "signature-examples"
KUBE_PROXY = RECORDINGS / "kube-proxy-1.36"

OWN: StreamKey = ("", "", "")
WRITTEN = from_datetime(datetime(2026, 12, 1, tzinfo=UTC))
"""When the logs of these tests were last written, unless a test says otherwise."""


@dataclass
class Stream:
    """All that a scanner said of one stream."""

    hits: list[tuple[str, int | None, bytes]] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    cuts: list[str] = field(default_factory=list)

    def hit(self, known: Known, time: int | None, payload: bytes) -> None:
        self.hits.append((known.signature.id, time, payload))

    def seen(self, time: int, file: str) -> None:
        self.times.append(time)
        self.files.add(file)

    def cut(self, why: str) -> None:
        self.cuts.append(why)

    @property
    def span(self) -> tuple[int, int] | None:
        times = [*self.times, *(time for _, time, _ in self.hits if time is not None)]
        return (min(times), max(times)) if times else None


@dataclass
class Streams:
    """A sink that keeps everything."""

    streams: dict[StreamKey, Stream] = field(default_factory=dict)
    klog_records: bool = False

    def stream(self, key: StreamKey, line: Line | None) -> StreamSink:
        assert key not in self.streams, "a stream is asked for once"
        assert line is None or line.key == key
        self.streams[key] = Stream()
        return self.streams[key]

    @property
    def hits(self) -> list[tuple[str, int | None, bytes]]:
        return [hit for stream in self.streams.values() for hit in stream.hits]

    @property
    def ids(self) -> list[str]:
        return [signature for signature, _, _ in self.hits]

    @property
    def cuts(self) -> list[str]:
        return [why for stream in self.streams.values() for why in stream.cuts]

    @property
    def one(self) -> Stream:
        (stream,) = self.streams.values()
        return stream

    def result(self) -> dict[StreamKey, tuple[object, ...]]:
        """What must not depend on how the bytes arrived."""
        return {
            key: (stream.hits, stream.span, sorted(stream.cuts))
            for key, stream in self.streams.items()
            if stream.hits or stream.span or stream.cuts
        }


def scan_chunks(chunks: Iterable[bytes], *, written: int = WRITTEN, year: int | None = None) -> Streams:
    """What the scanner finds in bytes that arrive in these chunks."""
    streams = Streams()
    scanner = Scanner(streams, TextClock(written, year))
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.finish()
    streams.klog_records = scanner.klog_records
    return streams


def scan(data: bytes, *, chunk: int = 1 << 20, written: int = WRITTEN, year: int | None = None) -> Streams:
    """What the scanner finds in the bytes, read `chunk` bytes at a time."""
    chunks = (data[start : start + chunk] for start in range(0, len(data), chunk))
    return scan_chunks(chunks, written=written, year=year)


def records_of(text: bytes) -> list[bytes]:
    """The records of an example file; a record is one line, or a block."""
    records: list[bytes] = []
    for line in text.splitlines():
        if line.startswith((b"\t", b" >")):
            records[-1] += b"\n" + line
        else:
            records.append(line)
    return records


def examples() -> list[tuple[str, bytes]]:
    """Every example record with the id of its signature."""
    return [(path.stem, record) for path in sorted(EXAMPLES.glob("*.log")) for record in records_of(path.read_bytes())]


def micro(text: str) -> int:
    """Microseconds since the epoch of an ISO time in UTC."""
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))
