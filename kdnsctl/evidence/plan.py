"""collect --plan: by which rung each artefact of each node would be read, and what is missing for it.

The server is asked what is allowed (SelfSubjectAccessReview) and, of every pod that might be made, whether it would
take it (a dry run, which Pod Security and other admission answer). No pod is made, no command is run on any node, no
SSH connection is opened: whether a node answers there is not known here.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kdnsctl import fleet
from kdnsctl.access import Permission
from kdnsctl.access.review import Access, review
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import execs, logs, pods, portforward
from kdnsctl.cluster.errors import ApiError, BadRequestError, ServerError
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.items import Item
from kdnsctl.evidence.nodeside import API, Way
from kdnsctl.evidence.probing import ANY, needs_of, why_not
from kdnsctl.evidence.ways import Ladder, Via, rungs
from kdnsctl.facts import conntrack
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, InScope, nodes_in_scope
from kdnsctl.model import API_VERSION, ExitCode, KdnsctlError, Reporter, Scope
from kdnsctl.reach import ownpod
from kdnsctl.reach.kubeproxyexec import RUNG as EXEC
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings
from kdnsctl.reach.podspec import PodRung, manifest

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays

ASK: Final = 16  # nodes at once
IN_KUBE_PROXY: Final = "if kube-proxy's image has conntrack (up to about 1.31)"
OF_NODE: Final = "with the node's conntrack, if it has one; flush logs in only with --via ssh or an SSH option"
WITHOUT_TOOL: Final = (
    "name the tools image (--image), or allow SSH; for somebody with a shell on the node kdnsctl repair flush "
    "--dry-run=client prints the commands"
)


class State(enum.StrEnum):
    """What is known of a rung to a node."""

    WORKS = "works"  # allowed, and a pod would be taken
    UNTESTED = "untested"  # nothing speaks against it; only trying it tells
    REFUSED = "refused"  # not allowed, or the pod would not be taken
    MISSING = "missing"  # what it needs is not there: a pod of kube-proxy, an image


@dataclass(frozen=True, slots=True)
class RungPlan:
    """One rung to a node."""

    rung: str
    state: State
    why: str = ""


@dataclass(frozen=True, slots=True)
class ItemPlan:
    """Which rung would be used first for an item; "" when none is left, and `why` then says what there was.

    `only_if` is what else has to be so for it to be read, "" where nothing has.
    """

    item: str
    rung: str
    why: str = ""
    only_if: str = ""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node: every rung that there is to it, the least intrusive first, and every item.

    `probe` is by which rung DNS would be asked from it, `flush` by which its stale entries would be deleted.
    """

    name: str
    rungs: tuple[RungPlan, ...]
    items: tuple[ItemPlan, ...]
    probe: ItemPlan
    flush: ItemPlan


@dataclass(frozen=True, slots=True)
class CollectPlan:
    """The plan for all nodes, and the permissions that it rests on."""

    cluster: str
    generated_at: datetime
    via: Via
    pod_namespace: str | None
    nodes: tuple[NodePlan, ...]
    permissions: tuple[Access, ...]
    scope: Scope
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        """OK when there is a rung for every item of every node, as far as can be known."""
        whole = all(item.rung for node in self.nodes for item in node.items)
        return ExitCode.OK if whole and self.scope is Scope.FULL else ExitCode.INCOMPLETE


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be collected, and how it may be."""

    chosen: Chosen
    via: Via
    items: tuple[Item, ...]
    pods: PodSettings | None


def make(
    question: Question, connection: Connection, ssh: SshWays | None, *, scope: CancelScope, reporter: Reporter
) -> CollectPlan:
    """Find out. Raises as `nodes_in_scope`, and what ended the scope."""
    # What is extra, or a last resort, comes by a rung that is used anyway, or not at all.
    planned = tuple(item for item in question.items if not item.extra and not item.never_beside)
    found = nodes_in_scope(connection, question.chosen, scope=scope, command="collect")
    keeper = None if question.pods is None else PodKeeper(connection, question.pods)
    ladder = Ladder(question.via, connection, ssh, keeper, found)
    asked = review(connection, _permissions(question, ladder, found), scope=scope, reporter=reporter)
    planner = _Planner(connection, ladder, keeper, {answer.permission: answer for answer in asked})

    def work(node: str, limit: CancelScope) -> NodePlan:
        return planner.node(node, planned, limit)

    outcomes = fleet.run(
        found.names, work, parallel=ASK, deadline=None, reporter=reporter, scope=scope, what="planning"
    )
    scope.check()
    return CollectPlan(
        cluster=identity_of(connection.target),
        generated_at=datetime.now(UTC),
        via=question.via,
        pod_namespace=question.pods.namespace if question.pods else None,
        nodes=tuple(
            outcome.value or _unplanned(outcome.node, outcome.reason.message if outcome.reason else "", planned)
            for outcome in outcomes
        ),
        permissions=tuple(asked),
        scope=found.scope,
        notes=found.notes,
    )


def to_json(plan: CollectPlan) -> dict[str, Any]:
    """The plan as plain data (docs/schemas/CollectPlan.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CollectPlan",
        "cluster": plan.cluster,
        "generatedAt": plan.generated_at.isoformat(),
        "via": plan.via.value,
        "podNamespace": plan.pod_namespace,
        "scope": plan.scope.value,
        "nodes": [
            {
                "name": node.name,
                "rungs": [{"rung": one.rung, "state": one.state.value, "why": one.why} for one in node.rungs],
                "items": [
                    {"item": one.item, "rung": one.rung or None, "why": one.why, "onlyIf": one.only_if or None}
                    for one in node.items
                ],
                "probe": {"rung": node.probe.rung or None, "why": node.probe.why},
                "flush": {"rung": node.flush.rung or None, "why": node.flush.why},
            }
            for node in plan.nodes
        ],
        "permissions": [
            {"permission": str(one.permission), "allowed": one.allowed, "why": one.why} for one in plan.permissions
        ],
        "notes": list(plan.notes),
    }


class _Planner:
    """Plans nodes, one at a time or many at once."""

    def __init__(
        self,
        connection: Connection,
        ladder: Ladder,
        keeper: PodKeeper | None,
        answers: Mapping[Permission, Access],
    ) -> None:
        self._connection = connection
        self._ladder = ladder
        self._keeper = keeper
        self._answers = answers
        self._image_named = keeper is not None and keeper.settings.image is not None

    def node(self, node: str, items: Iterable[Item], scope: CancelScope) -> NodePlan:
        with contextlib.ExitStack() as nothing:
            ways = self._ladder.ways(node, nothing)
            states = {way.rung: self._rung(way.rung, node, scope) for way in ways}
            place = self._ladder.place(node)
            planned = tuple(self._item(item, node, ways, states) for item in items if can_exist(item, place))
            flush = _flush(ways, states, image_named=self._image_named)
            return NodePlan(node, tuple(states.values()), planned, self._probe(ways, states), flush)

    def _rung(self, rung: str, node: str, scope: CancelScope) -> RungPlan:
        place = self._ladder.place(node)
        if rung == EXEC and place is not None:
            return self._allowed(rung, execs.needed(place.namespace))
        if rung in list(PodRung) and self._keeper is not None:
            return self._pod(PodRung(rung), node, self._keeper, scope)
        return RungPlan(rung, State.UNTESTED, "no connection is made to find out")

    def _pod(self, rung: PodRung, node: str, keeper: PodKeeper, scope: CancelScope) -> RungPlan:
        allowed = self._allowed(rung.value, ownpod.needed(keeper.settings.namespace))
        if allowed.state is State.REFUSED:
            return allowed
        try:
            order = self._ladder.order(keeper, rung, node, scope)
        except KdnsctlError as error:
            return RungPlan(rung.value, State.MISSING, str(error))
        try:
            pods.create(self._connection, order.namespace, manifest(order), scope=scope, dry_run=True)
        except (BadRequestError, ServerError) as error:  # a webhook that knows no dry run, for one
            return RungPlan(rung.value, State.UNTESTED, f"a dry run does not tell: {error}")
        except ApiError as error:
            return RungPlan(rung.value, State.REFUSED, str(ownpod.refusal(order, error)))
        return allowed

    def _allowed(self, rung: str, wanted: Iterable[Permission]) -> RungPlan:
        answers = [self._answers[one] for one in wanted]
        refused = [str(answer.permission) for answer in answers if answer.allowed is False]
        if refused:
            return RungPlan(rung, State.REFUSED, f"not allowed: {', '.join(refused)}")
        if any(answer.allowed is None for answer in answers):
            return RungPlan(rung, State.UNTESTED, "whether it is allowed could not be found out")
        return RungPlan(rung, State.WORKS)

    def _item(self, item: Item, node: str, ways: list[Way], states: Mapping[str, RungPlan]) -> ItemPlan:
        place = self._ladder.place(node)
        if item.fact is None or item.fact.endpoint is not None:
            if place is None:
                return ItemPlan(item.id, "", "there is no running pod of kube-proxy to ask")
            wanted = portforward.needed(place.namespace) if item.fact else (logs.needed(place.namespace),)
            asked = self._allowed(API, wanted)
            return ItemPlan(item.id, "" if asked.state is State.REFUSED else API, asked.why)
        able = [states[way.rung] for way in ways if way.can(item.fact)]
        for one in able:
            if one.state in (State.WORKS, State.UNTESTED):
                return ItemPlan(item.id, one.rung, one.why, only_if(item, place))
        why = "; ".join(dict.fromkeys(one.why for one in able)) or "there is no way to it"
        return ItemPlan(item.id, "", why, only_if(item, place))

    def _probe(self, ways: list[Way], states: Mapping[str, RungPlan]) -> ItemPlan:
        why: list[str] = []
        for way in ways:
            one = states[way.rung]
            if not way.can(ANY):
                why.append(why_not(way.rung))
            elif one.state in (State.WORKS, State.UNTESTED):
                return ItemPlan(ANY.id, one.rung, needs_of(one.rung))
            else:
                why.append(f"{one.rung}: {one.why}")
        return ItemPlan(ANY.id, "", "; ".join(dict.fromkeys(why)) or "there is no way to it")


def can_exist(item: Item, place: PodPlace | None) -> bool:
    """Whether collect would ask for it, as far as is known before the node is: `place` is its running kube-proxy's."""
    if place is None:
        return item.fact is not None and item.fact.endpoint is None and not item.known
    return not item.previous or place.restarts > 0


def only_if(item: Item, place: PodPlace | None) -> str:
    """What else it depends on whether it is read, which only the node can tell; "" for nothing."""
    if item.instead:
        return f"{item.instead} cannot be read"
    if not item.modes:
        return ""
    if place is None:
        return "it is there: without a running kube-proxy nobody tells its mode"
    runs = f"kube-proxy runs in {' or '.join(sorted(mode.value for mode in item.modes))} mode"
    return runs if item.known else f"{runs}, or does not tell its mode"


def _flush(ways: Iterable[Way], states: Mapping[str, RungPlan], *, image_named: bool) -> ItemPlan:
    """By which rung a conntrack would be run. Of an image of kube-proxy only running it tells whether it has one."""
    able: list[tuple[str, str]] = []
    why: list[str] = []
    for way in ways:
        one = states[way.rung]
        if not way.can(conntrack.TOOL):
            continue
        if one.state in (State.REFUSED, State.MISSING):
            why.append(f"{one.rung}: {one.why}")
        elif one.rung in list(PodRung):
            if image_named:
                able.append((one.rung, "with conntrack of the named image"))
            elif not any(rung == EXEC for rung, _ in able):  # it would have the same image
                able.append((one.rung, IN_KUBE_PROXY))
        else:
            able.append((one.rung, IN_KUBE_PROXY if one.rung == EXEC else OF_NODE))
    if not able:
        return ItemPlan(conntrack.TOOL.id, "", "; ".join([*dict.fromkeys(why), WITHOUT_TOOL]))
    (rung, how), *others = able
    if how is IN_KUBE_PROXY:
        how += f"; else by {others[0][0]}, {others[0][1]}" if others else f"; else by no way: {WITHOUT_TOOL}"
    return ItemPlan(conntrack.TOOL.id, rung, how)


def _permissions(question: Question, ladder: Ladder, found: InScope) -> list[Permission]:
    """What all of it needs, each once."""
    wanted: list[Permission] = []
    places = [place for place in map(ladder.place, found.names) if place is not None]
    for namespace in dict.fromkeys(place.namespace for place in places):
        wanted += [*execs.needed(namespace), *portforward.needed(namespace), logs.needed(namespace)]
    if question.pods is not None and rungs(question.pods):
        wanted += ownpod.needed(question.pods.namespace)
    return list(dict.fromkeys(wanted))


def _unplanned(node: str, why: str, items: Iterable[Item]) -> NodePlan:
    planned = tuple(ItemPlan(item.id, "", why) for item in items)
    return NodePlan(node, (), planned, ItemPlan(ANY.id, "", why), ItemPlan(conntrack.TOOL.id, "", why))
