"""repair flush, before anything is changed: each node is judged, and what would be deleted on it is a plan.

A node goes into the plan when it has stale entries, its rules are right, and something on the way to it has a
`conntrack`; every other one has its answer here. Nothing is deleted here; `flushing` does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import flows, incidents, lock
from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.cluster import dns, logs, proxyload
from kdnsctl.cluster.kubeproxy import Kind
from kdnsctl.cluster.transport import Connection
from kdnsctl.diagnosis.evidence import SETTLE
from kdnsctl.evidence.collect import internal_addresses
from kdnsctl.evidence.ways import VIA_POD, Ladder, Via
from kdnsctl.find import live
from kdnsctl.find.live import Judging, LiveOptions, State, judging
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.find.services import checked
from kdnsctl.model import KdnsctlError, Outcome, Reason, Reporter, Verdict
from kdnsctl.reach import ownpod
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.repair.assessing import RESTART, RULES, Assessment, assess, by_hand
from kdnsctl.repair.cause import why_not_written
from kdnsctl.repair.hands import Hands, Reader
from kdnsctl.repair.proving import Prober, prober
from kdnsctl.repair.report import NodeRepair, RepairReport, Result
from kdnsctl.repair.session import quarantined, secured_before

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays

PARALLEL: Final = 10
MAX_FAILURES: Final = 3
NEEDS: Final = Needs(
    needed=tuple(dict.fromkeys((*proxyload.NEEDED, *incidents.NEEDED, *live.NEEDED, *dns.NEEDED))),
    helpful=tuple(
        dict.fromkeys(
            (
                *lock.needed(instead=lock.UNPROTECTED),
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

    `settle` as in LiveOptions. `pods` is None where no pod may be made. `rehearsed`: only the plan is wanted, and in it
    for every node the rung that has a conntrack, also where nothing is to be deleted.
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
    rehearsed: bool = False


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
            quarantined=quarantined(self.found.nodes),
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
                left = f"is left as it is: {decided.reason.message}"
                notes = (left, decided.advice) if decided.advice else (left,)
                plans.append(NodePlan(name, notes=notes, by_hand=decided.commands))
            elif prepared.options.rehearsed and decided.verdict is not Verdict.NOT_APPLICABLE:
                plans.append(NodePlan(name, notes=_rehearsed(prepared, decided, scope)))
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
    told = [*prepared.plan.notes]
    captured = secured_before(prepared.found.nodes)
    bare = [name for name in todo if name not in captured]
    if bare:
        told.append(f"what is deleted is evidence: kdnsctl collect {' '.join(bare[:5])} secures it before")
    if len(todo) > 1:
        told.append(
            f"{todo[0]} goes first and alone; the others follow when it is proven well, {prepared.options.parallel} at "
            f"a time, until {prepared.options.max_failures} have failed"
        )
    prepared.plan = replace(prepared.plan, nodes=tuple(plans), notes=tuple(told))
    prepared.todo, prepared.done = tuple(todo), done


def _rehearsed(prepared: Prepared, decided: NodeRepair, scope: CancelScope) -> tuple[str, ...]:
    """What is said of a node with nothing to delete: by what it could be, or what is missing for that."""
    nothing = f"nothing is to be deleted: {decided.reason.message}"
    try:
        return nothing, f"conntrack would be run by {prepared.hands[decided.name].rung(scope)}"
    except KdnsctlError as error:
        scope.check()
        return nothing, f"nothing could be: {error}"


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
        return refused(prepared, name, state, assessment, connection, scope, now)
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


def refused(
    prepared: Prepared,
    name: str,
    state: State,
    assessment: Assessment,
    connection: Connection,
    scope: CancelScope,
    now: datetime,
) -> NodeRepair:
    """The answer on a node that must not be flushed, with the repair that comes first.

    Raises ValueError for an assessment that refuses nothing.
    """
    reason, advice = assessment.refused, assessment.advice
    commands: tuple[str, ...] = ()
    if reason is None:
        raise ValueError("it is not refused")
    if reason.code == RULES:
        cause = why_not_written(connection, prepared.found.proxies.get(name), scope=scope, now=now)
        if cause:
            reason = Reason(reason.code, f"{reason.message}; rules cannot be written: {cause}")
            advice = "Remove the cause first: kube-proxy cannot write its rules, and would not after a restart."
        else:
            advice, commands = "Have kube-proxy write its rules anew:", (f"{RESTART} {name}",)
    return NodeRepair(name, Result.REFUSED, reason, state.diagnosis.verdict, advice=advice, commands=commands)


def _without_tool(name: str, state: State, assessment: Assessment, error: KdnsctlError) -> NodeRepair:
    return NodeRepair(
        name,
        Result.REFUSED,
        Reason(error.code, str(error)),
        state.diagnosis.verdict,
        advice=error.hint or "Somebody with SSH to the node can run this:",
        commands=by_hand(assessment.groups),
    )
