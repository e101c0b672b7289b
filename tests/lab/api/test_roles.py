"""The Role that `kdnsctl rbac` prints, held against an API that refuses: with it everything works."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdnsctl.lab.api.access import Rule
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.store import Store
from tests.lab.api.memory_runtime import MemoryRuntime

Kdnsctl = Callable[..., subprocess.CompletedProcess[str]]
STARTED = '"Version info" version="v1.27.3"'
SYNCED = '"SyncProxyRules complete" elapsed="31.5ms"'


@pytest.fixture
def kdnsctl(server: ApiServer, store: Store, runtime: MemoryRuntime, tmp_path: Path) -> Kdnsctl:
    """Runs kdnsctl against a cluster whose three nodes have a healthy kube-proxy."""
    for number in (1, 2, 3):
        name = f"kube-proxy-{number}"
        meta = {"name": name, "namespace": "kube-system", "labels": {"k8s-app": "kube-proxy"}}
        image = "registry.k8s.io/kube-proxy:v1.27.3"
        spec = {"nodeName": f"knode{number}", "containers": [{"name": "kube-proxy", "image": image}]}
        made = store.create(PODS, {"metadata": meta, "spec": spec})
        running = {"name": "kube-proxy", "image": image, "ready": True, "restartCount": 0, "state": {"running": {}}}
        made["status"] = {"phase": "Running", "containerStatuses": [running]}
        store.update(PODS, made, subresource="status")
        at = "I1123 12:00:00.000000       1"
        runtime.log("kube-system", name, "kube-proxy", f"{at} server.go:872] {STARTED}", f"{at} p.go:1] {SYNCED}")
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(tmp_path), "KUBECONFIG": str(config)}
        command = [sys.executable, "-m", "kdnsctl", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


def apply(server: ApiServer, manifests: list[dict[str, Any]]) -> None:
    """Grant what roles allow to the users that they are bound to, as RBAC would."""
    roles = {(one["kind"], one["metadata"].get("namespace")): one for one in manifests if "rules" in one}
    for binding in manifests:
        if "subjects" not in binding:
            continue
        namespace = binding["metadata"].get("namespace")
        role = roles[binding["roleRef"]["kind"], namespace]
        for rule in role["rules"]:
            allowed = Rule(
                tuple(rule["verbs"]),
                tuple(rule["apiGroups"]),
                tuple(rule["resources"]),
                tuple(rule.get("resourceNames", ())),
                (namespace,) if namespace else (),
            )
            for subject in binding["subjects"]:
                server.policy.grant_user(subject["name"], allowed)


def verdicts(ran: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {node["name"]: f"{node['verdict']}/{node['reasonCode']}" for node in json.loads(ran.stdout)["nodes"]}


CLEAN = dict.fromkeys(("knode1", "knode2", "knode3"), "clean/nothingLogged")


@pytest.mark.parametrize("only", [[], ["--only-needed"]], ids=["whole", "onlyNeeded"])
def test_with_the_printed_role_a_stranger_can_do_all_that_an_administrator_can(
    server: ApiServer, kdnsctl: Kdnsctl, only: list[str]
) -> None:
    before = kdnsctl("doctor", "find-affected", "--as", "jane", "-o", "json")
    assert (before.returncode, json.loads(before.stdout)["commands"][0]["ability"]) == (1, "fails")
    assert kdnsctl("find-affected", "--as", "jane").returncode == 1
    printed = kdnsctl("rbac", "find-affected", "--bind-to", "user:jane", *only)
    apply(server, list(yaml.safe_load_all(printed.stdout)))
    after = kdnsctl("doctor", "find-affected", "--as", "jane", "-o", "json")
    command = json.loads(after.stdout)["commands"][0]
    assert (after.returncode, command["ability"]) == ((4, "limited") if only else (0, "works"))
    assert command["options"] == {"--kubelet-logs": False, "--live": False}
    ran = kdnsctl("find-affected", "--as", "jane", "-o", "json")
    assert (ran.returncode, verdicts(ran)) == (0, CLEAN)
    assert ("The DNS Services cannot be read" in ran.stderr) is bool(only)
    assert "may not" not in ran.stderr


def test_each_permission_that_is_missing_makes_nobody_clean_who_was_not_read(
    server: ApiServer, kdnsctl: Kdnsctl
) -> None:
    unknown = dict.fromkeys(CLEAN, "unknown/forbidden")
    pods = Rule(("list",), ("",), ("pods",), namespaces=("kube-system",))
    nodes = Rule(("list",), ("",), ("nodes",))
    logs = Rule(("get",), ("",), ("pods/log",), namespaces=("kube-system",))
    server.policy.grant_user("without-nodes", pods, logs)
    server.policy.grant_user("without-pods", nodes, logs)
    server.policy.grant_user("without-logs", nodes, pods)
    expected = {"without-nodes": CLEAN, "without-pods": unknown, "without-logs": unknown}
    said = ""
    for user, verdict in expected.items():
        ran = kdnsctl("find-affected", "--as", user, "-o", "json")
        assert (ran.returncode, verdicts(ran)) == (4, verdict), user
        said = ran.stderr
        assert "`kdnsctl rbac find-affected` prints the Role" in said
    assert "not allowed: get pods/log in kube-system" in said
    table = kdnsctl("find-affected", "--as", "without-nodes").stdout
    assert "The scope is partial" in table
