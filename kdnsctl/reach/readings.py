"""What every rung does when it reads a fact: note what comes, cap it, and tell whether it was cut off.

A rung brings the way to run a command line on a node (`Run`); the time limit, the filter and the trailer are put around
the command here, in the same way for all of them.
"""

from __future__ import annotations

import datetime as dt
import secrets
import time
from collections.abc import Callable
from typing import Final

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.model import Fact, KdnsctlError, NodeChange, Proof, Reason
from kdnsctl.netfilter import trailer
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.reach.limits import LATE, limited
from kdnsctl.reach.shell import MAX_STDERR, Reading, Sink

SLACK: Final = 15  # seconds on top of what a command may take on the node: for what is still on its way
KILLED: Final = 137  # a shell's exit code for a program that SIGKILL has ended
KILLED_BY_LIMIT: Final = "the command was killed on the node"

# Runs an argument list on a node; what it prints goes to the callback. Raises KdnsctlError when it breaks off.
Run = Callable[[list[str], Callable[[bytes], None]], object]


class TooLongError(KdnsctlError):
    """There is more output than a fact may have."""

    code = "tooLong"


def as_fact(change: NodeChange) -> Fact:
    """A step on a node, as what is read of it: it runs under the same limits, and its end is known in the same way."""
    return Fact(
        id=change.step.verb,
        title=f"the step {change.step.verb}",
        privilege=change.privilege,
        proof=Proof.TRAILER,
        max_bytes=change.max_bytes,
        seconds=change.seconds,
        commands=change.commands,
    )


class ReadingLog:
    """What is noted while a fact is read by the rung of that name."""

    def __init__(self, fact: Fact, node: str, rung: str, sink: Sink) -> None:
        self._fact = fact
        self._node = node
        self._rung = rung
        self._sink = sink
        self._sink_error: BaseException | None = None
        self._began: tuple[dt.datetime, float] | None = None
        self._received = 0
        self._stderr = bytearray()
        self._stderr_bytes = 0

    def begin(self) -> None:
        """The node has accepted what is asked."""
        self._began = dt.datetime.now(dt.UTC), time.monotonic()

    def take(self, piece: bytes) -> None:
        """The next bytes of the output. Raises TooLongError, and what the sink raises."""
        piece, more = piece[: self._fact.max_bytes - self._received], len(piece)
        if piece:
            self._received += len(piece)
            try:
                self._sink(piece)
            except BaseException as error:
                self._sink_error = error
                raise
        if more > len(piece):
            raise TooLongError(f"it is longer than {self._fact.max_bytes} bytes; the rest was not read")

    def complain(self, piece: bytes) -> None:
        """The next bytes of what the command complains."""
        self._stderr_bytes += len(piece)
        self._stderr += piece[: MAX_STDERR - len(self._stderr)]

    def follow(self, work: Callable[[], object], scope: CancelScope) -> Reason | None:
        """Do it; why it broke off, once it had begun.

        Raises what kept it from beginning, what ended the scope, and what the sink raised.
        """
        try:
            work()
        except KdnsctlError as error:
            scope.check()
            if self._sink_error is not None:
                raise self._sink_error from None
            if self._began is None:
                raise
            return Reason(error.code, str(error), error)
        return None

    def reading(self, completeness: Completeness, exit_code: int | None, total: int | None) -> Reading:
        """The reading is over."""
        ended, stopped = dt.datetime.now(dt.UTC), time.monotonic()
        started, since = self._began or (ended, stopped)
        return Reading(
            fact=self._fact.id,
            node=self._node,
            rung=self._rung,
            completeness=completeness,
            started=started,
            ended=ended,
            seconds=stopped - since,
            received=self._received,
            exit_code=exit_code,
            total=total,
            stderr=bytes(self._stderr),
            stderr_bytes=self._stderr_bytes,
        )


def read_command(
    fact: Fact,
    command: tuple[str, ...],
    log: ReadingLog,
    scope: CancelScope,
    run: Run,
    *,
    killed: str = KILLED_BY_LIMIT,
) -> Reading:
    """Read a fact with `command`. `killed` says what SIGKILL means on this rung. Raises as `ReadingLog.follow`."""
    token = secrets.token_hex(8)
    bounded = limited(command, fact.seconds)
    numbered = bool(fact.patterns)
    line = trailer.filtered(bounded, fact.patterns, token) if numbered else trailer.whole(bounded, token)
    splitter = trailer.TrailerSplitter(token, numbered=numbered)
    broke = log.follow(lambda: run(line, lambda piece: log.take(splitter.feed(piece))), scope)
    rest, end = splitter.finish()
    held_back = log.follow(lambda: log.take(rest), scope)
    broke = held_back or broke
    # A trailer proves more than the way the connection ended: it is the last that the node wrote.
    trusted = broke is None or (end is not None and not isinstance(broke.error, TooLongError))
    completeness = _completeness(end, fact, killed) if trusted else Completeness(problem=broke)
    return log.reading(completeness, end.exit_code if end else None, end.total if end else None)


def _completeness(end: trailer.Trailer | None, fact: Fact, killed: str) -> Completeness:
    """What the trailer proves, in words that tell the two ends that are not the command's own."""
    if end is not None and end.exit_code == LATE:
        late = f"the command was stopped on the node after {duration(fact.seconds)}"
        return Completeness(Proof.TRAILER, Reason("lateOnNode", late))
    if end is not None and end.exit_code == KILLED:
        return Completeness(Proof.TRAILER, Reason("killedOnNode", killed))
    return trailer.completeness(end)
