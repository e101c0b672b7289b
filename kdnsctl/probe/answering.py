"""One question in a few queries: does the DNS Service answer now, from there?

For who has just changed something and wants to know whether DNS still works: a drain after each DNS pod, a repair after
the flush. It asks from fresh source ports only, over UDP and TCP, and is over in about a second when all is well. Flows
that exist are none of its business: of them the node's own table tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import DnsService, find_dns
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError
from kdnsctl.probe.queries import NAME, Asker, Attempt, Batch, Over, queries_for, tally

OVER_TCP: Final = 2  # queries: the rules are others than for UDP, and as many are dead


@dataclass(frozen=True, slots=True)
class Answering:
    """Whether DNS answers, as far as could be measured: `well` is None when it could not. `message` is for people."""

    well: bool | None
    message: str


def address_answers(
    asker: Asker, address: str, port: int = 53, *, backends: int = 1, name: str = NAME, scope: CancelScope
) -> Answering:
    """Ask an address from so many fresh ports as meet one dead backend among `backends` at 99 %, and over TCP.

    Raises ValueError for what is no address, and what ended the scope.
    """
    lost: list[str] = []
    known = False
    unsent: list[str] = []
    asked = 0
    try:
        for over, count in ((Over.UDP, queries_for(backends)), (Over.TCP, OVER_TCP)):
            attempts: list[Attempt] = []
            asker.ask(Batch(address, port, name, over, count), attempts.append, scope=scope)
            told = tally(attempts)
            asked += told.sent
            known = known or any(attempt.rcode == 0 and attempt.answers for attempt in attempts)
            if told.unsent:
                unsent += [why for why, _ in told.errors]
            if told.lost:
                lost.append(f"{told.lost} of {told.sent} queries over {over.value}")
    except KdnsctlError as error:
        scope.check()
        return Answering(None, f"whether {address}:{port} answers {place(asker)} could not be measured: {error}")
    if lost:
        return Answering(False, f"{address}:{port} did not answer {' and '.join(lost)} {place(asker)}")
    if not asker.where and not known:
        why = f"what answers this machine has no address for {name}: it may be another resolver"
        return Answering(None, f"whether {address}:{port} answers could not be measured: {why}")
    if unsent:
        why = ", ".join(dict.fromkeys(unsent))
        return Answering(None, f"whether {address}:{port} answers {place(asker)} could not be measured: {why}")
    return Answering(True, f"{address}:{port} answered all {asked} queries {place(asker)}")


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


class ServiceTrouble:
    """Asks by a Service's name, from one place: what a drain asks after each DNS pod that has left."""

    def __init__(self, connection: Connection, asker: Asker, *, name: str = NAME) -> None:
        self._connection = connection
        self._asker = asker
        self._name = name

    def trouble(self, service: str, scope: CancelScope) -> str:
        """Why the Service (`kube-system/kube-dns`) does not answer as it should; empty when it does.

        What could not be measured is trouble, too. Raises what ended `scope`.
        """
        try:
            found = next((one for one in find_dns(self._connection, scope=scope) if str(one) == service), None)
        except KdnsctlError as error:
            scope.check()
            return f"where {service} serves could not be read: {error}"
        if found is None:
            return f"{service} is not among the DNS Services any more"
        told = service_answers(self._asker, found, name=self._name, scope=scope)
        return "" if told.well else told.message


def place(asker: Asker) -> str:
    """Where it was asked, for the end of a sentence."""
    return f"from {asker.where}" if asker.where else "from this machine"


def _alike(one: str, other: str) -> bool:
    return (":" in one) == (":" in other)
