"""Which runs of this program still go on, as far as this machine knows: a file for each, locked as long as it lives.

The kernel drops the lock (flock) when the process is gone, however it ended: a run whose file can be locked is over for
sure, which no process number tells. A run without a file here may go on somewhere else. So a Lease that was left by a
run that was killed need not be waited for; whose Lease that is, is known to `lock`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kdnsctl.changes.incidents import Actor, incidents_directory
from kdnsctl.model import RefusedError

_RUN: Final = re.compile(r"[0-9]{1,10}-[0-9a-f]{6}")  # as `incidents.this_actor` names them
KEPT: Final = 7 * 24 * 3600.0  # seconds; no Lease lasts as long


@dataclass(slots=True)
class Running:
    """This run's file. It stays when the run ends without `done`, as the proof that it is over."""

    path: Path

    def done(self) -> None:
        """Nothing is left anywhere that bears the run's name."""
        self.path.unlink(missing_ok=True)


def runs_directory(environment: Mapping[str, str]) -> Path:
    """$XDG_STATE_HOME/kdnsctl/runs, beside the incidents. It need not exist."""
    return incidents_directory(environment).parent / "runs"


@contextlib.contextmanager
def running(directory: Path, actor: Actor) -> Iterator[Running]:
    """Be known as going on for the length of the block. Raises RefusedError when that cannot be written down."""
    path = directory / actor.run
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _forget_old(directory)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written ({error.strerror or error}); nothing was changed",
            hint="name a writable place with XDG_STATE_HOME",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Running(path)
    finally:
        os.close(descriptor)


def is_over(directory: Path, run: str) -> bool:
    """Whether a run of this machine has ended for sure; False when nothing is known of it."""
    return _ended(directory, run) is True


def goes_on(directory: Path, run: str) -> bool:
    """Whether a run of this machine goes on, as far as it can be known; False when nothing is known of it."""
    return _ended(directory, run) is False


def _ended(directory: Path, run: str) -> bool | None:
    if not _RUN.fullmatch(run):
        return None
    try:
        descriptor = os.open(directory / run, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it goes on, or this file system has no locks
        return False
    finally:
        os.close(descriptor)
    return True


def _forget_old(directory: Path) -> None:
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > KEPT and is_over(directory, path.name):
                path.unlink()
