"""A clock for tests that stands still until it is moved."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable


class ManualClock:
    """Fulfils `kdnsctl.cancel.Clock`. Calls that come due are made in the thread that moves the clock, in order."""

    def __init__(self) -> None:
        self._now = 0.0
        self._calls: dict[int, tuple[float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def now(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None], /) -> Callable[[], None]:
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = (when, callback)
        self.advance(0)
        return lambda: self._revoke(number)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; what a call schedules within them is called too."""
        end = self._now + seconds
        while call := self._take_due(end):
            call()
        self._now = end

    @property
    def pending(self) -> int:
        """How many calls are still to be made."""
        return len(self._calls)

    def _take_due(self, end: float) -> Callable[[], None] | None:
        with self._lock:
            due = [(when, number) for number, (when, _) in self._calls.items() if when <= end]
            if not due:
                return None
            when, number = min(due)
            self._now = max(self._now, when)
            return self._calls.pop(number)[1]

    def _revoke(self, number: int) -> None:
        with self._lock:
            self._calls.pop(number, None)
