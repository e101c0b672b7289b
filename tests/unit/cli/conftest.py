"""Running the command line in this process, with the judgement replaced by a report that the test chose."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO

import pytest
import trustme

from kdnsctl.__main__ import main
from kdnsctl.find import offline
from kdnsctl.find.offline import OfflineOptions
from kdnsctl.find.report import FindReport
from kdnsctl.model import Reporter
from tests.unit.cli import reports
from tests.unit.cluster.conftest import api, authority, encoded, environment, kubeconfig, silent_port, tls

__all__ = ["api", "authority", "environment", "kubeconfig", "silent_port", "tls"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def error(self) -> str:
        """The one line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str, program: str = "/usr/bin/kdnsctl", stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main()
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@dataclass
class Judge:
    """Stands in for find_in_logs: answers with `report` (or raises it) and remembers what it was asked."""

    report: FindReport | BaseException = field(default_factory=reports.report)
    asked: list[OfflineOptions] = field(default_factory=list)
    read: bytes | None = None

    def __call__(self, options: OfflineOptions, *, stdin: BinaryIO, reporter: Reporter, now: datetime) -> FindReport:
        assert now.tzinfo is not None
        self.asked.append(options)
        if "-" in options.paths:
            self.read = stdin.read()
        reporter.started("reading logs", 1)
        reporter.advanced(1)
        reporter.finished()
        if isinstance(self.report, BaseException):
            raise self.report
        return self.report


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    stand_in = Judge()
    monkeypatch.setattr(offline, "find_in_logs", stand_in)
    return stand_in


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """The environment of a process that a test would start, for this one."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def broken_dns(monkeypatch: pytest.MonkeyPatch, at_home: None) -> Iterator[None]:  # noqa: ARG001
    """A machine whose resolver hangs."""
    over = threading.Event()

    def hanging(*_: Any, **__: Any) -> list[Any]:
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    yield
    over.set()


@pytest.fixture
def other_authority() -> str:
    """The certificate of an authority that has signed nothing here, as a kubeconfig holds it."""
    return encoded(trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem.bytes())
