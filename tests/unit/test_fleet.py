from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnsctl import fleet
from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.model import KdnsctlError, Outcome, Reason, SilentReporter, UsageError
from tests.unit.manual_clock import ManualClock

LATE = Reason("deadline", "not finished within 5m")


class RecordingReporter:
    """Keeps every call and the thread it came from; runs `on_advance`, if given, after each step."""

    def __init__(self, on_advance: Callable[[int], None] = lambda _: None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.threads: set[int] = set()
        self._on_advance = on_advance

    def started(self, what: str, total: int | None) -> None:
        self._record("started", what, total)

    def advanced(self, done: int, total: int | None = None) -> None:
        assert total is None
        self._record("advanced", done)
        self._on_advance(done)

    def noted(self, message: str) -> None:
        self._record("noted", message)

    def finished(self) -> None:
        self._record("finished")

    def _record(self, *call: object) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())


@contextmanager
def in_thread(function: Callable[[], None]) -> Iterator[None]:
    """Run `function` beside the body, and wait for it at the end."""
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def names(count: int) -> list[str]:
    return [f"knode{number}" for number in range(count)]


def test_every_node_has_its_outcome_in_the_order_of_the_nodes() -> None:
    third_done = threading.Event()

    def work(node: str, scope: CancelScope) -> str:
        assert scope.reason is None
        if node == "knode0":  # finishes last
            third_done.wait()
        if node == "knode1":
            raise KdnsctlError("knode1 is not reachable: no route to host", code="unreachable")
        if node == "knode2":
            third_done.set()
            raise ZeroDivisionError("a bug")
        return node.upper()

    outcomes = fleet.run(names(4), work, parallel=3, deadline=300, reporter=SilentReporter())

    assert outcomes == [
        Outcome("knode0", "KNODE0"),
        Outcome("knode1", reason=Reason("unreachable", "knode1 is not reachable: no route to host")),
        Outcome("knode2", reason=Reason("internalError", "ZeroDivisionError: a bug")),
        Outcome("knode3", "KNODE3"),
    ]
    assert not fleet.interrupted(outcomes)


@settings(max_examples=50)
@given(
    count=st.integers(0, 40),
    parallel=st.integers(1, 50),
    ends=st.lists(st.sampled_from(["value", "error", "bug", "exit", "interrupt", "nothing"]), min_size=40, max_size=40),
)
def test_whatever_the_works_do_each_node_has_one_outcome_and_the_limit_holds(
    count: int, parallel: int, ends: list[str]
) -> None:
    lock = threading.Lock()
    active = 0
    most = 0
    worked_on: list[str] = []

    def work(node: str, _scope: CancelScope) -> str:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
            worked_on.append(node)
        try:
            match ends[int(node.removeprefix("knode"))]:
                case "value":
                    return node
                case "error":
                    raise KdnsctlError("refused")
                case "bug":
                    raise ValueError("a bug")
                case "exit":
                    sys.exit(3)
                case "interrupt":
                    raise KeyboardInterrupt
                case _:
                    return None  # type: ignore[return-value]
        finally:
            with lock:
                active -= 1

    outcomes = fleet.run(names(count), work, parallel=parallel, deadline=None, reporter=SilentReporter())

    assert [outcome.node for outcome in outcomes] == names(count)
    assert sorted(worked_on) == sorted(names(count))
    assert most <= parallel
    codes = {"value": None, "error": "failed"}
    for outcome, end in zip(outcomes, ends, strict=False):
        assert (outcome.reason and outcome.reason.code) == codes.get(end, "internalError")


@pytest.mark.parametrize(("parallel", "rounds"), [(1, 5), (2, 4), (7, 3)])
def test_as_many_works_run_at_once_as_asked_for_and_never_more(parallel: int, rounds: int) -> None:
    together = threading.Barrier(parallel)  # passed only if `parallel` works are in it at once
    lock = threading.Lock()
    active = 0
    most = 0

    def work(_node: str, _scope: CancelScope) -> bool:
        nonlocal active, most
        with lock:
            active += 1
            most = max(most, active)
        together.wait()
        with lock:
            active -= 1
        return True

    outcomes = fleet.run(names(parallel * rounds), work, parallel=parallel, deadline=None, reporter=SilentReporter())
    assert all(outcome.value for outcome in outcomes)
    assert most == parallel


def test_works_are_started_in_order() -> None:
    started: list[str] = []

    def work(node: str, _scope: CancelScope) -> bool:
        started.append(node)
        return True

    fleet.run(names(50), work, parallel=1, deadline=None, reporter=SilentReporter())
    assert started == names(50)


def test_no_node_at_all_is_nothing_to_do() -> None:
    reporter = RecordingReporter()
    assert fleet.run([], lambda node, _: node, parallel=4, deadline=1, reporter=reporter) == []
    assert reporter.calls == [("started", "nodes", 0), ("finished",)]


def test_a_node_named_twice_is_refused_before_anything_is_done() -> None:
    worked_on: list[str] = []

    def work(node: str, _scope: CancelScope) -> bool:
        worked_on.append(node)
        return True

    with pytest.raises(UsageError, match="named more than once: b, a; nothing was done"):
        fleet.run(["b", "a", "b", "c", "a"], work, parallel=2, deadline=None, reporter=SilentReporter())
    assert worked_on == []


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fleet.run(["a"], lambda node, _: node, parallel=0, deadline=None, reporter=SilentReporter())


def test_the_deadline_ends_works_by_shutting_what_they_opened() -> None:
    clock = ManualClock()
    waiting = threading.Barrier(3)
    shut: list[str] = []
    started: list[str] = []

    def work(node: str, scope: CancelScope) -> str:
        started.append(node)
        if node == "knode0":
            return node
        connection = threading.Event()

        def shut_down() -> None:
            shut.append(node)
            connection.set()

        with scope.closing(shut_down):
            waiting.wait()
            connection.wait()
            raise OSError("Bad file descriptor")  # what a read from something that was shut ends with

    def let_time_pass() -> None:
        waiting.wait()
        clock.advance(300)

    with in_thread(let_time_pass):
        outcomes = fleet.run(names(9), work, parallel=2, deadline=300, reporter=SilentReporter(), clock=clock)

    assert outcomes == [Outcome("knode0", "knode0"), *(Outcome(node, reason=LATE) for node in names(9)[1:])]
    assert sorted(shut) == ["knode1", "knode2"]
    assert len(started) == 3  # nothing was started after the deadline
    assert isinstance(outcomes[1].reason and outcomes[1].reason.error, OSError)
    assert outcomes[8].reason is not None
    assert outcomes[8].reason.error is None


def test_what_is_finished_within_the_grace_counts_and_what_is_said_there_is_kept() -> None:
    clock = ManualClock()
    waiting = threading.Barrier(3)

    def work(node: str, scope: CancelScope) -> str:
        waiting.wait()
        scope.cancelled.wait()
        if node == "knode0":
            return "what was read so far"
        raise KdnsctlError("the pod kdns-1 could not be deleted")

    def let_time_pass() -> None:
        waiting.wait()
        clock.advance(300)

    with in_thread(let_time_pass):
        outcomes = fleet.run(names(2), work, parallel=2, deadline=300, reporter=SilentReporter(), clock=clock)
    assert outcomes == [
        Outcome("knode0", "what was read so far"),
        Outcome("knode1", reason=Reason("deadline", f"{LATE.message}: the pod kdns-1 could not be deleted")),
    ]


def test_a_work_that_only_says_that_its_scope_has_ended_says_it_once() -> None:
    scope = CancelScope()

    def work(_node: str, scope: CancelScope) -> str:
        scope.cancelled.wait()
        scope.check()
        raise AssertionError

    with in_thread(scope.cancel):
        outcomes = fleet.run(["knode0"], work, parallel=1, deadline=None, reporter=SilentReporter(), scope=scope)
    assert outcomes == [Outcome("knode0", reason=INTERRUPTED)]


def test_a_work_that_ignores_the_deadline_is_left_behind_after_the_grace() -> None:
    clock = ManualClock()
    waiting = threading.Barrier(3)
    forever = threading.Event()
    left = threading.Event()

    def work(node: str, _scope: CancelScope) -> str:
        waiting.wait()
        forever.wait()
        left.set()
        return node

    def let_time_pass() -> None:
        waiting.wait()
        clock.advance(300 + fleet.GRACE)

    with in_thread(let_time_pass):
        outcomes = fleet.run(names(20), work, parallel=2, deadline=300, reporter=SilentReporter(), clock=clock)
    assert outcomes == [Outcome(node, reason=LATE) for node in names(20)]

    forever.set()
    left.wait()  # its late result goes nowhere
    assert outcomes == [Outcome(node, reason=LATE) for node in names(20)]


def test_an_earlier_end_of_the_scope_given_ends_the_run_for_that_reason() -> None:
    clock = ManualClock()
    command = CancelScope(60, clock=clock)
    waiting = threading.Barrier(2)

    def work(node: str, scope: CancelScope) -> str:
        assert scope.remaining() == 60
        waiting.wait()
        scope.cancelled.wait()
        raise OSError(node)

    def let_time_pass() -> None:
        waiting.wait()
        clock.advance(60)

    with in_thread(let_time_pass):
        outcomes = fleet.run(names(2), work, parallel=1, deadline=300, reporter=SilentReporter(), scope=command)
    assert [outcome.reason for outcome in outcomes] == [Reason("deadline", "not finished within 1m")] * 2


def test_a_scope_that_has_ended_before_starts_nothing() -> None:
    command = CancelScope()
    command.cancel()
    outcomes = fleet.run(
        names(3), lambda node, _: node, parallel=2, deadline=None, reporter=SilentReporter(), scope=command
    )
    assert [outcome.reason for outcome in outcomes] == [INTERRUPTED] * 3
    assert fleet.interrupted(outcomes)


def test_the_deadline_of_a_run_does_not_end_the_scope_given_and_leaves_nothing_in_it() -> None:
    clock = ManualClock()
    command = CancelScope(clock=clock)
    for _ in range(3):
        fleet.run(names(5), lambda node, _: node, parallel=2, deadline=1, reporter=SilentReporter(), scope=command)
    assert (command.reason, clock.pending, len(command._closers)) == (None, 0, 0)


def test_progress_is_reported_from_the_callers_thread_only() -> None:
    reporter = RecordingReporter()
    fleet.run(names(30), lambda node, _: node, parallel=8, deadline=None, reporter=reporter, what="logs")
    assert reporter.calls == [
        ("started", "logs", 30),
        *(("advanced", done) for done in range(1, 31)),
        ("finished",),
    ]
    assert reporter.threads == {threading.get_ident()}


def test_a_reporter_that_fails_ends_the_works_and_is_heard() -> None:
    def break_pipe(_done: int) -> None:
        raise BrokenPipeError("stderr is gone")

    ended = threading.Event()

    def work(node: str, scope: CancelScope) -> str:
        if node == "knode1":
            scope.cancelled.wait()
            ended.set()
        return node

    reporter = RecordingReporter(on_advance=break_pipe)
    with pytest.raises(BrokenPipeError, match="stderr is gone"):
        fleet.run(names(2), work, parallel=2, deadline=None, reporter=reporter)
    assert ended.wait()
    assert reporter.calls[-1] == ("finished",)


def test_ctrl_c_keeps_what_is_done_and_cancels_the_rest_and_the_command() -> None:
    command = CancelScope()

    def press_ctrl_c(done: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    def work(node: str, scope: CancelScope) -> str:
        if node in {"knode0", "knode1"}:
            return node
        scope.cancelled.wait()
        raise OSError("shut")

    reporter = RecordingReporter(on_advance=press_ctrl_c)
    outcomes = fleet.run(names(5), work, parallel=2, deadline=None, reporter=reporter, scope=command)
    assert outcomes == [
        Outcome("knode0", "knode0"),
        Outcome("knode1", "knode1"),
        *(Outcome(node, reason=INTERRUPTED) for node in names(5)[2:]),
    ]
    assert fleet.interrupted(outcomes)
    assert command.reason is INTERRUPTED


def test_ctrl_c_when_all_is_done_is_told_by_the_scope() -> None:
    def press_ctrl_c(_done: int) -> None:
        signal.raise_signal(signal.SIGINT)

    command = CancelScope()
    reporter = RecordingReporter(on_advance=press_ctrl_c)
    outcomes = fleet.run(["knode0"], lambda node, _: node, parallel=1, deadline=None, reporter=reporter, scope=command)
    assert outcomes == [Outcome("knode0", "knode0")]
    assert command.reason is INTERRUPTED


def test_ctrl_c_when_all_is_done_and_nobody_could_tell_is_raised() -> None:
    def press_ctrl_c(_done: int) -> None:
        signal.raise_signal(signal.SIGINT)

    reporter = RecordingReporter(on_advance=press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        fleet.run(["knode0"], lambda node, _: node, parallel=1, deadline=None, reporter=reporter)


def test_a_second_ctrl_c_does_without_the_grace() -> None:
    clock = ManualClock()  # stands still: the grace never ends by itself
    forever = threading.Event()

    def press_ctrl_c(_done: int) -> None:
        signal.raise_signal(signal.SIGINT)

    def work(node: str, scope: CancelScope) -> str:
        if node == "knode2":
            forever.wait()
        if node == "knode1":
            scope.cancelled.wait()
        return node

    reporter = RecordingReporter(on_advance=press_ctrl_c)
    outcomes = fleet.run(names(3), work, parallel=3, deadline=None, reporter=reporter, clock=clock)
    forever.set()
    assert outcomes == [
        Outcome("knode0", "knode0"),
        Outcome("knode1", "knode1"),
        Outcome("knode2", reason=INTERRUPTED),
    ]
    assert ("noted", "not waiting any longer") in reporter.calls


def test_an_exception_is_kept_for_debug_but_not_what_its_frames_held() -> None:
    class Buffer:
        pass

    buffers: list[weakref.ref[Buffer]] = []

    def read() -> None:
        buffer = Buffer()
        buffers.append(weakref.ref(buffer))
        raise KeyError("metadata")

    def work(_node: str, _scope: CancelScope) -> str:
        try:
            read()
        except KeyError as error:
            raise RuntimeError("no such field") from error
        raise AssertionError

    [outcome] = fleet.run(["knode0"], work, parallel=1, deadline=None, reporter=SilentReporter())
    gc.collect()
    assert outcome.reason is not None
    assert outcome.reason.error is not None
    shown = "".join(traceback.format_exception(outcome.reason.error))
    assert "KeyError: 'metadata'" in shown
    assert "in read" in shown
    assert [buffer() for buffer in buffers] == [None]


def test_fifteen_thousand_nodes_take_few_threads() -> None:
    lock = threading.Lock()
    workers: set[int] = set()
    most_alive = 0
    before = threading.active_count()

    def work(node: str, _scope: CancelScope) -> int:
        nonlocal most_alive
        with lock:
            workers.add(threading.get_ident())
            most_alive = max(most_alive, threading.active_count())
        return len(node)

    outcomes = fleet.run(names(15_000), work, parallel=32, deadline=300, reporter=SilentReporter())
    assert [outcome.value for outcome in outcomes] == [len(node) for node in names(15_000)]
    assert len(workers) <= 32
    assert most_alive <= before + 32 + 1  # and the clock's


def test_with_too_few_threads_it_goes_on_with_those_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    allowed = 2

    def refuse_the_third(thread: threading.Thread) -> None:
        nonlocal allowed
        if allowed == 0:
            raise RuntimeError("can't start new thread")
        allowed -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    reporter = RecordingReporter()
    outcomes = fleet.run(names(9), lambda node, _: node, parallel=5, deadline=None, reporter=reporter)
    assert [outcome.value for outcome in outcomes] == names(9)
    assert ("noted", "working on 2 nodes at once, not 5: the system allows no more threads") in reporter.calls


def test_without_any_thread_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(KdnsctlError, match=r"no further thread .*nothing was done on any node"):
        fleet.run(names(9), lambda node, _: node, parallel=5, deadline=None, reporter=SilentReporter())


# A work that hangs in a call which nothing interrupts, in a process of its own: what is shown is that the process ends,
# although the pipe it reads from stays open. The time limit below only keeps a failing test from hanging itself.
HANGING = """
import json, os, sys
from kdnsctl import fleet
from kdnsctl.model import SilentReporter

def work(node, scope):
    if node == "quick":
        return node
    print("reading", flush=True)
    return os.read(int(sys.argv[1]), 1)

deadline = float(sys.argv[2]) or None
nodes = ["quick", "hangs", "never-started"]
outcomes = fleet.run(nodes, work, parallel=1, deadline=deadline, reporter=SilentReporter())
codes = [outcome.reason.code if outcome.reason else outcome.value for outcome in outcomes]
print(json.dumps([fleet.interrupted(outcomes), *codes]), flush=True)
"""


@contextmanager
def hanging_process(deadline: float) -> Iterator[subprocess.Popen[str]]:
    silent, held_open = os.pipe()
    try:
        command = [sys.executable, "-c", HANGING, str(silent), str(deadline)]
        with subprocess.Popen(
            command, pass_fds=[silent], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        os.close(held_open)
        os.close(silent)


def test_a_work_that_hangs_forever_does_not_keep_the_process_alive() -> None:
    with hanging_process(deadline=1) as process:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert json.loads(output.splitlines()[-1]) == [False, "quick", "deadline", "deadline"]


def test_ctrl_c_ends_a_run_whose_work_hangs_forever() -> None:
    with hanging_process(deadline=0) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert json.loads(output) == [True, "quick", "cancelled", "cancelled"]
