"""How `kubectl get` writes lengths of time: `45s`, `3m12s`, `112m`, `5h2m`, `3d4h`, `2y3d`.

Source: Kubernetes 1.36, apimachinery pkg/util/duration `HumanDuration`. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

UNKNOWN: Final = "<unknown>"


def human(seconds: int) -> str:
    """A length of time in at most two units; "<invalid>" when it is negative by more than clock jitter."""
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    hours = seconds // 3600
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return _two(days, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = days // 365
    if hours < 24 * 365 * 8:
        return _two(years, "y", days % 365, "d")
    return f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def parse_time(text: str) -> datetime:
    """An RFC 3339 time, with fractions or without, as an aware time."""
    return datetime.fromisoformat(text).astimezone(UTC)


def age(since: str | None, now: datetime) -> str:
    """Time since a timestamp of the API, "<unknown>" when there is none."""
    if not since:
        return UNKNOWN
    return human(int((now - parse_time(since)).total_seconds()))


def interval_text(first: str | None, last: str | None, count: int, now: datetime) -> str:
    """The "Last Seen" of an event: `5s`, or `5s (x3 over 2m)` when it happened more than once."""
    if not last or count <= 1:
        return age(last or first, now)
    return f"{age(last, now)} (x{count} over {age(first, now)})"
