"""Carrying a drain out: all pods of all nodes at once, those that serve DNS afterwards and one at a time.

It takes a plan, a connection, a scope, a reporter, and `send`, which asks the server and may journal. Every pod of the
plan is in the result, whatever happens. It neither cordons nor decides what goes: that is the plan's.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kdnsctl import fleet
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import pods as steps
from kdnsctl.changes.executor import Log, take
from kdnsctl.changes.pods import POD_VERBS
from kdnsctl.changes.verbs import Means
from kdnsctl.cluster.errors import ApiError, ForbiddenError, NotFoundError
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.policy import DisruptionBudget
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import watch
from kdnsctl.model import KdnsctlError, Reason, Reporter, Step
from kdnsctl.quarantine.boards import Board
from kdnsctl.quarantine.dnsdrain import DnsDrain, DnsProbe
from kdnsctl.quarantine.drainplan import DrainPlan, NodeDrain, PodPlan
from kdnsctl.quarantine.evicting import Ending, Send, Surroundings, remove
from kdnsctl.quarantine.podfilters import DrainOptions, name_of

PODS: Final = "/api/v1/pods"
BUDGETS: Final = "/apis/policy/v1/poddisruptionbudgets"
MOST: Final = 256  # pods that are waited for at once; a thread each, of which a few send at the same time


@dataclass(frozen=True, slots=True)
class PodResult:
    """What became of a pod: its ending, or why it is still there."""

    node: str
    pod: Pod
    ending: Ending | None = None
    reason: Reason | None = None

    @property
    def left(self) -> bool:
        """Whether it is gone from the node, as far as the drain is concerned."""
        return self.ending in (Ending.GONE, Ending.MOVED, Ending.SKIPPED)


@dataclass(frozen=True, slots=True)
class NodeResult:
    """A node and its pods; `refusal` says why none was tried.

    `arrived` are pods that came after the plan and would have gone by it: somebody has uncordoned the node, or they
    tolerate the cordon.
    """

    node: str
    pods: tuple[PodResult, ...] = ()
    refusal: str = ""
    arrived: tuple[str, ...] = ()

    @property
    def drained(self) -> bool:
        """Whether all that should go have gone, and nothing has come instead."""
        return not (self.refusal or self.arrived) and all(pod.left for pod in self.pods)


def utc_now() -> datetime:
    """The time of day."""
    return datetime.now(UTC)


def sender(connection: Connection) -> Send:
    """Asks the server, and writes nothing down."""

    def send(pod: Pod, options: DrainOptions, scope: CancelScope) -> None:
        step = _step(pod, options)
        POD_VERBS[step.verb].apply(step, Means(connection, scope))

    return send


def journaled(connection: Connection, log: Log, run: str) -> Send:
    """Asks the server, with the step in the journal before and its end after. `run` names the run of the tool."""

    def send(pod: Pod, options: DrainOptions, scope: CancelScope) -> None:
        take(_step(pod, options), log, Means(connection, scope), run, POD_VERBS)

    return send


def _step(pod: Pod, options: DrainOptions) -> Step:
    identity = pod.metadata
    return steps.step(
        evict=not options.disable_eviction,
        namespace=identity.namespace,
        name=identity.name,
        uid=identity.uid,
        node=pod.spec.node_name,
        grace=options.grace_period,
    )


def drain(
    plan: DrainPlan,
    connection: Connection,
    scope: CancelScope,
    reporter: Reporter,
    *,
    send: Send,
    probe: DnsProbe,
    unproven: Collection[str] = (),
    taking: Callable[[PodPlan], object] = lambda _: None,
    now: Callable[[], datetime] = utc_now,
    dice: random.Random | None = None,
) -> list[NodeResult]:
    """Drain as planned; one result for each node, in order. `scope` is ended by Ctrl-C, and its reason then tells.

    `options.timeout` counts for all nodes and pods together, DNS pods included, as they are drained at the same time.
    `unproven` and `taking` are as in `DnsDrain`.
    Raises what watching the nodes' pods raises, before anything is sent.
    """
    with contextlib.ExitStack() as stack:
        nodes = [node.node for node in plan.nodes if node.goes and not node.refusal]
        boards = {node: stack.enter_context(_pods_of(connection, node, scope, reporter.noted)) for node in nodes}
        budgets = _budgets(connection, scope, reporter.noted)
        if budgets is not None:
            stack.callback(budgets.close)
        limit = stack.enter_context(scope.limited(plan.options.timeout))
        # Without dice of one's own: pauses are spread, nothing is guarded.
        around = Surroundings(connection, boards, budgets, send, now, reporter.noted, dice or random.Random())  # noqa: S311
        results = dict(_first(plan, around, limit, reporter))
        dns = DnsDrain(plan, around, limit, probe, unproven=unproven, taking=taking)
        results.update(_last(plan, dns, limit, reporter))
        arrived = {node: _arrived(plan, board.items()) for node, board in boards.items()}
    return [_result(node, results, arrived.get(node.node, ())) for node in plan.nodes]


def rehearse(plan: DrainPlan, connection: Connection, scope: CancelScope) -> list[PodResult]:
    """What the server says to each eviction by itself, with dryRun=All; nothing is changed, and no budget used up.

    A pod that the server would evict has the ending `gone`. Deletions past the budgets are rehearsed alike: stock
    kubectl waits for them for ever (kubectl#1830).
    """
    said: list[PodResult] = []
    for one in (*_tried(plan, plan.pods), *_tried(plan, plan.dns)):
        step = _step(one.pod, plan.dns_options if one.service else plan.options)
        node = one.pod.spec.node_name
        try:
            POD_VERBS[step.verb].apply(step, Means(connection, scope, dry_run=True))
        except NotFoundError:
            said.append(PodResult(node, one.pod, Ending.MOVED))
        except ApiError as error:
            hint = f" ({error.hint})" if error.hint else ""
            said.append(PodResult(node, one.pod, reason=Reason(error.code, f"{error}{hint}", error)))
        else:
            said.append(PodResult(node, one.pod, Ending.GONE))
    return said


def _tried(plan: DrainPlan, pods: Sequence[PodPlan]) -> list[PodPlan]:
    refused = {node.node for node in plan.nodes if node.refusal}
    return [one for one in pods if one.pod.spec.node_name not in refused]


def _pods_of(connection: Connection, node: str, scope: CancelScope, note: Callable[[str], None]) -> Board[Pod]:
    # By node only: with labels, a pod whose labels change would look as if it were gone.
    fields = f"spec.nodeName={node}"
    return Board(lambda inner: watch(connection, PODS, Pod, fields=fields, scope=inner, note=note), scope)


def _budgets(connection: Connection, scope: CancelScope, note: Callable[[str], None]) -> Board[DisruptionBudget] | None:
    board: Board[DisruptionBudget] = Board(
        lambda inner: watch(connection, BUDGETS, DisruptionBudget, scope=inner, note=note), scope
    )
    try:
        return board.open()
    except ForbiddenError as error:
        board.close()
        note(f"disruption budgets cannot be watched ({error}); pods that they hold back are asked for by the clock")
        return None


Found = tuple[str, PodResult]  # by the pod's UID


def _first(plan: DrainPlan, around: Surroundings, scope: CancelScope, reporter: Reporter) -> Iterator[Found]:
    """All pods that do not serve DNS, at once."""
    by_key = {one.pod.metadata.uid: one.pod for one in _tried(plan, plan.pods)}

    def work(uid: str, limit: CancelScope) -> Ending:
        return remove(by_key[uid], plan.options, around, limit)

    outcomes = fleet.run(by_key, work, parallel=MOST, deadline=None, reporter=reporter, scope=scope, what="pods")
    for outcome in outcomes:
        pod = by_key[outcome.node]
        yield outcome.node, PodResult(pod.spec.node_name, pod, outcome.value, outcome.reason)


def _last(plan: DrainPlan, dns: DnsDrain, scope: CancelScope, reporter: Reporter) -> Iterator[Found]:
    """Pods that serve DNS, one after the other."""
    by_key = {one.pod.metadata.uid: one for one in _tried(plan, plan.dns)}
    if not by_key:
        return
    try:
        with dns:
            outcomes = fleet.run(
                by_key,
                lambda uid, limit: dns.remove(by_key[uid], limit),
                parallel=1,
                deadline=None,
                reporter=reporter,
                scope=scope,
                what="DNS pods",
            )
    except KdnsctlError as error:  # who serves DNS cannot be watched, or the time was over before
        reason = scope.reason or Reason(error.code, str(error), error)
        for uid, one in by_key.items():
            yield uid, PodResult(one.pod.spec.node_name, one.pod, reason=reason)
        return
    for outcome in outcomes:
        pod = by_key[outcome.node].pod
        kept = dns.kept.get(outcome.node)
        ending = Ending.KEPT if kept is not None else outcome.value
        yield outcome.node, PodResult(pod.spec.node_name, pod, ending, kept or outcome.reason)


def _arrived(plan: DrainPlan, pods: Sequence[Pod]) -> tuple[str, ...]:
    """Pods that nobody knew of, and that are neither a DaemonSet's nor the node's own."""
    known = {one.pod.metadata.uid for node in plan.nodes for one in node.goes}
    known |= {one.pod.metadata.uid for node in plan.nodes for one in (*node.stays, *node.kept)}
    if plan.options.pod_selector:
        return ()  # which of them it selects, the server would have to say
    return tuple(
        name_of(pod)
        for pod in pods
        if pod.metadata.uid not in known and not (pod.static or pod.ended)
        if pod.metadata.controller is None or pod.metadata.controller.kind != "DaemonSet"
    )


def _result(node: NodeDrain, results: Mapping[str, PodResult], arrived: tuple[str, ...]) -> NodeResult:
    pods = [results.get(one.pod.metadata.uid, PodResult(node.node, one.pod)) for one in node.goes]
    pods += [PodResult(node.node, one.pod, Ending.KEPT, Reason("dnsUnmanaged", one.why)) for one in node.kept]
    return NodeResult(node.node, tuple(pods), node.refusal, arrived)
