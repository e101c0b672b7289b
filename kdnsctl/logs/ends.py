"""The first and last lines of a block, and of every stream in it: what tells the time that a log covers. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kdnsctl.logs.framing import Line, unwrap
from kdnsctl.logs.klog import parse
from kdnsctl.logs.sinks import StreamKey

LONGEST_LINE = 4_096
"""Bytes of a line that are kept; its time, its file and whose error message it is stand at its beginning."""


def forwards(block: bytes) -> Iterator[bytes]:
    """The lines of a block that ends with a newline, first to last."""
    position = 0
    while position < len(block):
        end = block.find(b"\n", position)
        yield block[position:end].rstrip(b"\r")
        position = end + 1


def backwards(block: bytes) -> Iterator[bytes]:
    """The lines of a block that ends with a newline, last to first."""
    end = len(block) - 1
    while end > 0:
        start = block.rfind(b"\n", 0, end) + 1
        yield block[start:end].rstrip(b"\r")
        end = start - 1


def ends_of_streams(block: bytes) -> Iterator[Line]:
    """The first and the last dated line of every stream in the block, unwrapped.

    Of a stream that the lines name, also the first line that is no record: it may be all that the stream holds.
    """
    ends: dict[bytes, tuple[bytes, bytes]] = {}
    seen: dict[StreamKey, tuple[Line, Line]] = {}
    texts: dict[StreamKey, Line] = {}
    for physical in forwards(block):
        prefix = _stream_prefix(physical)
        if prefix:
            first = ends.get(prefix)
            ends[prefix] = (first[0] if first else physical, physical)
            continue
        line = unwrap(physical)
        record = parse(line.payload) is not None
        # What stands between the records of a text is many lines: a beginning is enough to know which they are.
        line.payload = line.payload[:LONGEST_LINE]
        if line.interleaved and not record:
            texts.setdefault(line.key, line)
        if line.time is not None or record:
            known = seen.get(line.key)
            seen[line.key] = (known[0] if known else line, line)
    yield from texts.values()
    for first_line, last_line in ends.values():
        yield unwrap(first_line)
        if last_line is not first_line:
            yield unwrap(last_line)
    for first_seen, last_seen in seen.values():
        yield first_seen
        if last_seen is not first_seen:
            yield last_seen


def _stream_prefix(physical: bytes) -> bytes:
    """The bytes that name the stream at the start of a prefixed text line, b"" where it takes a closer look."""
    first = physical[:1]
    if first == b"[":
        end = physical.find(b"]") + 1
    elif first.islower():
        end = physical.find(b" ", physical.find(b" ") + 1)
    else:
        return b""
    # Only a line with a record of its own is worth keeping as the stream's first or last.
    if end > 0:
        record = physical[end + 1 : end + 5]
        if record[:1] == b"{" or (record[:1] in (b"I", b"W", b"E", b"F", b"2") and record[1:].isdigit()):
            return physical[:end]
    return b""
