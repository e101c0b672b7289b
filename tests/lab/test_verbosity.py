"""More of kube-proxy's log, and a restart, on nodes of a lab in the kernel: what restarts, what heals, and what not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import ROOT, Kdnsctl, Ran, lab_up
from tests.lab.kubectl import Kubectl

NAME = "verbosity"
NODE = "knode1"
V4 = "Conntrack entries deleted"  # what verbosity 4 adds in 1.30


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Three nodes, kube-proxy 1.30, profiling on."""
    with lab_up(command_home, NAME) as where:
        yield where


@pytest.fixture
def kubectl(lab: LabDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Kubectl(lab.kubeconfig, tmp_path)


def document(ran: Ran) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ran.out)
    schema = json.loads((ROOT / "docs/schemas" / f"{data['kind']}.schema.json").read_text("utf-8"))
    jsonschema.validate(data, schema)
    return data


def pods(kubectl: Kubectl) -> dict[str, tuple[str, str, int]]:
    """UID, name and restarts of each node's kube-proxy."""
    words = ("get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-proxy", "-o", "json")
    return {
        pod["spec"]["nodeName"]: (
            pod["metadata"]["uid"],
            pod["metadata"]["name"],
            pod["status"]["containerStatuses"][0]["restartCount"],
        )
        for pod in json.loads(kubectl.text(*words))["items"]
        if "deletionTimestamp" not in pod["metadata"]
    }


def spec(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl.text("get", "ds", "kube-proxy", "-n", "kube-system", "-o", "json"))
    return {"spec": found["spec"], "annotations": found["metadata"].get("annotations")}


def test_at_runtime_its_log_says_more_and_nothing_restarts(kdnsctl: Kdnsctl, kubectl: Kubectl) -> None:
    before = pods(kubectl)

    ran = kdnsctl("verbosity", "raise", NODE, "--yes", "-o", "json")

    assert ran.code == 0, ran.err
    assert document(ran)["nodes"][0]["way"] == "runtime"
    log = ("logs", "-n", "kube-system", before[NODE][1])
    assert V4 not in kubectl.text(*log)
    assert kdnsctl("lab", "break", NAME, "--mode", "delete-fails", "--node", "knode2").code == 0  # CoreDNS rolls
    with kubectl.streaming(*log, "--follow") as lines:  # its own kube-proxy need not be done with the rollout yet
        assert any(V4 in line.decode() for line in lines)
    back = kdnsctl("verbosity", "restore", "--yes", "-o", "json")
    assert (back.code, document(back)["nodes"][0]["level"]) == (0, 2)
    assert pods(kubectl) == before

    # And a restart heals the node that was broken.
    found = kdnsctl("repair", "restart-kube-proxy", "knode2", "--yes", "-o", "json")
    assert kdnsctl("lab", "heal", NAME).code == 0
    node = document(found)["nodes"][0]
    assert node["verdictBefore"] == "affected"
    assert pods(kubectl)["knode2"][0] != before["knode2"][0]
    assert {name: pods(kubectl)[name] for name in (NODE, "knode3")} == {n: before[n] for n in (NODE, "knode3")}


def test_a_restart_does_not_help_where_rules_cannot_be_written_and_says_why(kdnsctl: Kdnsctl, kubectl: Kubectl) -> None:
    before = pods(kubectl)
    assert kdnsctl("lab", "break", NAME, "--mode", "restore-fails", "--node", "knode3").code == 0

    ran = kdnsctl("repair", "restart-kube-proxy", "knode3", "--no-collect", "--timeout", "20s", "--yes", "-o", "json")

    assert ran.code == 1, ran.err
    (node,) = document(ran)["nodes"]
    assert (node["result"], node["verdict"]) == ("failed", "affected")
    assert node["reason"]["message"].startswith("rules cannot be written: ")
    assert "iptables-restore" in node["reason"]["message"]
    assert kdnsctl("lab", "heal", NAME).code == 0
    assert {name: pods(kubectl)[name] for name in (NODE, "knode2")} == {n: before[n] for n in (NODE, "knode2")}


def test_ctrl_c_while_it_is_held_puts_the_template_back(
    kubectl: Kubectl, as_process: tuple[list[str], dict[str, str]]
) -> None:
    config = json.loads(kubectl.text("get", "cm", "kube-proxy", "-n", "kube-system", "-o", "json"))
    config["data"]["config.conf"] = config["data"]["config.conf"].replace("Profiling: true", "Profiling: false")
    patch = json.dumps({"data": config["data"]})
    kubectl.text("patch", "cm", "kube-proxy", "-n", "kube-system", "--type=merge", "-p", patch)
    kubectl.text("rollout", "restart", "ds/kube-proxy", "-n", "kube-system")
    kubectl.text("rollout", "status", "ds/kube-proxy", "-n", "kube-system", "--timeout=120s")
    whole, before = spec(kubectl), pods(kubectl)
    command, environment = as_process
    words = [*command, "verbosity", "raise", NODE, "--yes", "--for", "10m", "-o", "json"]

    with subprocess.Popen(
        words,
        env={**environment, "KUBECONFIG": os.environ["KUBECONFIG"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        said = b""
        for line in process.stderr:
            said += line
            if b"Ctrl-C puts it back" in line:
                break
        raised, there = spec(kubectl), pods(kubectl)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()

    assert raised["spec"]["updateStrategy"] == {"type": "OnDelete"}, said
    assert {name for name in before if there[name] != before[name]} == {NODE}
    assert process.returncode == 0, said + err
    report = json.loads(out)
    assert [(node["name"], node["result"], node["level"]) for node in report["nodes"]] == [(NODE, "restored", 2)]
    assert spec(kubectl) == whole
    after = pods(kubectl)
    assert {name for name in before if after[name] != before[name]} == {NODE}
    assert after[NODE] != there[NODE]
