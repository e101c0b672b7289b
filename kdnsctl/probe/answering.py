"""One question in a few queries: does the DNS Service answer now, from there?

For who has just changed something and wants to know whether DNS still works: a drain after each DNS pod, a repair after
the flush. It asks from fresh source ports only, over UDP and TCP, and is over in about a second when all is well. Flows
that exist are none of its business: of them the node's own table tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import DnsService
from kdnsctl.model import KdnsctlError
from kdnsctl.probe.queries import NAME, Asker, Attempt, Batch, Over, Tally, at, queries_for, tally

OVER_TCP: Final = 2  # queries: the rules are others than for UDP, and as many are dead


@dataclass(frozen=True, slots=True)
class Answering:
    """Whether DNS answers, as far as could be measured: `well` is None when it could not, and `why` is the cause.

    `message` is for people.
    """

    well: bool | None
    message: str
    why: str = ""


def address_answers(
    asker: Asker, address: str, port: int = 53, *, backends: int = 1, name: str = NAME, scope: CancelScope
) -> Answering:
    """Ask an address from so many fresh ports as meet one dead backend among `backends` at 99 %, and over TCP.

    Where some queries are lost, they are asked again: one packet that is lost by accident is no failure. What this
    machine does not reach at all is not known, for it may be outside. Raises ValueError for what is no address, and
    what ended the scope.
    """
    told: list[tuple[Over, Tally]] = []
    known = False
    broke = ""
    try:
        for over, count in ((Over.UDP, queries_for(backends)), (Over.TCP, OVER_TCP)):
            attempts = _twice_if_in_part(asker, Batch(address, port, name, over, count), scope)
            known = known or any(one.rcode == 0 and one.answers for one in attempts)
            told.append((over, tally(attempts)))
    except KdnsctlError as error:
        scope.check()
        broke = str(error)
    where = at(address, port)
    lost = [f"{one.lost} of {one.sent} queries over {over.value}" for over, one in told if one.lost]
    silent = not any(one.answered for _, one in told)
    if lost and (asker.where or known):  # whoever answers this machine may be another resolver, which proves nothing
        return Answering(False, f"{where} did not answer {' and '.join(lost)} {place(asker)}")
    unsent = dict.fromkeys(why for _, one in told if one.unsent for why, _ in one.errors)
    why = broke or ", ".join(unsent)
    if not why and silent:
        why = "nothing answers, and this machine may be outside the cluster's network"
    elif not why and not asker.where and not known:
        why = f"what answers has no address for {name}: it may be another resolver"
    if why:
        return Answering(None, f"whether {where} answers {place(asker)} could not be measured: {why}", why)
    return Answering(True, f"{where} answered all {sum(one.sent for _, one in told)} queries {place(asker)}")


def _twice_if_in_part(asker: Asker, batch: Batch, scope: CancelScope) -> list[Attempt]:
    """The attempts of a batch; of a second one where some of the first were lost and some were not."""
    attempts: list[Attempt] = []
    asker.ask(batch, attempts.append, scope=scope)
    told = tally(attempts)
    if told.lost and told.answered:
        attempts = []
        asker.ask(batch, attempts.append, scope=scope)
    return attempts


def service_answers(asker: Asker, service: DnsService, *, name: str = NAME, scope: CancelScope) -> Answering:
    """`address_answers` for every VIP of a Service: the worst of them, where a failure is worse than nothing known."""
    told: list[Answering] = []
    for vip in service.vips:
        ports = {port.port for port in service.ports if port.protocol == Over.UDP}
        backends = len(
            {one.address for one in service.backends if one.protocol == Over.UDP and _alike(one.address, vip)}
        )
        told += [address_answers(asker, vip, port, backends=backends, name=name, scope=scope) for port in sorted(ports)]
    if not told:
        return Answering(None, f"{service} has no address that serves DNS over UDP")
    order = (False, None, True)
    return min(told, key=lambda one: order.index(one.well))


def place(asker: Asker) -> str:
    """Where it was asked, for the end of a sentence."""
    return f"from {asker.where}" if asker.where else "from this machine"


def _alike(one: str, other: str) -> bool:
    return (":" in one) == (":" in other)
