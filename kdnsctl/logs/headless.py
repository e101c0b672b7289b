"""Failures in lines that do not begin with a klog record: behind a prefix nobody told us of, or without the header.

Every collector can put something of its own in front of a line (a syslog header, a container's name), and a crash puts
NUL bytes or half a record there. A failure in such a line is taken as one where its own header can be told; where it
cannot, and cannot be ruled out either, the log is not known to be free of failures, and the scan says so. Pure.
"""

from __future__ import annotations

import re

from kdnsctl.logs.klog import JSON_HEAD, TEXT_HEADER, Head, decode_object, parse
from kdnsctl.logs.signatures import CATALOGUE, Kind, Known, recognise

LONGEST_PREFIX = 1_024
"""Bytes before a record in which an unknown prefix is looked for."""

_FAILURES = tuple(signature for signature in CATALOGUE if signature.kind is Kind.FAILURE)
_PHRASES = tuple({phrase.encode(): signature for signature in _FAILURES for phrase in signature.phrases}.items())
_PLACE = re.compile(rb"(?<![\w.\-])([\w\-]{1,64}\.go):\d")
_QUOTE = re.compile(rb'\\.|(")', re.DOTALL)
_CRI = re.compile(rb"[0-9T:.Z+\-]{20,40} (?:stdout|stderr) [FP](?::\S*)?(?: |$)")
_HEADER_BEGINS = re.compile(rb"[IWEF](?:\d{1,3}$|\d{4}(?: |$)|$)")
_KEY_ALONE = re.compile(rb"(?<![^ \"\]})]) [\w.\-]{0,253}=?$")
_PROSE = re.compile(rb"[A-Za-z,;:.!?\'()\s]*")
"""A prefix of nothing but words is somebody's sentence about the record; prefixes of collectors name or number."""


def recognise_record(head: Head, payload: bytes) -> Known | None:
    """The signature of a whole record, or None when it is none of the catalogue's or is another component's."""
    known = recognise(head.file, head.message, structured=head.structured)
    if known is None:
        return None
    signature = known.signature
    if known.unless and known.unless in payload:
        return None
    if not any(phrase.encode() in payload for phrase in signature.phrases):
        return None
    return known


def record_behind_prefix(payload: bytes) -> tuple[int, Head] | None:
    """Where in a line with a failure's phrase the first record of klog's begins, and its head; None when none does.

    Not taken: a record inside quotes, which is another's message about it, and one behind words alone.
    """
    if not _may_hold_failure(payload):
        return None
    for pattern in (TEXT_HEADER, JSON_HEAD):
        position = 0
        while (match := pattern.search(payload, position)) and match.start() <= LONGEST_PREFIX:
            position = match.start() + 1
            prefix = payload[: match.start()]
            if not _PROSE.fullmatch(prefix) and not quote_is_open(prefix):
                head = parse(payload[match.start() :])
                if head is not None:
                    return match.start(), head
    return None


def may_be_failure(payload: bytes) -> bool:
    """Whether a line without a readable header can be a failure of the catalogue all the same.

    So it is when it begins with a failure's message (klog's --skip-headers, an agent that keeps the header elsewhere),
    or names, before the message, a Go source file that logs it.
    """
    if not _may_hold_failure(payload):
        return False
    quoted = payload[:1] == b'"'
    end = payload.find(b'"', 1) if quoted else len(payload)
    known = recognise(b"", payload[1:end] if quoted else payload, structured=quoted) if end > 0 else None
    if known is not None and known.signature.kind is Kind.FAILURE:
        return True
    for phrase, signature in _PHRASES:
        found = payload.find(phrase)
        if found >= 0:
            before = payload[max(0, found - 4 * LONGEST_PREFIX) : found]
            if any(match[1].decode("ascii", "replace") in signature.files for match in _PLACE.finditer(before)):
                return True
    return False


def ends_inside(physical: bytes, payload: bytes) -> bool:
    """Whether the last line of an input, which no newline ends, breaks off: there, a failure can have been lost.

    A line is whole without its newline when the record in it is. What the runtime writes in CRI's form always has one.
    """
    if _CRI.match(physical):
        return True
    if payload[:1] == b"{":
        return decode_object(payload) is None
    head = parse(payload)
    if head is None:
        return _HEADER_BEGINS.match(payload) is not None
    return (
        quote_is_open(payload)
        or len(payload) == (header.end() if (header := TEXT_HEADER.match(payload)) else -1)
        or (head.structured is True and _KEY_ALONE.search(payload, head.end) is not None)
    )


def quote_is_open(text: bytes) -> bool:
    """Whether a quote that the text opens is not closed in it; quotes behind a backslash do not count."""
    return sum(match[1] is not None for match in _QUOTE.finditer(text)) % 2 == 1


def _may_hold_failure(payload: bytes) -> bool:
    return any(
        phrase in payload and not (signature.unless and signature.unless.encode() in payload)
        for phrase, signature in _PHRASES
    )
