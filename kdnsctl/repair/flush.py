"""repair flush: stale conntrack entries are deleted on one node after the other, and nothing else is.

Each node is judged twice: for the plan that the operator sees, and again when its turn comes. Then its stale entries
are deleted by group, the table is read again, and so on until none is left. The first node goes alone: only when it is
proven well do the others follow. What is stale, and what the rules say, is known to `diagnosis`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import flows, incidents, lock
from kdnsctl.changes.executor import PART, Log, take
from kdnsctl.changes.incidents import Actor, Incident
from kdnsctl.changes.journal import Record
from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.changes.verbs import Means
from kdnsctl.cluster import dns, logs, proxyload
from kdnsctl.cluster.kubeproxy import Kind
from kdnsctl.cluster.transport import Connection
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, StaleGroup
from kdnsctl.diagnosis.evidence import SETTLE
from kdnsctl.evidence.collect import internal_addresses
from kdnsctl.evidence.ways import VIA_POD, Ladder, Via
from kdnsctl.find import live
from kdnsctl.find.live import Judging, LiveOptions, State, judging
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.find.services import checked
from kdnsctl.model import KdnsctlError, Outcome, Reason, Reporter, SilentReporter, Verdict
from kdnsctl.netfilter.entries import Key
from kdnsctl.reach import ownpod
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.repair.assessing import RESTART, RULES, Assessment, assess, by_hand
from kdnsctl.repair.cause import why_not_written
from kdnsctl.repair.hands import Hands, Reader, shells
from kdnsctl.repair.proving import Prober, prober
from kdnsctl.repair.report import NodeRepair, RepairReport, Result

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays

PARALLEL: Final = 10
MAX_FAILURES: Final = 3
MOST_ROUNDS: Final = 50  # of deleting and reading again, for one node
IDLE_ROUNDS: Final = 3  # in a row in which nothing could be deleted
MOST_STEPS: Final = 50  # groups of one node that are deleted in one round
NEEDS: Final = Needs(
    needed=tuple(dict.fromkeys((*proxyload.NEEDED, *incidents.NEEDED, *live.NEEDED, *dns.NEEDED))),
    helpful=tuple(
        dict.fromkeys(
            (
                *(replace(one, without="nobody else is kept off the node meanwhile") for one in lock.needed()),
                *proxyload.HELPFUL,
                *live.HELPFUL,
                replace(logs.needed("kube-system"), without="why rules are not written is not told"),
            )
        )
    ),
    with_option={
        VIA_POD: tuple(
            replace(one, without="no pod with conntrack is made for kube-proxy's image without it")
            for one in ownpod.needed(PodSettings().namespace)
        )
    },
)


@dataclass(frozen=True, slots=True)
class FlushOptions:
    """What was asked. `services` are "NAMESPACE/NAME" (none: the DNS Services); `tcp`: also TCP entries.

    `settle` as in LiveOptions. `pods` is None where no pod may be made.
    """

    chosen: Chosen
    services: tuple[str, ...] = ()
    tcp: bool = False
    settle: timedelta = SETTLE
    version: str | None = None
    via: Via = Via.AUTO
    pods: PodSettings | None = None
    parallel: int = PARALLEL
    max_failures: int = MAX_FAILURES


@dataclass(slots=True)
class Prepared:
    """All that is known before anything is changed. `todo` are the nodes that will be changed, in order.

    `done` has the answer on the others.
    """

    options: FlushOptions
    found: InScope
    services: tuple[str, ...]
    plan: Plan
    todo: tuple[str, ...]
    done: Mapping[str, NodeRepair]
    judging: Judging | None
    hands: dict[str, Hands]
    uids: Mapping[str, str]
    keeper: PodKeeper | None
    probe: Prober
    notes: list[str] = field(default_factory=list)

    def report(self, nodes: Mapping[str, NodeRepair], now: datetime, incident: str = "") -> RepairReport:
        """The report on all nodes: `nodes`, and those that were not to be changed."""
        every = {**self.done, **nodes}
        return RepairReport(
            generated_at=now,
            cluster=self.plan.cluster,
            repair="flush",
            nodes=tuple(every[name] for name in self.found.names if name in every),
            incident=incident,
            services=self.services,
            scope=self.found.scope,
            notes=tuple(self.notes),
        )


@contextlib.contextmanager
def preparing(
    options: FlushOptions,
    connection: Connection,
    ssh: SshWays | None,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
) -> Iterator[Prepared]:
    """Judge the nodes and make the plan; what is opened for it stays open for the length of the block.

    Changes nothing. Raises UsageError for a node that does not exist, KdnsctlError when no Service is known to judge
    by, else as `judging`.
    """
    services = checked(options.services)
    found = nodes_in_scope(connection, options.chosen, scope=scope, command="repair flush")
    if not services:
        services = tuple(str(one) for one in dns.find_dns(connection, scope=scope))
    if not services:
        raise KdnsctlError("no DNS Service was found in this cluster", hint="name one with --service NAMESPACE/NAME")
    keeper = None if options.pods is None else PodKeeper(connection, options.pods)
    if ssh is not None:
        ssh.addresses = internal_addresses(found.nodes)
    ladder = Ladder(options.via, connection, ssh, keeper, found)
    named = options.pods is not None and options.pods.image is not None
    by_exec = options.via in (Via.AUTO, Via.EXEC)
    with contextlib.ExitStack() as stack:
        if keeper is not None:
            stack.callback(_close, keeper, reporter)
        hands = {name: Hands(name, ladder, image_named=named) for name in found.names if name in found.proxies}
        for one in hands.values():
            stack.callback(one.close)
        prepared = Prepared(
            options,
            found,
            services,
            Plan("repair flush", identity_of(connection.target), ()),
            (),
            {},
            None,
            hands,
            {node.metadata.name: node.metadata.uid for node in found.nodes},
            keeper,
            prober(ladder, connection, services),
            list(found.notes),
        )
        proxies = [proxy for name, proxy in found.proxies.items() if name in hands and proxy.kind is not Kind.ABSENT]
        judged: Mapping[str, Outcome[State]] = {}
        if proxies:
            asked = LiveOptions(
                services=services,
                settle=options.settle,
                whole=False,
                thorough=False,
                version=options.version,
                parallel=options.parallel,
                keep=True,
                tcp=options.tcp,
            )
            readers = {name: Reader(one, ladder.kube_proxy(name) if by_exec else None) for name, one in hands.items()}
            prepared.judging = stack.enter_context(
                judging(
                    connection,
                    proxies,
                    found.nodes,
                    asked,
                    scope=scope,
                    reporter=reporter,
                    now=now,
                    shell_of=lambda proxy: readers[proxy.node],
                )
            )
            prepared.notes += prepared.judging.notes
            judged = prepared.judging.all()
            scope.check()
        _plan(prepared, judged, connection, scope, now)
        yield prepared


def _close(keeper: PodKeeper, reporter: Reporter) -> None:
    for left in keeper.close():
        reporter.noted(left)


def _plan(
    prepared: Prepared,
    judged: Mapping[str, Outcome[State]],
    connection: Connection,
    scope: CancelScope,
    now: datetime,
) -> None:
    """Decide on every node, and write the plan."""
    plans: list[NodePlan] = []
    done: dict[str, NodeRepair] = {}
    todo: list[str] = []
    for name in prepared.found.names:
        decided = _decide(prepared, name, judged.get(name), connection, scope, now)
        if isinstance(decided, NodeRepair):
            done[name] = decided
            if decided.result is Result.REFUSED:
                plans.append(NodePlan(name, notes=(f"is left as it is: {decided.reason.message}",)))
            continue
        assessment, rung = decided
        todo.append(name)
        uid = prepared.uids.get(name, "")
        plans.append(
            NodePlan(
                name,
                tuple(flows.step_of(name, uid, each.key, each.count + each.waiting) for each in assessment.groups),
                ("read the table again, and repeat until none is left",),
                (f"conntrack is run by {rung}",),
            )
        )
    notes = [*prepared.plan.notes]
    if todo:
        notes.append(f"what is deleted is evidence: kdnsctl collect {' '.join(todo[:5])} secures it before")
    if len(todo) > 1:
        notes.append(
            f"{todo[0]} goes first and alone; the others follow when it is proven well, {prepared.options.parallel} at "
            f"a time, until {prepared.options.max_failures} have failed"
        )
    prepared.plan = replace(prepared.plan, nodes=tuple(plans), notes=tuple(notes))
    prepared.todo, prepared.done = tuple(todo), done


def _decide(
    prepared: Prepared,
    name: str,
    outcome: Outcome[State] | None,
    connection: Connection,
    scope: CancelScope,
    now: datetime,
) -> NodeRepair | tuple[Assessment, str]:
    """What is to be done about a node and by which rung, or the answer when nothing is."""
    proxy = prepared.found.proxies.get(name)
    if proxy is not None and proxy.kind is Kind.ABSENT:
        nothing = Verdict.NOT_APPLICABLE
        return NodeRepair(name, Result.NOTHING_TO_DO, Reason("noKubeProxy", proxy.why), nothing, nothing)
    if outcome is None or outcome.value is None:
        reason = (outcome and outcome.reason) or Reason("noKubeProxy", proxy.why if proxy else "it cannot be reached")
        return NodeRepair(name, Result.REFUSED, Reason("unknown", f"it could not be judged: {reason.message}"))
    state = outcome.value
    assessment = assess(state, tcp=prepared.options.tcp)
    if assessment.refused is not None:
        return _refused(prepared, name, state, assessment, connection, scope, now)
    if not assessment.groups:
        return NodeRepair(
            name, Result.NOTHING_TO_DO, state.diagnosis.reason, state.diagnosis.verdict, state.diagnosis.verdict
        )
    try:
        rung = prepared.hands[name].rung(scope)
    except KdnsctlError as error:
        scope.check()
        return _without_tool(name, state, assessment, error)
    return assessment, rung


def _refused(
    prepared: Prepared,
    name: str,
    state: State,
    assessment: Assessment,
    connection: Connection,
    scope: CancelScope,
    now: datetime,
) -> NodeRepair:
    reason, advice = assessment.refused, assessment.advice
    if reason is None:
        raise ValueError("it is not refused")
    if reason.code == RULES:
        cause = why_not_written(connection, prepared.found.proxies.get(name), scope=scope, now=now)
        if cause:
            reason = Reason(reason.code, f"{reason.message}; rules cannot be written: {cause}")
            advice = "Remove the cause first: kube-proxy cannot write its rules, and would not after a restart."
        else:
            advice = f"Have kube-proxy write its rules anew: {RESTART} {name}"
    return NodeRepair(name, Result.REFUSED, reason, state.diagnosis.verdict, advice=advice)


def _without_tool(name: str, state: State, assessment: Assessment, error: KdnsctlError) -> NodeRepair:
    return NodeRepair(
        name,
        Result.REFUSED,
        Reason(error.code, str(error)),
        state.diagnosis.verdict,
        advice=error.hint or "Somebody with SSH to the node can run this:",
        commands=by_hand(assessment.groups),
    )


# --- doing it ---


def flush(
    prepared: Prepared,
    connection: Connection,
    incident: Incident,
    actor: Actor,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: Callable[[], datetime],
    probe: Prober | None = None,
) -> RepairReport:
    """Do as the plan says; its nodes are locked by the caller. When `scope` ends, the report has what was done.

    `probe` asks DNS from a node that is well again; by default, by whichever rung to it has a prober.
    """
    incident.begin("repair flush", actor, prepared.todo)
    work = _Work(prepared, connection, incident, actor, probe or prepared.probe, now)
    first, others = list(prepared.todo[:1]), list(prepared.todo[1:])
    results = work.run(first, reporter, scope)
    proven = all(one.result in (Result.REPAIRED, Result.NOTHING_TO_DO) for one in results.values())
    if proven and scope.reason is None:
        results |= work.run(others, reporter, scope)
    else:
        why = f"{first[0]}, which went first, is not proven well" if not proven else "the command was ended before"
        results |= {
            name: NodeRepair(name, Result.NOT_TRIED, Reason("stopped", why), Verdict.AFFECTED) for name in others
        }
    return prepared.report(results, now(), incident.id)


class _Work:
    """What the nodes of one run share."""

    def __init__(
        self,
        prepared: Prepared,
        connection: Connection,
        incident: Incident,
        actor: Actor,
        probe: Prober,
        now: Callable[[], datetime],
    ) -> None:
        if prepared.judging is None:
            raise ValueError("there is no node to flush")
        self._prepared = prepared
        self._judging = prepared.judging
        self._connection = connection
        self._incident = incident
        self._actor = actor
        self._probe = probe
        self._now = now
        self._lock = threading.Lock()
        self._failures = 0
        self._attempts: dict[str, _Attempt] = {}

    def run(self, nodes: Sequence[str], reporter: Reporter, scope: CancelScope) -> dict[str, NodeRepair]:
        """Flush these nodes; one answer for each."""
        if not nodes:
            return {}
        outcomes = fleet.run(
            nodes,
            self._one,
            parallel=self._prepared.options.parallel,
            deadline=None,
            reporter=reporter if len(nodes) > 1 else SilentReporter(),
            scope=scope,
            what="flushing nodes",
        )
        return {one.node: one.value or self._ended(one.node, one.reason) for one in outcomes}

    def _ended(self, node: str, reason: Reason | None) -> NodeRepair:
        """A node whose work was ended, as far as it came."""
        why = reason or Reason("stopped", "it was not begun")
        attempt = self._attempts.get(node)
        if attempt is None:
            return NodeRepair(node, Result.NOT_TRIED, why, Verdict.AFFECTED)
        return attempt.answer(Result.FAILED, Reason(why.code, f"ended before it was done: {why.message}"))

    def _one(self, node: str, scope: CancelScope) -> NodeRepair:
        with self._lock:
            if self._failures >= self._prepared.options.max_failures:
                return NodeRepair(
                    node,
                    Result.NOT_TRIED,
                    Reason("stopped", f"{self._failures} nodes failed before it (--max-failures)"),
                    Verdict.AFFECTED,
                )
        attempt = self._attempts[node] = _Attempt(node)
        try:
            answer = self._flushed(attempt, scope)
        except KdnsctlError as error:
            if scope.reason is not None:
                answer = attempt.answer(Result.FAILED, Reason(scope.reason.code, f"ended before it was done: {error}"))
            else:
                answer = attempt.answer(Result.FAILED, Reason(error.code, str(error), error))
        finally:
            self._prepared.hands[node].close()
        if answer.result is Result.FAILED:
            with self._lock:
                self._failures += 1
        self._incident.journal.append(
            "repaired",
            {
                "run": self._actor.run,
                "node": node,
                "result": answer.result.value,
                "deleted": answer.deleted,
                "verdict": answer.verdict.value,
                "message": answer.reason.message,
            },
        )
        return answer

    def _flushed(self, attempt: _Attempt, scope: CancelScope) -> NodeRepair:
        node, tcp = attempt.node, self._prepared.options.tcp
        state = self._judging.one(node, scope)
        attempt.before = state.diagnosis.verdict
        assessment = assess(state, tcp=tcp)
        if assessment.refused is not None:
            return _refused(self._prepared, node, state, assessment, self._connection, scope, self._now())
        if not assessment.groups:
            return attempt.answer(Result.NOTHING_TO_DO, state.diagnosis.reason, state.diagnosis.verdict)
        shell = self._prepared.hands[node].shell(scope)
        attempt.via = shell.rung
        idle = 0
        while assessment.groups:
            if attempt.rounds >= MOST_ROUNDS or idle >= IDLE_ROUNDS:
                left = f"{assessment.count} stale entries are left after {attempt.rounds} rounds"
                why = f"{left}: they cannot be deleted, or they come back"
                return attempt.answer(Result.FAILED, Reason("notGone", why), state.diagnosis.verdict)
            deleted = self._round(attempt, assessment.groups, scope)
            idle = 0 if deleted else idle + 1
            state = self._judging.one(node, scope, patient=False)
            assessment = assess(state, tcp=tcp, proven=attempt.proven)
            if not assessment.groups and (assessment.refused or _waits(state, tcp=tcp)):
                # What is new, or not settled, takes a second look.
                state = self._judging.one(node, scope)
                assessment = assess(state, tcp=tcp, proven=attempt.proven)
            if assessment.refused is not None:
                answer = attempt.answer(Result.FAILED, assessment.refused, state.diagnosis.verdict)
                return replace(answer, advice=assessment.advice)
        return self._proven(attempt, state, scope)

    def _round(self, attempt: _Attempt, groups: Iterable[StaleGroup], scope: CancelScope) -> int:
        """Delete each group once; how many entries went."""
        attempt.rounds += 1
        deleted = 0
        node = attempt.node
        means = Means(self._connection, scope, shell=shells(self._prepared.hands, scope))
        largest = sorted(groups, key=lambda each: -(each.count + each.waiting))
        for group in largest[:MOST_STEPS]:
            if self._judging.serves(node, group.key, scope):
                continue  # its address has come back to life meanwhile
            step = flows.step_of(node, self._prepared.uids.get(node, ""), group.key, group.count + group.waiting)
            before = attempt.deleted
            effect = take(step, _Counting(self._incident.journal, attempt), means, self._actor.run)
            attempt.proven.add(group.key)
            # Should conntrack count more than it printed, its count holds.
            attempt.deleted = max(attempt.deleted, before + int((effect.details or {}).get("deleted", 0)))
            deleted += attempt.deleted - before
        return deleted

    def _proven(self, attempt: _Attempt, state: State, scope: CancelScope) -> NodeRepair:
        verdict, reason = state.diagnosis.verdict, state.diagnosis.reason
        probed = self._probe(attempt.node, scope)
        well = verdict is Verdict.CLEAN and probed.well is not False
        if probed.well is False:
            reason = Reason("probe", f"its state is well, and DNS is not: {probed.message}")
        return replace(attempt.answer(Result.REPAIRED if well else Result.FAILED, reason, verdict), probed=probed)


@dataclass(slots=True)
class _Attempt:
    """How far one node is. `proven` are the keys whose entries were deleted: what has them is stale at once."""

    node: str
    before: Verdict = Verdict.AFFECTED
    via: str = ""
    deleted: int = 0
    rounds: int = 0
    proven: set[Key] = field(default_factory=set)

    def answer(self, result: Result, reason: Reason, after: Verdict | None = None) -> NodeRepair:
        return NodeRepair(
            self.node,
            result,
            reason,
            self.before,
            after,
            changed=self.deleted > 0,
            via=self.via,
            deleted=self.deleted,
            rounds=self.rounds,
        )


class _Counting:
    """A journal that counts what was deleted while it is written: known also of a step whose end is not."""

    def __init__(self, log: Log, attempt: _Attempt) -> None:
        self._log = log
        self._attempt = attempt

    def append(self, kind: str, body: Mapping[str, Any]) -> Record:
        record = self._log.append(kind, body)
        if kind == PART:
            self._attempt.deleted += len(body.get("flows") or ())
        return record


def _waits(state: State, *, tcp: bool) -> bool:
    protocols = (COUNTED_PROTOCOL, "tcp") if tcp else (COUNTED_PROTOCOL,)
    stale = state.case.stale if state.case else ()
    return any(each.waiting and each.in_scope and each.key.protocol in protocols for each in stale)
