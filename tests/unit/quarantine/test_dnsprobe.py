"""The probe between two DNS pods: who is asked from, what is kept, and what is said when nothing can ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError
from kdnsctl.probe.queries import Attempt, Batch, Take
from kdnsctl.quarantine import dnsprobe
from kdnsctl.quarantine.dnsprobe import Asked, WellNodes
from kdnsctl.quarantine.reaching import BY_EXEC
from tests.unit.cluster.apiserver import Server as Api
from tests.unit.cluster.apiserver import reply, status
from tests.unit.cluster.conftest import api, authority, connect_to, environment, kubeconfig, notes, scope, tls

__all__ = ["api", "authority", "connect_to", "environment", "kubeconfig", "notes", "scope", "tls"]

DNS = "kube-system/kube-dns"
RECORD = "kdnsctl.io/quarantine"


def node(name: str, *, ready: bool = True, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": name, **more.pop("metadata", {})}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": metadata, "spec": more, "status": {"conditions": conditions}}


@dataclass
class Asker:
    """A place whose answers are scripted: an rcode for all queries of a batch, None for silence, or an error."""

    where: str
    script: list[int | KdnsctlError | None]
    closed: bool = False

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        scope.check()
        said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(said, KdnsctlError):
            raise said
        for _ in range(batch.count):
            take(Attempt(1, 1.0, said, answers=1, error="" if said is not None else "timeout"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True


CANNOT = KdnsctlError("DNS cannot be asked from there: exec: nothing to ask with", code="noWay")


@dataclass
class Places:
    """What opens askers: those that were opened, in order. `here` is this machine."""

    scripts: dict[str, list[int | KdnsctlError | None]] = field(default_factory=dict)
    here: list[int | KdnsctlError | None] = field(default_factory=lambda: [None])
    opened: list[Asker] = field(default_factory=list)

    def at(self, _: object, name: str) -> Asker:
        self.opened.append(Asker(name, self.scripts.get(name, [CANNOT])))
        return self.opened[-1]

    @property
    def names(self) -> list[str]:
        return [one.where for one in self.opened]


@pytest.fixture
def places(api: Api, monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places()
    monkeypatch.setattr(dnsprobe, "LadderAsker", made.at)
    monkeypatch.setattr(dnsprobe, "Here", lambda: Asker("", made.here))
    monkeypatch.setattr(dnsprobe, "AGAIN", 0.0)
    spec = {"clusterIP": "10.96.0.10", "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]}
    service = {"metadata": {"namespace": "kube-system", "name": "kube-dns", "uid": "u"}, "spec": spec}
    api.on("/api/v1/services", reply({"items": [service]}))
    api.on("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", reply({"items": []}))
    api.on("/api/v1/namespaces/kube-system/pods", reply({"items": []}))
    api.on("/apis/apps/v1/daemonsets", reply({"items": []}))
    api.on("/api/v1/pods", reply({"items": []}))
    api.on("/api/v1/nodes", reply({"items": [node("n1"), node("n2"), node("n3"), node("n4")]}))
    return made


@dataclass
class Probe:
    inner: WellNodes
    told: list[Asked]
    notes: list[str]

    def trouble(self, service: str = DNS) -> str:
        with CancelScope(60) as scope:
            return self.inner.trouble(service, scope)


@pytest.fixture
def probe(api: Api, connect_to: Callable[[Api], Connection]) -> Iterator[Probe]:
    told: list[Asked] = []
    heard: list[str] = []
    with dnsprobe.asking(connect_to(api), BY_EXEC, note=heard.append, told=told.append) as inner:
        yield Probe(inner, told, heard)


def test_the_first_well_node_that_can_ask_is_kept(places: Places, probe: Probe) -> None:
    places.scripts = {"n2": [0]}
    assert probe.trouble() == ""
    assert probe.trouble() == ""
    assert places.names == ["n1", "n2"]
    assert [one.answer.well for one in probe.told] == [True, True]
    assert probe.notes == [f"{DNS}: 10.96.0.10:53 answered all 9 queries from n2"] * 2
    probe.inner.close()
    assert all(one.closed for one in places.opened)


def test_nodes_that_are_not_well_are_not_asked_from(api: Api, places: Places, probe: Probe) -> None:
    places.scripts = {"n9": [0]}
    nodes = [
        node("n1", metadata={"annotations": {RECORD: "{}"}}),
        node("n2", taints=[{"key": RECORD, "value": "x", "effect": "NoSchedule"}]),
        node("n3", ready=False),
        node("n4", taints=[{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]),
        node("n5", metadata={"labels": {"kubernetes.io/os": "windows"}}),
        node("n6", unschedulable=True),
        node("n9"),
    ]
    api.on("/api/v1/nodes", reply({"items": nodes}))
    assert probe.trouble() == ""
    assert places.names == ["n9"]


def test_one_that_was_quarantined_meanwhile_is_not_asked_from_again(api: Api, places: Places, probe: Probe) -> None:
    places.scripts = {"n1": [0], "n2": [0]}
    assert probe.trouble() == ""
    quarantined = node("n1", metadata={"annotations": {RECORD: "{}"}})
    api.on("/api/v1/nodes", reply({"items": [quarantined, node("n2")]}))
    assert probe.trouble() == ""
    assert places.names == ["n1", "n2"]


def test_nodes_found_affected_are_not_asked_from_and_new_ones_can_be(
    api: Api, places: Places, connect_to: Callable[[Api], Connection]
) -> None:
    places.scripts = {"n4": [0]}
    api.on("/api/v1/nodes", reply({"items": [node("n1"), node("n2")]}))
    with dnsprobe.asking(connect_to(api), BY_EXEC, note=print, told=print, affected={"n1"}) as inner:
        probe = Probe(inner, [], [])
        assert "could not be measured" in probe.trouble()
        assert places.names == ["n2"]
        api.on("/api/v1/nodes", reply({"items": [node("n1"), node("n4")]}))
        assert probe.trouble() == ""
    assert places.names == ["n2", "n4"]


def test_silence_is_trouble_when_it_lasts(places: Places, probe: Probe) -> None:
    places.scripts = {"n1": [None]}
    assert "10.96.0.10:53 did not answer 7 of 7 queries over UDP" in probe.trouble()
    assert places.names == ["n1"], "another node does not make up for it"
    assert [one.answer.well for one in probe.told] == [False]


def test_and_none_when_a_kube_proxy_was_only_late(places: Places, probe: Probe) -> None:
    places.scripts = {"n1": [None, None, 0]}
    assert probe.trouble() == ""
    assert [one.answer.well for one in probe.told] == [True]


def test_this_machine_is_asked_when_no_node_can(places: Places, probe: Probe) -> None:
    places.here = [0]
    assert probe.trouble() == ""
    assert probe.told[0].answer.message.endswith("from this machine")


def test_nothing_that_can_ask_is_trouble_and_says_what_to_do(places: Places, probe: Probe) -> None:
    trouble = probe.trouble()
    assert trouble.startswith(f"whether {DNS} answers could not be measured: DNS cannot be asked from there: exec")
    assert "nor from n2, n3" in trouble
    assert "this machine may be outside" in trouble
    assert trouble.endswith("(--via ssh), and run the same again")
    assert places.names == ["n1", "n2", "n3"], "what one lacks the others mostly lack, too"
    assert [one.answer.well for one in probe.told] == [None]


def test_it_is_told_when_no_node_is_well(api: Api, places: Places, probe: Probe) -> None:
    api.on("/api/v1/nodes", reply({"items": [node("n1", ready=False)]}))
    assert "no other node is well, to ask from; from this machine" in probe.trouble()
    assert places.names == []


def test_what_cannot_be_read_is_trouble(api: Api, places: Places, probe: Probe) -> None:
    assert "is not among the DNS Services any more" in probe.trouble("kube-system/gone")
    api.on("/api/v1/services", status(403, "Forbidden", "no"))
    api.on("/api/v1/namespaces/kube-system/services", status(403, "Forbidden", "no"))
    assert "could not be measured" in probe.trouble()
    assert places.names == []
