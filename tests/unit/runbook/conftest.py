"""A command line with runbooks of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdnsctl.__main__ import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def kdnsctl(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line here; runbooks are in `tmp_path/books`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "books").mkdir()
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdnsctl", "runbook", *arguments, "--runbook-dir", "books"])
        code = main()
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run
