"""The live DNS probe between two DNS pods that are drained: asked from a node that is well, else from this machine.

A node that is in quarantine, was found affected, goes away or is not ready is not asked from: what it cannot resolve
says nothing of the cluster. The first node from which DNS can be asked is kept for the whole drain. That a query is
lost is trouble; so is that nothing can ask, and then it is said what is missing. Which pod may go is known to
`dnsdrain`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import DnsService, find_dns
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.proxyload import list_nodes
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.probing import LadderAsker
from kdnsctl.evidence.ways import Ladder
from kdnsctl.find.scope import Chosen, nodes_in_scope
from kdnsctl.model import KdnsctlError
from kdnsctl.probe.answering import Answering, service_answers
from kdnsctl.probe.here import Here
from kdnsctl.probe.queries import Asker
from kdnsctl.quarantine.guards import dying, in_quarantine, named
from kdnsctl.quarantine.reaching import Reach, ladder_to

PATIENCE: Final = 2  # times that a Service which does not answer is asked again
AGAIN: Final = 10.0  # seconds between them: kube-proxy writes its rules every 1 to 10 s, in large clusters more slowly
MOST_TRIED: Final = 3  # nodes: what one lacks to ask with, an image or a login, the others mostly lack, too
ADVICE: Final = (
    "name the tools image (--image), or allow SSH to a well node that has python3 (--via ssh), and run the same again"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and its answer, for the journal and the report. `service` is "NAMESPACE/NAME"."""

    service: str
    answer: Answering


class WellNodes:
    """A `DnsProbe` from nodes that are well. `told` is given every answer. `close` ends what was opened."""

    def __init__(
        self,
        connection: Connection,
        reach: Reach,
        *,
        note: Callable[[str], None],
        told: Callable[[Asked], None],
        affected: Collection[str] = (),
    ) -> None:
        self._connection = connection
        self._reach = reach
        self._note = note
        self._told = told
        self._affected = affected
        self._opened = contextlib.ExitStack()
        self._ladder: Ladder | None = None
        self._known: set[str] = set()  # the nodes that it leads to
        self._kept: Asker | None = None

    def trouble(self, service: str, scope: CancelScope) -> str:
        """See `DnsProbe.trouble`."""
        try:
            found = next((one for one in find_dns(self._connection, scope=scope) if str(one) == service), None)
            nodes = list_nodes(self._connection, scope=scope)
            well = well_nodes([node for node in nodes if node.metadata.name not in self._affected])
            ladder = self._to(well, scope) if well else None
        except KdnsctlError as error:
            scope.check()
            return f"whether {service} answers could not be measured: {error}"
        if found is None:
            return f"{service} is not among the DNS Services any more"
        untold: list[tuple[str, str]] = []
        for asker in self._askers(well, ladder):
            answer = self._answer(asker, found, scope)
            if answer.well is not None:
                self._kept = asker
                self._told(Asked(service, answer))
                self._note(f"{service}: {answer.message}")
                return "" if answer.well else answer.message
            untold.append((asker.where, answer.why or answer.message))
        message = f"whether {service} answers could not be measured: {_why(untold)}"
        self._told(Asked(service, Answering(None, message)))
        return f"{message}; {ADVICE}"

    def _answer(self, asker: Asker, service: DnsService, scope: CancelScope) -> Answering:
        """What is lost at first may be lost because a kube-proxy has not heard of the new pod yet."""
        answer = service_answers(asker, service, scope=scope)
        for _ in range(PATIENCE):
            if answer.well is not False:
                break
            scope.pause(AGAIN)
            scope.check()
            answer = service_answers(asker, service, scope=scope)
        return answer

    def close(self) -> None:
        """End what was opened: pods are deleted."""
        self._opened.close()

    def _askers(self, well: Sequence[str], ladder: Ladder | None) -> Iterator[Asker]:
        """The one that could ask before, if its node still is well; then others, and this machine."""
        if self._kept is not None and self._kept.where in ("", *well):
            yield self._kept
        others = [name for name in well[:MOST_TRIED] if self._kept is None or self._kept.where != name]
        if ladder is not None:
            for name in others:
                yield self._opened.enter_context(LadderAsker(ladder, name))
        yield Here()

    def _to(self, well: Sequence[str], scope: CancelScope) -> Ladder:
        if self._ladder is None or not self._known.issuperset(well):
            self._known |= set(well)
            found = nodes_in_scope(self._connection, Chosen(tuple(well)), scope=scope, command="quarantine")
            self._ladder = self._opened.enter_context(ladder_to(found, self._reach, self._connection, self._note))
        return self._ladder


def _why(untold: Sequence[tuple[str, str]]) -> str:
    """Why nothing could ask: of the first node in full, as what it lacks the others mostly lack, too."""
    nodes = [(where, why) for where, why in untold if where]
    first = nodes[0][1] if nodes else "no other node is well, to ask from"
    others = f", nor from {named([where for where, _ in nodes[1:]])}" if len(nodes) > 1 else ""
    here = "".join(f"; from this machine: {why}" for where, why in untold if not where)
    return f"{first}{others}{here}"


def well_nodes(nodes: Sequence[Node]) -> list[str]:
    """The names of nodes that may be asked from, those first that take pods."""
    well = [
        node for node in nodes if node.ready and node.os != "windows" and not dying(node) and not in_quarantine(node)
    ]
    return [node.metadata.name for node in sorted(well, key=lambda one: (one.spec.unschedulable, one.metadata.name))]


@contextlib.contextmanager
def asking(
    connection: Connection,
    reach: Reach,
    *,
    note: Callable[[str], None],
    told: Callable[[Asked], None],
    affected: Collection[str] = (),
) -> Iterator[WellNodes]:
    """A probe for the length of the block; nothing is opened before it is asked. `affected` nodes are not asked."""
    with contextlib.closing(WellNodes(connection, reach, note=note, told=told, affected=affected)) as probe:
        yield probe
