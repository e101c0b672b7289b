"""What the tests ask of the machine itself: which processes and namespaces a lab has, and whether any is left."""

# ruff: noqa: PTH115, PTH116, PTH208 - paths here go straight into system calls and argument lists
from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.lab.spacedir import LabDir, read_identity, start_time

ROOT = Path(__file__).resolve().parents[3]
Process = tuple[int, int]
"""PID and start time: together they are one process and no other."""


def parents() -> dict[int, int]:
    """PID → parent's PID of every process of the machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def processes_of(where: LabDir) -> set[Process]:
    """The lab's first process and everything below it."""
    identity = read_identity(where)
    if identity is None or start_time(identity.pid) != identity.started:
        return set()
    tree = {identity.pid}
    above = parents()
    while more := {pid for pid, parent in above.items() if parent in tree} - tree:
        tree |= more
    return {(pid, started) for pid in tree if (started := start_time(pid)) is not None}


def namespaces_of(pids: set[int]) -> set[str]:
    """All namespaces that these processes are in, as `net:[4026531840]`."""
    found = set()
    for pid in pids:
        for kind in ("net", "mnt", "pid", "uts", "ipc", "user"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


@dataclass(frozen=True)
class Traces:
    """What a lab had at some moment, to look for later."""

    processes: frozenset[Process]
    namespaces: frozenset[str]

    @staticmethod
    def of(where: LabDir) -> Traces:
        processes = processes_of(where)
        own = namespaces_of({os.getpid()})
        return Traces(frozenset(processes), frozenset(namespaces_of({pid for pid, _ in processes}) - own))

    def left(self, where: LabDir) -> list[str]:
        """What of the lab is still there; empty when nothing is."""
        found = [f"process {pid}" for pid, started in self.processes if start_time(pid) == started]
        alive = {pid for pid in parents() if start_time(pid) is not None}
        found += [f"namespace {each}" for each in namespaces_of(alive) & self.namespaces]
        found += [
            f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(where.root) in line
        ]
        if where.root.exists():
            found.append(f"directory {where.root}")
        found += [f"process {pid} about the lab" for pid in alive if _mentions(pid, str(where.root))]
        return found


def _mentions(pid: int, text: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return pid != os.getpid() and text.encode() in words and b"kdnsctl.lab.spaceinit" in words


def outside() -> dict[str, object]:
    """What a lab must leave as it is on the machine around it."""
    return {
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "routes": Path("/proc/net/route").read_text(),
        "named namespaces": sorted(os.listdir("/run/netns")) if Path("/run/netns").exists() else None,
        "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Look until `condition` holds. For what gives no event: files and processes that come and go."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.01)
    return True


def unprivileged_command(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """A command line and environment that run this Python's modules as user nobody.

    This interpreter may lie where nobody may look (a home directory), so the system's own of the same version is the
    second choice; with neither the test fails, because a lab without root must be tested.
    """
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--"]
    paths = [str(ROOT), *(each for each in sys.path if "site-packages" in each)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}"):
        real = Path(os.path.realpath(python))
        if real.exists() and all(os.stat(each).st_mode & 0o001 for each in real.parents):
            return [*drop, python, *arguments], environment
    raise AssertionError(f"no {version} that an unprivileged user may run: install it to test the lab without root")
