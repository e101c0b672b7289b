"""release: the exact inverse of a quarantine, from the record on the node.

A node is judged first, and DNS is asked from it (`proving`): one that is still affected, or of which that is not known,
is not given back unless that was said. Only what still is as the quarantine left it is taken back; what somebody else
changed since is drift, stays as it is, and is reported. The record goes last, so that a release that was interrupted
can be run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import fields, incidents, lock
from kdnsctl.changes.executor import Taken, Undone, UndoneStep, take_back
from kdnsctl.changes.fields import RECORD, VERBS
from kdnsctl.changes.incidents import Actor, Incident, is_id
from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.changes.reminding import LIST_SETS
from kdnsctl.changes.verbs import Means, verb_of
from kdnsctl.cluster import dns
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.proxyload import list_nodes
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.ways import VIA_POD
from kdnsctl.find import analyze_nodes
from kdnsctl.find.online import identity_of
from kdnsctl.model import ExitCode, RefusedError, Reporter, Step, UsageError, Verdict
from kdnsctl.quarantine import events, holds
from kdnsctl.quarantine.allowed import check_allowed
from kdnsctl.quarantine.guards import in_quarantine, named
from kdnsctl.quarantine.holdsbase import Groups, Objects, api_groups
from kdnsctl.quarantine.planning import record_of
from kdnsctl.quarantine.proving import Proof, prove
from kdnsctl.quarantine.reaching import BY_EXEC, Reach
from kdnsctl.quarantine.record import NodeRecord, record_step
from kdnsctl.reach import ownpod
from kdnsctl.reach.podkeeper import PodSettings

NEEDS: Final = Needs(
    needed=tuple(dict.fromkeys((*fields.NEEDED, *incidents.NEEDED, *analyze_nodes.NEEDS.needed))),
    helpful=tuple(
        dict.fromkeys(
            (*lock.needed(), *events.HELPFUL, *holds.HELPFUL, *dns.NEEDED, LIST_SETS, *analyze_nodes.NEEDS.helpful)
        )
    ),
    with_option={
        VIA_POD: tuple(
            replace(one, without="no pod is made to read nodes, and to ask DNS from them")
            for one in ownpod.needed(PodSettings().namespace)
        )
    },
)


@dataclass(frozen=True, slots=True)
class Leaving:
    """A node that is to be released; without a `record` there is nothing to do."""

    node: Node
    record: NodeRecord | None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.metadata.name

    @property
    def steps(self) -> tuple[Step, ...]:
        """What takes the quarantine back, in order; the record last."""
        if self.record is None:
            return ()
        back = [verb_of(step, VERBS).inverse(step) for step in reversed(self.record.steps)]
        last = record_step(self.name, self.node.metadata.uid, self.record, None)
        return (*(step for step in back if step is not None), last)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is changed. `proofs` is empty when nothing was judged."""

    nodes: tuple[Leaving, ...]
    proofs: Mapping[str, Proof]
    plan: Plan
    incident: str | None


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What came of one node: each step that was taken back, or why not. `released`: its record is gone.

    `proof` is None when it was not judged.
    """

    name: str
    released: bool
    record: NodeRecord | None
    undone: tuple[UndoneStep, ...] = ()
    proof: Proof | None = None

    @property
    def drift(self) -> tuple[UndoneStep, ...]:
        """What somebody else changed, and was left as it is."""
        return tuple(one for one in self.undone if one.outcome in (Undone.DRIFT, Undone.GONE))


@dataclass(frozen=True, slots=True)
class ReleaseReport:
    """The whole answer. `incident` is None when no node was in quarantine."""

    generated_at: datetime
    cluster: str
    incident: str | None
    nodes: tuple[NodeResult, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """OK when all is as it was before; INCOMPLETE when something was left, FAILED when no node was released."""
        if self.nodes and not any(node.released for node in self.nodes):
            return ExitCode.FAILED
        left = any(not node.released or node.drift for node in self.nodes)
        return ExitCode.INCOMPLETE if left else ExitCode.OK


def prepare(
    chosen: Sequence[str],
    connection: Connection,
    *,
    incident: str | None,
    unchecked: bool,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
    selector: str | None = None,
    reach: Reach = BY_EXEC,
    seconds: float | None = None,
) -> Prepared:
    """Read the records, judge the nodes, and make the plan. Changes nothing.

    No node named, and no `selector` of labels: all of the incident. `reach` is how nodes are read and asked from, for
    `seconds` at most: what is not known by then is unknown.

    Raises RefusedError when a node is not proven healthy and `unchecked` was not said, or when the nodes are of several
    incidents; RecordError for a record that is none.
    """
    check_allowed(connection, (*fields.NEEDED, *incidents.NEEDED), "release", scope=scope)
    by_name = {node.metadata.name: node for node in list_nodes(connection, scope=scope)}
    names = chosen
    if selector is not None:
        names = tuple(node.metadata.name for node in list_nodes(connection, scope=scope, labels=selector))
        if not names:
            raise UsageError(f"no node has {selector} in {connection.target}; nothing was done")
    elif not names:
        marked = [node for node in by_name.values() if RECORD in node.metadata.annotations]
        names = [node.metadata.name for node in marked if incident in (None, _incident_of(node))]
    if missing := [name for name in names if name not in by_name]:
        raise UsageError(f"no node {named(missing)} in {connection.target}; nothing was done")
    nodes = tuple(Leaving(by_name[name], record_of(by_name[name])) for name in names)
    named_lost = [one.name for one in nodes if one.record is None and in_quarantine(one.node)]
    if named_lost:
        raise RefusedError(
            f"{named(named_lost)}: {_LOST}; nothing was changed", hint=_undo_hint(by_name[named_lost[0]])
        )
    lost = [name for name, node in by_name.items() if in_quarantine(node) and RECORD not in node.metadata.annotations]
    notes = (f"{named(lost)}: {_LOST}; {_undo_hint(by_name[lost[0]])}",) if lost else ()
    held = [one for one in nodes if one.record is not None]
    known = {one.record.incident for one in held if one.record is not None}
    if len(known) > 1:
        raise RefusedError(
            f"the nodes are of {len(known)} incidents ({', '.join(sorted(known))}); nothing was changed",
            hint="release those of one incident at a time",
        )
    if incident is not None and known and known != {incident}:
        raise RefusedError(
            f"{held[0].name} is in quarantine by incident {known.pop()}, not {incident}; nothing was changed"
        )
    objects = Objects(connection, scope)
    for one in held:
        holds.check_whose(one.node, one.steps, objects)
    proofs: Mapping[str, Proof] = {}
    if held and not unchecked:
        with scope.limited(seconds) as limit:
            wanted = [one.name for one in held]
            proofs = prove(wanted, reach, connection, scope=limit, reporter=reporter, now=now)
        scope.check()
        _refuse_unhealthy(proofs)
    groups = api_groups(connection, scope=scope) if held else {}
    backs = {one.name: _by_hand(one, groups, objects) for one in held}
    plans = tuple(
        NodePlan(one.name, one.steps, (), tuple(_notes(one, proofs)), backs.get(one.name, ())) for one in nodes
    )
    plan = Plan("release", identity_of(connection.target), plans, notes=notes)
    return Prepared(nodes, proofs, plan, known.pop() if known else None)


_LOST: Final = f"tainted with {RECORD}, and no record tells what to take back"


def _undo_hint(node: Node) -> str:
    """What to do about a node whose record somebody has removed."""
    value = next((taint.value for taint in node.spec.taints if taint.key == RECORD), "")
    undo = f"'kdnsctl incident undo {value}' takes it back where that incident's journal is" if is_id(value) else ""
    return "; ".join(filter(None, (undo, f"look at it: kubectl get node {node.metadata.name} -o yaml")))


def _by_hand(one: Leaving, groups: Groups, objects: Objects) -> tuple[str, ...]:
    """What takes back what may have been held by hand: nobody here knows whether it was."""
    if one.record is None:
        return ()
    found = holds.holds_for(one.node, (holds.AUTO,), groups, one.record.incident, objects)
    return tuple(f"{hold.back}  # if {hold.manager} was held by hand" for hold in found if hold.back)


def _incident_of(node: Node) -> str:
    record = record_of(node)
    return record.incident if record else ""


def _refuse_unhealthy(proofs: Mapping[str, Proof]) -> None:
    bad = {name: proof for name, proof in proofs.items() if not proof.well}
    if not bad:
        return
    name, proof = next(iter(bad.items()))
    if proof.verdict is Verdict.UNKNOWN:
        hint = f"have it read by another way (--via pod, --via ssh), or see what 'kdnsctl analyze {name}' says"
    elif proof.verdict is Verdict.CLEAN:
        hint = f"'kdnsctl probe --from {name}' measures more of it"
    else:
        hint = f"repair it first: 'kdnsctl repair flush {name}', or what 'kdnsctl analyze {name}' says"
    raise RefusedError(
        f"{named(list(bad))}: not proven healthy ({name} is {proof.told}); nothing was changed",
        hint=f"{hint}; --unchecked releases it as it is",
    )


def _notes(one: Leaving, proofs: Mapping[str, Proof]) -> Sequence[str]:
    if one.record is None:
        return ["not in quarantine: nothing to do"]
    proof = proofs.get(one.name)
    said = proof.told if proof else "not judged, as --unchecked says"
    return [f"in quarantine since {one.record.since:%Y-%m-%d %H:%M:%SZ} by {one.record.operator}", said]


def nothing(prepared: Prepared, now: datetime) -> ReleaseReport:
    """The answer when none of the nodes is in quarantine."""
    nodes = tuple(NodeResult(one.name, released=True, record=None) for one in prepared.nodes)
    return ReleaseReport(now, prepared.plan.cluster, None, nodes, prepared.plan.notes)


def release(
    prepared: Prepared,
    connection: Connection,
    incident: Incident,
    actor: Actor,
    *,
    scope: CancelScope,
    now: Callable[[], datetime],
) -> ReleaseReport:
    """Take the quarantine back; its nodes are locked by the caller. Raises what ended the scope: run again to go on.

    Raises RefusedError, before anything is changed, when a record is not as it was when the plan was made.
    """
    means = Means(connection, scope)
    for one in prepared.nodes:
        _check_record(one, connection, scope)
    names = [one.name for one in prepared.nodes if one.record is not None]
    incident.begin("release", actor, names)
    results: list[NodeResult] = []
    notes = list(prepared.plan.notes)
    for one in prepared.nodes:
        if one.record is None:
            results.append(NodeResult(one.name, released=True, record=None))
            continue
        undone = _take_back(one, incident, actor, means)
        released = undone[-1].taken.step.verb == "node.record" and undone[-1].outcome in (
            Undone.RESTORED,
            Undone.ALREADY,
        )
        results.append(NodeResult(one.name, released, one.record, tuple(undone), prepared.proofs.get(one.name)))
        if released:
            said = f"released by {actor.operator}, incident {incident.id}"
            problem = events.emit(connection, one.node, "Released", said, now(), scope=scope)
            notes += [problem] if problem else []
    return ReleaseReport(now(), prepared.plan.cluster, prepared.incident, tuple(results), tuple(notes))


def _check_record(one: Leaving, connection: Connection, scope: CancelScope) -> None:
    """Under the lock: somebody may have gone on with the quarantine, or have released the node, since it was read."""
    found = connection.get(fields.node_path(one.name), Node, scope=scope)
    if found.metadata.uid != one.node.metadata.uid or record_of(found) != one.record:
        raise RefusedError(
            f"the quarantine of {one.name} is not as it was when the plan was made; nothing was changed",
            hint="run the same again: the plan is made anew",
        )


def _take_back(one: Leaving, incident: Incident, actor: Actor, means: Means) -> list[UndoneStep]:
    """All steps, backwards. The record is only removed when what it says is not needed any more."""
    undone: list[UndoneStep] = []
    for step in one.steps:
        if step.verb == "node.record" and any(other.outcome is Undone.FAILED for other in undone):
            break
        back = verb_of(step, VERBS).inverse(step) or step
        undone.append(take_back(Taken((), back, certain=True), step, incident.journal, means, actor.run))
    return undone
