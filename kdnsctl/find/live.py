"""Judging live nodes by their state: every node read within the bracket of one truth, and each with exactly one answer.

All nodes are read once. What one of them shows and may not count yet (kube-proxy may only be about to clean up) is
looked at again when enough time has passed; nodes that are clean never wait, and all that wait do so together. Whose
pods suffer is asked of the API only for nodes on which something is wrong. Logs are no business of this module.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from kdnsctl import fleet
from kdnsctl.cancel import INTERRUPTED, CancelScope, duration
from kdnsctl.cluster import execs, portforward
from kdnsctl.cluster.errors import ApiError, ForbiddenError, NotFoundError
from kdnsctl.cluster.kubeproxy import KubeProxy, PodPlace
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Node, Pod, Service, ServiceCIDR
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case
from kdnsctl.diagnosis.evidence import RECHECK, SETTLE, Evidence, Item, Missing, Terms
from kdnsctl.diagnosis.findings import Diagnosis
from kdnsctl.diagnosis.flows import Reading
from kdnsctl.diagnosis.index import Index, Kind
from kdnsctl.diagnosis.truth import PodRef, Truth
from kdnsctl.diagnosis.verdict import case_of, diagnose, unsettled
from kdnsctl.find import bracket
from kdnsctl.find.bracket import Bracket, View, WallClock
from kdnsctl.find.refusals import Refusals
from kdnsctl.find.states import Wish, read_again, read_state
from kdnsctl.find.truths import addresses_of, left_to_others, pods_by_address, ports_of
from kdnsctl.model import KdnsctlError, Outcome, Reason, Reporter, Verdict
from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.rules import Mode
from kdnsctl.reach.kubeproxyexec import KubeProxyExec
from kdnsctl.reach.shell import NodeShell

PARALLEL: Final = 8  # nodes read at once: it runs in kube-proxy's own cgroup, and all goes through the API server
NAMESPACE: Final = "kube-system"
NEEDED: Final = (
    Permission("list", "services", without="only the DNS Services, or those of kube-system, are judged"),
    Permission("get", "services", without="Services that are named cannot be judged"),
    *bracket.NEEDED,
    *(replace(one, without="no node's tables can be read") for one in execs.needed(NAMESPACE)),
)
HELPFUL: Final = (
    *bracket.HELPFUL,
    Permission("list", "nodes", without="entries of NodePorts are not judged"),
    Permission("list", "pods", without="the pods behind clients are not named"),
    *(replace(one, without="kube-proxy is not asked how it is") for one in portforward.needed(NAMESPACE)),
    Permission(
        "list",
        "servicecidrs",
        group="networking.k8s.io",
        without="flows to Service addresses that no Service has are not told from others",
    ),
)
MOST_ADDRESSES: Final = 20  # dead endpoints whose address may be another pod's by now, asked for one by one
RANGES: Final = "/apis/networking.k8s.io/v1/servicecidrs"


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How nodes are judged. `services` are "NAMESPACE/NAME" (none: all), `whole` and `thorough` as in `Wish`.

    `settle` is how long an endpoint has to be gone before an entry to it counts at once. `version` stands in where the
    image does not tell kube-proxy's release. `parallel` nodes are read at once. `keep`: a state has the case that its
    diagnosis comes from, which may be large. `tcp`: a second look is taken for entries of TCP, too, which no verdict
    rests on.
    """

    services: tuple[str, ...] = ()
    settle: timedelta = SETTLE
    whole: bool = True
    thorough: bool = True
    version: str | None = None
    parallel: int = PARALLEL
    keep: bool = False
    tcp: bool = False

    @property
    def terms(self) -> Terms:
        """What counts. A second look need not wait for longer than an endpoint has to be gone."""
        return Terms(self.services, self.settle, min(RECHECK, self.settle))


@dataclass(frozen=True, slots=True)
class State:
    """What came of one node: its diagnosis, when its table was last read, and by which way; the case if it was kept."""

    diagnosis: Diagnosis
    read_at: datetime | None
    via: str
    mode: Mode | None
    version: str
    case: Case | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """One outcome for each node that was to be read, and notes for people."""

    outcomes: Mapping[str, Outcome[State]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Pending:
    """What is known of a node so far. `again`: a second look has to confirm it."""

    state: State
    evidence: Evidence
    again: bool = False


def judge_nodes(
    connection: Connection,
    proxies: Iterable[KubeProxy],
    nodes: Sequence[Node],
    options: LiveOptions,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
    shell_of: Callable[[KubeProxy], NodeShell] | None = None,
) -> Judged:
    """Read and judge the nodes of `proxies`, which all have a place. `nodes` are what is known of the nodes.

    `shell_of` says how a node is reached; by default through kube-proxy's pod. Raises what listing Services and
    EndpointSlices raises; what is wrong with one node is its outcome.
    """
    if not (places := {proxy.node: proxy for proxy in proxies}):
        return Judged({})
    with judging(
        connection, places.values(), nodes, options, scope=scope, reporter=reporter, now=now, shell_of=shell_of
    ) as judged:
        return Judged(judged.all(), judged.notes)


@contextlib.contextmanager
def judging(
    connection: Connection,
    proxies: Iterable[KubeProxy],
    nodes: Sequence[Node],
    options: LiveOptions,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
    shell_of: Callable[[KubeProxy], NodeShell] | None = None,
) -> Iterator[Judging]:
    """Judging within one bracket of truth for the length of the block, as often as is wanted; see `judge_nodes`."""
    clock = WallClock(scope.clock, now)
    reach = shell_of or (lambda proxy: KubeProxyExec(connection, proxy.node, _place(proxy)))
    notes: list[str] = []
    services, views = load_services(connection, options.services, notes, scope=scope)
    base = Truth(
        nodes={node.metadata.name: addresses_of(node) for node in nodes},
        service_ranges=_ranges(connection, scope) if options.whole else (),
        services_known=not options.services and views == (View(),),
        others=left_to_others(services),
    )
    ahead = bracket.server_ahead(connection, clock, scope=scope)
    with Bracket(connection, services, views, scope=scope, clock=clock, note=reporter.noted, ahead=ahead) as truths:
        judge = _Judge(connection, truths, base, services, options, clock)
        places = {proxy.node: proxy for proxy in proxies}
        yield Judging(judge, places, reach, options, scope, reporter, tuple(notes))


class Judging:
    """Nodes that can be read and judged, again and again: all at once, or one of them from any thread."""

    def __init__(
        self,
        judge: _Judge,
        places: Mapping[str, KubeProxy],
        reach: Callable[[KubeProxy], NodeShell],
        options: LiveOptions,
        scope: CancelScope,
        reporter: Reporter,
        notes: tuple[str, ...],
    ) -> None:
        self._judge = judge
        self._places = places
        self._reach = reach
        self._options = options
        self._scope = scope
        self._reporter = reporter
        self.notes = notes

    def all(self) -> Mapping[str, Outcome[State]]:
        """One outcome for each node."""
        scope = self._scope
        outcomes = fleet.run(
            self._places,
            self._first,
            parallel=self._options.parallel,
            deadline=None,
            reporter=self._reporter,
            scope=scope,
            what="reading nodes",
        )
        done = {outcome.node: outcome for outcome in outcomes}
        waiting = {name: one.value for name, one in done.items() if one.value is not None and one.value.again}
        if waiting and scope.reason is None:

            def second(node: str, limit: CancelScope) -> _Pending:
                return self._second(node, waiting[node], limit)

            again = _second_looks(waiting, second, self._options, scope=scope, reporter=self._reporter)
            done |= {one.node: _kept(one, waiting[one.node], self._judge) for one in again}
        return {name: _state_of(one) for name, one in done.items()}

    def one(self, node: str, scope: CancelScope, *, patient: bool = True) -> State:
        """One node as it is now. Not `patient`: without a second look at what may not count yet.

        Raises as reading it does.
        """
        pending = self._first(node, scope)
        if patient and pending.again:
            pending = self._second(node, pending, scope)
        return pending.state

    def serves(self, node: str, key: Key, scope: CancelScope) -> bool:
        """Whether flows of a node with this key are answered now, or may be: their backend serves, or is not known."""
        return self._judge.serves(node, key, scope)

    def _first(self, node: str, scope: CancelScope) -> _Pending:
        proxy = self._places[node]
        return self._judge.read(self._reach(proxy), proxy, scope)

    def _second(self, node: str, pending: _Pending, scope: CancelScope) -> _Pending:
        return self._judge.look_again(self._reach(self._places[node]), pending, scope)


def _second_looks(
    waiting: Iterable[str],
    second: fleet.Work[_Pending],
    options: LiveOptions,
    *,
    scope: CancelScope,
    reporter: Reporter,
) -> Sequence[Outcome[_Pending]]:
    """One outcome for each node of `waiting`, also when Ctrl-C comes beside the run, which ends by itself only within.

    Here it must not end the command: what the first looks showed would be lost.
    """
    names = list(waiting)
    try:
        reporter.noted(_wait_told(len(names), options.terms.recheck))
        return fleet.run(
            names,
            second,
            parallel=options.parallel,
            deadline=None,
            reporter=reporter,
            scope=scope,
            what="looking again",
        )
    except KeyboardInterrupt:
        scope.cancel()
        return [Outcome(name, reason=INTERRUPTED) for name in names]


class _Judge:
    """Reads and judges single nodes, from any number of threads."""

    def __init__(
        self,
        connection: Connection,
        truths: Bracket,
        base: Truth,
        services: Sequence[Service],
        options: LiveOptions,
        clock: WallClock,
    ) -> None:
        self._connection = connection
        self._truths = truths
        self._base = base
        self._options = options
        self._clock = clock
        self._ports = tuple(port for service in services for port in ports_of(service, ()))
        self._names = _PodNames(connection)
        self._refusals = Refusals(connection)

    def read(self, shell: NodeShell, proxy: KubeProxy, scope: CancelScope) -> _Pending:
        """The first look at a node."""
        wish = self._wish(proxy.version or self._options.version or "", None)
        before = self._truths.truth(self._base, self._clock.now())
        namespace = proxy.place.namespace if proxy.place else ""  # without a pod it is not reached through one
        self._refusals.check(namespace)
        try:
            evidence = read_state(shell, wish, before, scope=scope, clock=self._clock)
        except ForbiddenError as error:
            self._refusals.learn(namespace, error, scope)
            raise
        return self._judged(shell, evidence, scope, last=False)

    def look_again(self, shell: NodeShell, pending: _Pending, scope: CancelScope) -> _Pending:
        """The second look, as soon as enough time has passed since the first."""
        evidence = pending.evidence
        first = evidence.rules_at or pending.state.read_at or self._clock.now()
        self._pause(first + self._options.terms.recheck, scope)
        wish = self._wish(evidence.version, evidence.running_mode)
        before = self._truths.truth(self._base, self._clock.now())
        later = read_again(shell, evidence, wish, before, scope=scope, clock=self._clock)
        return self._judged(shell, later, scope, last=True)

    def unconfirmed(self, pending: _Pending, reason: Reason) -> State:
        """What is said of a node whose second look failed."""
        missing = (*pending.evidence.missing, Missing(Item.CONNTRACK, reason))
        evidence = replace(pending.evidence, missing=missing)
        truth = self._truths.truth(self._base, pending.state.read_at or self._clock.now())
        said = diagnose(evidence, truth, self._options.terms)
        explained = Reason(said.reason.code, f"{said.reason.message}, which failed: {reason.message}", reason.error)
        return replace(pending.state, diagnosis=replace(said, reason=explained, complete=False))

    def serves(self, node: str, key: Key, scope: CancelScope) -> bool:
        """Whether the backend of a key serves, by the endpoints as they are now."""
        now = self._clock.now()
        self._truths.confirm(now, scope)
        truth = self._truths.truth(self._base, now)
        meaning = Index(truth, node).meaning(key)
        return not truth.endpoints_known or meaning is None or meaning.kind is Kind.SERVING

    def _wish(self, version: str, mode: Mode | None) -> Wish:
        options = self._options
        return Wish(self._ports, whole=options.whole, thorough=options.thorough, version=version, mode=mode)

    def _judged(self, shell: NodeShell, evidence: Evidence, scope: CancelScope, *, last: bool) -> _Pending:
        terms = self._options.terms
        table = evidence.conntrack_later or evidence.conntrack
        at = evidence.rules_later_at or evidence.rules_at or (table.at if table else None) or self._clock.now()
        truth = self._truths.truth(self._base, at)
        said = diagnose(evidence, truth, terms)
        if said.verdict not in (Verdict.CLEAN, Verdict.NOT_APPLICABLE) or said.stale_entries:
            # kube-proxy may know of an endpoint that the watch has not told of yet.
            self._truths.confirm(at, scope)
            truth = self._truths.truth(self._base, at)
            truth = replace(truth, pods=self._names.of(shell.node, _dead(evidence, truth), scope))
            said = diagnose(evidence, truth, terms)
        again = not last and bool(
            unsettled(evidence, truth, terms) or _uncounted(evidence, truth, terms, tcp=self._options.tcp)
        )
        mode = evidence.running_mode
        case = case_of(evidence, truth, terms) if self._options.keep else None
        state = State(said, table.at if table else None, shell.rung, mode, evidence.version, case)
        # Evidence of a large cluster is large: it is kept for nodes that are looked at again only.
        return _Pending(state, evidence if again else Evidence(), again)

    def _pause(self, until: datetime, scope: CancelScope) -> None:
        seconds = (until - self._clock.now()).total_seconds()
        if seconds > 0:
            scope.pause(seconds)
        scope.check()


class _PodNames:
    """Who is behind an address, asked for when it matters: pods of one node, and of single addresses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._forbidden = threading.Event()

    def of(self, node: str, addresses: Iterable[str], scope: CancelScope) -> Mapping[str, PodRef]:
        """Pods by address; none where they may not be listed."""
        found: dict[str, PodRef] = {}
        wanted = [f"spec.nodeName={node}", *(f"status.podIP={address}" for address in addresses)]
        for fields in wanted:
            if self._forbidden.is_set():
                break
            try:
                pods = list_all(self._connection, "/api/v1/pods", Pod, fields=fields, scope=scope).items
            except ForbiddenError:
                self._forbidden.set()
            except ApiError:
                scope.check()  # the server may not know such a field; then they have no names
            else:
                found |= pods_by_address(pods)
        return found


def load_services(
    connection: Connection, names: Sequence[str], notes: list[str], *, scope: CancelScope
) -> tuple[list[Service], tuple[View, ...]]:
    """The Services to judge by, and which EndpointSlices to watch for them. `names` are "NAMESPACE/NAME" (none: all).

    Where Services may not be listed everywhere, those of kube-system are. Raises as `list_all`, and UsageError-like
    KdnsctlError for a Service that does not exist.
    """
    if names:
        found = []
        for name in names:
            namespace, _, short = name.partition("/")
            try:
                found.append(connection.get(f"/api/v1/namespaces/{namespace}/services/{short}", Service, scope=scope))
            except NotFoundError as error:
                raise KdnsctlError(f"there is no Service {name} in {connection.target}", code=error.code) from error
        return found, tuple(View(*name.split("/", 1)) for name in names)
    try:
        everywhere = list_all(connection, "/api/v1/services", Service, scope=scope).items
        return list(everywhere), (View(),)
    except ForbiddenError as error:
        path = f"/api/v1/namespaces/{NAMESPACE}/services"
        here = list_all(connection, path, Service, scope=scope).items
        notes.append(
            f"Services may not be listed everywhere ({error}): those of {NAMESPACE} are judged, and no others."
        )
        return list(here), (View(NAMESPACE),)


def _ranges(connection: Connection, scope: CancelScope) -> tuple[str, ...]:
    """The ranges of ClusterIPs, where the cluster tells them (networking.k8s.io/v1 ServiceCIDR, 1.33 and later)."""
    try:
        return tuple(
            one for item in list_all(connection, RANGES, ServiceCIDR, scope=scope).items for one in item.spec.cidrs
        )
    except ApiError:
        scope.check()
        return ()


def _place(proxy: KubeProxy) -> PodPlace:
    if proxy.place is None:
        raise ValueError(f"{proxy.node} has no kube-proxy pod to read it through")
    return proxy.place


def _wait_told(count: int, wait: timedelta) -> str:
    nodes = "1 node shows" if count == 1 else f"{count} nodes show"
    return (
        f"{nodes} what kube-proxy may only be about to clean up: looking again after {duration(wait.total_seconds())}"
    )


def _kept(outcome: Outcome[_Pending], pending: _Pending, judge: _Judge) -> Outcome[_Pending]:
    """The outcome of a second look; when it failed, what the first one showed still counts."""
    if outcome.reason is None:
        return outcome
    return Outcome(outcome.node, _Pending(judge.unconfirmed(pending, outcome.reason), Evidence()))


def _state_of(outcome: Outcome[_Pending]) -> Outcome[State]:
    return Outcome(outcome.node, outcome.value.state if outcome.value else None, outcome.reason)


def _uncounted(evidence: Evidence, truth: Truth, terms: Terms, *, tcp: bool) -> bool:
    """Whether there are stale entries that do not count yet, also where the verdict is certain without them."""
    stale = case_of(evidence, truth, terms).stale
    protocols = (COUNTED_PROTOCOL, "tcp") if tcp else (COUNTED_PROTOCOL,)
    return any(one.waiting and one.in_scope and one.key.protocol in protocols for one in stale)


def _dead(evidence: Evidence, truth: Truth) -> list[str]:
    """The addresses of backends that do not serve, the ones with most entries first."""
    index = Index(truth, evidence.node)
    counts: dict[str, int] = {}
    for reading in (evidence.conntrack, evidence.conntrack_later):
        for key, group in _stale(reading, index):
            counts[key] = counts.get(key, 0) + group
    return sorted(counts, key=lambda address: -counts[address])[:MOST_ADDRESSES]


def _stale(reading: Reading | None, index: Index) -> Iterable[tuple[str, int]]:
    for key, group in reading.groups.items() if reading else ():
        meaning = index.meaning(key)
        if meaning is not None and meaning.kind in (Kind.DEAD, Kind.NODE_PORT):
            yield key.reply_source, group.count
