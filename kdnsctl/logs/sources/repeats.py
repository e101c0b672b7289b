"""Tells whether two logs hold the same records: a file given twice, or in two formats, must not be counted twice.

A klog record carries its time to the microsecond, so a record that is found in two logs of one node, whatever stands
around it there, is one record. A `MarkedTally` remembers a mark of each record it counts; and every node that its log
names, as one log that names two is not one node's. Nothing is judged here.
"""

from __future__ import annotations

import enum
from array import array
from dataclasses import dataclass, field
from zlib import adler32, crc32

from kdnsctl.logs.details import hostname_of
from kdnsctl.logs.signatures import Known
from kdnsctl.logs.tally import Tally

MOST_MARKS = 20_000
"""Records of a log that are marked, the first ones (8 bytes each)."""
MOST_HOSTNAMES = 10
_ENOUGH = 4_096
"""Bytes of a record that go into its mark: its header with the time is among the first."""


@dataclass(slots=True)
class MarkedTally(Tally):
    """A Tally that knows a record again."""

    marks: array[int] = field(default_factory=lambda: array("Q"))
    hostnames: set[str] = field(default_factory=set)

    def hit(self, known: Known, time: int | None, payload: bytes) -> None:
        """Count one record of the catalogue, and mark it if it is in the window."""
        if len(self.marks) < MOST_MARKS and (self.since is None or time is None or time >= self.since):
            beginning = payload[:_ENOUGH]
            self.marks.append(crc32(beginning) << 32 | adler32(beginning))
        if known.signature.id == "START_NODE" and len(self.hostnames) < MOST_HOSTNAMES:
            self.hostnames.update(filter(None, [hostname_of(payload)]))
        Tally.hit(self, known, time, payload)

    @property
    def all_marked(self) -> bool:
        """Whether there is a mark of every record that was counted."""
        return len(self.marks) < MOST_MARKS


class Repeats(enum.Enum):
    """How much of a log's records is also in other logs."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class Records:
    """The records of the logs that were added so far."""

    def __init__(self) -> None:
        self._tallies: list[MarkedTally] = []
        self._marks: set[int] = set()

    def add(self, tally: MarkedTally) -> None:
        """Take in what one more log has counted."""
        self._tallies.append(tally)
        self._marks.update(tally.marks)

    def again(self, tally: MarkedTally) -> Repeats:
        """How much of what `tally` counted is in the logs added, as far as it can be proven."""
        if not tally.all_marked and any(_is_same(tally, other) for other in self._tallies):
            return Repeats.ALL
        again = sum(mark in self._marks for mark in tally.marks)
        if again and again == len(tally.marks) and tally.all_marked:
            return Repeats.ALL
        return Repeats.SOME if again else Repeats.NONE


def _is_same(one: MarkedTally, other: MarkedTally) -> bool:
    """Two logs too long for marks of everything: they begin with the same records and have as many of each kind."""
    return one.marks == other.marks and {signature: count.count for signature, count in one.counts.items()} == {
        signature: count.count for signature, count in other.counts.items()
    }
