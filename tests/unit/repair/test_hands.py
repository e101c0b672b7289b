"""Which rung changes a node: the first that has a conntrack, and no pod is made to find out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import cast

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.evidence.nodeside import Way
from kdnsctl.evidence.ways import Ladder
from kdnsctl.facts import conntrack
from kdnsctl.model import Fact, KdnsctlError, NodeChange, Proof, Reason, Toolset
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.reach.shell import NodeShell, Reading, Sink
from kdnsctl.repair.hands import Hands, NoToolError, Reader


class Shell:
    """A node on which there is a conntrack, or none."""

    node = "n"
    toolsets = (Toolset.KUBE_PROXY,)

    def __init__(self, rung: str, *, tool: bool, refuses: bool = False) -> None:
        self.rung = rung
        self._refuses = refuses
        self._tool = tool
        self.reads: list[str] = []

    def can(self, _: Fact) -> bool:
        return True

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        scope.check()
        self.reads.append(fact.id)
        if self._refuses:
            raise KdnsctlError("forbidden", code="forbidden")
        code = 0 if self._tool else 127
        if self._tool:
            sink(b"conntrack v1.4.7 (conntrack-tools)\n")
        now = dt.datetime.now(dt.UTC)
        problem = Reason("commandFailed", "it ended with exit code 127") if code else None
        return Reading(fact.id, "n", self.rung, Completeness(Proof.TRAILER, problem), now, now, 0.0, 0, code)

    def can_change(self, _: NodeChange) -> bool:
        return True

    def change(self, change: NodeChange, sink: Sink, *, scope: CancelScope) -> Reading:
        raise AssertionError((change, sink, scope))


class Rungs:
    """A ladder of these rungs; `opened` are those that were tried."""

    def __init__(self, **rungs: Shell | KdnsctlError) -> None:
        self.opened: list[str] = []
        self._rungs = rungs

    def ways(self, _: str, __: object) -> list[Way]:
        return [Way(name.replace("_", "-"), self._open(name)) for name in self._rungs]

    def kube_proxy(self, _: str) -> None:
        return None

    def _open(self, name: str) -> Callable[[CancelScope], NodeShell]:
        def open_(_: CancelScope) -> NodeShell:
            self.opened.append(name)
            found = self._rungs[name]
            if isinstance(found, KdnsctlError):
                raise found
            return found

        return open_


def hands(rungs: Rungs, *, image: bool = False) -> Hands:
    return Hands("n", cast("Ladder", rungs), image_named=image)


def test_the_first_that_has_it() -> None:
    rungs = Rungs(exec=Shell("exec", tool=False), ssh=Shell("ssh", tool=True))
    with CancelScope(5) as scope:
        found = hands(rungs)
        assert found.rung(scope) == "ssh"
        assert found.shell(scope).rung == "ssh"
    assert rungs.opened == ["exec", "ssh"]  # each once


def test_no_pod_is_made_to_find_out_and_none_of_the_image_that_has_none() -> None:
    pod = Shell("pod-netadmin", tool=True)
    with CancelScope(5) as scope:
        named = Rungs(exec=Shell("exec", tool=False), pod_netadmin=pod)
        found = hands(named, image=True)
        assert found.rung(scope) == "pod-netadmin"
        assert named.opened == ["exec"]
        assert found.shell(scope) is pod

        same = Rungs(exec=Shell("exec", tool=False), pod_netadmin=pod)
        with pytest.raises(NoToolError, match=r"no conntrack in this image; own pod: no tools image is named"):
            hands(same).rung(scope)
        assert same.opened == ["exec"]


def test_where_none_has_it_all_that_was_tried_is_told() -> None:
    rungs = Rungs(exec=KdnsctlError("pods/exec is forbidden"), ssh=Shell("ssh", tool=False))
    with CancelScope(5) as scope, pytest.raises(NoToolError) as raised:
        hands(rungs).shell(scope)
    assert "exec: pods/exec is forbidden; ssh: there is no conntrack" in str(raised.value)


def test_a_node_is_read_in_another_way_where_the_first_is_refused() -> None:
    ssh = Shell("ssh", tool=True)
    first = Shell("exec", tool=True, refuses=True)
    with CancelScope(5) as scope:
        reader = Reader(hands(Rungs(ssh=ssh)), first)
        reader.read(conntrack.FILL, lambda _: None, scope=scope)
        assert reader.rung == "ssh"
        with pytest.raises(KdnsctlError, match="forbidden"):
            Reader(hands(Rungs(ssh=Shell("ssh", tool=False))), first).read(conntrack.FILL, lambda _: None, scope=scope)
