"""find-affected through the API of a lab in which DNS really fails: what each failure lets a log prove, and no more."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.lab import space
from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import ROOT, Kdnsctl, lab_of
from tests.lab.kubectl import Kubectl

NAME = "online"


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Three nodes, kube-proxy 1.30."""
    where = lab_of(command_home, NAME)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(command_home)}
    command = [sys.executable, "-P", "-m", "kdnsctl", "lab", "up", NAME, "--no-ssh"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    yield where
    space.down(NAME, root=where.root.parent)


Find = Callable[..., dict[str, Any]]


@pytest.fixture
def find(lab: LabDir, kdnsctl: Kdnsctl, monkeypatch: pytest.MonkeyPatch) -> Find:
    """Findings by node."""
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))

    def find(*words: str) -> dict[str, Any]:
        ran = kdnsctl("find-affected", *words, "-o", "json")
        found = {node["name"]: node for node in json.loads(ran.out)["nodes"]}
        bad = any(node["verdict"] == "suspect" for node in found.values())
        unknown = any(node["verdict"] == "unknown" for node in found.values())
        assert ran.code == (3 if bad else 4 if unknown else 0)
        return found

    return find


@pytest.fixture
def broken(kdnsctl: Kdnsctl, lab: LabDir) -> Iterator[Callable[[str, str], dict[str, Any]]]:
    """Breaks a node; it is healed after the test."""

    def break_(mode: str, node: str) -> dict[str, Any]:
        made = kdnsctl("lab", "break", lab.name, "--mode", mode, "--node", node, "-o", "json")
        assert made.code == 0, made.err
        incident: dict[str, Any] = json.loads(made.out)
        return incident

    yield break_
    assert kdnsctl("lab", "heal", lab.name).code == 0


Break = Callable[[str, str], dict[str, Any]]


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {name: node["verdict"] for name, node in found.items()}


def test_delete_fails_is_logged_with_the_dead_endpoints(broken: Break, find: Find) -> None:
    incident = broken("delete-fails", "knode2")
    found = find()
    assert verdicts(found) == {"knode1": "clean", "knode2": "suspect", "knode3": "clean"}
    node = found["knode2"]
    assert {each["id"] for each in node["signatures"]} == {"CT_DEL_ENDPOINT"}
    assert {each["endpoint"] for each in node["peers"]} == set(incident["deadEndpoints"])
    assert {each["vip"] for each in node["peers"]} == {"10.96.0.10"}
    assert (node["basis"], node["staleEntries"]) == ("log", None)


def test_restore_fails_is_logged(broken: Break, find: Find) -> None:
    broken("restore-fails", "knode3")
    found = find()
    assert verdicts(found)["knode3"] == "suspect"
    assert "IPT_RESTORE_FAIL" in {each["id"] for each in found["knode3"]["signatures"]}
    assert verdicts(find("knode1", "--signature", "IPT_RESTORE_FAIL")) == {"knode1": "clean"}


def test_down_is_not_called_clean_of_the_time_that_nothing_was_logged(broken: Break, find: Find) -> None:
    incident = broken("down", "knode1")
    after = datetime.now(UTC).isoformat()
    found = find()
    node = found["knode1"]
    assert (node["signatures"], node["peers"]) == ([], [])
    # By how long ago that was: it may be still to react, or it does not.
    assert (node["verdict"], node["reasonCode"]) in {("unknown", "justChanged"), ("unknown", "notFollowing")}
    assert node["span"]["last"] < incident["began"]
    assert all(found[other]["span"]["last"] > incident["began"] for other in ("knode2", "knode3"))
    # A window in the silence is not covered.
    window = find("--since-time", after)
    assert verdicts(window) == {"knode1": "unknown", "knode2": "clean", "knode3": "clean"}


def test_names_of_suspects_pipe_into_kubectl(
    broken: Break, lab: LabDir, tmp_path: Path, as_process: tuple[list[str], dict[str, str]]
) -> None:
    broken("delete-fails", "knode3")
    command, environment = as_process
    kubectl = Kubectl(lab.kubeconfig, tmp_path).command("get", "--no-headers", "-o", "name")
    line = f"{shlex.join([*command, 'find-affected', '-o', 'name'])} $more | xargs -r {shlex.join(kubectl)}"
    shown = []
    for more in ("", "--include suspect"):
        variables = {**environment, "KUBECONFIG": str(lab.kubeconfig), "HOME": str(tmp_path), "more": more}
        ended = subprocess.run(["sh", "-c", line], env=variables, capture_output=True, text=True, check=False)
        shown.append(ended.stdout)
    # No log proves a stale entry: the node is handed on only when suspects are asked for.
    assert shown[0] == ""
    assert "node/knode3" in shown[1].split()
