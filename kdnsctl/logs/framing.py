"""What stands around a klog record in a log file, and what it says: the time, the node, the pod, the container.

`unwrap` takes one physical line and peels off every layer it knows, in any order they nest: CRI and Docker files,
`kubectl logs` with `--timestamps` or `--prefix`, stern, journald in its text forms; JSON layers (Docker, journald,
stern, and the exports of log stores) are in `envelopes`. It does not look at what the record means. Pure.

Lines come from strangers: a layer is only believed when its whole shape fits, and never executed, expanded or trusted
to be short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdnsctl.logs.envelopes import Envelope, open_envelope
from kdnsctl.logs.klog import JSON_HEAD
from kdnsctl.logs.times import rfc3339

MOST_LAYERS = 6
"""Layers peeled off one line at the most; real stores nest three at the worst (an export of a store of CRI lines)."""


@dataclass(slots=True)
class Line:
    """One physical line without its layers.

    `time` is what the outermost dated layer says (microseconds, UTC), None where no layer carries a full date.
    `partial` marks a fragment that the next line of the same stream continues. `process` is journald's identifier: a
    process that may hold more than kube-proxy. `interleaved` is True when a layer names the stream, so that the next
    line can be another one's. `piece` tells that a layer was met whose lines can be cut into fragments.
    """

    payload: bytes
    time: int | None = None
    node: str = ""
    pod: str = ""
    container: str = ""
    process: str = ""
    partial: bool = False
    interleaved: bool = False
    piece: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        """The stream that the line belongs to, as far as the line itself tells."""
        return (self.node, self.pod, self.container or self.process)


_STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)"
_CRI = re.compile(rb"(" + _STAMP + rb") (?:stdout|stderr) ([FP])(?::\S*)?(?: |$)")
_IDENTIFIER = rb"([A-Za-z0-9][\w.\-]*) ([\w.\-@/]+)(?:\[\d+\])?: ?"
# With the process id, or before a record of klog's: `<time> Error occurred: …` is a dated line, not host and process.
_JOURNAL_ISO = re.compile(
    rb"(" + _STAMP + rb") ([A-Za-z0-9][\w.\-]*) ([\w.\-@/]+)(?:\[\d+\]: ?|: ?(?=[IWEF]\d{4} \d\d:|\{\"))"
)
_JOURNAL_MONOTONIC = re.compile(rb"\[ *\d+\.\d{6}\] " + _IDENTIFIER)
_JOURNAL_SHORT = re.compile(rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? " + _IDENTIFIER)
_JOURNAL_FULL = re.compile(rb"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) (\S+) " + _IDENTIFIER)
_JOURNAL_UNIX = re.compile(rb"(\d{9,11}\.\d{6}) " + _IDENTIFIER)
_TIMESTAMPS = re.compile(rb"(" + _STAMP + rb")(?: |$)")
_SHORT_TIMESTAMPS = re.compile(rb"\d\d-\d\d \d\d:\d\d:\d\d ")
_PREFIX = re.compile(rb"\[pod/([^/\]\s]+)/([^\]\s]+)\] ?")
_KLOG_DAY = re.compile(rb"[IWEF]\d{4}")
_NAME = rb"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_KLOG = rb'[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} |\{"|\d\d-\d\d \d\d:\d\d:\d\d |' + _STAMP
_STERN = re.compile(
    rb"(?:" + _NAME + rb" )?(" + _NAME + rb") "
    # Any container before a record of klog's; kube-proxy's also before the further lines of one.
    rb"(?:(" + _NAME + rb")(?= (?:" + _KLOG + rb"))|(?=[-a-z0-9]{0,243}kube-proxy)([-a-z0-9]{10,253})) "
)
# ECMA-48: control sequences, operating system commands (which end on their line or are none), all shorter ones.
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[ -/]*[0-~])")


def strip_ansi(text: bytes) -> bytes:
    """The text without terminal escape sequences, which coloured output puts even into the middle of a message."""
    return _ANSI.sub(b"", text)


def unwrap(physical: bytes, *, whole: bool = True) -> Line:
    """Peel every known layer off one physical line (without its newline). What is left is the payload.

    A fragment is not looked into: what it begins with may look like a layer and be the middle of a text. Its last piece
    cannot be told from a whole line; with `whole` False nothing is peeled inside a layer that knows fragments.
    """
    if physical[:1] == b"\0":
        # After a power loss, a file can hold NULs where the last lines before it should be.
        physical = physical.lstrip(b"\0")
    line = Line(strip_ansi(physical) if b"\x1b" in physical else physical)
    for _ in range(MOST_LAYERS):
        if not _peel(line) or line.partial or (line.piece and not whole):
            break
    return line


def _peel(line: Line) -> bool:
    """Take one layer off; False when the payload begins with none."""
    payload = line.payload
    first = payload[:1]
    if first == b"{":
        if JSON_HEAD.match(payload):
            return False
        envelope = open_envelope(payload)
        if envelope is None:
            return False
        _take(line, envelope)
        return True
    if first.isdigit():
        return _peel_dated(line)
    if first == b"[":
        match = _PREFIX.match(payload)
        if match is None:
            return _peel_monotonic(line)
        line.pod, line.container = _text(match[1]), _text(match[2])
        line.interleaved = True
        line.payload = payload[match.end() :]
        return True
    if first.isupper():
        return _peel_journal(line)
    if first.islower():
        return _peel_stern(line)
    return False


def _peel_dated(line: Line) -> bool:
    payload = line.payload
    match = _CRI.match(payload)
    if match:
        line.partial = match[2] == b"P"
        line.piece = True
        _date(line, match[1])
        line.payload = payload[match.end() :]
        return True
    match = _JOURNAL_ISO.match(payload)
    # `2024-06-06T16:49:46Z E0606 16:49:46…` is a dated klog line, not host E0606 and process 16.
    if match and not _KLOG_DAY.fullmatch(match[2]):
        _date(line, match[1])
        return _journal(line, match[2], match[3], match.end())
    match = _TIMESTAMPS.match(payload)
    if match:
        _date(line, match[1])
        line.payload = payload[match.end() :]
        return True
    match = _JOURNAL_UNIX.match(payload)
    if match:
        if line.time is None:
            line.time = int(match[1].replace(b".", b""))
        return _journal(line, match[2], match[3], match.end())
    match = _SHORT_TIMESTAMPS.match(payload)
    if match:
        line.payload = payload[match.end() :]
        return True
    # stern prints the pod first, and a pod's name may begin with a digit.
    return _peel_stern(line)


def _peel_stern(line: Line) -> bool:
    match = _STERN.match(line.payload)
    if match is None:
        return False
    line.pod, line.container = _text(match[1]), _text(match[2] or match[3])
    line.interleaved = True
    line.payload = line.payload[match.end() :]
    return True


def _peel_monotonic(line: Line) -> bool:
    match = _JOURNAL_MONOTONIC.match(line.payload)
    return match is not None and _journal(line, match[1], match[2], match.end())


def _peel_journal(line: Line) -> bool:
    match = _JOURNAL_SHORT.match(line.payload)
    if match:
        return _journal(line, match[1], match[2], match.end())
    match = _JOURNAL_FULL.match(line.payload)
    if match:
        if match[2] == b"UTC":
            _date(line, match[1].replace(b" ", b"T") + b"Z")
        return _journal(line, match[3], match[4], match.end())
    return False


def _journal(line: Line, host: bytes, identifier: bytes, end: int) -> bool:
    line.node = line.node or _text(host)
    line.process = _text(identifier)
    line.interleaved = True
    line.payload = line.payload[end:]
    return True


def _date(line: Line, stamp: bytes) -> None:
    # The outermost date is the store's own and complete; an inner one says the same or less.
    if line.time is None:
        line.time = rfc3339(stamp)


def _take(line: Line, envelope: Envelope) -> None:
    line.payload = strip_ansi(envelope.text) if b"\x1b" in envelope.text else envelope.text
    line.partial = line.partial or envelope.partial
    line.piece = line.piece or envelope.piece
    if line.time is None:
        line.time = envelope.time
    line.node = line.node or envelope.node
    line.pod = line.pod or envelope.pod
    line.container = line.container or envelope.container
    line.process = line.process or envelope.process
    line.interleaved = line.interleaved or envelope.names_stream


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
