"""The same work on many files, in as many processes as there are cores: scanning is bound by the processor.

A process is worth its start only for much work; who decides that is the caller. Nothing is lost with a process: what it
had not finished is done here. Processes end with this one, however it ends: they read from a pipe that closes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import current_thread, main_thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each(items: Sequence[Item], work: Callable[[Item], Result], *, processes: int) -> Iterator[tuple[int, Result]]:
    """Yield (index, work(item)) for every item, in the order in which they are finished, the first ones begun first.

    `work` and the items must be picklable. What `work` raises is raised here.
    """
    waiting = list(reversed(range(len(items))))
    busy: dict[Connection, int] = {}
    started: list[BaseProcess] = []
    left: list[int] = []
    try:
        for _ in range(min(processes, len(items))):
            connection = _start(work, started)
            if connection is None:
                break
            _give(connection, items, waiting, busy, left)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)  # noqa: S101 - nothing else was waited for
                index = busy.pop(ready)
                try:
                    result: Result = ready.recv()
                except (EOFError, OSError):
                    left.append(index)  # the process died, of memory perhaps
                    continue
                _give(ready, items, waiting, busy, left)
                yield index, result
        for index in [*left, *reversed(waiting)]:
            yield index, work(items[index])
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _start(work: Callable[[Item], Result], started: list[BaseProcess]) -> Connection | None:
    """Start one process; None where the system does not let us, and the work is then done here."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    # Ctrl-C reaches the whole group; it is answered once, by the process that the operator started. A new one has to be
    # deaf to it from its first moment on, while it imports.
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN) if current_thread() is main_thread() else None
    try:
        process.start()
    except OSError:
        ours.close()
        return None
    finally:
        if answer is not None:
            signal.signal(signal.SIGINT, answer)
        theirs.close()
    started.append(process)
    return ours


def _give(
    connection: Connection, items: Sequence[Item], waiting: list[int], busy: dict[Connection, int], left: list[int]
) -> None:
    if not waiting:
        connection.close()
        return
    index = waiting.pop()
    try:
        connection.send(items[index])
    except OSError:
        left.append(index)
        return
    busy[connection] = index


def _serve(connection: Connection, work: Callable[[Item], Result]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            item: Item = connection.recv()
            connection.send(work(item))
        except (EOFError, OSError):
            return
