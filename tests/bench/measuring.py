"""Runs one process and says what it took: time by the wall and on the CPU, and its peak of anonymous memory.

CPU time is what the kernel charged to the process and to the children it waited for (wait4). Anonymous memory, the part
that is really its own and not the page cache's, has no high-water mark in the kernel (VmHWM counts mapped files too),
so it is sampled every few milliseconds, over the process and its descendants; a peak between two samples is missed.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_EVERY = 5  # milliseconds
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run took, in seconds and bytes, and what it printed. `anonymous` is 0 when it was not sampled."""

    wall: float
    cpu: float
    anonymous: int
    exit_code: int
    output: bytes
    errors: bytes


class RunError(Exception):
    """A process that is measured did not do its work."""


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    exit_codes: Sequence[int] = (0,),
    sample: bool = False,
) -> Usage:
    """Run `command` to its end. Raises RunError, with what it said, when it ends with none of `exit_codes`."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(  # not as a context: wait4 below waits for it, and tells more
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        anonymous = _peak(process.pid) if sample else 0
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        result = Usage(
            wall, usage.ru_utime + usage.ru_stime, anonymous, process.returncode, output.read(), errors.read()
        )
    if result.exit_code not in exit_codes:
        said = result.errors.decode(errors="replace").strip() or "it said nothing"
        raise RunError(f"{' '.join(command[:4])} … ended with exit code {result.exit_code}: {said[-2000:]}")
    return result


def _peak(pid: int) -> int:
    """The highest sum of anonymous memory seen until the process ends."""
    peak = 0
    descriptor = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(descriptor, select.POLLIN)
        while not ended.poll(SAMPLE_EVERY):
            peak = max(peak, sum(map(_anonymous, _with_descendants(pid))))
    finally:
        os.close(descriptor)
    return peak


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
    except OSError:  # ended meanwhile
        return
    for task in tasks:
        try:
            listed = (task / "children").read_text(encoding="ascii").split()
        except OSError:
            continue
        for child in listed:
            yield from _with_descendants(int(child))


def _anonymous(pid: int) -> int:
    """Bytes of anonymous memory (proc(5), RssAnon), 0 for a process that has ended meanwhile."""
    try:
        status = (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0
