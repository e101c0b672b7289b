"""Do something on many nodes at once and account for every one of them.

`run` gives exactly one `Outcome` per node, in the order of the nodes, whatever happens: the work returned, failed,
broke, did not end in time, or was interrupted. It knows nothing of clusters or logs: what is done on a node is the
caller's `work`, and what an outcome means is the caller's judgement.

How it ends on time. The work runs in daemon threads of our own, since those of concurrent.futures are joined when the
interpreter exits, however long they hang. At the deadline, or on Ctrl-C, the scope shuts what the works have opened;
works that wake up have `GRACE` to tidy up. One that does not (it hangs in a call that nothing interrupts) is left
behind: its node is reported, its thread ends with the process, and no new work is started meanwhile.
"""

from __future__ import annotations

import collections
import enum
import queue
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from kdnsctl.cancel import INTERRUPTED, SYSTEM_CLOCK, CancelScope, Clock
from kdnsctl.model import KdnsctlError, Outcome, Reason, Reporter, UsageError

T = TypeVar("T")

# What the work is: the node's name, and the scope in which it opens sockets, channels and processes.
# It returns a value, never None, or raises.
Work = Callable[[str, CancelScope], T]

GRACE = 3.0  # seconds that interrupted works get to tidy up; on a busy machine one was too short for some


class _News(enum.Enum):
    """What the waiting thread is told."""

    DONE = "a node has its outcome"
    LEFT = "a worker has nothing more to do"
    GRACE_IS_OVER = "those still at work are left behind"


def run(
    nodes: Iterable[str],
    work: Work[T],
    *,
    parallel: int,
    deadline: float | None,
    reporter: Reporter,
    scope: CancelScope | None = None,
    clock: Clock = SYSTEM_CLOCK,
    what: str = "nodes",
) -> list[Outcome[T]]:
    """Do `work` on every node, at most `parallel` at once, started in order; one outcome per node, in the same order.

    `deadline` is in seconds from now, None for no limit. A `scope` may end the run earlier; it brings its own clock.
    `what` names the work for the reporter, which is called from this thread only.

    Reasons by code: that of a KdnsctlError; `internalError` for any other exception; `deadline`; `cancelled`. They keep
    the exception, if there was one.

    Ctrl-C in the main thread ends the run, and the `scope` given, so that everything else in it ends too; a second
    Ctrl-C does without the grace. The caller can tell by `scope.reason`, or by `interrupted(outcomes)`. Without a scope
    to tell by, a Ctrl-C that cancelled nothing any more is raised, as if it had come after the run.

    Raises UsageError when a node is named twice: it would be worked on twice at once.
    """
    names = list(nodes)
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"named more than once: {', '.join(twice)}; nothing was done", hint="name every node once")
    if parallel < 1:
        raise ValueError(f"at least one work must run at a time, not {parallel}")

    command = scope or CancelScope(clock=clock)
    with command.child(deadline) as limit:
        crew = _Crew(names, work, limit)
        reporter.started(what, len(names))
        try:
            crew.start(parallel, reporter)
            crew.wait(reporter)
        except KeyboardInterrupt:
            command.cancel()
            crew.wait_briefly(reporter)
        except BaseException:  # the reporter's, or no thread could be started
            command.cancel()
            raise
        finally:
            reporter.finished()
        outcomes = crew.outcomes()
    if command.reason is INTERRUPTED and scope is None and not interrupted(outcomes):
        raise KeyboardInterrupt
    return outcomes


def interrupted(outcomes: Iterable[Outcome[Any]]) -> bool:
    """Whether the operator's Ctrl-C kept any of these from being finished."""
    return any(outcome.reason is not None and outcome.reason.code == INTERRUPTED.code for outcome in outcomes)


class _Crew(Generic[T]):
    """The workers of one run, and the thread that waits for them. Each side writes only what is its own."""

    def __init__(self, names: list[str], work: Work[T], limit: CancelScope) -> None:
        self._names = names
        self._work = work
        self._limit = limit
        self._todo = collections.deque(range(len(names)))
        # Workers write here, so that an outcome counts from the moment it exists, whatever interrupts the waiting.
        self._outcomes: list[Outcome[T] | None] = [None] * len(names)
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        self._working = 0
        self._done = 0
        self._grace_is_over = False
        limit.register(self._begin_grace)  # registered first, called first: no other closer can delay the end

    def start(self, parallel: int, reporter: Reporter) -> None:
        """Start the workers: fewer than asked for if the system refuses more threads, but at least one."""
        for number in range(min(parallel, len(self._names))):
            worker = threading.Thread(target=self._worker, name=f"node-worker-{number}", daemon=True)
            self._working += 1
            try:
                worker.start()
            except RuntimeError as error:  # "can't start new thread"
                self._working -= 1
                if number == 0:
                    message = f"the system allows no further thread ({error}); nothing was done on any node"
                    raise KdnsctlError(message, hint="see `ulimit -u` and the pids limit of the container") from error
                reporter.noted(f"working on {number} nodes at once, not {parallel}: the system allows no more threads")
                return

    def wait(self, reporter: Reporter) -> None:
        """Wait until all workers have left, or the grace after the end of the scope is over.

        SimpleQueue.get without a timeout is interrupted by signals: Ctrl-C raises KeyboardInterrupt here, at once.
        """
        while self._working and not self._grace_is_over:
            match self._news.get():
                case _News.DONE:
                    self._done += 1
                    reporter.advanced(self._done)
                case _News.LEFT:
                    self._working -= 1
                case _News.GRACE_IS_OVER:
                    pass

    def wait_briefly(self, reporter: Reporter) -> None:
        """`wait` after the scope has ended; a further Ctrl-C ends this too."""
        try:
            self.wait(reporter)
        except KeyboardInterrupt:
            reporter.noted("not waiting any longer")

    def outcomes(self) -> list[Outcome[T]]:
        """What there is now: of nodes without an outcome, the reason is why the run ended."""
        unfinished = self._limit.reason or Reason("internalError", "the work ended without a result")
        return [
            outcome or Outcome(node, reason=unfinished)
            for node, outcome in zip(self._names, self._outcomes, strict=True)
        ]

    def _begin_grace(self) -> None:
        clock = self._limit.clock
        clock.call_at(clock.now() + GRACE, self._end_grace)

    def _end_grace(self) -> None:
        self._grace_is_over = True  # beside the news, which is lost if Ctrl-C comes just when it was taken
        self._news.put(_News.GRACE_IS_OVER)

    def _worker(self) -> None:
        try:
            while self._todo and not self._limit.cancelled.is_set():
                try:
                    index = self._todo.popleft()
                except IndexError:  # another worker was faster
                    return
                self._outcomes[index] = self._attempt(self._names[index])
                self._news.put(_News.DONE)
        finally:
            self._news.put(_News.LEFT)

    def _attempt(self, node: str) -> Outcome[T]:
        try:
            return Outcome(node, value=self._work(node, self._limit))
        except BaseException as error:  # noqa: BLE001 - accounted for: SystemExit too would end only this thread, silently
            _let_go_of_locals(error)
            return Outcome(node, reason=self._reason(error))

    def _reason(self, error: BaseException) -> Reason:
        ended = self._limit.reason
        if ended is not None:  # whatever it says, it fails because what it used was shut
            more = f": {error}" if isinstance(error, KdnsctlError) and str(error) != ended.message else ""
            return Reason(ended.code, ended.message + more, error)
        if isinstance(error, KdnsctlError):
            return Reason(error.code, str(error), error)
        return Reason("internalError", f"{type(error).__name__}: {error}", error)


def _let_go_of_locals(error: BaseException) -> None:
    """Keep the traceback for --debug, but not what its frames held: thousands of failures would hold many buffers."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
