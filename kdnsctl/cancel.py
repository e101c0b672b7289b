"""Ending work that waits: scopes that close what was opened in them, at a deadline or when the operator interrupts.

A thread blocked in a read cannot be told to stop; what it reads from can be shut. So whoever opens a socket, a channel
or a process registers with a `CancelScope` how to shut it, and the scope does so when its time is up. The scope decides
nothing and waits for nobody: who runs the work, and what becomes of its results, is the business of `fleet`.

    with CancelScope(30) as scope, scope.closing(lambda: connection.shutdown(socket.SHUT_RDWR)):
        connection.recv(4096)

What a closer must be:
* it wakes the thread that waits. `close()` from another thread does not wake a blocked `recv`; `shutdown` does.
  A process is killed, not waited for;
* it returns at once: all closers of one moment are called in one thread, one after the other;
* it may be called while the owner is closing the same thing, and then it may fail: its errors go to the debug log.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol, Self

from kdnsctl.model import CancelledError, KdnsctlError, Reason

log = logging.getLogger(__name__)

INTERRUPTED = Reason("cancelled", "interrupted before it was finished")


class Clock(Protocol):
    """Time as scopes need it. Tests bring one that they move by hand."""

    def now(self) -> float:
        """Seconds since an arbitrary moment, never going back."""

    def call_at(self, when: float, callback: Callable[[], None], /) -> Callable[[], None]:
        """Call `callback` once when `now()` has reached `when`, at once if it has. Returns what revokes the call."""


class SystemClock:
    """`time.monotonic`, and one daemon thread, started when first needed, that makes the calls when they are due."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, int, Callable[[], None]]] = []  # a heap; the number keeps equal times in order
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._wakes_at = (
            0.0  # by when the thread looks by itself; waking it for a later call would cost, and help nobody
        )

    def now(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None], /) -> Callable[[], None]:
        with self._changed:
            call = (when, next(self._numbers), callback)
            heapq.heappush(self._calls, call)
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                thread.start()
                self._thread = thread
            if when < self._wakes_at:
                self._wakes_at = when
                self._changed.notify()

        def revoke() -> None:
            with self._changed, contextlib.suppress(ValueError):  # ValueError: it has been made
                self._calls.remove(call)
                heapq.heapify(self._calls)

        return revoke

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._calls or self._calls[0][0] > self.now():
                    self._wakes_at = self._calls[0][0] if self._calls else math.inf
                    wait = min(self._wakes_at - self.now(), threading.TIMEOUT_MAX)
                    self._changed.wait(wait)
                self._wakes_at = 0.0
                callback = heapq.heappop(self._calls)[2]
            _call(callback)


SYSTEM_CLOCK = SystemClock()


class CancelScope:
    """A stretch of work that ends at a deadline, when its parent ends, or when `cancel` is called: whichever is first.

    `seconds` from now is the deadline; None sets none. `cancelled` is set once the scope has ended early, and `reason`
    then says why. Leaving the `with` block (or `release`) is the other end: the scope watches nothing any more.
    `deadline` is the earliest that applies, by `clock`. All methods may be called from any thread.
    """

    def __init__(
        self, seconds: float | None = None, *, parent: CancelScope | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.cancelled = threading.Event()
        self.reason: Reason | None = None
        self._lock = threading.Lock()
        self._closers: dict[object, Callable[[], None]] = {}  # in the order of registration
        self.clock: Clock = parent.clock if parent else clock
        self._release = contextlib.ExitStack()

        self.deadline: float | None = parent.deadline if parent else None
        own = None if seconds is None else self.clock.now() + seconds
        if parent:
            self._release.callback(parent.register(lambda: self.cancel(parent.reason or INTERRUPTED)))
        if own is not None and seconds is not None and (self.deadline is None or own < self.deadline):
            self.deadline = own
            late = Reason("deadline", f"not finished within {duration(seconds)}")
            self._release.callback(self.clock.call_at(own, lambda: self.cancel(late)))

    def child(self, seconds: float | None = None) -> CancelScope:
        """A scope within this one: it ends when this one ends, or earlier."""
        return CancelScope(seconds, parent=self)

    @contextlib.contextmanager
    def limited(self, seconds: float | None) -> Iterator[CancelScope]:
        """A child for the length of a block, of which only the deadline is its own: a Ctrl-C in it ends this one, too.

        What is done in the block may take Ctrl-C, and end the scope that it was given; the rest must not go on then.
        """
        with self.child(seconds) as limit:
            try:
                yield limit
            finally:
                if limit.reason is not None and limit.reason.code == INTERRUPTED.code:
                    self.cancel(limit.reason)

    def cancel(self, reason: Reason = INTERRUPTED) -> None:
        """End the scope now, and every scope within it. Only the first call counts."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            closers = list(self._closers.values())
            self._closers.clear()
        self.cancelled.set()
        for closer in closers:
            _call(closer)

    def register(self, closer: Callable[[], None]) -> Callable[[], None]:
        """Have `closer` called once when the scope ends early; at once if it has. Returns what takes it back."""
        key = object()
        with self._lock:
            if self.reason is None:
                self._closers[key] = closer
                return lambda: self._forget(key)
        _call(closer)
        return lambda: None

    @contextlib.contextmanager
    def closing(self, closer: Callable[[], None]) -> Iterator[None]:
        """`register` for the length of a `with` block."""
        forget = self.register(closer)
        try:
            yield
        finally:
            forget()

    def remaining(self, at_most: float | None = None) -> float | None:
        """Seconds until the deadline, 0 when the scope has ended, but no more than `at_most`; None: no limit at all."""
        if self.cancelled.is_set():
            return 0.0
        if self.deadline is None:
            return at_most
        left = max(0.0, self.deadline - self.clock.now())
        return left if at_most is None else min(left, at_most)

    def check(self) -> None:
        """Do nothing while the scope lasts; raise why it ended (CancelledError when interrupted) when it has."""
        reason = self.reason
        if reason is None:
            return
        kind = CancelledError if reason.code == CancelledError.code else KdnsctlError
        raise kind(reason.message, code=reason.code)

    def pause(self, seconds: float) -> None:
        """Let time pass by the scope's clock, but no longer than the scope lasts; `check` tells whether it does."""
        over = threading.Event()
        revoke = self.clock.call_at(self.clock.now() + seconds, over.set)
        try:
            with self.closing(over.set):
                over.wait()
        finally:
            revoke()

    def release(self) -> None:
        """Stop watching the deadline and the parent. What is registered stays open: it belongs to its owner."""
        self._release.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _forget(self, key: object) -> None:
        with self._lock:
            self._closers.pop(key, None)


@contextlib.contextmanager
def interrupting(scope: CancelScope) -> Iterator[None]:
    """Within the block the first Ctrl-C ends `scope`, and nothing else: what must be finished is. The second raises.

    A KeyboardInterrupt can come between any two steps of the main thread, and leave what it was making half made. In
    other threads this does nothing: signals do not come there. Nor where Ctrl-C is ignored, as under nohup.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return

    ending: list[threading.Thread] = []

    def interrupted(number: int, frame: FrameType | None) -> None:
        if scope.reason is INTERRUPTED:
            signal.default_int_handler(number, frame)
        # By another thread: this one may hold the very locks that it takes.
        ending.append(threading.Thread(target=scope.cancel, name="interrupt", daemon=True))
        ending[-1].start()

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for thread in ending:  # who looks at the scope now must see that it has ended
            thread.join()


def duration(seconds: float) -> str:
    """Seconds as operators write them: 5m, 1h30m, 0.5s."""
    if seconds < 60 or seconds != int(seconds):
        return f"{seconds:g}s"
    parts = ((int(seconds) // 3600, "h"), (int(seconds) // 60 % 60, "m"), (int(seconds) % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)


def _call(callback: Callable[[], None]) -> None:
    """Call it; one that fails must not keep the others from being called, nor end the thread that calls them."""
    try:
        callback()
    except Exception:  # what it shuts may be shut already, and whatever else it is, the other closers come first
        log.debug("closing at the end of a scope failed", exc_info=True)
