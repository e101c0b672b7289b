"""A node's clock, and what its kernel's log says of full tables, from text. Pure.

Text that says nothing gives None: who read it knows whether it was all there was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

RECENT: Final = 3600.0
"""Seconds before the reading within which a full table still says something about now."""

_BTIME: Final = re.compile(rb"(?m)^btime (\d{1,12})\r?$")
_UPTIME: Final = re.compile(rb"(?m)^(\d{1,12}\.\d{1,9}) \d{1,15}\.\d{1,9}\r?$")
_SECOND: Final = timedelta(seconds=1)
# In the initial network namespace and, in newer kernels, in others ("table full in netns …"): nf_conntrack_core.c. With
# the seconds since the start, as the kernel keeps it and `dmesg` prints it, or with a date before it.
_TABLE_FULL: Final = re.compile(
    rb"(?m)^(?:<\d{1,4}>)?(?:\[ {0,12}(\d{1,12}\.\d{1,9})\])?[^\n]{0,200}?nf_conntrack:[^\n]{0,100}?table full"
)


@dataclass(frozen=True, slots=True)
class NodeClock:
    """A node's clock when it was read. `at` is the middle of what it may have shown, give or take `within`.

    `uptime` are the seconds since the kernel started, which its log counts by.
    """

    at: datetime
    within: timedelta
    uptime: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """How far a node's clock is before another, give or take `within`."""

    by: timedelta
    within: timedelta


def clock(data: bytes) -> NodeClock | None:
    """The clock in /proc/stat and /proc/uptime: the second of the start, cut off, and the time since then."""
    started, since = _BTIME.search(data), _UPTIME.search(data)
    if started is None or since is None:
        return None
    uptime = float(since[1])
    try:
        at = datetime.fromtimestamp(int(started[1]), UTC) + _SECOND / 2 + timedelta(seconds=uptime)
    except (OverflowError, OSError, ValueError):
        return None
    return NodeClock(at, _SECOND / 2, uptime)


def ahead(read: NodeClock, began: datetime, ended: datetime) -> Ahead:
    """How far a node's clock is before ours, which said `began` before it was read, and `ended` after."""
    half = (ended - began) / 2
    return Ahead(read.at - began - half, read.within + abs(half))


def table_full(data: bytes, uptime: float | None = None) -> int:
    """How often the kernel's log says that the table is full; with `uptime`, how often in the last hour before."""
    found = _TABLE_FULL.findall(data)
    if uptime is None:
        return len(found)
    return sum(1 for since in found if not since or uptime - float(since) <= RECENT)
