"""Times as log stores write them, in microseconds since the epoch, UTC. Pure; klog's year-less stamp is in `klog`."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

from kdnsctl.logs.klog import DAY, LATEST, SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9})\d*)?(?: ?(Z|UTC|[+-]\d\d:?\d\d))?$"
)
_minutes: dict[bytes, int] = {}


def rfc3339(stamp: bytes) -> int | None:
    """Microseconds since the epoch of an RFC 3339 time and its near relatives; without a zone it is taken as UTC.

    Also taken: a space for the T, a comma before the fraction, an offset without a colon (journald's short-iso), and
    any number of decimals, of which six count. None for anything else, and for what lies before 1970: a zero time that
    a program left unset, not the time of a record.
    """
    if stamp[-1:] == b"Z" and stamp[19:20] == b".":
        # The form of container runtimes and the API server, at the speed that a flood of matches asks for.
        minute = _minutes.get(stamp[:17])
        second, decimals = stamp[17:19], stamp[20:-1]
        # int() alone would also take signs, blanks and underscores from a damaged line.
        if minute is not None and second.isdigit() and decimals.isdigit():
            return minute + int(second) * SECOND + int(decimals[:6].ljust(6, b"0"))
    match = _STAMP.match(stamp)
    if match is None:
        return None
    year, month, day, hour, minutes, seconds = (int(match[group]) for group in range(1, 7))
    try:
        datetime(year, month, day, hour, minutes, min(seconds, 59), tzinfo=UTC)
    except ValueError:
        return None
    start = calendar.timegm((year, month, day, hour, minutes, 0)) * SECOND
    zone = match[8]
    if zone == b"Z" and stamp[10:11] == b"T" and 0 < start < LATEST - DAY:
        if len(_minutes) > 100_000:
            _minutes.clear()
        _minutes[stamp[:17]] = start
    if zone not in (b"Z", b"UTC", None):
        shift = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * SECOND
        start += shift if zone[:1] == b"-" else -shift
    moment = start + seconds * SECOND + int((match[7] or b"").ljust(6, b"0")[:6])
    return moment if 0 < moment < LATEST else None


def epoch(number: float) -> int | None:
    """Microseconds of a number of seconds, milli-, micro- or nanoseconds since the epoch, told apart by its size."""
    if not 0 < number < 1e20:
        return None
    if number < 1e11:
        return round(number * 1_000_000)
    if number < 1e14:
        return round(number * 1_000)
    return int(number) if number < 1e17 else int(number // 1_000)


def to_datetime(moment: int | None) -> datetime | None:
    """An aware UTC datetime, or None."""
    return None if moment is None else _EPOCH + timedelta(microseconds=moment)


def from_datetime(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
