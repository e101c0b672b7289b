"""The lab's directory on the machine and what it says about the running lab: the only things outside its namespaces.

One directory per lab, mode 0700, under `$XDG_STATE_HOME/kdnsctl/lab/NAME` (default `~/.local/state`). A lab is known
by its first process: PID and start time together, because PIDs come back. Reading the record never trusts a PID alone.
"""

# ruff: noqa: PTH111, PTH118 - paths here go straight into system calls and argument lists
from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class LabError(Exception):
    """Something about the lab failed; the text says what, what was left as it is, and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A lab's first process as the machine sees it."""

    pid: int
    started: int
    """Clock ticks after boot at which the process started (/proc/PID/stat, field 22)."""
    rootless: bool
    recorded: bool = False
    """It plays recordings: there are no namespaces, and nothing to break."""


@dataclass(frozen=True, slots=True)
class LabDir:
    """Paths of one lab. Nothing is created by asking for them."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def identity_file(self) -> Path:
        return self.root / "lab.json"

    @property
    def log_file(self) -> Path:
        return self.root / "lab.log"

    @property
    def control_socket(self) -> Path:
        return self.root / "control.sock"

    @property
    def space(self) -> Path:
        """Where the lab mounts a tmpfs of its own; empty to everybody outside."""
        return self.root / "space"

    @property
    def context(self) -> str:
        """The name of its context in a kubeconfig, which tells labs apart in prompts and in merged files."""
        return f"kdnsctl-lab-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def ca_file(self) -> Path:
        return self.root / "ca.crt"

    @property
    def token_file(self) -> Path:
        """A bearer token for the lab's own commands."""
        return self.root / "operator.token"

    @property
    def incident_file(self) -> Path:
        """What `break` did and `heal` has to undo."""
        return self.root / "incident.json"

    @property
    def ssh(self) -> Path:
        return self.root / "ssh"

    def node(self, name: str) -> Path:
        """What makes a node a node of its own and is not for readers: its passwd, its sshd's log."""
        return self.root / "node-files" / name

    def node_log(self, name: str) -> Path:
        """The node's /var/log, on disk for readers outside: `NODE/var/log`, as a copy of a node's files has it."""
        return self.root / "nodes" / name / "var" / "log"


def labs_root() -> Path:
    """The directory that holds all labs of this user."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "kdnsctl" / "lab"


def lab_dir(name: str, root: Path | None = None) -> LabDir:
    """The directory of lab `name`. Raises LabError for a name that could not be a file or host name."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} is no name for a lab: use 1 to 32 of a-z, 0-9 and '-', not '-' at an end")
    return LabDir((root or labs_root()) / name)


def create(where: LabDir) -> None:
    """Make the directory, new and private. Raises LabError when there is one already."""
    where.root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        where.root.mkdir(mode=0o700)
    except FileExistsError:
        raise LabError(
            f"there is a lab {where.name!r} already ({where.root}); nothing was changed. "
            f"Use it, or remove it with: kdnsctl lab down {where.name}"
        ) from None
    for each in (where.space, where.ssh):
        each.mkdir(mode=0o700)


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks after boot; None when it is gone or only a zombie is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


@contextlib.contextmanager
def locked(where: LabDir) -> Iterator[bool]:
    """Keep others from beginning or ending this lab meanwhile; False when its directory is gone.

    A lab that comes up and somebody who takes it down meet here: the first process either is recorded when `down`
    looks for it, or finds the directory gone and ends. Without, it could be recorded in a directory that is being
    removed, and nobody could find it again.
    """
    try:
        handle = os.open(where.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # Whoever had it before may have removed the directory; by now there may even be a new one.
        yield _is(handle, where.root)
    finally:
        os.close(handle)


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def write_identity(where: LabDir, identity: Identity) -> None:
    """Record the lab's first process, in one step: a reader sees all of it or nothing.

    Raises LabError when the lab was taken down meanwhile.
    """
    with locked(where) as present:
        if not present:
            raise LabError(f"{where.root} was removed while the lab came up")
        temporary = where.identity_file.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(identity)), encoding="ascii")
        temporary.rename(where.identity_file)


def read_identity(where: LabDir) -> Identity | None:
    """What is recorded, whether or not it still runs; None when nothing is. Unknown fields are another version's.

    Raises LabError for a record that is there and cannot be read: then nobody can say that the lab does not run.
    """
    try:
        return _identity(json.loads(where.identity_file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise LabError(
            f"the record of the lab's first process cannot be read, so the lab may still run: {where.identity_file}: "
            f"{error!r}. Nothing was ended or removed. Look for a process named `lab-supervisor {where.name}`, end it "
            f"if it is there (the lab ends with it), then remove {where.root} yourself"
        ) from None


def _identity(raw: Any) -> Identity:
    """Raises ValueError, KeyError, TypeError or AttributeError for what no lab has written."""
    recorded = raw.get("recorded", False)
    identity = Identity(raw["pid"], raw["started"], raw["rootless"], recorded)
    if not all(type(each) is int and each > 0 for each in (identity.pid, identity.started)):
        raise ValueError("pid and started are no positive numbers")
    if not all(type(each) is bool for each in (identity.rootless, recorded)):
        raise ValueError("rootless and recorded are not true or false")
    return identity


def is_running(identity: Identity | None) -> bool:
    """Whether the recorded first process is still the one that runs under its PID."""
    return identity is not None and start_time(identity.pid) == identity.started


def check_owner(where: LabDir) -> None:
    """Raise LabError when the lab's directory is there and is not a directory of this user's."""
    try:
        found = where.root.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise LabError(f"{where.root} is no directory of a lab; nothing was ended or removed")
    if found.st_uid != os.geteuid():
        raise LabError(
            f"{where.root} belongs to the user with id {found.st_uid}; nothing was ended or removed. "
            f"Run this as that user"
        )


def remove(where: LabDir) -> None:
    """Remove the lab's directory and everything in it; call it with the directory `locked`.

    Raises OSError when something cannot be removed. What is gone already is no error, and what a command about the lab
    writes at this moment goes with the next round.
    """
    if where.root.is_symlink():
        raise LabError(f"{where.root} is a symbolic link, not a lab's directory; nothing was removed")

    def failed(_: object, __: str, reason: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        error = reason[1]
        if not isinstance(error, OSError) or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise error

    handle = os.open(where.root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while _is(handle, where.root):
            shutil.rmtree(where.root, onerror=failed)
    finally:
        os.close(handle)
