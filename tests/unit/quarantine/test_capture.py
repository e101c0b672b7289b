"""Capturing nodes before something is done to them: what an interruption of it is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import CancelledError, KdnsctlError, SilentReporter, Verdict
from kdnsctl.quarantine import capture as capturing


def captured(place: Path, scope: CancelScope) -> capturing.Captured:
    nobody = cast("Connection", None)
    return capturing.capture(
        nobody, ["a"], place, scope=scope, reporter=SilentReporter(), now=lambda: dt.datetime.now(dt.UTC), seconds=60
    )


def test_ctrl_c_ends_the_command_and_not_the_capture_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, scope: CancelScope, **__: Any) -> None:
        scope.cancel()  # as `fleet.run` does at Ctrl-C: the scope that it was given
        raise KdnsctlError("nothing was collected")

    monkeypatch.setattr(capturing, "collect", interrupted)
    with CancelScope() as scope, pytest.raises(CancelledError):
        captured(tmp_path / "bundle", scope)


def test_a_capture_that_fails_proves_nothing_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise KdnsctlError("the disk is full")

    monkeypatch.setattr(capturing, "collect", failing)
    with CancelScope() as scope:
        (judgement,) = captured(tmp_path / "bundle", scope).nodes.values()
        assert (judgement.verdict, judgement.captured, scope.reason) == (Verdict.UNKNOWN, False, None)
