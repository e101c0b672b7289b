"""Finds the catalogue's messages in a stream of log bytes and hands each to a sink, record by record, stream by stream.

Pure and streaming: `feed` takes chunks of any size, memory does not grow with the log. One pass of a linear-time
automaton over each chunk finds where any phrase of the catalogue occurs; only those lines are looked at. The common
shapes (klog text or JSON, bare, in CRI, behind a timestamp) are read in place, and what the bytes up to the phrase
mean is remembered; everything else takes the general way through `framing`. Both ways give the same answer.

A record can be longer than a line: the runtime cuts lines into fragments (CRI "P", Docker without the newline), klog
prints multi-line errors as a block that ends with " >", and releases before 1.21 print their newlines raw. While such
a record is open, lines are read one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kdnsctl.logs.ends import backwards, ends_of_streams, forwards
from kdnsctl.logs.finder import FINDER
from kdnsctl.logs.framing import Line, strip_ansi, unwrap
from kdnsctl.logs.headless import ends_inside, may_be_failure, recognise_record, record_behind_prefix
from kdnsctl.logs.klog import STAMP_LENGTH, Head, TextClock, json_time, parse
from kdnsctl.logs.signatures import CATALOGUE, Kind, Known, recognise
from kdnsctl.logs.sinks import CountSink, Nowhere, Sink, StreamKey, StreamSink, TextSink
from kdnsctl.logs.syncs import syncs_in
from kdnsctl.logs.times import rfc3339

MOST_LINE = 16 * 1024 * 1024
"""Bytes of one line or record that are read; what is longer is cut, and the sink is told."""
MOST_OPEN_LINES = 2_000
"""Lines for which a record stays open; a block or fragment that never ends is then taken as it is."""
MOST_STREAMS = 100_000
"""Streams told apart in one input; records of further ones are dropped, and the input's own sink is told."""
EDGE_LINES = 64
"""Lines at either end of a chunk that are tried for a time while nothing shows that the input is klog's at all."""
EDGE_LINES_OF_KLOG = 5_000
"""The same in klog's logs, where many lines without a header can follow one record (the output of conntrack -D)."""
LONGEST_KEY = 256
"""Bytes up to a phrase whose meaning is remembered; messages of the catalogue are shorter."""

_STAMP = re.compile(rb"\d{4} \d\d:\d\d:\d\d\.\d{6}")
_JSON_STAMP = re.compile(rb'\{"ts":[0-9.eE+]{1,40}(?=,)')


@dataclass(slots=True)
class _Open:
    """A record that further lines continue; what it is, is not known of one that is cut into fragments."""

    time: int | None
    since: int
    known: Known | None = None
    parts: list[bytes] = field(default_factory=list)
    size: int = 0
    until_header: bool = False

    def add(self, part: bytes) -> bool:
        """Take one more part; False when the record has become too long."""
        kept = part[: MOST_LINE - self.size]
        self.parts.append(kept)
        self.size += len(kept)
        return len(kept) == len(part)


_UNDECIDED: Known = Known(CATALOGUE[0], CATALOGUE[0].variants[0])
"""Stands for "not decided yet" where None means "none of the catalogue's"; told by identity."""


Decided = dict[bytes, Known | None]
"""What records mean, by their beginnings. It says the same for every input, so that many may share one."""


class Scanner:
    """Scans one input, which may hold one stream or many interleaved ones.

    `decided` is shared with scanners of other inputs, in any thread; without it each finds out for itself. `at_once`
    has the ends of syncs counted by the block, for sinks that need not see each of them; see `syncs` and `CountSink`.
    """

    def __init__(self, sink: Sink, clock: TextClock, decided: Decided | None = None, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._sink = sink
        self._clock = clock
        self._carry: list[bytes] = []
        self._carried = 0
        self._skipping = False
        self._open: dict[StreamKey, _Open] = {}
        self._open_size = 0
        self._lines_read = 0
        self._streams: dict[StreamKey, StreamSink] = {}
        self._nowhere: Nowhere | None = None
        self._decided: Decided = {} if decided is None else decided
        self._interleaved = False
        self.klog_records = False
        """Whether any line looked at was klog's: if not, this is no log of kube-proxy."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the input."""
        if self._skipping:
            newline = data.find(b"\n")
            if newline < 0:
                return
            data = data[newline + 1 :]
            self._skipping = False
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return
        whole = b"".join([*self._carry, data[:end]]) if self._carry else data[:end]
        self._carry.clear()
        self._carried = 0
        self._keep(data[end:])
        self._block(whole)

    def finish(self) -> None:
        """The input is over: read the last line even if no newline ends it, and close what is still open."""
        if self._carry:
            last = b"".join(self._carry)
            self._carry.clear()
            line = unwrap(last.rstrip(b"\r"))
            # One byte may be all of an input that is no log.
            if (self.klog_records or len(last) > 1) and not line.partial and ends_inside(last, line.payload):
                self._stream_of(line).cut("the last line ends in the middle of a record")
            self._block(last + b"\n")
        for key in list(self._open):
            self._close(key, complete=False)

    def _keep(self, rest: bytes) -> None:
        if not rest:
            return
        self._carry.append(rest)
        self._carried += len(rest)
        if self._carried > MOST_LINE:
            line = b"".join(self._carry)
            self._carry.clear()
            self._carried = 0
            self._skipping = True
            stream = self._stream_of(unwrap(line[:65_536]))
            stream.cut(f"a line longer than {MOST_LINE // 1024 // 1024} MiB")
            self._block(line[:MOST_LINE] + b"\n")

    # --- one block of whole lines

    def _block(self, block: bytes) -> None:
        if b"\x1b" in block:
            block = strip_ansi(block)
        if self._at_once and not self._open and (syncs := syncs_in(block)):
            stream = self._stream_of(None)
            if isinstance(stream, CountSink) and stream.hits(
                syncs.known, syncs.count, syncs.first, syncs.last, syncs.payload
            ):
                block = syncs.rest
        position = self._lines(block, 0) if self._open else 0
        while position < len(block):
            position = self._hits(block, position)
        self._edges(block)

    def _hits(self, block: bytes, position: int) -> int:  # noqa: C901 - the hot loop; every call in it would be felt
        """Handle hits from `position` on; returns where to go on, which is the end unless a record has opened."""
        decided = self._decided
        time_of = self._clock.time
        stamp_at, json_stamp_at = _STAMP.match, _JSON_STAMP.match
        hit = None
        line_end = position - 1
        for match in FINDER.finditer(block, position):
            phrase_end = match.end()
            if phrase_end <= line_end:
                continue
            start = block.rfind(b"\n", max(line_end, 0), phrase_end - 1) + 1 or position
            line_end = block.find(b"\n", phrase_end - 1)
            # Where the payload and its time begin, for the shapes that are read in place.
            first = block[start]
            offset = start
            space = -1
            if 0x30 <= first <= 0x39:
                space = block.find(b" ", start, start + 48)
                if space > 0 and block.startswith((b" stderr F ", b" stdout F "), space):
                    offset = space + 10
                elif space > 0 and block[space - 1] == 0x5A:
                    offset = space + 1
                else:
                    space = -1
                first = block[offset]
            key_end = phrase_end + 2 if phrase_end + 2 < line_end else line_end  # noqa: FURB136 - a call fewer
            stamp_end = -1
            if first == 0x7B and (json_stamp := json_stamp_at(block, offset)):
                stamp_end = json_stamp.end()
                key = block[stamp_end:key_end]
            elif first in b"IWEF" and key_end - offset > STAMP_LENGTH and stamp_at(block, offset + 1):
                key = block[offset + 1 + STAMP_LENGTH : key_end]
            else:
                key = b""
            known = decided.get(key, _UNDECIDED) if key else _UNDECIDED
            if known is _UNDECIDED:
                if key:
                    self._decide(key, block[offset:key_end])
                self._line(block[start:line_end])
                if self._open:
                    return self._lines(block, line_end + 1)
                continue
            if known is None:
                continue
            if space > 0:
                time = rfc3339(block[start:space])
            elif stamp_end > 0:
                time = json_time(block[offset + 6 : stamp_end])
            else:
                time = time_of(block[offset + 1 : offset + 1 + STAMP_LENGTH])
            payload = block[offset:line_end]
            if payload[-1] == 0x3C and space < 0 and stamp_end < 0 and (end := _end_of_block(block, line_end)) > 0:
                line_end = end
                payload = block[offset:line_end]
            elif payload[-1] in b"<\r" or time is None or (known.goes_on and payload.count(b"(") > payload.count(b")")):
                # A block begins here that is not whole in sight, or an old line goes on below, or the line is no record
                # because what stands where its time should be is none.
                self._line(block[start:line_end])
                if self._open:
                    return self._lines(block, line_end + 1)
                continue
            if known.unless and known.unless in payload:
                continue
            if hit is None:
                hit = self._stream_of(None).hit
            hit(known, time, payload)
        return len(block)

    def _decide(self, key: bytes, beginning: bytes) -> None:
        """Remember what every record with this beginning means, if the beginning alone decides it."""
        head = parse(beginning) if len(key) <= LONGEST_KEY and len(self._decided) < 50_000 else None
        if head is None:
            return
        known = recognise(head.file, head.message, structured=head.structured)
        if known is None:
            # Prose may still become a match further on; a message that is whole inside the key cannot.
            if head.is_json or (head.structured and head.end < len(beginning)):
                self._decided[key] = None
        elif (
            # Prose of a start may have to end where it ends; see START_MODE.
            (head.structured is not False or known.signature.kind is not Kind.RESTART)
            and (head.structured is not True or head.end < len(beginning))
            and recognise_record(head, beginning) is not None
        ):
            self._decided[key] = known

    # --- the general way: one physical line

    def _lines(self, block: bytes, position: int) -> int:
        """Read line by line until no record is open; returns where the next unread line begins."""
        while self._open and position < len(block):
            end = block.find(b"\n", position)
            self._line(block[position:end])
            position = end + 1
        return position

    def _line(self, physical: bytes) -> None:
        physical = physical.rstrip(b"\r")
        line = unwrap(physical)
        self._interleaved = self._interleaved or line.interleaved
        if self._open:
            self._lines_read += 1
            self._expire()
            if self._ends_fragment(physical, line):
                return
        key = line.key
        opened = self._open.get(key)
        if opened is not None and self._continues(opened, key, line):
            return
        if line.partial:
            self._stream_of(line)
            self._begin(key, _Open(line.time, self._lines_read), line.payload)
            return
        self._record(line, key)

    def _expire(self) -> None:
        """Close what has been open for too long, oldest first, and the oldest while all of it is too much."""
        while self._open:
            oldest = next(iter(self._open))
            if self._lines_read - self._open[oldest].since <= MOST_OPEN_LINES and self._open_size <= MOST_LINE:
                return
            self._close(oldest, complete=False)

    def _ends_fragment(self, physical: bytes, line: Line) -> bool:
        """Whether the line is a further piece of an open fragment, and was added to it."""
        piece = unwrap(physical, whole=False) if line.piece else line
        key = piece.key
        opened = self._open.get(key)
        if opened is None or opened.known is not None:
            return False
        if opened.size and parse(piece.payload) is not None:
            # A new record: the rest of the one before was lost, with a rotated file or in a collector.
            self._close(key, complete=False)
            return False
        if not self._add(opened, piece.payload):
            self._close(key, complete=False)
        elif not piece.partial:
            self._close(key)
        return True

    def _begin(self, key: StreamKey, opened: _Open, first: bytes) -> None:
        self._open[key] = opened
        if not self._add(opened, first):
            self._close(key, complete=False)

    def _add(self, opened: _Open, part: bytes) -> bool:
        before = opened.size
        fits = opened.add(part)
        self._open_size += opened.size - before
        return fits

    def _continues(self, opened: _Open, key: StreamKey, line: Line) -> bool:
        """Whether the line belongs to the open block; closes the block when it ends here or before."""
        payload = line.payload
        if parse(payload) is not None or (opened.until_header and not payload.strip()):
            self._close(key, complete=opened.until_header)
            return False
        if not self._add(opened, payload):
            self._close(key, complete=False)
            return True
        ended = payload.rstrip().endswith(b")") if opened.until_header else payload.startswith(b" >")
        if ended:
            self._close(key)
        return True

    def _record(self, line: Line, key: StreamKey) -> None:
        payload = line.payload
        if FINDER.search(payload) is None:
            return
        head = parse(payload)
        if head is None:
            self._headless(line)
            return
        self.klog_records = True
        known = recognise_record(head, payload)
        if known is None:
            return
        time = line.time if line.time is not None else self._time(head)
        stream = self._stream_of(line)
        if not head.is_json and payload.endswith(b"<"):
            self._begin(key, _Open(time, self._lines_read, known), payload)
        elif (
            head.structured is False
            and known.signature.kind is Kind.FAILURE
            and payload.count(b"(") > payload.count(b")")
        ):
            self._begin(key, _Open(time, self._lines_read, known, until_header=True), payload)
        else:
            stream.hit(known, time, payload)

    def _headless(self, line: Line) -> None:
        """A line with a phrase that does not begin with a record: no failure may be lost in it without a word."""
        payload = line.payload
        known = recognise(b"", payload, structured=False)
        if known is not None and known.signature.id == "EXIT_CONFIG_CHANGED":
            self._stream_of(line).hit(known, line.time, payload)
            return
        found = record_behind_prefix(payload)
        if found is not None:
            start, head = found
            payload = payload[start:]
            known = recognise_record(head, payload)
            if known is not None and known.signature.kind is Kind.FAILURE:
                # Its further lines, if any, stand behind such prefixes as well: what it says is taken from this one.
                self.klog_records = True
                self._stream_of(line).hit(known, line.time if line.time is not None else self._time(head), payload)
        elif may_be_failure(payload):
            self._stream_of(line).cut("a failure in a form that is not understood")

    def _close(self, key: StreamKey, *, complete: bool = True) -> None:
        opened = self._open.pop(key)
        self._open_size -= opened.size
        stream = Line(b"", opened.time, *key)
        if not complete:
            self._stream_of(stream).cut("a record that ends too early")
        if opened.known is not None:
            self._stream_of(stream).hit(opened.known, opened.time, b"\n".join(opened.parts))
        else:
            # The joined text can hold layers that its pieces did not show.
            stream.payload = unwrap(b"".join(opened.parts)).payload
            self._record(stream, key)

    def _time(self, head: Head) -> int | None:
        return json_time(head.stamp) if head.is_json else self._clock.time(head.stamp)

    # --- which streams there are, and what time they cover

    def _stream_of(self, line: Line | None) -> StreamSink:
        key: StreamKey = ("", "", "") if line is None else line.key
        stream = self._streams.get(key)
        if stream is None:
            if len(self._streams) > MOST_STREAMS:
                return self._too_many()
            stream = self._streams[key] = self._sink.stream(key, line)
        return stream

    def _too_many(self) -> StreamSink:
        if self._nowhere is None:
            self._nowhere = Nowhere()
            own: StreamKey = ("", "", "")
            if own not in self._streams:
                self._streams[own] = self._sink.stream(own, None)
            self._streams[own].cut(f"more than {MOST_STREAMS} streams in one input")
        return self._nowhere

    def _edges(self, block: bytes) -> None:
        """Note the first and last dated record of the block, or of each stream in it."""
        if not self._interleaved:
            first = self._note(self._edge(forwards(block)))
            last = self._note(self._edge(backwards(block)))
            self._interleaved = first or last
        if self._interleaved:
            for line in ends_of_streams(block):
                self._note_line(line)

    def _edge(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for tried, line in enumerate(lines):
            if tried >= (EDGE_LINES_OF_KLOG if self.klog_records else EDGE_LINES):
                return
            yield line

    def _note(self, lines: Iterator[bytes]) -> bool:
        for physical in lines:
            line = unwrap(physical)
            if line.interleaved:
                return True
            if self._note_line(line):
                break
        return False

    def _note_line(self, line: Line) -> bool:
        head = parse(line.payload)
        if head is not None:
            self.klog_records = True
        time = line.time if line.time is not None or head is None else self._time(head)
        if head is None and line.interleaved:
            # Also a stream of which nothing else is ever seen must not be lost from the count.
            stream = self._stream_of(line)
            if isinstance(stream, TextSink):
                stream.text(line.payload)
        if time is None:
            return False
        self._stream_of(line).seen(time, head.file.decode("ascii", "replace") if head else "")
        return head is not None


def _end_of_block(block: bytes, line_end: int) -> int:
    """Where the bare text block ends whose first line ends at `line_end`; -1 when its end is not in sight."""
    last = block.find(b"\n >", line_end, line_end + 65_536)
    if last < 0 or block.count(b"\n", line_end, last) != block.count(b"\n\t", line_end, last):
        return -1
    return block.find(b"\n", last + 1)
