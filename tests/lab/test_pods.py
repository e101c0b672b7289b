"""Pods of kdnsctl's own on a lab's nodes: what each rung reads is what the kernel holds, and none is ever left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import pods
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import Change, watch
from kdnsctl.evidence.ways import OF_KUBE_PROXY, OF_TOOLS
from kdnsctl.facts import conntrack, pairs, rules
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.model import Fact, Toolset
from kdnsctl.netfilter.entries import Entry
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.reach.podspec import SELECTOR, Image, PodRung
from tests.lab.conftest import Kdnsctl, lab_up

NAME = "pods"
NODE = "knode2"
VIP = "10.96.0.10"
ON_NODE = Image("registry.k8s.io/kube-proxy:v1.36.2", OF_KUBE_PROXY)
TOOLS = Image("kdnsctl.io/lab/tools:1", OF_TOOLS, pull=True)
CAPABILITIES = ("grep", "CapEff", "/proc/self/status")


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    with lab_up(command_home, NAME) as where:
        yield where


@pytest.fixture(autouse=True)
def speaking_to_it(lab: LabDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(lab.kubeconfig))


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(120) as whole:
        yield whole


@pytest.fixture
def connection(lab: LabDir, scope: CancelScope, tmp_path: Path) -> Iterator[Connection]:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    made = connect(ConnectOptions(kubeconfig=str(lab.kubeconfig), environment=environment), scope)
    yield made
    made.close()


def await_none(connection: Connection, scope: CancelScope) -> None:
    """Return when there is no pod of ours, in whatever state."""
    there: set[str] = set()
    for event in watch(connection, pods.path_of(None), Pod, labels=SELECTOR, scope=scope):
        names = {pod.metadata.name for pod in event.items}
        match event.change:
            case Change.LISTED:
                there = names
            case Change.DELETED:
                there -= names
            case _:
                there |= names
        if not there:
            return


def says(fact: Fact, *command: str) -> Fact:
    """The same fact, read with another command by every tool set."""
    return replace(fact, commands=dict.fromkeys((Toolset.KUBE_PROXY, Toolset.HOST), command), privileges={})


@pytest.mark.parametrize(
    ("rung", "image"),
    [(PodRung.PLAIN, ON_NODE), (PodRung.NET_ADMIN, ON_NODE), (PodRung.NET_ADMIN, TOOLS), (PodRung.PRIVILEGED, TOOLS)],
    ids=["plain", "netadmin", "netadmin-tools", "privileged"],
)
def test_each_rung_reads_the_table_of_its_node_with_no_more_than_it_needs(
    connection: Connection, scope: CancelScope, rung: PodRung, image: Image
) -> None:
    keeper = PodKeeper(connection, PodSettings())
    order = keeper.order(rung, NODE, "", image, scope)
    shell = keeper.open(order, scope)
    try:
        entries: list[Entry] = []
        answer = pairs.read(shell, pairs.table(conntrack.TABLE, lambda _: True, entries.append), scope=scope)
        assert answer.reading.complete, answer.reading
        assert answer.reading.rung == rung.value
        assert any(entry.original.destination == VIP for entry in entries)
        told = bytearray()
        shell.read(says(conntrack.PORT_RANGE, *CAPABILITIES), told.extend, scope=scope)
        effective = int(told.split()[1], 16)
        assert {PodRung.PLAIN: effective == 0, PodRung.NET_ADMIN: effective == 1 << 12 | 1 << 13}.get(rung, True)
        assert shell.can(rules.IPTABLES[4]) is (rung is not PodRung.PLAIN)
        if rung is not PodRung.PLAIN:
            (mine,) = pairs.read(shell, pairs.IPTABLES[4], scope=scope).value
            assert any(service.address == VIP for service in mine.services)
        if rung is PodRung.PRIVILEGED:  # the node's own programs, in its own files
            namespaces = []
            for process in ("self", "1"):
                told.clear()
                shell.read(says(conntrack.PORT_RANGE, "readlink", f"/proc/{process}/ns/mnt"), told.extend, scope=scope)
                namespaces.append(bytes(told))
            assert namespaces[0].startswith(b"mnt:[")
            assert namespaces[0] == namespaces[1]
    finally:
        keeper.end(order.name)
    assert keeper.close() == ()
    await_none(connection, scope)


def test_a_run_through_pods_gives_the_same_verdict_and_leaves_none(
    kdnsctl: Kdnsctl, connection: Connection, scope: CancelScope, tmp_path: Path
) -> None:
    bundle = tmp_path / "evidence"
    ran = kdnsctl("collect", "--all", "--via", "pod", "-O", str(bundle), "-o", "json")
    assert ran.code == 0, ran.err + ran.out
    assert {node["via"] for node in json.loads(ran.out)["nodes"]} == {"pod, pod-netadmin"}
    await_none(connection, scope)
    assert kdnsctl("bundle", "verify", str(bundle)).code == 0
    judged = json.loads(kdnsctl("analyze", str(bundle), "-o", "json").out)
    assert {node["verdict"] for node in judged["nodes"]} == {"clean"}


def test_a_pod_ends_by_itself_when_nobody_deletes_it_and_cleanup_takes_it_away(
    kdnsctl: Kdnsctl, connection: Connection, scope: CancelScope
) -> None:
    keeper = PodKeeper(connection, PodSettings(lifetime=2.0))
    order = replace(keeper.order(PodRung.PLAIN, NODE, "", ON_NODE, scope), lifetime=2.0)
    keeper.open(order, scope)
    for event in watch(connection, pods.path_of(order.namespace), Pod, labels=SELECTOR, scope=scope):
        if any(pod.status.phase in ("Failed", "Succeeded") for pod in event.items):
            break
    ran = kdnsctl("cleanup", "--run", order.run, "--yes", "-o", "json")
    assert [(pod["name"], pod["fate"]) for pod in json.loads(ran.out)["pods"]] == [(order.name, "deleted")]
    await_none(connection, scope)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_run_that_is_ended_midway_leaves_nothing_that_cleanup_does_not_take_away(
    kdnsctl: Kdnsctl,
    as_process: tuple[list[str], dict[str, str]],
    lab: LabDir,
    connection: Connection,
    scope: CancelScope,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    command, environment = as_process
    running = subprocess.Popen(
        [*command, "collect", NODE, "--via", "pod", "-O", str(tmp_path / "evidence"), "-o", "json"],
        env={**environment, "KUBECONFIG": str(lab.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        for event in watch(connection, pods.path_of("kube-system"), Pod, labels=SELECTOR, scope=scope):
            if event.items:
                break
        running.send_signal(number)
    finally:
        out, err = running.communicate()
    if number is signal.SIGINT:
        # It may have been over just before.
        assert running.returncode in (0, 130), err
        assert json.loads(out)["podsLeft"] == []
    else:
        assert running.returncode in (0, -signal.SIGKILL)
        assert kdnsctl("cleanup", "--yes", "-o", "json").code == 0
    await_none(connection, scope)
