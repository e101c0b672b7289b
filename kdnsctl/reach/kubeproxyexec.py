"""The first rung: commands in the kube-proxy container of a node, and port-forwards to its endpoints.

It needs nothing on the cluster that is not there, and no permission but on `pods/exec` and `pods/portforward`: that
container runs as uid 0 in the node's network namespace (kubeadm: privileged). What runs there is charged to
kube-proxy's memory limit, so it must stream. Nodes without a kube-proxy pod cannot be reached this way.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster import execs, portforward
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Endpoint, Fact, KdnsctlError, Proof, Reason, Toolset
from kdnsctl.netfilter import trailer
from kdnsctl.netfilter.dump import Completeness
from kdnsctl.reach.limits import LATE, limited
from kdnsctl.reach.shell import MAX_STDERR, Reading, Sink

RUNG: Final = "exec"
SLACK: Final = 15  # seconds on top of what a command may take on the node: for what is still on its way
KILLED: Final = 137  # a shell's exit code for a program that SIGKILL has ended


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
        self._turn = threading.Lock()

    @property
    def node(self) -> str:
        return self._node

    @property
    def rung(self) -> str:
        return RUNG

    def can(self, fact: Fact) -> bool:
        return fact.endpoint is not None or Toolset.KUBE_PROXY in fact.commands

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        if not self.can(fact):
            raise KdnsctlError(
                f"{fact.title} cannot be read in the kube-proxy container of {self._node}: no tool for it"
            )
        with self._my_turn(scope):  # iptables-save contends for the lock that kube-proxy needs: never two at once
            log = _Log(fact, self._node, sink)
            if fact.endpoint is not None:
                return self._ask(fact, fact.endpoint, log, scope)
            return self._run(fact, fact.commands[Toolset.KUBE_PROXY], log, scope)

    def _run(self, fact: Fact, command: tuple[str, ...], log: _Log, scope: CancelScope) -> Reading:
        token = secrets.token_hex(8)
        bounded = limited(command, fact.seconds)
        numbered = bool(fact.patterns)
        whole = trailer.filtered(bounded, fact.patterns, token) if numbered else trailer.whole(bounded, token)
        request = execs.ExecRequest(self._place.namespace, self._place.pod, self._place.container, tuple(whole))
        splitter = trailer.TrailerSplitter(token, numbered=numbered)

        def run() -> None:
            execs.run(
                self._connection,
                request,
                stdout=lambda piece: log.take(splitter.feed(piece)),
                stderr=log.complain,
                scope=scope,
                seconds=fact.seconds + SLACK,
                opened=log.begin,
                retry=self._retry,
            )

        broke = log.follow(run, scope)
        rest, end = splitter.finish()
        held_back = log.follow(lambda: log.take(rest), scope)
        broke = held_back or broke
        # A trailer proves more than the way the connection ended: it is the last that the node wrote.
        trusted = broke is None or (end is not None and not isinstance(broke.error, _TooLongError))
        completeness = _completeness(end, fact) if trusted else Completeness(problem=broke)
        return log.reading(completeness, end.exit_code if end else None, end.total if end else None)

    def _ask(self, fact: Fact, endpoint: Endpoint, log: _Log, scope: CancelScope) -> Reading:
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

    @contextlib.contextmanager
    def _my_turn(self, scope: CancelScope) -> Iterator[None]:
        left = scope.remaining()
        if not self._turn.acquire(timeout=-1 if left is None else left):
            scope.check()
            raise KdnsctlError(
                f"{self._node} was busy with another reading for all the time there was", code="deadline"
            )
        try:
            yield
        finally:
            self._turn.release()


class _TooLongError(KdnsctlError):
    """There is more output than a fact may have."""

    code = "tooLong"


class _Log:
    """What is noted while a fact is read."""

    def __init__(self, fact: Fact, node: str, sink: Sink) -> None:
        self._fact = fact
        self._node = node
        self._sink = sink
        self._sink_error: BaseException | None = None
        self._began: tuple[dt.datetime, float] | None = None
        self._received = 0
        self._stderr = bytearray()
        self._stderr_bytes = 0

    def begin(self) -> None:
        self._began = dt.datetime.now(dt.UTC), time.monotonic()

    def take(self, piece: bytes) -> None:
        piece, more = piece[: self._fact.max_bytes - self._received], len(piece)
        if piece:
            self._received += len(piece)
            try:
                self._sink(piece)
            except BaseException as error:
                self._sink_error = error
                raise
        if more > len(piece):
            raise _TooLongError(f"it is longer than {self._fact.max_bytes} bytes; the rest was not read")

    def complain(self, piece: bytes) -> None:
        self._stderr_bytes += len(piece)
        self._stderr += piece[: MAX_STDERR - len(self._stderr)]

    def follow(self, work: Callable[[], None], scope: CancelScope) -> Reason | None:
        """Do it; why it broke off, once it had begun.

        Raises what kept it from beginning, what ended the scope, and what the sink raised.
        """
        try:
            work()
        except KdnsctlError as error:
            scope.check()
            if self._sink_error is not None:
                raise self._sink_error from None
            if self._began is None:
                raise
            return Reason(error.code, str(error), error)
        return None

    def reading(self, completeness: Completeness, exit_code: int | None, total: int | None) -> Reading:
        ended, stopped = dt.datetime.now(dt.UTC), time.monotonic()
        started, since = self._began or (ended, stopped)
        return Reading(
            fact=self._fact.id,
            node=self._node,
            rung=RUNG,
            completeness=completeness,
            started=started,
            ended=ended,
            seconds=stopped - since,
            received=self._received,
            exit_code=exit_code,
            total=total,
            stderr=bytes(self._stderr),
            stderr_bytes=self._stderr_bytes,
        )


def _completeness(end: trailer.Trailer | None, fact: Fact) -> Completeness:
    """What the trailer proves, in words that tell the two ends that are not the command's own."""
    if end is not None and end.exit_code == LATE:
        late = f"the command was stopped on the node after {duration(fact.seconds)}"
        return Completeness(Proof.TRAILER, Reason("lateOnNode", late))
    if end is not None and end.exit_code == KILLED:
        killed = "the command was killed on the node, which happens when kube-proxy's memory limit is reached"
        return Completeness(Proof.TRAILER, Reason("killedOnNode", killed))
    return trailer.completeness(end)


def _of_answer(end: portforward.ForwardEnd, endpoint: Endpoint) -> Completeness:
    if not end.bounded:
        why = f"the answer to {endpoint.path} does not say where it ends, so it may have been cut off"
        return Completeness(problem=Reason("unbounded", why))
    if end.status != 200:
        return Completeness(Proof.CLOSED, Reason("httpStatus", f"{endpoint.path} answers with HTTP {end.status}"))
    return Completeness(Proof.CLOSED)
