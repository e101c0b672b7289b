"""quarantine: nodes → held, cordoned and tainted → captured → judged → drained, each step journaled; and a report.

All nodes are contained before the first is captured, so that no pod of one is moved to the next. A node whose record,
hold, cordon or taint fails stops there, and the others go on. A node that is going away already is captured first.
Nothing is decided for the operator: guards refuse before anything is changed, and what is shown is what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from kdnsctl.access import Permission
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import fields, incidents, lock, pods
from kdnsctl.changes.incidents import JOURNAL, Actor, Incident
from kdnsctl.changes.plan import Plan
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.proxyload import list_nodes
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import collect as collecting
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, nodes_in_scope
from kdnsctl.model import RefusedError, Reporter, Step, UsageError
from kdnsctl.quarantine import drainreading, events, guards, holds
from kdnsctl.quarantine import interrupted as interrupting
from kdnsctl.quarantine.allowed import check_allowed
from kdnsctl.quarantine.budgets import Chance
from kdnsctl.quarantine.capture import Captured
from kdnsctl.quarantine.dnsdrain import DnsProbe
from kdnsctl.quarantine.dnsprobe import asking
from kdnsctl.quarantine.drainplan import NodeDrain
from kdnsctl.quarantine.guards import Most
from kdnsctl.quarantine.holdsbase import Objects, api_groups
from kdnsctl.quarantine.outcome import QuarantineReport
from kdnsctl.quarantine.planning import Planned, common_incident, planned
from kdnsctl.quarantine.podfilters import DrainOptions, name_of
from kdnsctl.quarantine.reaching import BY_EXEC, Reach
from kdnsctl.quarantine.record import LONGEST_REASON, NodeRecord
from kdnsctl.quarantine.remembered import remembered
from kdnsctl.quarantine.working import GOING_AWAY, Work

NEEDS: Final = Needs(
    needed=tuple(dict.fromkeys((*fields.NEEDED, *incidents.NEEDED, *collecting.NEEDS.needed, *drainreading.NEEDED))),
    helpful=tuple(
        dict.fromkeys(
            (
                *lock.needed(),
                *events.HELPFUL,
                *holds.HELPFUL,
                *collecting.NEEDS.helpful,
                *drainreading.HELPFUL,
            )
        )
    ),
    with_option={"--disable-eviction": pods.DELETING, **collecting.NEEDS.with_option},
)


@dataclass(frozen=True, slots=True)
class QuarantineOptions:
    """What was asked. `incident` None: that of the nodes, if they have one, else `new_incident`.

    `seconds` is for how long a capture may take, None: without an end. `drain` None: no pod is evicted. `drain_anyway`:
    also of nodes that the capture does not prove affected.
    """

    chosen: Chosen
    new_incident: str
    incident: str | None = None
    reason: str = ""
    most: Most = field(default_factory=lambda: guards.most_of(guards.DEFAULT_MOST))
    allow_control_plane: bool = False
    hold: tuple[str, ...] = (holds.AUTO,)
    collect: bool = True
    seconds: float | None = None
    drain: DrainOptions | None = None
    drain_anyway: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is changed."""

    incident: str
    nodes: tuple[Planned, ...]
    plan: Plan


def prepare(
    options: QuarantineOptions, connection: Connection, actor: Actor, *, scope: CancelScope, now: Callable[[], datetime]
) -> Prepared:
    """Look at the nodes, check the guards, and make the plan. Changes nothing.

    Raises RefusedError when a guard says no, UsageError for a node that does not exist, else as `Connection.get`.
    """
    if len(options.reason) > LONGEST_REASON:
        raise UsageError(f"--reason is written on every node: at most {LONGEST_REASON} characters")
    unknown = set(options.hold) - {holds.AUTO, *holds.MANAGERS}
    if unknown:
        raise UsageError(f"--hold: no manager {min(unknown)!r}; there are {', '.join(holds.MANAGERS)}, and auto")
    check_allowed(connection, _changing(options), "quarantine", scope=scope)
    chosen = nodes_in_scope(connection, options.chosen, scope=scope, command="quarantine")
    everyone = list_nodes(connection, scope=scope)
    incident, found = _look(chosen.names, everyone, options, connection, actor, scope=scope, now=now())
    drains, notes = _drains([one.name for one in found], everyone, options, connection, scope, now)
    plans = tuple(one.plan(tuple(_then(one.name, options, drains))) for one in found)
    plan = Plan("quarantine", identity_of(connection.target), plans, notes=(*chosen.notes, *notes))
    return Prepared(incident, found, plan)


def _look(
    names: Sequence[str],
    everyone: Sequence[Node],
    options: QuarantineOptions,
    connection: Connection,
    actor: Actor,
    *,
    scope: CancelScope,
    now: datetime,
) -> tuple[str, tuple[Planned, ...]]:
    """The incident, and what is to be done about the nodes as they are in `everyone`. Raises what the guards say."""
    by_name = {node.metadata.name: node for node in everyone}
    nodes = [by_name[name] for name in names if name in by_name]
    guards.check_control_plane(nodes, allowed=options.allow_control_plane)
    guards.check_count([node.metadata.name for node in nodes], _marked(everyone, nodes), everyone, options.most)
    incident = options.incident or common_incident(nodes) or options.new_incident
    groups = api_groups(connection, scope=scope)
    objects = Objects(connection, scope)
    found = []
    for node in nodes:
        held = holds.holds_for(node, options.hold, groups, incident, objects)
        found.append(planned(node, held, incident, actor, options.reason, now))
        if (there := found[-1].found) is not None:
            holds.check_whose(node, there.steps, objects)
    return incident, tuple(found)


def _drains(
    names: Sequence[str],
    everyone: Sequence[Node],
    options: QuarantineOptions,
    connection: Connection,
    scope: CancelScope,
    now: Callable[[], datetime],
) -> tuple[Sequence[NodeDrain], tuple[str, ...]]:
    """What a drain would do if it began now, and what is to be said about it. It is planned anew when it begins."""
    if options.drain is None or not (options.collect or options.drain_anyway):
        return (), ()
    bad = [node.metadata.name for node in everyone if guards.in_quarantine(node)]
    try:
        found = drainreading.read_plan(connection, names, options.drain, scope, now=now, affected=bad)
    except ForbiddenError as error:
        return (), (f"what would be drained cannot be read: {error}",)
    return found.plan.nodes, found.notes


def _marked(everyone: Sequence[Node], chosen: Sequence[Node]) -> list[str]:
    """The nodes that count as in quarantine. A chosen one on which there is nothing but a record does not yet."""
    names = {node.metadata.name for node in chosen}
    return [
        node.metadata.name
        for node in everyone
        if guards.in_quarantine(node)
        and (node.metadata.name not in names or any(taint.key == fields.RECORD for taint in node.spec.taints))
    ]


def unchanged(
    prepared: Prepared,
    options: QuarantineOptions,
    connection: Connection,
    actor: Actor,
    *,
    scope: CancelScope,
    now: datetime,
) -> Prepared:
    """The plan made anew, now that nobody else works on the nodes: what was shown must still be so.

    Raises RefusedError when somebody has changed what the plan is about, or a guard says no now.
    """
    names = [one.name for one in prepared.nodes]
    asked = replace(options, incident=prepared.incident)
    everyone = list_nodes(connection, scope=scope)
    incident, found = _look(names, everyone, asked, connection, actor, scope=scope, now=now)
    new = {one.name: one for one in found}
    for one in prepared.nodes:
        if one.name not in new:
            raise RefusedError(f"node {one.name} is gone since the plan was made; nothing was changed")
        if _essence(one) != _essence(new[one.name]):
            raise RefusedError(
                f"{one.name} has been changed since the plan was made; nothing was changed",
                hint="run the same again: the plan is made anew",
            )
    return Prepared(incident, found, prepared.plan)


def _essence(one: Planned) -> tuple[str, NodeRecord | None, tuple[Step, ...]]:
    return one.uid, one.found, one.record.steps


def _changing(options: QuarantineOptions) -> tuple[Permission, ...]:
    """What has to be allowed for this to be begun at all."""
    if options.drain is None:
        return (*fields.NEEDED, *incidents.NEEDED)
    deleting = pods.DELETING if options.drain.disable_eviction else ()
    return (*fields.NEEDED, *incidents.NEEDED, *drainreading.NEEDED, *deleting)


def _then(name: str, options: QuarantineOptions, drains: Iterable[NodeDrain]) -> Iterable[str]:
    """What follows the steps, in words."""
    if options.collect:
        yield "capture the evidence, and judge it"
    for node in drains:
        if node.node != name:
            continue
        if node.refusal:
            yield f"not drained: {node.refusal}"
            continue
        when = "drain" if options.drain_anyway else "drain if it proves the node affected"
        going = [one.name + (" (DNS: last)" if one.service else "") for one in node.goes]
        yield f"{when}: {', '.join(going) or 'no pod has to go'}"
        for one in node.goes:
            if one.prospect.chance not in (Chance.FREE, Chance.NOW):
                yield f"{one.name} {_FATES[one.prospect.chance]}: {one.prospect.why}"
        for kept in node.kept:
            yield f"{name_of(kept.pod)} stays: {kept.why}"


_FATES: Final = {Chance.WAITS: "waits", Chance.NEVER: "will not be let go", Chance.CONFLICT: "cannot be evicted"}


def quarantine(
    prepared: Prepared,
    connection: Connection,
    incident: Incident,
    actor: Actor,
    options: QuarantineOptions,
    *,
    scope: CancelScope,
    reporter: Reporter,
    now: Callable[[], datetime],
    probe: DnsProbe | None = None,
    reach: Reach = BY_EXEC,
) -> QuarantineReport:
    """Do as the plan says; its nodes are locked by the caller. Raises what ended the scope: run again to go on.

    Between two DNS pods `probe` is asked; without one, nodes that are well and this machine, as far as `reach` goes.
    """
    prepared = unchanged(prepared, options, connection, actor, scope=scope, now=now())
    work = Work(connection, incident, actor, scope, reporter, now, reach, options.seconds)
    names = [one.name for one in prepared.nodes]
    left = interrupting.interrupted(incident.directory / JOURNAL, names)
    known = remembered(incident.directory / JOURNAL)
    incident.begin("quarantine", actor, names)
    collect = options.collect
    captured: list[Captured] = []
    dying = [one for one in prepared.nodes if one.dying]
    if dying and collect:
        captured.append(work.capture([one.name for one in dying], GOING_AWAY))
    results = work.contain_all(prepared.nodes, options.most)
    interrupting.tidied(left, incident.directory, connection, names, anew=collect, scope=scope, note=work.notes.append)
    living = [name for name, result in results.items() if result.failed is None and not result.planned.dying]
    if living and collect:
        captured.append(work.capture(living))
    for one in captured:
        for name, judgement in one.nodes.items():
            results[name] = work.judged(results[name], judgement)
    if options.drain is not None:
        with asking(connection, reach, note=reporter.noted, told=work.heard, affected=known.affected) as well:
            results = work.drain(results, options.drain, probe or well, known, anyway=options.drain_anyway)
    last = captured[-1] if captured else None
    return QuarantineReport(
        generated_at=now(),
        cluster=prepared.plan.cluster,
        incident=prepared.incident,
        nodes=tuple(results.values()),
        bundle=last.bundle if last else None,
        digest=last.digest if last else "",
        collected=collect,
        asked=tuple(work.asked),
        notes=tuple(_notes(work.notes, captured)),
    )


def _notes(notes: Iterable[str], captured: Sequence[Captured]) -> Iterable[str]:
    yield from notes
    for one in captured[:-1]:
        yield f"nodes that are going away were captured first, into {one.bundle}"
    for one in captured:
        yield from one.notes
