"""The commands of `kdnsctl lab` as a user types them, on labs of a user who has no others."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdnsctl.__main__ import main
from kdnsctl.lab import space
from kdnsctl.lab.spacedir import LabDir

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Kdnsctl = Callable[..., Ran]


@pytest.fixture(scope="session")
def command_home() -> Iterator[Path]:
    """A state directory whose labs are gone when the tests are over."""
    directory = Path(tempfile.mkdtemp(prefix="kdnsctl-state-"))
    yield directory
    labs = directory / "kdnsctl" / "lab"
    left = [each.name for each in labs.iterdir()] if labs.exists() else []
    shutil.rmtree(directory)
    assert left == []


@pytest.fixture
def home(command_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in force."""
    monkeypatch.setenv("XDG_STATE_HOME", str(command_home))
    return command_home


@pytest.fixture
def kdnsctl(
    home: Path,  # noqa: ARG001  # in force while the command runs
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Kdnsctl:
    """Runs a command line in this process; what commands inside the lab print is caught, too."""

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kdnsctl", *arguments])
        code = main()
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def as_process(home: Path) -> tuple[list[str], dict[str, str]]:
    """The beginning of a command line, and the environment, that run kdnsctl in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home)}
    return [sys.executable, "-P", "-m", "kdnsctl"], environment


def lab_of(home: Path, name: str) -> LabDir:
    return LabDir(home / "kdnsctl" / "lab" / name)


@contextlib.contextmanager
def lab_up(home: Path, name: str) -> Iterator[LabDir]:
    """A lab in the kernel, without SSH, for the length of the block."""
    where = lab_of(home, name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(home)}
    made = subprocess.run(
        [sys.executable, "-P", "-m", "kdnsctl", "lab", "up", name, "--no-ssh"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    yield where
    space.down(name, root=where.root.parent)
