"""Measuring from one place: which addresses are asked how often, and the asking, one batch after the other.

Gently: DNS is in trouble when this runs. One query at a time from each place, no faster than `rate`, and no more than
it takes to be sure. What has been measured stays, however it ends.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import Backend, DnsService
from kdnsctl.model import KdnsctlError, Reason
from kdnsctl.probe import verdict
from kdnsctl.probe.queries import (
    EDNS_SIZE,
    FIXED_PORTS,
    NAME,
    Asker,
    Attempt,
    Batch,
    Over,
    Tally,
    at,
    detected_by,
    queries_for,
    tally,
)
from kdnsctl.probe.verdict import Finding, Result, Seen

EACH_POD: Final = 3  # queries to a pod over UDP
OVER_TCP: Final = 4  # connections to a VIP
FEWEST_ROUNDS: Final = 3  # in which each held port is asked: two lost in a row are no accident
APART: Final = 2000  # ms between two queries from one held port: what lasts longer than 2 s is kept for 120 s


class Kind(enum.StrEnum):
    """What a measurement is of."""

    POD = "pod"
    VIP = "vip"
    NODE_LOCAL = "nodeLocal"


@dataclass(frozen=True, slots=True)
class Options:
    """How a place measures. `held` are source ports; `period` in seconds they are asked over; `wait` is in ms;
    `rate` is queries in a second. `queries` replaces the number from fresh ports, None: as backends demand.
    """

    name: str = NAME
    held: tuple[int, ...] = FIXED_PORTS
    period: float = 4.0
    wait: int = 1000
    rate: int = 20
    queries: int | None = None

    @property
    def interval(self) -> int:
        """Milliseconds between two queries."""
        return max(1, round(1000 / self.rate))


@dataclass(frozen=True, slots=True)
class Target:
    """One measurement to be made. `service` is NS/NAME, "" for a node's own cache; `backend` is the pod asked."""

    kind: Kind
    service: str
    batch: Batch
    backend: Backend | None = None
    backends: int = 0

    @property
    def address(self) -> str:
        """Where it asks, with the port."""
        return at(self.batch.address, self.batch.port)


@dataclass(slots=True)
class Measured:
    """What came of it so far. `problem` is why it was not measured, or not to its end."""

    target: Target
    attempts: list[Attempt] = field(default_factory=list)
    problem: Reason | None = None

    @property
    def told(self) -> Tally:
        """The attempts, added up."""
        return tally(self.attempts)

    def by_port(self) -> dict[int, list[Attempt]]:
        """The attempts of each held port, in order; empty where none are held."""
        return {port: [one for one in self.attempts if one.port == port] for port in self.target.batch.ports}

    @property
    def detects(self) -> float | None:
        """With which probability its fresh ports would meet one dead backend; None where that is not asked."""
        if self.target.kind is not Kind.VIP or self.target.batch.ports or self.target.batch.over is Over.TCP:
            return None
        return detected_by(self.told.sent, self.target.backends)


@dataclass(frozen=True, slots=True)
class Place:
    """Everything from one place: `name` is a node's, "" for this machine; `via` how it was asked there."""

    name: str
    via: str
    measured: tuple[Measured, ...]
    findings: tuple[Finding, ...]
    problem: Reason | None = None

    @property
    def result(self) -> Result:
        """What is said of the place in a word."""
        worst = verdict.gravest(self.findings)
        return worst.result if worst else Result.UNKNOWN

    @property
    def message(self) -> str:
        """And in a sentence."""
        worst = verdict.gravest(self.findings)
        if worst is not None and worst.result is not Result.UNKNOWN:
            return worst.message
        return self.problem.message if self.problem else worst.message if worst else "nothing was measured"


# Told of every attempt, and once more without one when a measurement is over: place, measurement, attempt.
Watch = Callable[[str, Measured, Attempt | None], object]


def targets(services: Iterable[DnsService], local: Sequence[str], options: Options) -> Iterator[Target]:
    """What is measured from a place whose own caches listen at `local`: pods, then VIPs, then those."""
    known = list(services)
    asked: set[tuple[str, int, Over]] = set()
    for service in known:
        for backend in sorted(service.backends, key=lambda one: (one.pod, one.address, one.protocol != Over.UDP)):
            where = (backend.address, backend.port, Over(backend.protocol)) if backend.protocol in list(Over) else None
            if where is not None and where not in asked:  # two Services may have the same pods
                asked.add(where)
                yield Target(Kind.POD, str(service), _to_pod(backend, options), backend)
    for service in known:
        for vip in service.vips:
            yield from _of_vip(service, vip, options)
    for address in local:
        for over in Over:
            batch = Batch(address, 53, options.name, over, EACH_POD, options.interval, options.wait)
            yield Target(Kind.NODE_LOCAL, "", batch)


def _to_pod(backend: Backend, options: Options) -> Batch:
    over = Over(backend.protocol)
    count, edns = (EACH_POD, EDNS_SIZE) if over is Over.UDP else (1, 0)
    return Batch(backend.address, backend.port, options.name, over, count, options.interval, options.wait, edns=edns)


def _of_vip(service: DnsService, vip: str, options: Options) -> Iterator[Target]:
    for port in service.ports:
        if port.protocol not in list(Over):
            continue
        over = Over(port.protocol)
        backends = len(backends_of(service, vip, over))
        count = OVER_TCP if over is Over.TCP else options.queries or queries_for(backends)
        batch = Batch(vip, port.port, options.name, over, count, options.interval, options.wait)
        yield Target(Kind.VIP, str(service), batch, backends=backends)
        if over is Over.UDP and options.held:
            yield Target(Kind.VIP, str(service), held_batch(batch, options), backends=backends)


def held_batch(batch: Batch, options: Options) -> Batch:
    """The same from the held ports: each every two seconds, over the period, and three times at least.

    When nothing answers, it lasts for no more than the period and three times `wait` for each port longer.
    """
    ports = len(options.held)
    step = max(APART, ports * options.wait) / 1000
    rounds = max(FEWEST_ROUNDS, int(options.period / step) + 1)
    count = rounds * ports
    interval = max(options.interval, round(options.period * 1000 / max(1, count - 1)))
    return Batch(batch.address, batch.port, batch.name, batch.over, count, interval, options.wait, ports=options.held)


def backends_of(service: DnsService, vip: str, over: Over) -> list[Backend]:
    """Those behind one VIP: of its family and protocol."""
    return [one for one in service.backends if one.protocol == over.value and (":" in one.address) == (":" in vip)]


def measure(
    asker: Asker, wanted: Iterable[Target], into: list[Measured], *, scope: CancelScope, watch: Watch
) -> Reason | None:
    """Make the measurements one after the other; each is in `into` from its beginning.

    Returns why the place can ask nothing, when the first could not even begin: the others are not tried then. Raises
    what ended the scope.
    """
    for target in wanted:
        scope.check()
        one = Measured(target)
        into.append(one)
        try:
            asker.ask(target.batch, _noting(asker.where, one, watch), scope=scope)
        except KdnsctlError as error:
            scope.check()
            hint = f" ({error.hint})" if error.hint else ""
            one.problem = Reason(error.code, f"{error}{hint}", error)
            if len(into) == 1 and not one.attempts:
                return one.problem
        finally:
            watch(asker.where, one, None)
    return None


def _noting(where: str, one: Measured, watch: Watch) -> Callable[[Attempt], object]:
    def take(attempt: Attempt) -> None:
        one.attempts.append(attempt)
        watch(where, one, attempt)

    return take


def conclude(
    name: str, via: str, measured: Sequence[Measured], services: Iterable[DnsService], problem: Reason | None = None
) -> Place:
    """What the measurements of one place say together."""
    if not name and (stranger := _stranger(measured)):
        return Place(name, via, tuple(measured), (stranger,), problem)
    findings: list[Finding] = []
    for service in services:
        for vip in service.vips:
            mine = [one for one in measured if one.target.kind is Kind.VIP and one.target.batch.address == vip]
            for port in sorted({one.target.batch.port for one in mine}):
                at_port = [one for one in mine if one.target.batch.port == port]
                findings += verdict.judge(_seen(service, vip, port, at_port, measured, inside=bool(name)))
    served = any(one.result not in (Result.DNS_DOWN, *verdict.UNTOLD) for one in findings)
    udp, tcp = _local(measured, Over.UDP), _local(measured, Over.TCP)
    for address, told in udp.items():
        findings += verdict.judge_local(address, told, tcp.get(address), others_answer=served)
    return Place(name, via, tuple(measured), tuple(findings), problem)


def _stranger(measured: Sequence[Measured]) -> Finding | None:
    """Whether what answers this machine is not the cluster's DNS: on its way, a resolver may answer for any address."""
    answers = [attempt for one in measured for attempt in one.attempts if attempt.answered]
    if not answers or any(attempt.rcode == 0 and attempt.answers for attempt in answers):
        return None
    asked = measured[0].target.batch.name
    why = "a resolver in between may be answering for every address, or the cluster's domain is another one (--name)"
    return Finding(Result.UNREACHABLE, asked, f"what answers this machine has no address for {asked}: {why}")


def _seen(
    service: DnsService, vip: str, port: int, mine: Sequence[Measured], every: Sequence[Measured], *, inside: bool
) -> Seen:
    fresh = [one for one in mine if one.target.batch.over is Over.UDP and not one.target.batch.ports]
    tcp = [one for one in mine if one.target.batch.over is Over.TCP]
    held = [one for one in mine if one.target.batch.ports]
    behind = {(one.address, one.port) for one in backends_of(service, vip, Over.UDP)}
    return Seen(
        about=f"{service} ({at(vip, port)})",
        backends=len(behind),
        inside=inside,
        fresh=fresh[0].told if fresh else None,
        tcp=tcp[0].told if tcp else None,
        held={port: verdict.held_state(tried) for one in held for port, tried in one.by_port().items()},
        pods={_called(one): one.told for one in every if _is_behind(one, behind)},
    )


def _is_behind(one: Measured, behind: set[tuple[str, int]]) -> bool:
    batch = one.target.batch
    return one.target.kind is Kind.POD and batch.over is Over.UDP and (batch.address, batch.port) in behind


def _called(one: Measured) -> str:
    backend = one.target.backend
    return f"{backend.pod} ({one.target.address})" if backend and backend.pod else one.target.address


def _local(measured: Sequence[Measured], over: Over) -> Mapping[str, Tally]:
    return {
        one.target.address: one.told
        for one in measured
        if one.target.kind is Kind.NODE_LOCAL and one.target.batch.over is over
    }
