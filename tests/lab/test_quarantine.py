"""The whole way in a lab in which DNS really fails: found, quarantined with the evidence, repaired, given back."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import ROOT, Kdnsctl, Ran, lab_up
from tests.lab.kubectl import Kubectl

NAME = "quarantine"
BROKEN = "knode2"


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Three nodes, kube-proxy 1.30."""
    with lab_up(command_home, NAME) as where:
        yield where


def document(ran: Ran) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ran.out)
    schema = json.loads((ROOT / "docs/schemas" / f"{data['kind']}.schema.json").read_text("utf-8"))
    jsonschema.validate(data, schema)
    return data


def nodes(kubectl: Kubectl) -> list[dict[str, Any]]:
    """All nodes without what changes by itself."""
    found: list[dict[str, Any]] = json.loads(kubectl.text("get", "nodes", "-o", "json"))["items"]
    for node in found:
        for key in ("resourceVersion", "managedFields"):
            node["metadata"].pop(key, None)
        node["status"].pop("conditions", None)
    return found


def test_found_quarantined_repaired_released(
    lab: LabDir, kdnsctl: Kdnsctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kubectl = Kubectl(lab.kubeconfig, tmp_path)
    before = nodes(kubectl)
    broken = kdnsctl("lab", "break", NAME, "--mode", "delete-fails", "--node", BROKEN, "-o", "json")
    assert broken.code == 0, broken.err

    found = kdnsctl("find-affected", "--live", "-o", "name")
    assert found.out == f"node/{BROKEN}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(found.out.encode())))
    ran = kdnsctl("quarantine", "-", "--yes", "-o", "json")

    assert ran.code == 0, ran.err
    report = document(ran)
    node = report["nodes"][0]
    assert (node["name"], node["phase"], node["verdict"]) == (BROKEN, "drained", "affected")
    assert node["staleEntries"] > 0
    assert kdnsctl("bundle", "verify", report["bundle"]).code == 0
    shown = document(kdnsctl("status", "-o", "json"))["nodes"]
    assert [(one["name"], one["quarantine"]["phase"], one["drift"]) for one in shown] == [(BROKEN, "drained", [])]
    # What is still affected is not given back.
    refused = kdnsctl("release", "--yes")
    assert refused.code == 5
    assert "not proven healthy" in refused.err

    assert kdnsctl("lab", "heal", NAME).code == 0
    released = kdnsctl("release", "--yes", "-o", "json")

    assert released.code == 0, released.err
    back = document(released)["nodes"][0]
    assert (back["released"], back["verdict"]) == (True, "clean")
    assert {step["outcome"] for step in back["steps"]} == {"restored"}
    assert nodes(kubectl) == before
    told = kdnsctl("incident", "report", report["incident"]).out
    assert f"{BROKEN} affected" in told
    assert "Nothing is left that can be taken back." in told
