"""Pods that exist in memory: logs are lists, exec runs on this machine, port-forward connects to loopback.

Stands in for the kubelet in the tests of the API, through the same `PodRuntime`.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from kdnsctl.lab.runtime import (
    Chunk,
    CommandNotStarted,
    ContainerNotRunning,
    NodeUnreachable,
    Output,
    PortRefused,
    PreviousNotFound,
)

_PIECE = 65536


@dataclass
class Log:
    """The lines of one container instance, each with its time and without its newline."""

    lines: list[tuple[datetime, bytes]] = field(default_factory=list)
    ended: bool = False


class MemoryLogStream:
    def __init__(self, pieces: Iterator[bytes], close: threading.Event, condition: threading.Condition) -> None:
        self._pieces, self._closed, self._condition = pieces, close, condition

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        with self._condition:
            self._closed.set()
            self._condition.notify_all()


class ProcessSession:
    """A command on this machine, as an exec session."""

    def __init__(self, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool) -> None:
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE if stdout else subprocess.DEVNULL,
                stderr=subprocess.PIPE if stderr else subprocess.DEVNULL,
            )
        except OSError as cause:
            raise CommandNotStarted(f'exec: "{command[0]}": executable file not found in $PATH') from cause
        self._chunks: queue.Queue[Chunk | None] = queue.Queue(maxsize=4)
        self._closing = threading.Event()
        self._threads = []
        for source, pipe in ((Output.STDOUT, self._process.stdout), (Output.STDERR, self._process.stderr)):
            if pipe is not None:
                thread = threading.Thread(target=self._pump, args=(source, pipe.fileno()), daemon=True)
                self._threads.append(thread)
        self._open = len(self._threads)
        for thread in self._threads:
            thread.start()

    def _pump(self, source: Output, descriptor: int) -> None:
        while data := os.read(descriptor, _PIECE):
            if not self._put(Chunk(source, data)):
                break
        self._put(None)

    def _put(self, chunk: Chunk | None) -> bool:
        while not self._closing.is_set():
            try:
                self._chunks.put(chunk, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def read(self) -> Chunk | None:
        while self._open and not self._closing.is_set():
            chunk = self._chunks.get()
            if chunk is not None:
                return chunk
            self._open -= 1
        return None

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def resize(self, width: int, height: int) -> None:
        pass

    def exit_code(self) -> int:
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def close(self) -> None:
        """End the command, too: a test leaves no process behind."""
        self._closing.set()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join()
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._chunks.put(None)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    # What the command never read has nowhere to go.
                    continue


class MemoryRuntime:
    """Fill `logs` and `ports`, name what does not work in `unreachable` and `waiting`."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
        self._logs: dict[tuple[str, str, str], list[Log]] = {}
        self.ports: dict[tuple[str, str, int], tuple[str, int]] = {}
        self.unreachable: dict[str, str] = {}
        self.waiting: dict[tuple[str, str, str], str] = {}
        self.commands: list[tuple[str, ...]] = []
        self._condition = threading.Condition()
        self.followers = 0

    def log(self, namespace: str, pod: str, container: str, *lines: str, at: datetime | None = None) -> None:
        """Write lines to the container's log, one second apart from `at` on."""
        with self._condition:
            log = self._current(namespace, pod, container)
            start = at or (log.lines[-1][0] + timedelta(seconds=1) if log.lines else self.now)
            for index, line in enumerate(lines):
                log.lines.append((start + timedelta(seconds=index), line.encode()))
            self._condition.notify_all()

    def restart(self, namespace: str, pod: str, container: str) -> None:
        """End the container's instance; its log is the previous one from now on."""
        with self._condition:
            self._current(namespace, pod, container).ended = True
            self._logs[namespace, pod, container].append(Log())
            self._condition.notify_all()

    def end(self, namespace: str, pod: str, container: str) -> None:
        """End the container for good, and with it everybody who follows."""
        with self._condition:
            self._current(namespace, pod, container).ended = True
            self._condition.notify_all()

    def wait_for_followers(self, count: int) -> None:
        with self._condition:
            assert self._condition.wait_for(lambda: self.followers >= count, 30)

    def _current(self, namespace: str, pod: str, container: str) -> Log:
        return self._logs.setdefault((namespace, pod, container), [Log()])[-1]

    def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        follow: bool = False,
        tail_lines: int | None = None,
        since_time: datetime | None = None,
        since_seconds: int | None = None,
        limit_bytes: int | None = None,
        timestamps: bool = False,
    ) -> MemoryLogStream:
        if pod in self.unreachable:
            raise NodeUnreachable(self.unreachable[pod])
        if reason := self.waiting.get((namespace, pod, container)):
            raise ContainerNotRunning(f"container {container} is not running", reason=reason)
        with self._condition:
            self._current(namespace, pod, container)
            instances = self._logs[namespace, pod, container]
            if previous and len(instances) < 2:
                raise PreviousNotFound(f'previous terminated container "{container}" in pod "{pod}" not found')
            log = instances[-2 if previous else -1]
            start = since_time if since_seconds is None else self.now - timedelta(seconds=since_seconds)
            first = next((i for i, (moment, _) in enumerate(log.lines) if start is None or moment >= start),
                         len(log.lines))  # fmt: skip
            if tail_lines is not None:
                first = max(first, len(log.lines) - tail_lines)
        closed = threading.Event()
        pieces = self._read(log, first, follow, limit_bytes, timestamps, closed)
        return MemoryLogStream(pieces, closed, self._condition)

    def _read(
        self, log: Log, place: int, follow: bool, limit: int | None, timestamps: bool, closed: threading.Event
    ) -> Iterator[bytes]:
        while True:
            with self._condition:
                if follow and place >= len(log.lines):
                    self._wait_for_line(log, place, closed)
                lines, place = log.lines[place:], len(log.lines)
            if closed.is_set() or not lines:
                return
            for moment, line in lines:
                prefix = (moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z ").encode() if timestamps else b""
                data = prefix + line + b"\n"
                if limit is not None:
                    data, limit = data[:limit], limit - len(data)
                if data:
                    yield data
                if limit is not None and limit <= 0:
                    return

    def _wait_for_line(self, log: Log, place: int, closed: threading.Event) -> None:
        self.followers += 1
        self._condition.notify_all()
        self._condition.wait_for(lambda: place < len(log.lines) or log.ended or closed.is_set())
        self.followers -= 1
        self._condition.notify_all()

    def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
    ) -> ProcessSession:
        del namespace, container, tty
        if pod in self.unreachable:
            raise NodeUnreachable(self.unreachable[pod])
        self.commands.append(tuple(command))
        return ProcessSession(command, stdin=stdin, stdout=stdout, stderr=stderr)

    def portforward(self, namespace: str, pod: str, port: int) -> socket.socket:
        address = self.ports.get((namespace, pod, port))
        if address is None:
            raise PortRefused(f"dial tcp4 127.0.0.1:{port}: connect: connection refused")
        return socket.create_connection(address)
