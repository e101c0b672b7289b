"""klog's own line formats: the text header, the JSON record, and their times. Pure; what a message means is elsewhere.

Text (klog documentation, k8s.io/klog/v2): `Lmmdd hh:mm:ss.uuuuuu threadid file:line] msg`, L one of I W E F, no year,
the container's local time (UTC in the images). JSON (k8s.io/component-base/logs/json): `{"ts":<ms since the epoch>,
"caller":"dir/file.go:line","msg":...}`, an error has "err" and no "v". Times are int microseconds since the epoch,
UTC, everywhere in this package.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

MICROSECOND = 1
SECOND = 1_000_000 * MICROSECOND
DAY = 86_400 * SECOND
LATEST = 253_402_300_799 * SECOND
"""The last second of the year 9999, with which datetime ends."""

STAMP_LENGTH = len("0606 16:49:46.155398")
"""Bytes of the time in a text header; it follows the severity letter."""

TEXT_HEADER = re.compile(rb"([IWEF])(\d{4} \d\d:\d\d:\d\d\.\d{6}) +\d+ (?:[\w.\-]+/){0,20}([\w.\-]+\.go):\d+\] ?")
# A bounded number of escapes: the engine keeps a record of every repetition, and a line may be megabytes long.
_STRING = rb'"([^"\\]*(?:\\.[^"\\]*){0,1000})"'
JSON_HEAD = re.compile(rb'\{"ts":([0-9.eE+]+),"caller":"(?:[^"\\]*/)?([^"\\/:]+\.go):\d+","msg":' + _STRING)
_QUOTED = re.compile(_STRING + rb"(?= |$)")
_MINUTE = re.compile(rb"(\d\d)(\d\d) (\d\d):(\d\d)")
_CALLER = re.compile(r"(?:.*/)?([^/:]+\.go):\d+")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of one klog record.

    `stamp` is the text header's "mmdd hh:mm:ss.uuuuuu" or JSON's number of milliseconds, as bytes; `file` the base
    name of the Go source file. `structured`: True when `message` is the exact message of a structured record, False
    when it is a line of prose to its end, None for JSON, whose "msg" may be either. `end` is the offset in the
    payload behind the message.
    """

    stamp: bytes
    file: bytes
    message: bytes
    structured: bool | None
    end: int
    is_json: bool = False


def parse_text(payload: bytes) -> Head | None:
    """The head of a text record, or None when the payload does not begin with klog's header."""
    header = TEXT_HEADER.match(payload)
    if header is None:
        return None
    quoted = _QUOTED.match(payload, header.end())
    if quoted:
        return Head(header[2], header[3], quoted[1], True, quoted.end())
    return Head(header[2], header[3], payload[header.end() :], False, len(payload))


def parse_json(payload: bytes) -> Head | None:
    """The head of a JSON record, or None when the payload is not one of klog's: "ts", "caller" and "msg", no "level".

    Other programs on the same JSON library name a level, or leave the caller out.
    """
    head = JSON_HEAD.match(payload)
    if head:
        return Head(head[1], head[2], head[3], None, head.end(), is_json=True)
    record = decode_object(payload)
    if record is None:
        return None
    stamp, caller, message = record.get("ts"), record.get("caller"), record.get("msg")
    if isinstance(stamp, bool) or not isinstance(stamp, int | float) or not isinstance(message, str):
        return None
    place = _CALLER.fullmatch(caller) if isinstance(caller, str) else None
    if place is None or "level" in record:
        return None
    file, text = place[1].encode("utf-8", "replace"), message.encode("utf-8", "replace")
    return Head(repr(stamp).encode(), file, text, None, len(payload), is_json=True)


def parse(payload: bytes) -> Head | None:
    """The head of a klog record in either format, or None."""
    return parse_json(payload) if payload[:1] == b"{" else parse_text(payload)


_decoder = msgspec.json.Decoder()
_lenient = json.JSONDecoder(strict=False)


def decode(document: bytes) -> Any:
    """Any JSON value, or None for what is no JSON.

    What careless writers leave in it is replaced or taken as it is, not refused: bytes that are not UTF-8, bare control
    characters in strings, halves of surrogate pairs.
    """
    try:
        return _decoder.decode(document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        try:
            return _lenient.decode(document.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None


def decode_object(payload: bytes) -> dict[str, Any] | None:
    """A JSON object, or None for anything else; see `decode`."""
    value = decode(payload)
    return value if isinstance(value, dict) else None


def json_time(stamp: bytes) -> int | None:
    """JSON's "ts", milliseconds since the epoch with decimals, in microseconds; None when it is out of range."""
    # Digit by digit: as a float, a time of these days is only good to a quarter of a microsecond.
    whole, _, decimals = stamp.partition(b".")
    if whole.isdigit() and (decimals.isdigit() or not decimals) and len(whole) < 16:
        moment = int(whole) * 1000 + int(decimals[:3].ljust(3, b"0"))
    else:
        try:
            moment = round(float(stamp.replace(b"_", b"?")) * 1000)
        except (ValueError, OverflowError):
            return None
    return moment if 0 < moment < LATEST else None


class TextClock:
    """Turns a text header's stamp, which has no year, into microseconds since the epoch.

    With `year` every stamp is in that year; else it is in the latest year that does not put it more than a day after
    `reference` (microseconds; when the log was last written), so a log that runs over New Year comes out right.
    """

    def __init__(self, reference: int, year: int | None = None) -> None:
        self._reference = reference
        self._year = year
        self._minutes: dict[bytes, int] = {}

    def time(self, stamp: bytes) -> int | None:
        """Microseconds since the epoch of "mmdd hh:mm:ss.uuuuuu", or None when there is no such moment."""
        start = self._minutes.get(stamp[:10])
        if start is None:
            if len(self._minutes) > 100_000:
                self._minutes.clear()
            start = self._start_of(stamp[:10])
            if start is None:
                return None
            self._minutes[stamp[:10]] = start
        # int() alone would also take signs, blanks and underscores from a damaged line.
        seconds, decimals = stamp[11:13], stamp[14:20]
        if not (seconds.isdigit() and decimals.isdigit()):
            return None
        return start + int(seconds) * SECOND + int(decimals)

    def _start_of(self, minute: bytes) -> int | None:
        parts = _MINUTE.fullmatch(minute)
        if parts is None:
            return None
        month, day, hour, minutes = map(int, parts.groups())
        if self._year is not None:
            return _microseconds(self._year, month, day, hour, minutes)
        latest = self._reference + DAY
        year = time.gmtime(latest // SECOND).tm_year
        # 29 February exists only every few years: go back to the last one that had it.
        for candidate in range(year, year - 9, -1):
            moment = _microseconds(candidate, month, day, hour, minutes)
            if moment is not None and moment <= latest:
                return moment
        return None


def _microseconds(year: int, month: int, day: int, hour: int, minute: int) -> int | None:
    try:
        moment = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    return calendar.timegm(moment.timetuple()) * SECOND
