"""Reading nodes of a lab through its API: what comes is what the kernel of the node shows, and nothing changes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import execs, kubeproxy
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.transport import Connection
from kdnsctl.facts import conntrack, pairs
from kdnsctl.facts.catalogue import FACTS
from kdnsctl.lab import control
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.model import Fact, Privilege, Proof, Toolset
from kdnsctl.netfilter.conntrack import ConntrackReader
from kdnsctl.netfilter.entries import Entry
from kdnsctl.netfilter.rules import Mode
from kdnsctl.reach.kubeproxyexec import KubeProxyExec
from tests.lab.conftest import lab_up
from tests.lab.space.machine import eventually

NAME = "reach"
NODE = "knode2"
VIP = "10.96.0.10"


@pytest.fixture(scope="module")
def lab(command_home: Path) -> Iterator[LabDir]:
    with lab_up(command_home, NAME) as where:
        yield where


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


@pytest.fixture
def place(connection: Connection, scope: CancelScope) -> kubeproxy.PodPlace:
    pods = list_all(connection, "/api/v1/namespaces/kube-system/pods", Pod, scope=scope).items
    found = kubeproxy.locate(None, pods)[NODE].place
    assert found is not None
    return found


@pytest.fixture
def shell(connection: Connection, place: kubeproxy.PodPlace) -> KubeProxyExec:
    return KubeProxyExec(connection, NODE, place)


def on_node(lab: LabDir, *argv: str) -> str:
    """What a tool of the machine says in the node's network namespace, past the API and the container."""
    output = control.ask(lab, {"op": "run", "node": NODE, "argv": list(argv)})["output"]
    assert isinstance(output, str)
    return output


def flows(entries: list[Entry]) -> set[tuple[object, ...]]:
    """What stays the same of an entry while it lives."""
    return {
        (
            entry.protocol,
            entry.original.source,
            entry.original.source_port,
            entry.original.destination,
            entry.original.destination_port,
            entry.reply.source,
            entry.reply.source_port,
        )
        for entry in entries
    }


def direct(lab: LabDir) -> set[tuple[object, ...]]:
    """The node's table by `conntrack -L`."""
    return flows(ConntrackReader().feed(on_node(lab, "conntrack", "-L", "-f", "ipv4").encode()))


@pytest.mark.parametrize("filtered", [False, True], ids=["whole", "filtered"])
def test_the_table_is_the_one_that_conntrack_shows_on_the_node(
    lab: LabDir, shell: KubeProxyExec, scope: CancelScope, filtered: bool
) -> None:
    fact = conntrack.table_of([VIP]) if filtered else conntrack.TABLE
    entries: list[Entry] = []
    before = direct(lab)
    answer = pairs.read(shell, pairs.table(fact, lambda _: True, entries.append), scope=scope)
    after = direct(lab)
    assert answer.reading.complete, answer.reading
    assert answer.value.completeness.complete
    if filtered:
        before = {flow for flow in before if flow[3] == VIP}
        after = {flow for flow in after if flow[3] == VIP}
        assert answer.value.total is not None
        assert answer.value.total >= len(entries)
    # Clients go on asking: what was there before and after was there in between; what was there in between is still
    # there afterwards, for a UDP entry lives at least 30 seconds.
    assert before & after
    assert before & after <= flows(entries)
    assert {flow for flow in flows(entries) if flow[0] == "udp" and flow[3] == VIP} <= before | after
    assert answer.reading.stderr == b""


def test_the_rules_are_those_of_the_node(lab: LabDir, shell: KubeProxyExec, scope: CancelScope) -> None:
    read = pairs.read(shell, pairs.IPTABLES[4], scope=scope)
    (mine,) = read.value
    assert mine.completeness.complete
    targets = {
        (target.address, target.port)
        for service in mine.services
        if service.address == VIP and service.protocol == "udp" and service.port == 53
        for target in service.targets
    }
    text = on_node(lab, "iptables-save", "-t", "nat")
    assert len(targets) == 2
    assert all(f"-j DNAT --to-destination {address}:{port}" in text for address, port in targets)


def test_kube_proxy_tells_of_itself_through_a_port_forward(shell: KubeProxyExec, scope: CancelScope) -> None:
    assert pairs.read(shell, pairs.MODE, scope=scope).value is Mode.IPTABLES
    health = pairs.read(shell, pairs.HEALTH, scope=scope).value
    assert health is not None
    assert health.healthy is True
    metrics = pairs.read(shell, pairs.METRICS, scope=scope)
    assert metrics.reading.complete
    assert metrics.value.value("sync_proxy_rules_last_timestamp_seconds") is not None


def test_numbers_come_from_the_node(lab: LabDir, shell: KubeProxyExec, scope: CancelScope) -> None:
    fill = pairs.read(shell, pairs.FILL, scope=scope).value
    assert fill is not None
    assert 0 < fill.count < fill.maximum
    timeouts = pairs.read(shell, pairs.TIMEOUTS, scope=scope).value
    assert timeouts is not None
    said = on_node(lab, "cat", "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream")
    assert timeouts.stream == int(said)
    counters = pairs.read(shell, pairs.COUNTERS, scope=scope).value
    assert counters is not None
    assert "insert_failed" in counters
    assert pairs.read(shell, pairs.LOCAL_PORTS, scope=scope).value == (32768, 60999)


def running(
    connection: Connection, place: kubeproxy.PodPlace, scope: CancelScope, *, zombies: bool = True
) -> list[str]:
    """The programs that run in the container, but for the one that looks; with those that nobody has waited for."""
    out = bytearray()
    look = 'for each in /proc/[0-9]*; do [ "${each#/proc/}" = $$ ] || cat $each/stat 2>/dev/null; done'
    request = execs.ExecRequest(place.namespace, place.pod, place.container, ("sh", "-c", look))
    execs.run(connection, request, stdout=out.extend, stderr=lambda _: None, scope=scope)
    found = re.findall(r"\((.+)\) (\w)", out.decode())
    return [name for name, state in found if zombies or state != "Z"]


def test_nothing_changes_on_the_node_and_nothing_is_left(
    lab: LabDir, connection: Connection, place: kubeproxy.PodPlace, shell: KubeProxyExec, scope: CancelScope
) -> None:
    def state() -> tuple[list[str], ...]:
        rules = on_node(lab, "iptables-save").splitlines()
        return (
            [line for line in rules if not line.startswith("#")],
            on_node(lab, "nft", "list", "tables").splitlines(),
            sorted(each.name for each in Path("/sys/module").iterdir()),
            on_node(lab, "cat", "/proc/net/ip_tables_names").splitlines(),
        )

    before = state()
    idle = Counter(running(connection, place, scope))
    for fact in filter(shell.can, FACTS):
        shell.read(fact, lambda _: None, scope=scope)
    assert state() == before
    assert eventually(lambda: not Counter(running(connection, place, scope)) - idle)


def test_a_command_that_hangs_in_the_container_is_stopped_and_nothing_is_left(
    connection: Connection, place: kubeproxy.PodPlace, shell: KubeProxyExec, scope: CancelScope
) -> None:
    hang = Fact("hang", "nothing", Privilege.NONE, Proof.TRAILER, 100, 1, {Toolset.KUBE_PROXY: ("sleep", "1000")})
    reading = shell.read(hang, lambda _: None, scope=scope)
    assert reading.problem is not None
    assert reading.problem.code == "lateOnNode"
    assert eventually(lambda: "sleep" not in running(connection, place, scope))


def test_what_is_left_behind_by_ctrl_c_ends_by_itself(
    connection: Connection, place: kubeproxy.PodPlace, shell: KubeProxyExec, scope: CancelScope
) -> None:
    slow = Fact("slow", "x", Privilege.NONE, Proof.TRAILER, 100, 2, {Toolset.KUBE_PROXY: ("sleep", "1000")})
    with scope.child(0.5) as limit, pytest.raises(Exception, match=r"not finished within 0\.5s"):
        shell.read(slow, lambda _: None, scope=limit)
    # The next reading outlasts the time that the first one had on the node.
    assert not shell.read(slow, lambda _: None, scope=scope).complete
    assert eventually(lambda: "sleep" not in running(connection, place, scope, zombies=False))
