"""The same work in several processes: every item is done once, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.process import BaseProcess

import pytest

from kdnsctl.logs.sources import parallel
from kdnsctl.logs.sources.parallel import cores, each


def square(number: int) -> int:
    return number * number


def square_or_die(number: int) -> int:
    if number == 3 and os.getpid() != int(os.environ["KDNSCTL_TEST_PARENT"]):
        os._exit(1)
    return number * number


def fail(number: int) -> int:
    raise ZeroDivisionError(number)


def started(monkeypatch: pytest.MonkeyPatch) -> list[BaseProcess]:
    """The processes that are started from now on."""
    seen: list[BaseProcess] = []
    start = parallel._start

    def watched(work: object, started: list[BaseProcess]) -> object:
        connection = start(work, started)  # type: ignore[arg-type]
        seen[:] = started
        return connection

    monkeypatch.setattr(parallel, "_start", watched)
    return seen


def test_every_item_is_done_once_and_no_process_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)
    results = dict(each(range(7), square, processes=2))
    assert results == {index: index * index for index in range(7)}
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)


def test_there_are_never_more_processes_than_items(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = started(monkeypatch)
    assert list(each([5], square, processes=4)) == [(0, 25)]
    assert len(processes) == 1
    assert list(each([], square, processes=4)) == []


def test_what_a_process_left_undone_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDNSCTL_TEST_PARENT", str(os.getpid()))
    assert sorted(each(range(6), square_or_die, processes=2)) == [(index, index * index) for index in range(6)]


def test_without_processes_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: BaseProcess) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(context.Process, "start", refused)
    assert sorted(each(range(3), square, processes=2)) == [(0, 0), (1, 1), (2, 4)]


def test_an_item_that_cannot_be_sent_is_done_here() -> None:
    class Gone:
        def send(self, item: object) -> None:
            raise BrokenPipeError(item)

    waiting, busy, left = [1, 0], {}, []  # type: ignore[var-annotated]
    parallel._give(Gone(), [10, 11], waiting, busy, left)  # type: ignore[arg-type]
    assert (waiting, busy, left) == ([1], {}, [0])


def test_what_the_work_raises_ends_it_and_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that raises ends; the item is done again here, where it raises for the caller to see.
    processes = started(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        list(each([1], fail, processes=1))
    assert not any(process.is_alive() for process in processes)


def test_a_process_serves_until_its_pipe_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = multiprocessing.Pipe()
    ours.send(4)
    ours.send(5)
    answers = []

    def work(number: int) -> int:
        answers.append(number)
        if len(answers) == 2:
            ours.close()
        return square(number)

    parallel._serve(theirs, work)
    assert answers == [4, 5]
    theirs.close()


def test_this_machine_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores() >= 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_a_process_is_born_deaf_to_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    started = multiprocessing.process.BaseProcess.start

    def start(process: multiprocessing.process.BaseProcess) -> None:
        heard.append(signal.getsignal(signal.SIGINT))
        started(process)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    assert dict(each([1, 2], str, processes=2)) == {0: "1", 1: "2"}
    assert heard == [signal.SIG_IGN] * 2
    assert signal.getsignal(signal.SIGINT) is before
