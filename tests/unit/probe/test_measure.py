from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import Backend, DnsPort, DnsService
from kdnsctl.model import CancelledError, KdnsctlError
from kdnsctl.probe import plain
from kdnsctl.probe.measure import Kind, Measured, Options, conclude, held_batch, measure, targets
from kdnsctl.probe.queries import FIXED_PORTS, Attempt, Batch, Over, Take
from kdnsctl.probe.verdict import Result

PORTS = (DnsPort("dns", "UDP", 53), DnsPort("dns-tcp", "TCP", 53))
BACKENDS = tuple(
    Backend(f"10.0.0.{number}", 53, over.value, "dns", "n", f"coredns-{number}")
    for number, over in itertools.product((1, 2, 3), Over)
)
SERVICE = DnsService("kube-system", "kube-dns", "u", ("10.96.0.10",), PORTS, BACKENDS)
FAST = Options(period=0, wait=1)


class Asked:
    """An asker that tells of nothing but what `lost` says: a batch, and a number in it."""

    def __init__(self, where: str = "n1", *, rcode: int = 0, answers: int = 1) -> None:
        self.where = where
        self.lost: set[tuple[str, Over, int]] = set()
        self.dead: set[int] = set()
        self.broken: dict[str, KdnsctlError] = {}
        self.cancel_at: tuple[str, CancelScope] | None = None
        self.batches: list[Batch] = []
        self._rcode, self._answers = rcode, answers

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        self.batches.append(batch)
        for number in range(batch.count):
            if self.cancel_at and self.cancel_at[0] == batch.address and number:
                self.cancel_at[1].cancel()
            scope.check()
            if number and batch.address in self.broken:
                raise self.broken[batch.address]
            port = batch.ports[number % len(batch.ports)] if batch.ports else 40000 + number
            if (batch.address, batch.over, number) in self.lost or port in self.dead:
                take(Attempt(port, batch.wait, error="timeout"))
            else:
                take(Attempt(port, 0.5, self._rcode, self._answers, edns=bool(batch.edns)))


def run(asker: Asked, service: DnsService = SERVICE, local: tuple[str, ...] = ()) -> list[Measured]:
    into: list[Measured] = []
    with CancelScope() as scope:
        measure(asker, targets([service], local, FAST), into, scope=scope, watch=lambda *_: None)
    return into


def test_pods_services_and_caches_are_asked_over_both_protocols_each_once() -> None:
    twin = replace(SERVICE, name="kube-dns-upstream", vips=("10.96.0.11", "fd00::b"))
    wanted = list(targets([SERVICE, twin], ("169.254.20.10",), Options()))
    asked = [(one.kind, one.batch.address, one.batch.over) for one in wanted if not one.batch.ports]
    assert len(set(asked)) == len(asked)
    assert {(address, over) for kind, address, over in asked if kind is Kind.POD} == {
        (f"10.0.0.{number}", over) for number in (1, 2, 3) for over in Over
    }
    assert {(address, over) for kind, address, over in asked if kind is Kind.VIP} == {
        (vip, over) for vip in ("10.96.0.10", "10.96.0.11", "fd00::b") for over in Over
    }
    fresh = {one.batch.address: one.batch.count for one in wanted if one.kind is Kind.VIP and one.backends == 3}
    assert fresh["10.96.0.10"] in (12, 4)
    counts = {one.batch.count for one in wanted if one.batch.address == "10.96.0.10" and not one.batch.ports}
    assert counts == {12, 4}  # three backends at 99 %; and over TCP
    held = [one for one in wanted if one.batch.ports]
    assert {(one.batch.over, one.batch.ports) for one in held} == {(Over.UDP, FIXED_PORTS)}
    assert not list(targets([replace(SERVICE, ports=(DnsPort("q", "SCTP", 53),), backends=())], (), Options()))


@given(
    ports=st.integers(1, 32),
    period=st.floats(0, 300),
    wait=st.integers(1, 10_000),
    rate=st.integers(1, 100),
)
def test_held_ports_are_asked_often_enough_gently_and_for_a_bounded_time(
    ports: int, period: float, wait: int, rate: int
) -> None:
    options = Options(held=tuple(range(1, ports + 1)), period=period, wait=wait, rate=rate)
    batch = held_batch(Batch("10.96.0.10", wait=wait), options)
    assert batch.count % ports == 0
    assert batch.count >= 3 * ports
    assert batch.interval >= options.interval
    all_answered = (batch.count - 1) * batch.interval / 1000
    assert all_answered >= period - batch.count / 1000
    slowest = max(period, batch.count * options.interval / 1000) + 3 * ports * wait / 1000
    assert all_answered <= max(period, batch.count * options.interval / 1000) + batch.count / 1000
    assert batch.seconds <= slowest + period + batch.count / 1000 + 1


def test_all_well() -> None:
    measured = run(Asked())
    place = conclude("n1", "pod", measured, [SERVICE])
    assert (place.result, place.name, place.via) == (Result.ANSWERS, "n1", "pod")
    detects = {one.detects for one in measured if one.detects is not None}
    assert len(detects) == 1
    assert min(detects) >= 0.99
    told = plain.place(place)
    assert told["result"] == "answers"
    assert all(one["edns"] == one["sent"] for one in told["measurements"] if one["edns"] is not None)


def test_held_ports_that_are_dead_are_stale_entries_and_say_which() -> None:
    asker = Asked()
    asker.dead = {FIXED_PORTS[1]}
    place = conclude("n1", "pod", run(asker), [SERVICE])
    assert place.result is Result.STALE_ENTRIES
    assert str(FIXED_PORTS[1]) in place.message
    assert str(FIXED_PORTS[0]) not in place.message
    (held,) = [one for one in plain.place(place)["measurements"] if one["ports"] == "held"]
    assert {one["port"]: one["state"] for one in held["heldPorts"]} == {
        port: "dead" if port == FIXED_PORTS[1] else "answered" for port in FIXED_PORTS
    }


def test_a_cache_is_judged_beside_the_services() -> None:
    asker = Asked()
    asker.lost = {("169.254.20.10", over, number) for over in Over for number in range(3)}
    place = conclude("n1", "ssh", run(asker, local=("169.254.20.10",)), [SERVICE])
    assert [one.result for one in place.findings] == [Result.ANSWERS, Result.NODE_LOCAL_DOWN]
    assert place.result is Result.NODE_LOCAL_DOWN


def test_where_nothing_can_be_asked_nothing_more_is_tried_and_elsewhere_the_rest_is() -> None:
    asker = Asked()
    asker.ask = lambda *_, **__: (_ for _ in ()).throw(KdnsctlError("no way", code="noWay", hint="do this"))  # type: ignore[method-assign]
    into: list[Measured] = []
    with CancelScope() as scope:
        why = measure(asker, targets([SERVICE], (), FAST), into, scope=scope, watch=lambda *_: None)
    assert why is not None
    assert (why.code, why.message) == ("noWay", "no way (do this)")
    assert len(into) == 1
    place = conclude("n1", "", into, [SERVICE], why)
    assert (place.result, place.message) == (Result.UNKNOWN, "no way (do this)")

    asker = Asked()
    asker.broken = {"10.0.0.1": KdnsctlError("broke off")}
    measured = run(asker)
    assert [str(one.problem and one.problem.message) for one in measured].count("broke off") == 1
    assert measured[-1].target.kind is Kind.VIP
    assert conclude("n1", "pod", measured, [SERVICE]).result is Result.ANSWERS


def test_what_was_measured_before_an_interruption_is_kept() -> None:
    asker = Asked()
    into: list[Measured] = []
    with CancelScope() as scope:
        asker.cancel_at = ("10.96.0.10", scope)
        with pytest.raises(CancelledError):
            measure(asker, targets([SERVICE], (), FAST), into, scope=scope, watch=lambda *_: None)
    assert [len(one.attempts) for one in into if one.target.kind is Kind.POD] == [3, 1] * 3
    assert len(into[-1].attempts) == 1


@pytest.mark.parametrize(("rcode", "answers"), [(3, 0), (5, 0), (0, 0)])
def test_a_resolver_on_the_way_is_not_taken_for_the_clusters_dns(rcode: int, answers: int) -> None:
    measured = run(Asked("", rcode=rcode, answers=answers))
    here = conclude("", "here", measured, [SERVICE])
    assert here.result is Result.UNREACHABLE
    assert "--name" in here.message
    # On a node nobody stands in between; there NXDOMAIN is an answer of the cluster's.
    assert conclude("n1", "pod", measured, [SERVICE]).result is Result.ANSWERS
