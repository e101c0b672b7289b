"""From the named fields of one entry, in whatever form they were printed, to an `Entry`, or to nothing.

An entry is readable when a judgement can rest on it: a protocol, and two tuples with addresses of one family and with
ports in both or in neither. Everything else is optional, and a value that makes no sense is kept as a token that nobody
knows. Nothing is known here of the forms themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kdnsctl.netfilter.addresses import Addresses
from kdnsctl.netfilter.entries import Entry, FlowTuple, Seen

MOST_PROTOCOL = 32
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_+.-]*\Z")
_NUMBER = re.compile(rb"[0-9]{1,20}\Z")  # 64 bits have 20 digits; longer ones cost time and mean nothing
_PORT = re.compile(rb"[0-9]{1,5}\Z")

PROTOCOL_NUMBERS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "icmpv6", 132: "sctp", 136: "udplite"}
"""Those that conntrack names (libnetfilter_conntrack, src/conntrack/getter and snprintf)."""


@dataclass(slots=True)
class Fields:
    """What a line or element said, by name. Of the tuples: src, dst, sport, dport, packets, bytes."""

    protocol: str = ""
    original: dict[bytes, bytes] = field(default_factory=dict)
    reply: dict[bytes, bytes] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # timeout, mark, zone, id
    state: str = ""
    seen: Seen = Seen.REPLIED
    start: str = ""
    event: str = ""
    unknown: list[str] = field(default_factory=list)

    def keep_number(self, name: str, value: bytes, token: bytes) -> None:
        """Keep a number under its name, and the whole token as unknown when it is none or comes again."""
        parsed = number(value)
        if parsed is None or name in self.numbers:
            self.unknown.append(text(token))
        else:
            self.numbers[name] = parsed

    def entry(self, line: int, addresses: Addresses) -> Entry | None:
        """The entry, or None when these fields are not those of one."""
        original = _tuple(self.original, addresses)
        reply = _tuple(self.reply, addresses)
        if not self.protocol or original is None or reply is None:
            return None
        if (original.source_port is None) != (reply.source_port is None):
            return None
        if (":" in original.source) != (":" in reply.source):
            return None
        return Entry(
            protocol=self.protocol,
            original=original,
            reply=reply,
            timeout=self.numbers.get("timeout"),
            state=self.state,
            seen=self.seen,
            mark=self.numbers.get("mark"),
            zone=self.numbers.get("zone"),
            id=self.numbers.get("id"),
            start=self.start,
            event=self.event,
            unknown=tuple(self.unknown),
            line=line,
        )


def _tuple(fields: Mapping[bytes, bytes], addresses: Addresses) -> FlowTuple | None:
    source = addresses.shortest(fields.get(b"src", b""))
    destination = addresses.shortest(fields.get(b"dst", b""))
    if source is None or destination is None or (":" in source) != (":" in destination):
        return None
    source_port, destination_port = port(fields.get(b"sport")), port(fields.get(b"dport"))
    if (source_port is None) != (destination_port is None) or -1 in (source_port, destination_port):
        return None
    return FlowTuple(
        source,
        destination,
        source_port,
        destination_port,
        number(fields.get(b"packets", b"")),
        number(fields.get(b"bytes", b"")),
    )


def port(value: bytes | None) -> int | None:
    """A port, -1 for what cannot be one, and None for nothing."""
    if value is None:
        return None
    if not _PORT.match(value) or (parsed := int(value)) > 65_535:
        return -1
    return parsed


def number(value: bytes) -> int | None:
    """A number without a sign, or None."""
    return int(value) if _NUMBER.match(value) else None


def protocol(name: bytes, protocol_number: bytes = b"") -> str:
    """A protocol as entries name it, "" when it is none: lower case, and what has no name with its number."""
    if len(name) > MOST_PROTOCOL or not _NAME.match(name):
        return ""
    lowered = text(name).lower()
    if lowered != "unknown":
        return lowered
    parsed = number(protocol_number)
    return "" if parsed is None else f"unknown {parsed}"


def text(token: bytes) -> str:
    """A token as text; bytes that are no UTF-8 are shown as escapes, and nothing fails."""
    return token.decode("utf-8", "backslashreplace")
