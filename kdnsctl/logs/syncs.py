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
_TIME: Final = rb"[0-9]{2}:[0-9]{2}:[0-9]{2}\."
_LINE: Final = re.compile(
    # Nine decimals, always: so moments are in the order of their texts.
    rb"(\n[0-9]{4}-[0-9]{2}-[0-9]{2}T" + _TIME + rb"[0-9]{9}Z )"
    rb"(I[0-9]{4} " + _TIME + rb"[0-9]{6} +[0-9]{1,7} proxier\.go:[0-9]{1,5}\] )"
    rb'("SyncProxyRules complete"(?: [A-Za-z]{1,20}="[^"\\\n]{0,40}"){1,3})(?=\n)'
)


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
    # Behind each text that is none: time, header and message of a line.
    parts = _LINE.split(b"\n" + block)
    stamps = parts[1::4]
    if not stamps:
        return None
    first, last = rfc3339(min(stamps)[1:-1]), rfc3339(max(stamps)[1:-1])
    if first is None or last is None:
        return None
    payload = parts[2] + parts[3]
    del parts[3::4]
    return Syncs(_KNOWN, len(stamps), first, last, payload, b"".join(parts)[1:])
