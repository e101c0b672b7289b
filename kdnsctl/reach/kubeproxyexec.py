"""The first rung: commands in the kube-proxy container of a node, and port-forwards to its endpoints.

It needs nothing on the cluster that is not there, and no permission but on `pods/exec` and `pods/portforward`: that
container runs as uid 0 in the node's network namespace (kubeadm: privileged). What runs there is charged to
kube-proxy's memory limit, so it must stream. Nodes without a kube-proxy pod cannot be reached this way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import execs, portforward
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import NO_RETRIES, RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Endpoint, Fact, KdnsctlError, NodeChange, Proof, Reason, Toolset
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.reach.containers import Container, Turn
from kdnsctl.reach.readings import SLACK, ReadingLog, as_fact, read_command
from kdnsctl.reach.shell import Reading, Sink

RUNG: Final = "exec"
KILLED_BY_LIMIT: Final = "the command was killed on the node, which happens when kube-proxy's memory limit is reached"


def needed(facts: Iterable[Fact], namespace: str) -> tuple[Permission, ...]:
    """What reading these facts needs in the namespace of kube-proxy's pods, each once."""
    wanted: list[Permission] = []
    for fact in facts:
        wanted += portforward.needed(namespace) if fact.endpoint else execs.needed(namespace)
    return tuple(dict.fromkeys(wanted))


class KubeProxyExec:
    """A `NodeShell` for one node, in the pod that `place` names. May be used from several threads: they take turns."""

    def __init__(self, connection: Connection, node: str, place: PodPlace, *, retry: RetryPolicy | None = None) -> None:
        self._connection = connection
        self._node = node
        self._place = place
        self._retry = retry
        self._turn = Turn(node)

    @property
    def node(self) -> str:
        return self._node

    @property
    def rung(self) -> str:
        return RUNG

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return (Toolset.KUBE_PROXY,)

    def can(self, fact: Fact) -> bool:
        return fact.endpoint is not None or fact.command(self.toolsets) is not None

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self.toolsets)

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        if not self.can(fact):
            raise KdnsctlError(
                f"{fact.title} cannot be read in the kube-proxy container of {self._node}: no tool for it"
            )
        with self._turn.mine(scope):  # iptables-save contends for the lock that kube-proxy needs: never two at once
            log = ReadingLog(fact, self._node, RUNG, sink)
            if fact.endpoint is not None:
                return self._ask(fact, fact.endpoint, log, scope)
            return self._run(fact, fact.commands[Toolset.KUBE_PROXY], log, scope, self._retry)

    def can_change(self, change: NodeChange) -> bool:
        return Toolset.KUBE_PROXY in change.commands

    def change(self, change: NodeChange, sink: Sink, *, scope: CancelScope) -> Reading:
        fact = as_fact(change)
        with self._turn.mine(scope):
            log = ReadingLog(fact, self._node, RUNG, sink)
            return self._run(fact, fact.commands[Toolset.KUBE_PROXY], log, scope, NO_RETRIES)

    def _run(
        self, fact: Fact, command: tuple[str, ...], log: ReadingLog, scope: CancelScope, retry: RetryPolicy | None
    ) -> Reading:
        container = Container(self._connection, self._place.namespace, self._place.pod, self._place.container)
        run = container.running(log, scope, fact.seconds + SLACK, retry=retry)
        return read_command(fact, command, log, scope, run, killed=KILLED_BY_LIMIT)

    def _ask(self, fact: Fact, endpoint: Endpoint, log: ReadingLog, scope: CancelScope) -> Reading:
        request = portforward.ForwardRequest(self._place.namespace, self._place.pod, endpoint.port, endpoint.path)
        ends: list[portforward.ForwardEnd] = []

        def ask() -> None:
            ends.append(
                portforward.get(
                    self._connection,
                    request,
                    take=log.take,
                    scope=scope,
                    seconds=fact.seconds,
                    opened=log.begin,
                    retry=self._retry,
                )
            )

        broke = log.follow(ask, scope)
        if not ends:
            return log.reading(Completeness(problem=broke), None, None)
        return log.reading(_of_answer(ends[0], endpoint), ends[0].status, None)


def _of_answer(end: portforward.ForwardEnd, endpoint: Endpoint) -> Completeness:
    if not end.bounded:
        why = f"the answer to {endpoint.path} does not say where it ends, so it may have been cut off"
        return Completeness(problem=Reason("unbounded", why))
    if end.status != 200:
        return Completeness(Proof.CLOSED, Reason("httpStatus", f"{endpoint.path} answers with HTTP {end.status}"))
    return Completeness(Proof.CLOSED)
