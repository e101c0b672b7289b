"""Quarantine and release through pods and over SSH, on a node with several DNS pods: each goes when DNS is well."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import journal
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.transport import Connection
from kdnsctl.lab import incident, space
from kdnsctl.lab.incident import Mode
from kdnsctl.lab.spacedir import LabDir
from tests.lab.conftest import ROOT, Kdnsctl, Ran, lab_of
from tests.lab.test_pods import await_none

NAME = "ways"
BROKEN = "knode2"
WELL = {"knode1", "knode3"}
DNS = "kube-system/kube-dns"
BY_POD = ("--via", "pod", "--image", "kdnsctl.io/lab/tools:1")
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
EVICTED = ("stepBegun", "pod.evict")
REPLICAS = 6  # two on each node


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    """Three nodes with sshd, two CoreDNS pods on each, and stale entries on one of them."""
    where = lab_of(command_home, NAME)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(command_home)}
    made = subprocess.run(
        [sys.executable, "-P", "-m", "kdnsctl", "lab", "up", NAME],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    with connected(where) as (connection, scope):
        body = msgspec.json.encode({"spec": {"replicas": REPLICAS}})
        kind = "application/merge-patch+json"
        connection.request("PATCH", DEPLOYMENT, body=body, content_type=kind, scope=scope)
    incident.break_dns(Mode.DELETE_FAILS, name=NAME, node=BROKEN, root=where.root.parent)
    yield where
    space.down(NAME, root=where.root.parent)


@contextlib.contextmanager
def connected(lab: LabDir) -> Iterator[tuple[Connection, CancelScope]]:
    with CancelScope(120) as scope:
        options = ConnectOptions(kubeconfig=str(lab.kubeconfig), environment={"PATH": os.environ["PATH"]})
        with contextlib.closing(connect(options, scope)) as connection:
            yield connection, scope


def dns_pods(lab: LabDir) -> list[str]:
    """The nodes of the CoreDNS pods."""
    with connected(lab) as (connection, scope):
        path = "/api/v1/namespaces/kube-system/pods"
        reply = connection.request("GET", path, query={"labelSelector": "k8s-app=kube-dns"}, scope=scope)
    return [pod["spec"]["nodeName"] for pod in json.loads(reply.body)["items"]]


def document(ran: Ran) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(ran.out)
    schema = json.loads((ROOT / "docs/schemas" / f"{data['kind']}.schema.json").read_text("utf-8"))
    jsonschema.validate(data, schema)
    return data


def in_order(home: Path, name: str) -> list[str]:
    """What the incident's journal has of captures, evictions and questions to DNS."""
    records = journal.read(home / "kdnsctl/incidents" / name / "journal.jsonl").records
    verbs = [(record.kind, str((record.body.get("step") or {}).get("verb", ""))) for record in records]
    return [verb or kind for kind, verb in verbs if kind in ("captured", "dnsAsked") or (kind, verb) == EVICTED]


def test_captured_and_drained_through_pods_and_released_over_ssh(
    lab: LabDir, kdnsctl: Kdnsctl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    by_ssh = ("--via", "ssh", "--ssh-config", str(lab.ssh / "config"))
    here = dns_pods(lab).count(BROKEN)
    assert here >= 2

    ran = kdnsctl("quarantine", BROKEN, *BY_POD, "--yes", "-o", "json")

    assert ran.code == 0, ran.err
    report = document(ran)
    (node,) = report["nodes"]
    assert (node["phase"], node["verdict"], node["drained"]) == ("drained", "affected", True)
    assert [pod["outcome"] for pod in node["pods"]] == ["gone"] * here
    assert BROKEN not in dns_pods(lab)
    assert [(one["service"], one["answers"]) for one in report["dnsProbes"]] == [(DNS, True)] * here
    assert all(one["message"].rpartition(" ")[2] in WELL for one in report["dnsProbes"])
    assert in_order(home, report["incident"]) == ["captured", *["pod.evict", "dnsAsked"] * here]
    meta = json.loads((Path(report["bundle"]) / "manifest.json").read_text("utf-8"))
    ran_by = {one["via"] for one in meta["artefacts"] if one["node"] == BROKEN and one["command"][0] == "cat"}
    assert ran_by <= {"pod", "pod-netadmin"}
    assert ran_by

    refused = kdnsctl("release", BROKEN, *by_ssh, "--yes")
    assert refused.code == 5
    assert f"{BROKEN} is affected (by ssh)" in refused.err
    incident.heal(name=NAME, root=lab.root.parent)
    released = kdnsctl("release", BROKEN, *by_ssh, "--yes", "-o", "json")

    assert released.code == 0, released.err
    (back,) = document(released)["nodes"]
    assert (back["released"], back["verdict"], back["via"]) == (True, "clean", "ssh")
    assert back["dns"]["answers"] is True
    assert BROKEN in back["dns"]["message"]
    with connected(lab) as (connection, scope):
        await_none(connection, scope)


def test_a_clean_node_is_captured_over_ssh_and_not_drained(
    lab: LabDir, kdnsctl: Kdnsctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))
    by_ssh = ("--via", "ssh", "--ssh-config", str(lab.ssh / "config"))
    before = dns_pods(lab).count("knode3")

    ran = kdnsctl("quarantine", "knode3", *by_ssh, "--yes", "-o", "json")

    assert ran.code == 4, ran.err
    (node,) = document(ran)["nodes"]
    assert (node["phase"], node["verdict"], node["drained"]) == ("captured", "clean", False)
    assert dns_pods(lab).count("knode3") == before
    assert kdnsctl("release", "--all", *BY_POD, "--yes").code == 0
