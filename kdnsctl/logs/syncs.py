"""Counts the ends of syncs in a block of a log all at once: the one message that a healthy kube-proxy repeats. Pure.

At -v=2 every third line says that a sync is over, and all that is wanted of them is how many, the first and the last.
Only their plainest form is taken, as the API gives it with timestamps since 1.22; whatever looks different in the least
is left to the scan. Of what was counted the message is taken out and the header left, so that the line still ends what
stands before it, and still tells a time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kdnsctl.logs.signatures import Known, recognise
from kdnsctl.logs.times import rfc3339

_KNOWN: Final = recognise(b"proxier.go", b"SyncProxyRules complete", structured=True)
_PHRASE: Final = b'] "SyncProxyRules complete" '
_CUT: Final = (b"stdout P", b"stderr P")  # lines in pieces, which need each line that follows
_LINE: Final = re.compile(
    rb"(\n.{30} I.{20} +[0-9]{1,7} proxier\.go:[0-9]{1,5}\] )"
    rb'"SyncProxyRules complete"(?: [A-Za-z]{1,20}="[^"\\\n]{0,40}"){1,3}(?=\n)'
)
# Whether what stands before is a time and klog's header takes long to ask of each line, and the lines of a log differ
# in digits only: it is asked of each shape. Nine decimals, always: so moments are in the order of their texts.
_SHAPE: Final = re.compile(rb"\n0000-00-00T00:00:00\.0{9}Z I0000 00:00:00\.0{6} +0{1,7} proxier\.go:0{1,5}\] ")
_TO_SHAPE: Final = bytes.maketrans(b"0123456789", b"0" * 10)
_STAMP_ENDS: Final = 31  # in a header: a newline and a time; as many bytes are a time and its blank


@dataclass(frozen=True, slots=True)
class Syncs:
    """The ends of syncs in a block; `payload` is the first of them, `rest` the block without their messages."""

    known: Known
    count: int
    first: int
    last: int
    payload: bytes
    rest: bytes


def syncs_in(block: bytes) -> Syncs | None:
    """What there is in a block of whole lines; None for nothing, or for what is better read line by line."""
    if _PHRASE not in block or _KNOWN is None or any(mark in block for mark in _CUT):
        return None
    parts = _LINE.split(b"\n" + block)  # behind each text that is none: time and header of a line
    headers = parts[1::2]
    if not headers or not all(map(_SHAPE.fullmatch, {header.translate(_TO_SHAPE) for header in headers})):
        return None
    first, last = rfc3339(min(headers)[1:_STAMP_ENDS]), rfc3339(max(headers)[1:_STAMP_ENDS])
    if first is None or last is None:
        return None
    begin = len(parts[0])
    payload = block[begin + _STAMP_ENDS : block.index(b"\n", begin)]
    return Syncs(_KNOWN, len(headers), first, last, payload, b"".join(parts)[1:])
