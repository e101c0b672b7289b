"""What proves that a node may be given back: its state, read by the rungs that were chosen, and DNS, asked from it.

The state decides: a node whose state cannot be read is not well. DNS that does not answer is a fault, too; that nothing
can ask it there is told, and no reason to keep the node. Nothing is changed here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kdnsctl import fleet
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.dns import find_dns
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.laddershell import LadderShell
from kdnsctl.evidence.probing import LadderAsker
from kdnsctl.evidence.ways import Ladder, Via
from kdnsctl.find.analyze_nodes import NodeOptions, analyze_nodes
from kdnsctl.find.scope import Chosen, nodes_in_scope
from kdnsctl.model import KdnsctlError, Outcome, Reporter, Verdict
from kdnsctl.probe.answering import Answering, service_answers
from kdnsctl.quarantine.reaching import Reach, ladder_to

HEALTHY: Final = (Verdict.CLEAN, Verdict.NOT_APPLICABLE)
ASKED_AT_ONCE: Final = 4  # nodes: each asks for itself, and all of them the same few pods
_WORST_FIRST: Final = (False, None, True)


@dataclass(frozen=True, slots=True)
class Proof:
    """One node: the verdict on its state, by which rungs it was read, and what DNS answered there.

    `dns` is None when it was not asked: the state alone is reason enough to keep the node.
    """

    verdict: Verdict
    reason: str
    via: str = ""
    dns: Answering | None = None

    @property
    def well(self) -> bool:
        """Whether the node may be given back."""
        return self.verdict in HEALTHY and not (self.dns is not None and self.dns.well is False)

    @property
    def told(self) -> str:
        """All of it, for people."""
        by = f" (by {self.via})" if self.via else ""
        return f"{self.verdict}{by}: {self.reason}" + (f"; DNS: {self.dns.message}" if self.dns else "")


def prove(
    names: Sequence[str],
    reach: Reach,
    connection: Connection,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
) -> Mapping[str, Proof]:
    """Judge the nodes and ask DNS from those that are well. What could not be had by the end of `scope` is unknown.

    Raises what `nodes_in_scope` and `analyze_nodes` raise.
    """
    found = nodes_in_scope(connection, Chosen(tuple(names)), scope=scope, command="release")
    with ladder_to(found, reach, connection, reporter.noted) as ladder, contextlib.ExitStack() as opened:
        shells: dict[str, LadderShell] = {}
        if reach.via is not Via.EXEC:  # which leads to kube-proxy's pod, and where none runs, it is said what is there
            shells = {name: opened.enter_context(LadderShell(ladder, name)) for name in found.names}
        report = analyze_nodes(
            NodeOptions(Chosen(tuple(names))),
            connection,
            scope=scope,
            reporter=reporter,
            now=now,
            about=found,
            shell_of=(lambda proxy: shells[proxy.node]) if shells else None,
        )
        proofs = {node.name: Proof(node.verdict, node.reason, node.via or "") for node in report.nodes}
        well = [name for name, proof in proofs.items() if proof.verdict is Verdict.CLEAN]
        if well and scope.reason is None:
            answers = _asked(well, ladder, connection, scope, reporter)
            proofs |= {name: _with(proofs[name], outcome) for name, outcome in answers.items()}
    return proofs


def _asked(
    names: Sequence[str], ladder: Ladder, connection: Connection, scope: CancelScope, reporter: Reporter
) -> Mapping[str, Outcome[Answering]]:
    """What the DNS Services answer each of the nodes."""
    try:
        services = find_dns(connection, scope=scope)
    except KdnsctlError as error:
        unread = Answering(None, f"the DNS Services could not be read: {error}")
        return {name: Outcome(name, unread) for name in names}

    def ask(node: str, limit: CancelScope) -> Answering:
        with LadderAsker(ladder, node) as asker:
            told = [service_answers(asker, service, scope=limit) for service in services]
        if not told:
            return Answering(None, "no Service of this cluster serves DNS: nothing was asked")
        return min(told, key=lambda one: _WORST_FIRST.index(one.well))

    outcomes = fleet.run(
        names, ask, parallel=ASKED_AT_ONCE, deadline=None, reporter=reporter, scope=scope, what="asking DNS"
    )
    return {outcome.node: outcome for outcome in outcomes}


def _with(proof: Proof, outcome: Outcome[Answering]) -> Proof:
    why = outcome.reason.message if outcome.reason else "it was not asked"
    dns = outcome.value or Answering(None, f"it could not be asked: {why}")
    return Proof(proof.verdict, proof.reason, proof.via, dns)
