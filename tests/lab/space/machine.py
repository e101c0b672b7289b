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
    return below(identity.pid)


def below(pid: int) -> set[Process]:
    """A process and everything it started, directly or not."""
    tree = {pid}
    above = parents()
    while more := {child for child, parent in above.items() if parent in tree} - tree:
        tree |= more
    return {(each, started) for each in tree if (started := start_time(each)) is not None}


def command_line(pid: int) -> str:
    """The words of a process, spaces between them; empty for one that came and went."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def namespaces_of(pids: set[int], *kinds: str) -> set[str]:
    """All namespaces (or those of some kinds) that these processes are in, as `net:[4026531840]`."""
    found = set()
    for pid in pids:
        for kind in kinds or ("net", "mnt", "pid", "uts", "ipc", "user"):
            with contextlib.suppress(OSError):
                found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
    return found


def _ticks() -> float:
    """Now, as `start_time` counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Traces:
    """What a lab had at some moment, to look for later."""

    processes: frozenset[Process]
    namespaces: frozenset[str]
    taken: float

    @staticmethod
    def of(where: LabDir, *others: int) -> Traces:
        """Of the lab, and of the processes `others`, which have to do with it, with all below them."""
        taken = _ticks()
        processes = processes_of(where).union(*map(below, others))
        own = namespaces_of({os.getpid()})
        found = frozenset(namespaces_of({pid for pid, _ in processes}) - own)
        return Traces(frozenset(processes), found, taken)

    def also(self, other: Traces) -> Traces:
        """Both, as of the earlier moment."""
        namespaces = self.namespaces | other.namespaces
        return Traces(self.processes | other.processes, namespaces, min(self.taken, other.taken))

    def left(self, where: LabDir) -> list[str]:
        """What of the lab is still there; empty when nothing is.

        The kernel gives the number of a namespace that is gone to a new one, so a process in a namespace of a known
        number may be another lab's, of whoever runs one beside the tests. It is when it began later, for what a lab
        starts is in the PID namespace of its first process, which is looked for itself; or when it is in a PID
        namespace that is neither the machine's nor this lab's.
        """
        found = [f"process {pid}" for pid, started in self.processes if start_time(pid) == started]
        alive = {pid: started for pid in parents() if (started := start_time(pid)) is not None}
        places = self.namespaces | namespaces_of({os.getpid()})
        old = {pid for pid, started in alive.items() if started <= self.taken and namespaces_of({pid}, "pid") <= places}
        found += [f"namespace {each}" for each in namespaces_of(old) & self.namespaces]
        found += [
            f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(where.root) in line
        ]
        if where.root.exists():
            found.append(f"directory {where.root}")
        found += [f"process {pid} about the lab" for pid in alive if _mentions(pid, str(where.root))]
        return found


def _mentions(pid: int, directory: str) -> bool:
    words = command_line(pid)
    return pid != os.getpid() and directory in words and any(each in words for each in ("kdnsctl.lab.", "sshd"))


def outside() -> dict[str, object]:
    """What a lab must leave as it is on the machine around it."""
    return {
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "routes": Path("/proc/net/route").read_text(),
        "named namespaces": sorted(os.listdir("/run/netns")) if Path("/run/netns").exists() else None,
        "ip_forward": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def eventually(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
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
