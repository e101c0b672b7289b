"""The runbooks as they stand, executed in a lab in which DNS really fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import Kdnsctl, Ran, lab_up

NAME = "runbooks"
BROKEN = "knode2"


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Three nodes, kube-proxy 1.30."""
    with lab_up(command_home, NAME) as where:
        yield where


@pytest.fixture(autouse=True)
def operator(lab: LabDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speaks to the lab, and works in a directory of its own."""
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("KDNSCTL_IMAGE", "kdnsctl.io/lab/tools:1")  # with which nodes ask DNS
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.chdir(tmp_path)


def ended(ran: Ran) -> tuple[int, str, list[tuple[int, int | None]]]:
    """Exit code, end, and each step with its own exit code."""
    report: dict[str, Any] = json.loads(ran.out)
    return ran.code, report["end"], [(step["step"], step["exitCode"]) for step in report["steps"]]


def go(kdnsctl: Kdnsctl, name: str, *more: str) -> tuple[int, str, list[tuple[int, int | None]]]:
    ran = kdnsctl("runbook", "run", name, "--yes", "--no-input", "-o", "json", "--incident", f"i-{name}", *more)
    assert ran.out, ran.err
    return ended(ran)


def test_capture_and_dns_blackhole_where_flushing_does(kdnsctl: Kdnsctl) -> None:
    broken = kdnsctl("lab", "break", NAME, "--mode", "delete-fails", "--node", BROKEN)
    assert broken.code == 0, broken.err
    nodes = ("--set", f"NODES={BROKEN}")
    name = "capture-for-upstream"
    assert go(kdnsctl, name, *nodes) == (4, "left", [(1, 0), (2, 0), (3, 3), (4, 0)])  # provoked by hand
    assert go(kdnsctl, name, "--from", "6") == (4, "left", [(6, 0), (7, 0), (8, 0), (9, 3)])  # told by hand
    healed = go(kdnsctl, "dns-blackhole")
    assert healed == (0, "done", [(1, 0), (2, 3), (3, 0), (4, 3), (5, 0), (6, 0), (9, 0), (10, 0), (11, 0)])
    assert kdnsctl("lab", "heal", NAME).code == 0


def test_dns_blackhole_where_kube_proxy_has_to_be_restarted(kdnsctl: Kdnsctl) -> None:
    broken = kdnsctl("lab", "break", NAME, "--mode", "down", "--node", BROKEN)
    assert broken.code == 0, broken.err
    code, end, steps = go(kdnsctl, "dns-blackhole", "--incident", "i-down")
    assert (code, end) == (0, "done")
    # The capture of a node whose kube-proxy does not answer is not whole, and flushing is refused.
    assert steps == [(1, 0), (2, 3), (3, 4), (4, 3), (5, 3), (6, 5), (7, 3), (8, 0), (9, 0), (10, 0), (11, 0)]
    assert kdnsctl("lab", "heal", NAME).code == 0


def test_quarantine_and_release(kdnsctl: Kdnsctl) -> None:
    broken = kdnsctl("lab", "break", NAME, "--mode", "delete-fails", "--node", BROKEN)
    assert broken.code == 0, broken.err
    released = go(kdnsctl, "quarantine-and-release", "--set", f"NODES={BROKEN}")
    assert released == (0, "done", [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (7, 0), (8, 0), (9, 0)])
    assert kdnsctl("lab", "heal", NAME).code == 0


def test_kube_proxy_cannot_write_its_rules(kdnsctl: Kdnsctl) -> None:
    broken = kdnsctl("lab", "break", NAME, "--mode", "restore-fails", "--node", BROKEN)
    assert broken.code == 0, broken.err
    name = "kube-proxy-iptables-failing"
    assert go(kdnsctl, name) == (4, "left", [(1, 3), (2, 0), (3, 3), (4, 3)])
    assert kdnsctl("lab", "heal", NAME).code == 0  # what is to be done by hand
    assert go(kdnsctl, name, "--from", "6") == (0, "done", [(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)])
