"""probe: DNS measured from this machine, or from nodes by the rungs of the ladder.

A node is asked by the first rung that has a prober: a pod of the tools image, or python3 over SSH. kube-proxy's own
container has none. Every node in scope is in the report exactly once, with what could not be measured from it, and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes.incidents import NOTED
from kdnsctl.cluster import dns, proxyload
from kdnsctl.cluster.dns import DnsService
from kdnsctl.cluster.errors import ApiError
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.collect import internal_addresses
from kdnsctl.evidence.ways import VIA_POD, Ladder, Via
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, nodes_in_scope
from kdnsctl.model import API_VERSION, ExitCode, Fact, KdnsctlError, Outcome, Reason, Reporter, Scope, UsageError
from kdnsctl.probe import plain
from kdnsctl.probe.here import Here
from kdnsctl.probe.measure import Measured, Options, Place, Watch, conclude, measure, targets
from kdnsctl.probe.onnode import ADVICE, OnNode, fact_of
from kdnsctl.probe.queries import Asker, Batch, Take
from kdnsctl.probe.verdict import UNTOLD, Result
from kdnsctl.reach import ownpod
from kdnsctl.reach.kubeproxyexec import RUNG as EXEC
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.reach.podspec import PodRung
from kdnsctl.reach.sshshell import OPENSSH

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays

PARALLEL: Final = 4  # nodes at once: each asks for itself, and all of them the same few pods
ANY: Final[Fact] = fact_of(Batch("127.0.0.1"))
"""What any batch looks like to a rung: whether it can ask does not depend on what is asked."""

NEEDS: Final = Needs(
    needed=dns.NEEDED,
    helpful=(
        replace(proxyload.LIST_NODES, without="DNS can only be asked from nodes that are named and not looked up"),
        replace(proxyload.NEEDED[1], without="whether nodes have a DNS cache of their own is not known"),
        NOTED,
    ),
    with_option={
        VIA_POD: tuple(
            replace(one, without="no pod is made to ask from nodes: only SSH is left")
            for one in ownpod.needed(PodSettings().namespace)
        ),
    },
)


class LadderAsker:
    """An `Asker` for a node: the first rung that has a prober, found out at the first batch. `close` ends it."""

    def __init__(self, ladder: Ladder, node: str) -> None:
        self._node = node
        self._opened = contextlib.ExitStack()
        self._ways = ladder.ways(node, self._opened)
        self._asker: OnNode | None = None
        self.via = ""

    @property
    def where(self) -> str:
        return self._node

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        if self._asker is not None:
            self._asker.ask(batch, take, scope=scope)
            return
        tried: list[str] = []
        for way in self._ways:
            if not way.can(ANY):
                if way.rung != OPENSSH:  # which is only for where SSH could not log in
                    tried.append(why_not(way.rung))
                continue
            taken = _Counting(take)
            try:
                shell = way.open(scope)
                asker = OnNode(shell)
                asker.ask(batch, taken, scope=scope)
            except KdnsctlError as error:
                scope.check()
                if taken.count:  # it can ask: what broke off is no reason to ask again
                    raise
                tried.append(f"{way.rung}: {error}")
            else:
                self._asker, self.via = asker, shell.rung
                return
        why = "; ".join(dict.fromkeys(tried)) or "there is no way to it"
        raise KdnsctlError(f"DNS cannot be asked from {self._node}: {why}", code="noWay", hint=ADVICE)

    def close(self) -> None:
        """End what was opened."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Counting:
    def __init__(self, take: Take) -> None:
        self._take = take
        self.count = 0

    def __call__(self, attempt: object) -> None:
        self.count += 1
        self._take(attempt)  # type: ignore[arg-type]


def why_not(rung: str) -> str:
    """Why a rung that is there can ask nothing."""
    if rung == EXEC:
        return f"{rung}: kube-proxy's image has nothing to ask DNS with"
    return "pod: no image with a prober is named (--image)"


def needs_of(rung: str) -> str:
    """What a rung asks with, which only trying it finds out."""
    if rung in (PodRung.PLAIN, PodRung.NET_ADMIN):
        return "with dnsprobe of the named image"
    return "with the node's python3, if it has one"


@dataclass(frozen=True, slots=True)
class Question:
    """What is measured, and from where: nodes by name, or this machine when there are none.

    `services` are NS/NAME, all DNS Services when there are none. `pods` as in `CollectOptions`.
    """

    nodes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    via: Via = Via.AUTO
    pods: PodSettings | None = None
    parallel: int = PARALLEL


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was measured. `here` is this machine, None where nodes were asked. `pods_left` could not be deleted."""

    cluster: str
    generated_at: datetime
    options: Options
    services: tuple[DnsService, ...]
    here: Place | None
    nodes: tuple[Place, ...]
    scope: Scope = Scope.FULL
    notes: tuple[str, ...] = ()
    pods_left: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[Place, ...]:
        """All of them."""
        return (*([self.here] if self.here else []), *self.nodes)

    @property
    def exit_code(self) -> ExitCode:
        """FOUND when DNS fails anywhere, INCOMPLETE when something could not be measured or was left."""
        results = {place.result for place in self.places}
        if results - UNTOLD - {Result.ANSWERS}:
            return ExitCode.FOUND
        broken = any(place.problem or any(one.problem for one in place.measured) for place in self.places)
        whole = not results & UNTOLD and not broken and not self.pods_left and self.scope is Scope.FULL
        return ExitCode.OK if whole else ExitCode.INCOMPLETE


def probe(
    question: Question,
    connection: Connection,
    ssh: SshWays | None,
    *,
    scope: CancelScope,
    reporter: Reporter,
    watch: Watch,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ProbeReport:
    """Measure. When it is interrupted, or its time is up, what was measured by then is in the report.

    Raises UsageError for a Service that is none of DNS, KdnsctlError when there is none at all, as `nodes_in_scope`,
    and as `find_dns`.
    """
    services = _chosen(dns.find_dns(connection, scope=scope), question.services)
    notes: list[str] = []
    caches = _caches(connection, scope, notes)
    probing = _Probing(services, caches, question.options, watch)
    if not question.nodes:
        outcomes = fleet.run([""], probing.here, parallel=1, deadline=None, reporter=reporter, scope=scope, what="DNS")
        (here,) = probing.places(outcomes)
        return ProbeReport(
            identity_of(connection.target), now(), question.options, services, here, (), notes=tuple(notes)
        )
    found = nodes_in_scope(connection, Chosen(question.nodes), scope=scope, command="probe")
    keeper = None if question.pods is None else PodKeeper(connection, question.pods)
    if ssh is not None:
        ssh.addresses = internal_addresses(found.nodes)
    ladder = Ladder(question.via, connection, ssh, keeper, found)
    left: tuple[str, ...] = ()
    try:
        outcomes = fleet.run(
            found.names,
            lambda node, limit: probing.node(ladder, node, limit),
            parallel=question.parallel,
            deadline=None,
            reporter=reporter,
            scope=scope,
            what="nodes",
        )
    finally:
        left = keeper.close() if keeper else ()
    return ProbeReport(
        identity_of(connection.target),
        now(),
        question.options,
        services,
        None,
        tuple(probing.places(outcomes)),
        found.scope,
        (*notes, *found.notes),
        left,
    )


class _Probing:
    """The places of one run, and what each has measured so far."""

    def __init__(
        self,
        services: tuple[DnsService, ...],
        caches: Mapping[str, tuple[str, ...]],
        options: Options,
        watch: Watch,
    ) -> None:
        self._services = services
        self._caches = caches
        self._options = options
        self._watch = watch
        self._measured: dict[str, list[Measured]] = {}
        self._via: dict[str, str] = {}

    def here(self, name: str, scope: CancelScope) -> Reason:
        return self._measure(name, Here(), (), scope)

    def node(self, ladder: Ladder, node: str, scope: CancelScope) -> Reason:
        with LadderAsker(ladder, node) as asker:
            try:
                return self._measure(node, asker, self._caches.get(node, ()), scope)
            finally:
                self._via[node] = asker.via

    def _measure(self, name: str, asker: Asker, local: Sequence[str], scope: CancelScope) -> Reason:
        into = self._measured[name] = []
        vips = {vip for service in self._services for vip in service.vips}
        own = [address for address in local if address not in vips]
        problem = measure(asker, targets(self._services, own, self._options), into, scope=scope, watch=self._watch)
        return problem or _DONE

    def places(self, outcomes: Sequence[Outcome[Reason]]) -> list[Place]:
        """One for each outcome; what was interrupted has what it had measured."""
        return [self._place(outcome.node, outcome.value or outcome.reason or _DONE) for outcome in outcomes]

    def _place(self, name: str, how: Reason) -> Place:
        measured = list(self._measured.get(name, ()))
        via = self._via.get(name, "") if name else "here"
        problem = None if how is _DONE else how
        if not any(one.attempts for one in measured):
            return Place(name, via, (), (), problem or Reason("nothing", "nothing was measured"))
        return conclude(name, via, measured, self._services, problem)


_DONE: Final = Reason("done", "it was measured")


def _chosen(services: Sequence[DnsService], wanted: Sequence[str]) -> tuple[DnsService, ...]:
    known = {str(service): service for service in services}
    missing = [name for name in wanted if name not in known]
    if missing:
        there = f"there are {', '.join(known)}" if known else "there are none"
        raise UsageError(f"no DNS Service {', '.join(missing)}: {there}")
    if not known:
        raise KdnsctlError("no Service of this cluster serves DNS: nothing can be asked", code="noDns")
    return tuple(known[name] for name in wanted) if wanted else tuple(services)


def _caches(connection: Connection, scope: CancelScope, notes: list[str]) -> dict[str, tuple[str, ...]]:
    try:
        return dns.find_caches(connection, scope=scope)
    except ApiError as error:
        scope.check()
        notes.append(f"Whether nodes have a DNS cache of their own is not known: {error}")
        return {}


def to_json(report: ProbeReport) -> dict[str, Any]:
    """The report as plain data (docs/schemas/ProbeReport.schema.json)."""
    untold = sum(place.result in UNTOLD for place in report.nodes)
    return {
        "apiVersion": API_VERSION,
        "kind": "ProbeReport",
        "cluster": report.cluster,
        "generatedAt": report.generated_at.isoformat(),
        "queriedName": report.options.name,
        "services": [plain.service(service) for service in report.services],
        "here": plain.place(report.here) if report.here else None,
        "nodes": [plain.place(place) for place in report.nodes],
        "coverage": {
            "inScope": len(report.nodes),
            "judged": len(report.nodes) - untold,
            "unknown": untold,
            "notApplicable": 0,
            "scope": report.scope.value,
        },
        "notes": list(report.notes),
        "podsLeft": list(report.pods_left),
    }
