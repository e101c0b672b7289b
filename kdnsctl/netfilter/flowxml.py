"""`conntrack -o xml`: one `<flow>` element, and how a stream is parted into them.

This is no XML parser, and that is its safety: there are no document types, entities or includes, an element is found by
its name, and nothing grows with what the document says about itself. conntrack writes plain elements and no escapes
(src/conntrack/snprintf_xml.c of libnetfilter_conntrack). Events have text after `</flow>`; an interrupted document has
no end tag; and no flows at all print nothing, not even a root element.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

from kdnsctl.netfilter.addresses import Addresses
from kdnsctl.netfilter.entries import Entry, Seen
from kdnsctl.netfilter.flowfields import Fields, protocol, text

MOST_FLOW = 64 * 1024
"""Bytes of one element that are read; what is longer is none."""

BEGIN, END = b"<flow", b"</flow>"
OPENINGS = (b"<?xml", b"<conntrack>", BEGIN)
"""What a line begins with from which on a dump is XML."""

_PIECE = re.compile(rb"<(/?)([A-Za-z0-9_-]{1,40})([^<>]*?)(/?)>|([^<>]+)|[<>]")
_ATTRIBUTE = re.compile(rb'([a-z]+)="([^"<>]*)"')
_EVENTS = {b"new": "NEW", b"update": "UPDATE", b"destroy": "DESTROY"}
_NUMBERS = {b"timeout": "timeout", b"mark": "mark", b"zone": "zone", b"id": "id"}
_TUPLE = frozenset({b"src", b"dst", b"sport", b"dport", b"packets", b"bytes"})
_KNOWN = frozenset(
    b"srckey dstkey type code use deltatime stop secctx secmark helper label hour min sec wday day month year".split()
)


def parse(element: bytes, at: int, addresses: Addresses) -> Entry | None:
    """The entry in a `<flow>` element, or None. `at` is the number of the line on which it begins."""
    fields = Fields()
    opened: list[bytes] = []
    direction = b""
    for slash, name, attributes, empty, content in _PIECE.findall(element):
        if name and slash:
            if not opened or opened.pop() != name:
                return None
        elif name:
            if empty:
                _flag(name, fields)
                continue
            opened.append(name)
            given = dict(_ATTRIBUTE.findall(attributes))
            if name == b"flow":
                fields.event = _EVENTS.get(given.get(b"type", b""), "")
            elif name == b"meta":
                direction = given.get(b"direction", b"")
            elif name == b"layer4":
                fields.protocol = protocol(given.get(b"protoname", b""), given.get(b"protonum", b""))
        elif content.strip():
            if not opened or not _value(opened[-1], content.strip(), direction, fields):
                return None
        elif not content:
            return None  # a bracket that is no tag
    return None if opened else fields.entry(at, addresses)


def _flag(name: bytes, fields: Fields) -> None:
    try:
        fields.seen = Seen(text(name).upper().replace("-", "_"))
    except ValueError:
        fields.unknown.append(f"<{text(name)}/>")


def _value(name: bytes, value: bytes, direction: bytes, fields: Fields) -> bool:
    """Keep the text of an element; False when the flow would say one thing twice."""
    side = {b"original": fields.original, b"reply": fields.reply}.get(direction)
    if side is not None and name in _TUPLE:
        if name in side:
            return False
        side[name] = value
    elif side is None and name in _NUMBERS:
        fields.keep_number(_NUMBERS[name], value, b"%b=%b" % (name, value))
    elif name == b"state":
        fields.state = text(value)
    elif name == b"start":
        fields.start = text(value)
    elif not (name in _KNOWN or (side is not None and name == b"id")):
        fields.unknown.append(text(b"%b=%b" % (name, value)))
    return True


class Kind(enum.Enum):
    """What a piece of a document is."""

    FLOW = enum.auto()  # `<flow>` to `</flow>`
    BETWEEN = enum.auto()  # a line, or what is left of one, outside of flows
    OVERLONG = enum.auto()  # the beginning of something that is too long to be kept


class Pieces:
    """Parts a stream of blocks, cut anywhere, into pieces, each with the number of the line on which it begins."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._rest = b""
        self._skipping = b""  # what ends a piece that is too long, when it is known to be

    def feed(self, block: bytes) -> Iterator[tuple[Kind, bytes, int]]:
        """Take the next bytes; yields the pieces that they end."""
        data = self._rest + block
        position = 0
        while position < len(data):
            in_flow = self._skipping == END or (not self._skipping and data.startswith(BEGIN, position))
            end = _end_of_flow(data, position) if in_flow else _end_of_line(data, position)
            if end < 0:
                break
            if not self._skipping:
                yield self._piece(Kind.FLOW if in_flow else Kind.BETWEEN, data[position:end])
            self._skipping = b""
            self._line += data.count(b"\n", position, end)
            position = end
        self._rest = data[position:]
        if len(self._rest) > MOST_FLOW:
            if not self._skipping:
                yield self._piece(Kind.OVERLONG, self._rest)
                self._skipping = END if self._rest.startswith(BEGIN) else BEGIN
            dropped, self._rest = self._rest[: -len(END)], self._rest[-len(END) :]
            self._line += dropped.count(b"\n")

    def finish(self) -> Iterator[tuple[Kind, bytes, int]]:
        """Yield what is left when the stream is over."""
        rest, self._rest = self._rest, b""
        if rest and not self._skipping:
            yield self._piece(Kind.BETWEEN, rest)

    def _piece(self, kind: Kind, piece: bytes) -> tuple[Kind, bytes, int]:
        return (kind, piece, self._line) if len(piece) <= MOST_FLOW else (Kind.OVERLONG, piece[:MOST_FLOW], self._line)


def _end_of_flow(data: bytes, position: int) -> int:
    end = data.find(END, position)
    return end if end < 0 else end + len(END)


def _end_of_line(data: bytes, position: int) -> int:
    """Behind the newline, or before the next flow."""
    newline = data.find(b"\n", position)
    begin = data.find(BEGIN, position, newline if newline >= 0 else len(data))
    return begin if begin >= 0 else newline + 1 or -1


_OUTSIDE = re.compile(rb"\s+|<\?xml[^<>]*\?>|(<conntrack>)|(</conntrack>)|\[USERSPACE\](?: (?:portid|progname)=\S+)*")


def outside(piece: bytes) -> tuple[int, int] | None:
    """How often a piece outside of flows begins and ends the document; None when there is anything else in it."""
    position = begins = ends = 0
    while position < len(piece):
        if (match := _OUTSIDE.match(piece, position)) is None:
            return None
        begins += match[1] is not None
        ends += match[2] is not None
        position = match.end()
    return begins, ends
