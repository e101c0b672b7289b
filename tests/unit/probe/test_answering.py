from __future__ import annotations

from collections.abc import Callable

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import Backend, DnsPort, DnsService
from kdnsctl.model import CancelledError, KdnsctlError, Toolset
from kdnsctl.probe.answering import address_answers, service_answers
from kdnsctl.probe.here import Here
from kdnsctl.probe.onnode import OnNode
from kdnsctl.probe.queries import Asker, Attempt, Batch, Over, Take, queries_for
from tests.unit.probe.servers import LocalShell, Server, answer

SERVICE = DnsService(
    "kube-system",
    "kube-dns",
    "u",
    ("10.96.0.10", "fd00::a"),
    (DnsPort("dns", "UDP", 53), DnsPort("dns-tcp", "TCP", 53)),
    tuple(Backend(f"10.0.0.{number}", 53, "UDP", "dns") for number in range(5)),
)


class Scripted:
    """An asker whose answers are decided by a function; None is a lost query."""

    where = "n1"

    def __init__(self, decide: Callable[[Batch, int], int | None]) -> None:
        self.decide = decide
        self.batches: list[Batch] = []

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        scope.check()
        self.batches.append(batch)
        for number in range(batch.count):
            rcode = self.decide(batch, number)
            take(Attempt(1, 1.0, rcode, error="" if rcode is not None else "timeout"))


def test_it_answers(asker: Asker, server: Server) -> None:
    with CancelScope() as scope:
        told = address_answers(asker, "127.0.0.1", server.port, backends=3, scope=scope)
    assert told.well
    where = "n1" if asker.where else "this machine"
    assert told.message == f"127.0.0.1:{server.port} answered all 14 queries from {where}"
    assert len(server.asked) == 14
    assert len({port for port, _ in server.asked}) > 10  # the kernel may choose a port twice, or for UDP and for TCP


def test_some_that_are_lost_are_a_failure_and_servfail_is_none() -> None:
    with CancelScope() as scope:
        assert service_answers(Scripted(lambda *_: 2), SERVICE, scope=scope).well
        some = Scripted(lambda batch, number: None if batch.over is Over.UDP and number == 3 else 0)
        told = service_answers(some, SERVICE, scope=scope)
    assert told.well is False
    assert told.message == "10.96.0.10:53 did not answer 1 of 21 queries over UDP from n1"
    # Each family has its own backends: of IPv6 there are none, and what is asked at least stays.
    assert {(one.address, one.count) for one in some.batches if one.over is Over.UDP} == {
        ("10.96.0.10", queries_for(5)),
        ("fd00::a", queries_for(0)),
    }


def test_what_could_not_be_measured_is_neither(server: Server) -> None:
    shell = LocalShell(Toolset.KUBE_PROXY)
    with CancelScope() as scope:
        told = address_answers(OnNode(shell), "127.0.0.1", server.port, scope=scope)
    assert told.well is None
    assert "nothing on n1 asks DNS" in told.message
    assert shell.commands == []
    assert server.asked == []


def test_a_measured_failure_comes_before_what_is_unknown() -> None:
    def decide(batch: Batch, _: int) -> int | None:
        if batch.address == "10.96.0.10":
            raise KdnsctlError("broke off")
        return None

    with CancelScope() as scope:
        told = service_answers(Scripted(decide), SERVICE, scope=scope)
    assert told.well is False
    assert "fd00::a" in told.message


def test_one_packet_that_is_lost_by_accident_is_asked_again_and_is_no_failure() -> None:
    asked: list[int] = []

    def decide(_: Batch, number: int) -> int | None:
        asked.append(number)
        return None if len(asked) == 3 else 0

    with CancelScope() as scope:
        asker = Scripted(decide)
        told = address_answers(asker, "10.96.0.10", scope=scope)
    assert told.well
    assert [batch.over for batch in asker.batches] == [Over.UDP, Over.UDP, Over.TCP]


def test_what_this_machine_does_not_reach_is_not_known_and_what_a_node_does_not_reach_is() -> None:
    asker = Scripted(lambda *_: None)
    with CancelScope() as scope:
        assert address_answers(asker, "10.96.0.10", scope=scope).well is False
        asker.where = ""
        here = address_answers(asker, "10.96.0.10", scope=scope)
        assert here.well is None
        assert "outside the cluster's network" in here.message
        asker.decide = lambda *_: 3  # NXDOMAIN: some resolver in between
        here = address_answers(asker, "10.96.0.10", scope=scope)
        assert here.well is None
        assert "another resolver" in here.message


def test_a_loss_that_was_measured_stays_one_when_the_rest_breaks_off() -> None:
    def decide(batch: Batch, _: int) -> int | None:
        if batch.over is Over.TCP:
            raise KdnsctlError("broke off")
        return None

    with CancelScope() as scope:
        assert address_answers(Scripted(decide), "10.96.0.10", scope=scope).well is False


def test_an_interruption_is_no_verdict(server: Server) -> None:
    server.reply = lambda query, _: [answer(query)]
    with CancelScope() as scope:
        scope.cancel()
        with pytest.raises(CancelledError):
            address_answers(Here(), "127.0.0.1", server.port, scope=scope)
    assert server.asked == []
