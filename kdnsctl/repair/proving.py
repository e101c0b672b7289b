"""Whether DNS answers on a node that has just been repaired: asked from there, by whichever rung has a prober.

It stands beside the node's state, which proves the repair: a probe can tell that something else is wrong, and where
nothing on the way to a node can ask DNS, that is said and counts for nothing. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import find_dns
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.probing import LadderAsker
from kdnsctl.evidence.ways import Ladder
from kdnsctl.model import KdnsctlError
from kdnsctl.probe.answering import service_answers
from kdnsctl.repair.report import Probed

# What a node is asked for after a repair.
Prober = Callable[[str, CancelScope], Probed]

NOT_DNS: Final = "no DNS Service was repaired, so none was asked"
_WORST_FIRST: Final = (False, None, True)


def prober(ladder: Ladder, connection: Connection, services: Collection[str]) -> Prober:
    """A prober that asks those of `services` ("NAMESPACE/NAME") that serve DNS, each from fresh source ports.

    It raises what ended the scope, and nothing else: what could not be asked is in its answer.
    """

    def probe(node: str, scope: CancelScope) -> Probed:
        try:
            asked = [one for one in find_dns(connection, scope=scope) if str(one) in services]
        except KdnsctlError as error:
            scope.check()
            return Probed(None, f"the DNS Services could not be read: {error}")
        if not asked:
            return Probed(None, NOT_DNS)
        with LadderAsker(ladder, node) as asker:
            told = [service_answers(asker, service, scope=scope) for service in asked]
        worst = min(told, key=lambda one: _WORST_FIRST.index(one.well))
        return Probed(worst.well, worst.message)

    return probe
