from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from kdnsctl.cancel import INTERRUPTED, CancelScope, SystemClock, duration, interrupting
from kdnsctl.model import CancelledError, KdnsctlError, Reason
from tests.unit.manual_clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_the_deadline_calls_every_closer_once_in_order_and_says_why(clock: ManualClock) -> None:
    scope = CancelScope(300, clock=clock)
    closed: list[str] = []
    scope.register(lambda: closed.append("socket"))
    scope.register(lambda: closed.append("process"))

    clock.advance(299)
    assert (closed, scope.cancelled.is_set(), scope.reason) == ([], False, None)

    clock.advance(1)
    assert closed == ["socket", "process"]
    assert scope.cancelled.is_set()
    assert scope.reason == Reason("deadline", "not finished within 5m")

    scope.cancel()
    clock.advance(1000)
    assert closed == ["socket", "process"]
    assert scope.reason == Reason("deadline", "not finished within 5m")


def test_a_closer_that_was_taken_back_is_not_called(clock: ManualClock) -> None:
    scope = CancelScope(10, clock=clock)
    closed: list[str] = []
    forget = scope.register(lambda: closed.append("first"))
    with scope.closing(lambda: closed.append("second")):
        pass
    forget()
    forget()
    clock.advance(10)
    assert closed == []


def test_a_closer_registered_too_late_is_called_at_once(clock: ManualClock) -> None:
    scope = CancelScope(clock=clock)
    scope.cancel()
    closed: list[str] = []
    with scope.closing(lambda: closed.append("late")):
        assert closed == ["late"]
    assert closed == ["late"]


def test_a_closer_that_fails_keeps_no_other_from_being_called(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    scope = CancelScope(1, clock=clock)
    closed: list[str] = []

    def fail() -> None:
        raise OSError("already shut")

    scope.register(fail)
    scope.register(lambda: closed.append("second"))
    with caplog.at_level("DEBUG", logger="kdnsctl"):
        clock.advance(1)
    assert closed == ["second"]
    assert "already shut" in caplog.text


def test_each_closer_is_called_once_however_many_threads_cancel() -> None:
    threads = 8
    scope = CancelScope()
    calls: list[int] = []
    for number in range(100):
        scope.register(lambda number=number: calls.append(number))  # type: ignore[misc]
    together = threading.Barrier(threads)

    def cancel() -> None:
        together.wait()
        scope.cancel()

    crowd = [threading.Thread(target=cancel) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert calls == list(range(100))


def test_a_child_ends_with_its_parent_and_for_its_reason(clock: ManualClock) -> None:
    parent = CancelScope(60, clock=clock)
    child = parent.child(3600)
    closed: list[str] = []
    child.register(lambda: closed.append("child"))

    assert child.remaining() == 60
    clock.advance(60)
    assert closed == ["child"]
    assert child.reason == Reason("deadline", "not finished within 1m")


def test_a_child_that_ends_earlier_leaves_its_parent_alone(clock: ManualClock) -> None:
    parent = CancelScope(60, clock=clock)
    child = parent.child(5)
    clock.advance(5)
    assert child.reason == Reason("deadline", "not finished within 5s")
    assert (parent.reason, parent.remaining()) == (None, 55)


def test_a_limited_block_ends_the_scope_by_ctrl_c_and_not_by_its_deadline(clock: ManualClock) -> None:
    scope = CancelScope(clock=clock)
    with scope.limited(5) as late:
        clock.advance(5)
    assert (late.reason, scope.reason) == (Reason("deadline", "not finished within 5s"), None)

    with scope.limited(5) as limit:
        limit.cancel()
        assert scope.reason is None
    assert scope.reason is INTERRUPTED


def test_who_was_interrupted_at_the_last_moment_has_ended() -> None:
    for _ in range(20):
        scope = CancelScope()
        with interrupting(scope):
            signal.raise_signal(signal.SIGINT)
        assert scope.reason is INTERRUPTED


def test_a_child_of_an_ended_scope_has_ended(clock: ManualClock) -> None:
    parent = CancelScope(clock=clock)
    parent.cancel()
    child = parent.child(5)
    assert child.reason is INTERRUPTED
    assert child.remaining() == 0


def test_a_released_scope_watches_nothing_and_keeps_nothing(clock: ManualClock) -> None:
    parent = CancelScope(clock=clock)
    with parent.child(5) as child:
        assert clock.pending == 1
    assert clock.pending == 0
    clock.advance(10)
    parent.cancel()
    assert child.reason is None
    assert not parent._closers


def test_remaining_counts_down_to_nought_and_knows_no_limit(clock: ManualClock) -> None:
    unlimited = CancelScope(clock=clock)
    assert unlimited.remaining() is None
    assert unlimited.remaining(at_most=30) == 30

    scope = unlimited.child(100)
    clock.advance(40)
    assert scope.remaining() == 60
    assert scope.remaining(at_most=30) == 30
    clock.advance(1000)
    assert scope.remaining() == 0
    unlimited.cancel()
    assert unlimited.remaining() == 0


def test_check_raises_what_an_operator_can_tell_apart(clock: ManualClock) -> None:
    scope = CancelScope(5, clock=clock)
    scope.check()
    clock.advance(5)
    with pytest.raises(KdnsctlError, match="not finished within 5s") as late:
        scope.check()
    assert late.value.code == "deadline"
    assert not isinstance(late.value, CancelledError)

    interrupted = CancelScope(clock=clock)
    interrupted.cancel()
    with pytest.raises(CancelledError, match="interrupted"):
        interrupted.check()


def test_a_thread_blocked_in_a_socket_is_woken_at_a_real_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, CancelScope(0.01) as scope, scope.closing(lambda: ours.shutdown(socket.SHUT_RDWR)):
        assert ours.recv(1) == b""  # returns only because the scope has shut it: the other end says nothing
        assert scope.cancelled.wait()


def test_a_process_is_killed_at_a_real_deadline() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process,
        CancelScope(0.01) as scope,
        scope.closing(process.kill),
    ):
        assert process.wait() == -signal.SIGKILL


def test_the_system_clock_makes_calls_in_order_of_time_and_survives_one_that_fails() -> None:
    clock = SystemClock()
    made: list[str] = []
    all_made = threading.Event()
    gate = threading.Event()

    def fail() -> None:
        raise RuntimeError("one bad call")

    def hold() -> None:
        gate.wait()

    clock.call_at(clock.now(), hold)  # holds the thread until everything is scheduled
    now = clock.now()
    clock.call_at(now + 0.003, all_made.set)
    clock.call_at(now + 0.002, lambda: made.append("second"))
    clock.call_at(now, fail)
    clock.call_at(now + 0.001, lambda: made.append("first"))
    revoke = clock.call_at(now + 0.0015, lambda: made.append("revoked"))
    revoke()
    gate.set()
    assert all_made.wait()
    assert made == ["first", "second"]
    revoke()  # again, and after its time: nothing happens


def test_the_system_clock_takes_an_earlier_call_while_it_waits_for_a_later_one() -> None:
    clock = SystemClock()
    early = threading.Event()
    clock.call_at(clock.now() + 1e9, lambda: None)
    clock.call_at(clock.now() + 0.001, early.set)
    assert early.wait()


@pytest.mark.parametrize("ended", [False, True])
def test_a_pause_lasts_as_long_as_its_time_or_the_scope(ended: bool) -> None:
    begun = threading.Event()

    class Clock(ManualClock):
        def call_at(self, when: float, callback: Callable[[], None], /) -> Callable[[], None]:
            revoke = super().call_at(when, callback)
            begun.set()
            return revoke

    clock = Clock()
    scope = CancelScope(clock=clock)
    paused = threading.Thread(target=scope.pause, args=(10,))
    paused.start()
    assert begun.wait(10)
    clock.advance(9)
    assert paused.is_alive()
    if ended:
        scope.cancel()
    else:
        clock.advance(1)
    paused.join(10)
    assert not paused.is_alive()
    assert (scope.reason is INTERRUPTED) is ended


def test_a_call_is_made_also_when_the_one_before_it_was_revoked_meanwhile() -> None:
    clock = SystemClock()
    made = [threading.Event(), threading.Event()]
    clock.call_at(clock.now() + 0.02, lambda: None)()
    clock.call_at(clock.now() + 0.04, made[0].set)
    assert made[0].wait()
    clock.call_at(clock.now() + 1e9, lambda: None)()
    clock.call_at(clock.now() + 0.001, made[1].set)
    assert made[1].wait()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "0.5s"), (30, "30s"), (60, "1m"), (90, "1m30s"), (300, "5m"), (3600, "1h"), (3661, "1h1m1s")],
)
def test_durations_are_written_as_operators_write_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class TestCtrlC:
    def test_the_first_ends_the_scope_and_nothing_else_and_the_second_raises(self) -> None:
        scope = CancelScope()
        before = signal.getsignal(signal.SIGINT)
        with interrupting(scope):
            signal.raise_signal(signal.SIGINT)
            assert scope.cancelled.wait(30)
            assert scope.reason is INTERRUPTED
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is before

    def test_one_that_comes_while_a_lock_of_the_scope_is_held_waits_for_nobody(self) -> None:
        scope = CancelScope()
        with interrupting(scope):
            with scope._lock:
                signal.raise_signal(signal.SIGINT)  # handled here, in the thread that holds it
            assert scope.cancelled.wait(30)

    def test_where_it_is_ignored_it_stays_so(self) -> None:
        scope = CancelScope()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with interrupting(scope):
                assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)
