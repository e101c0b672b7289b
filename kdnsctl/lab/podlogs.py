"""Container logs as a node keeps them: files in the CRI format below /var/log/pods, and reading them back.

A line is `TIME STREAM F|P TEXT`; a line longer than 16 KiB is split into fragments marked P, as containerd does
(pkg/cri/io/logger.go). One thread copies all containers' outputs; readers follow by waiting on the file's own
condition, never by polling. Options of a reading are applied in the kubelet's order (`lab.runtime`).
"""

# ruff: noqa: PTH123 - paths here go straight into system calls and argument lists
from __future__ import annotations

import os
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

FRAGMENT = 16 * 1024


def cri_time(nanoseconds: int) -> str:
    """RFC 3339 with nine decimals, UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class ContainerLog:
    """One container instance's log file. Written by the pump, read and followed from any thread."""

    def __init__(self, path: Path, fd: int | None = None) -> None:
        """`fd`: the file itself, open to read and append, where its path may be changed by others meanwhile."""
        if fd is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.path = path
        self._fd = fd
        weakref.finalize(self, os.close, fd)
        self.changed = threading.Condition()
        self.ended = False
        self._then: list[Callable[[], None]] = []
        self._rest: dict[str, bytes] = {}

    def write(self, stream: str, data: bytes) -> None:
        """Take output as it comes; whole lines (and full fragments) go to the file."""
        data = self._rest.pop(stream, b"") + data
        stamp = cri_time(time.time_ns())
        out = []
        while data:
            end = data.find(b"\n", 0, FRAGMENT + 1)
            if end >= 0:
                out.append(b"%b %b F %b\n" % (stamp.encode(), stream.encode(), data[:end]))
                data = data[end + 1 :]
            elif len(data) > FRAGMENT:
                out.append(b"%b %b P %b\n" % (stamp.encode(), stream.encode(), data[:FRAGMENT]))
                data = data[FRAGMENT:]
            else:
                self._rest[stream] = data
                break
        if out:
            with self.changed:
                write_all(self._fd, b"".join(out))
                self.changed.notify_all()

    def finish(self, stream: str) -> None:
        """The stream ended: an unfinished last line is written as a whole one."""
        rest = self._rest.pop(stream, b"")
        if rest:
            self.write(stream, rest + b"\n")

    def end(self) -> None:
        """Both streams ended. Followers come to their end."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
            actions, self._then = self._then, []
        for action in actions:
            action()

    def when_ended(self, action: Callable[[], None]) -> None:
        """Call `action` once everything that was said is in the file: now, or from the pump's thread."""
        with self.changed:
            if not self.ended:
                self._then.append(action)
                return
        action()

    def open(self) -> BinaryIO:
        """The file from its beginning, for one reader: the one that is written, whatever its path leads to by now."""
        return open(f"/proc/self/fd/{self._fd}", "rb")


def write_all(fd: int, data: bytes) -> None:
    """Write to a regular file, however many calls the kernel makes of it. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


class LogPump:
    """Copies the outputs of all containers to their logs, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._new: deque[tuple[int, ContainerLog, str]] = deque()
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._open: dict[int, int] = {}
        threading.Thread(target=self._run, name="log-pump", daemon=True).start()

    def add(self, log: ContainerLog, stdout: int, stderr: int) -> None:
        """Take over the reading ends of a container's two output pipes."""
        with self._lock:
            self._new.extend(((stdout, log, "stdout"), (stderr, log, "stderr")))
        os.write(self._wake_write, b"+")

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_read, 4096)
                    self._register()
                    continue
                log, stream = key.data
                data = os.read(key.fd, 65536)
                if data:
                    log.write(stream, data)
                    continue
                self._selector.unregister(key.fd)
                os.close(key.fd)
                log.finish(stream)
                left = self._open[id(log)] = self._open[id(log)] - 1
                if not left:
                    del self._open[id(log)]
                    log.end()

    def _register(self) -> None:
        with self._lock:
            while self._new:
                fd, log, stream = self._new.popleft()
                self._open[id(log)] = self._open.get(id(log), 0) + 1
                self._selector.register(fd, selectors.EVENT_READ, (log, stream))


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log to read; see `runtime.PodRuntime.logs`."""

    follow: bool = False
    tail_lines: int | None = None
    since: datetime | None = None
    limit_bytes: int | None = None
    timestamps: bool = False


class LogReader:
    """An iterator over a log's bytes with the options applied; `close` from any thread ends it."""

    def __init__(self, log: ContainerLog, options: LogOptions) -> None:
        self._log = log
        self._options = options
        self._closed = False
        self._pieces = self._limited()

    def __iter__(self) -> LogReader:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        with self._log.changed:
            self._closed = True
            self._log.changed.notify_all()

    def _limited(self) -> Iterator[bytes]:
        left = self._options.limit_bytes
        for piece in self._wanted():
            if left is None:
                yield piece
                continue
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    def _wanted(self) -> Iterator[bytes]:
        """Lines the options select: first what is there, then what comes."""
        since = cri_time(int(self._options.since.timestamp() * 1e9)).encode() if self._options.since else b""
        with self._log.open() as file:
            tail = self._options.tail_lines
            present = self._rendered(file, since)
            if tail is None:
                yield from present
            elif tail > 0:
                yield from _last_lines(present, tail)
            else:
                for _ in present:
                    continue
            while self._options.follow:
                with self._log.changed:
                    # Ended before the last look at the file: nothing can come any more.
                    ended = self._log.ended
                    fresh = list(self._rendered(file, since))
                    if not fresh and not ended and not self._closed:
                        self._log.changed.wait()
                if self._closed:
                    return
                yield from fresh
                if ended and not fresh:
                    return

    def _rendered(self, file: BinaryIO, since: bytes) -> Iterator[bytes]:
        fragment = False
        for stamp, text in _records(file):
            if stamp >= since:
                # Only the first fragment of a split line carries the time.
                yield stamp + b" " + text if self._options.timestamps and not fragment else text
            fragment = not text.endswith(b"\n")


def _records(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(time, text) of each complete line; a fragment's text has no newline."""
    while True:
        place = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(place)
            return
        parts = line[:-1].split(b" ", 3)
        if len(parts) == 4:
            text = parts[3] + (b"\n" if parts[2] == b"F" else b"")
            yield parts[0], text


def _last_lines(pieces: Iterator[bytes], count: int) -> list[bytes]:
    kept: deque[list[bytes]] = deque(maxlen=count)
    current: list[bytes] = []
    for piece in pieces:
        current.append(piece)
        if piece.endswith(b"\n"):
            kept.append(current)
            current = []
    if current:
        kept.append(current)
    return [piece for line in kept for piece in line]
