"""quarantine: nodes → held, cordoned and tainted → captured → judged → drained, each step journaled; and a report.

All nodes are contained before the first is captured, so that no pod of one is moved to the next. A node whose record,
hold, cordon or taint fails stops there, and the others go on. A node that is going away already is captured first.
Nothing is decided for the operator: guards refuse before anything is changed, and what is shown is what is done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kdnsctl import fleet
from kdnsctl.access import Permission
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import fields, incidents, lock, pods
from kdnsctl.changes.executor import take
from kdnsctl.changes.fields import VERBS
from kdnsctl.changes.incidents import JOURNAL, Actor, Incident
from kdnsctl.changes.plan import Plan
from kdnsctl.changes.verbs import DriftError, Means
from kdnsctl.cluster.errors import ApiError
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.proxyload import list_nodes
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import collect as collecting
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen, nodes_in_scope
from kdnsctl.model import ExitCode, KdnsctlError, Reason, RefusedError, Reporter, Step, UsageError, Verdict
from kdnsctl.quarantine import draining, drainreading, events, guards, holds
from kdnsctl.quarantine import interrupted as interrupting
from kdnsctl.quarantine.allowed import check_allowed
from kdnsctl.quarantine.capture import BY_EXEC, Captured, Judgement, Reach, capture
from kdnsctl.quarantine.dnsdrain import DnsProbe
from kdnsctl.quarantine.drainreading import Foundation, read_plan
from kdnsctl.quarantine.guards import Most
from kdnsctl.quarantine.holdsbase import Objects, api_groups
from kdnsctl.quarantine.planning import Planned, common_incident, planned
from kdnsctl.quarantine.podfilters import DrainOptions
from kdnsctl.quarantine.record import NodeRecord, Phase, record_step

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


AT_ONCE: Final = 8  # nodes that are held, cordoned and tainted at the same time


class Unmeasured:
    """A probe for where DNS cannot be measured from: one DNS pod may go, since others serve; no second one."""

    def trouble(self, service: str, scope: CancelScope) -> str:  # noqa: ARG002
        """That it is not known."""
        return f"whether {service} answers was not measured"


UNMEASURED: Final = Unmeasured()


@dataclass(frozen=True, slots=True)
class QuarantineOptions:
    """What was asked. `incident` None: that of the nodes, if they have one, else `new_incident`.

    `drain` None: no pod is evicted. `drain_anyway`: also of nodes that the capture does not prove affected.
    """

    chosen: Chosen
    new_incident: str
    incident: str | None = None
    reason: str = ""
    most: Most = field(default_factory=lambda: guards.most_of(guards.DEFAULT_MOST))
    allow_control_plane: bool = False
    hold: tuple[str, ...] = (holds.AUTO,)
    collect: bool = True
    drain: DrainOptions | None = None
    drain_anyway: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is changed."""

    incident: str
    nodes: tuple[Planned, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What came of one node. `failed` is why it stopped where it did; `judgement` None: it was not captured.

    `drained` is what became of its pods, None: it was not drained, and `undrained` says why if that was asked for.
    """

    name: str
    phase: Phase | None
    planned: Planned
    judgement: Judgement | None = None
    failed: Reason | None = None
    drained: draining.NodeResult | None = None
    undrained: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineReport:
    """The whole answer. `bundle` is where the evidence is, None when there is none."""

    generated_at: datetime
    cluster: str
    incident: str
    nodes: tuple[NodeResult, ...]
    bundle: Path | None = None
    digest: str = ""
    collected: bool = True
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """OK when every node is contained, and proven affected where that was to be found out."""
        if all(node.failed for node in self.nodes) and self.nodes:
            return ExitCode.FAILED
        if any(node.failed or node.undrained or (node.drained and not node.drained.drained) for node in self.nodes):
            return ExitCode.INCOMPLETE
        judged = all(node.judgement and node.judgement.verdict is Verdict.AFFECTED for node in self.nodes)
        return ExitCode.OK if judged or not self.collected else ExitCode.INCOMPLETE


def prepare(
    options: QuarantineOptions, connection: Connection, actor: Actor, *, scope: CancelScope, now: datetime
) -> Prepared:
    """Look at the nodes, check the guards, and make the plan. Changes nothing.

    Raises RefusedError when a guard says no, UsageError for a node that does not exist, else as `Connection.get`.
    """
    unknown = set(options.hold) - {holds.AUTO, *holds.MANAGERS}
    if unknown:
        raise UsageError(f"--hold: no manager {min(unknown)!r}; there are {', '.join(holds.MANAGERS)}, and auto")
    check_allowed(connection, _changing(options), "quarantine", scope=scope)
    chosen = nodes_in_scope(connection, options.chosen, scope=scope, command="quarantine")
    return _look(chosen.names, chosen.notes, options, connection, actor, scope=scope, now=now)


def _look(
    names: Sequence[str],
    notes: tuple[str, ...],
    options: QuarantineOptions,
    connection: Connection,
    actor: Actor,
    *,
    scope: CancelScope,
    now: datetime,
) -> Prepared:
    """The nodes as they are now, and the plan for them. Raises what the guards say."""
    everyone = list_nodes(connection, scope=scope)
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
    then = ("capture the evidence, and judge it",) if options.collect else ()
    plan = Plan("quarantine", identity_of(connection.target), tuple(one.plan(then) for one in found), notes=notes)
    return Prepared(incident, tuple(found), plan)


def _marked(everyone: Sequence[Node], chosen: Sequence[Node]) -> list[str]:
    """The nodes that count as in quarantine. A chosen one on which there is nothing but a record does not yet."""
    names = {node.metadata.name for node in chosen}
    return [
        node.metadata.name
        for node in everyone
        if fields.RECORD in node.metadata.annotations
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
    found = _look(names, prepared.plan.notes, asked, connection, actor, scope=scope, now=now)
    new = {one.name: one for one in found.nodes}
    for one in prepared.nodes:
        if one.name not in new:
            raise RefusedError(f"node {one.name} is gone since the plan was made; nothing was changed")
        if _essence(one) != _essence(new[one.name]):
            raise RefusedError(
                f"{one.name} has been changed since the plan was made; nothing was changed",
                hint="run the same again: the plan is made anew",
            )
    return found


def _essence(one: Planned) -> tuple[str, NodeRecord | None, tuple[Step, ...]]:
    return one.uid, one.found, one.record.steps


def _changing(options: QuarantineOptions) -> tuple[Permission, ...]:
    """What has to be allowed for this to be begun at all."""
    if options.drain is None:
        return (*fields.NEEDED, *incidents.NEEDED)
    deleting = pods.DELETING if options.drain.disable_eviction else ()
    return (*fields.NEEDED, *incidents.NEEDED, *pods.NEEDED, *deleting)


def _then(name: str, options: QuarantineOptions, drain: Foundation | None) -> Iterable[str]:
    """What follows the steps, in words."""
    if options.collect:
        yield "capture the evidence, and judge it"
    for node in drain.plan.nodes if drain else ():
        if node.node != name:
            continue
        if node.refusal:
            yield f"not drained: {node.refusal}"
            continue
        when = "drain" if options.drain_anyway else "drain if it proves the node affected"
        pods = [one.name + (" (DNS: last)" if one.service else "") for one in node.goes]
        yield f"{when}: {', '.join(pods) or 'no pod has to go'}"


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
    probe: DnsProbe = UNMEASURED,
    reach: Reach = BY_EXEC,
) -> QuarantineReport:
    """Do as the plan says; its nodes are locked by the caller. Raises what ended the scope: run again to go on."""
    prepared = unchanged(prepared, options, connection, actor, scope=scope, now=now())
    work = _Work(connection, incident, actor, scope, reporter, now, reach)
    names = [one.name for one in prepared.nodes]
    left = interrupting.interrupted(incident.directory / JOURNAL, names)
    incident.begin("quarantine", actor, names)
    collect = options.collect
    captured: list[Captured] = []
    dying = [one for one in prepared.nodes if one.dying]
    if dying and collect:
        captured.append(work.capture([one.name for one in dying], "before"))
    results = work.contain_all(prepared.nodes, options.most)
    interrupting.tidied(left, incident.directory, connection, names, anew=collect, scope=scope, note=work.notes.append)
    living = [name for name, result in results.items() if result.failed is None and not result.planned.dying]
    if living and collect:
        captured.append(work.capture(living, "after"))
    for one in captured:
        for name, judgement in one.nodes.items():
            results[name] = work.judged(results[name], judgement)
    if options.drain is not None:
        results = work.drain(results, options, options.drain, probe)
    last = captured[-1] if captured else None
    return QuarantineReport(
        generated_at=now(),
        cluster=prepared.plan.cluster,
        incident=prepared.incident,
        nodes=tuple(results.values()),
        bundle=last.bundle if last else None,
        digest=last.digest if last else "",
        collected=collect,
        notes=tuple(_notes(work.notes, captured)),
    )


def _notes(notes: Iterable[str], captured: Sequence[Captured]) -> Iterable[str]:
    yield from notes
    for one in captured[:-1]:
        yield f"nodes that are going away were captured first, into {one.bundle}"
    for one in captured:
        yield from one.notes


def _gate(one: NodeResult, options: QuarantineOptions) -> str:
    """Why a node is not drained; empty when it may be."""
    if one.failed is not None:
        return "it is not contained"
    if options.drain_anyway:
        return ""
    if one.judgement is None:
        return "it was not captured, so nothing proves that it is affected (--drain-anyway drains it all the same)"
    if one.judgement.verdict is not Verdict.AFFECTED:
        return f"the capture does not prove it affected, it is {one.judgement.verdict} (--drain-anyway drains it)"
    return ""


@dataclass(slots=True)
class _Work:
    """What the parts of one run share."""

    connection: Connection
    incident: Incident
    actor: Actor
    scope: CancelScope
    reporter: Reporter
    now: Callable[[], datetime]
    reach: Reach
    notes: list[str] = field(default_factory=list)

    @property
    def means(self) -> Means:
        return Means(self.connection, self.scope)

    def contain_all(self, nodes: Sequence[Planned], most: Most) -> dict[str, NodeResult]:
        """Write all records; then, if all of them may be, hold, cordon and taint the nodes.

        Raises RefusedError, with the records taken back, when others have begun at the same time and it would be too
        many together.
        """
        begun = self._each(nodes, self._begin, "recording")
        fresh = [one for one in nodes if one.record.phase is Phase.BEGUN and begun[one.name].failed is None]
        if fresh:
            try:
                self._check_count([one.name for one in nodes if begun[one.name].failed is None], most)
            except RefusedError:
                for one in fresh:
                    if one.found is None:
                        self._take_back_record(one)
                raise
        going_on = [one for one in nodes if begun[one.name].failed is None]
        return {**begun, **self._each(going_on, self._contain, "containing")}

    def _each(
        self, nodes: Sequence[Planned], work: Callable[[Planned], NodeResult], what: str
    ) -> dict[str, NodeResult]:
        """Work on several nodes at once; an error is the node's, but for the end of all work."""
        by_name = {one.name: one for one in nodes}
        outcomes = fleet.run(
            by_name,
            lambda name, _: work(by_name[name]),
            parallel=AT_ONCE,
            deadline=None,
            reporter=self.reporter,
            scope=self.scope,
            what=what,
        )
        self.scope.check()
        results = {}
        for outcome in outcomes:
            one = by_name[outcome.node]
            phase = one.found.phase if one.found else None
            results[one.name] = outcome.value or NodeResult(one.name, phase, one, failed=outcome.reason)
        return results

    def _check_count(self, names: Sequence[str], most: Most) -> None:
        """Everybody writes a record first and counts afterwards: of two at the same time, one sees both at least."""
        everyone = list_nodes(self.connection, scope=self.scope)
        marked = [node.metadata.name for node in everyone if fields.RECORD in node.metadata.annotations]
        guards.check_count(names, [name for name in marked if name not in names], everyone, most)

    def _take_back_record(self, one: Planned) -> None:
        with contextlib.suppress(ApiError, DriftError):  # it is seen in status, and counts
            take(record_step(one.name, one.uid, one.record, None), self.incident.journal, self.means, self.actor.run)

    def _begin(self, one: Planned) -> NodeResult:
        take(record_step(one.name, one.uid, one.found, one.record), self.incident.journal, self.means, self.actor.run)
        return NodeResult(one.name, one.record.phase, one)

    def _contain(self, one: Planned) -> NodeResult:
        """Hold, cordon, taint; then read back. A failure stops this node.

        What somebody else had set meanwhile is theirs: it is taken out of the record, so that it stays afterwards.
        """
        record, known = one.record, one.found.steps if one.found else ()
        try:
            for step in one.record.steps:
                effect = take(step, self.incident.journal, self.means, self.actor.run)
                if not effect.changed and step not in known:
                    steps = tuple(other for other in record.steps if other != step)
                    record = self._write(one, record, replace(record, steps=steps))
            self._read_back(one)
            if record.phase is Phase.BEGUN:
                record = self._write(one, record, replace(record, phase=Phase.CONTAINED))
        except KdnsctlError as error:
            self.scope.check()
            return NodeResult(
                one.name, record.phase, replace(one, record=record), failed=Reason(error.code, str(error), error)
            )
        message = f"held, cordoned and tainted by {self.actor.operator}, incident {self.incident.id}"
        self._tell(one.node, "Quarantined", message)
        return NodeResult(one.name, record.phase, replace(one, record=record))

    def _read_back(self, one: Planned) -> None:
        """What the server says now, in one reading: all of it must be there at once."""
        for step in one.record.steps:
            if step.args["path"] == fields.node_path(one.name):
                found = self.connection.get(step.args["path"], dict[str, Any], scope=self.scope)
                verb = VERBS[step.verb]
                if isinstance(verb, fields.FieldVerb) and not verb.same(verb.read(found, step.args), step.after):
                    raise KdnsctlError(
                        f"{verb.says(step)}: it was done, and is gone again: somebody undoes it", code="drift"
                    )

    def capture(self, names: Sequence[str], what: str) -> Captured:
        """Capture and judge nodes; journaled with the bundle's digest."""
        directory = self.incident.directory / f"evidence-{self.actor.run}-{what}"
        about = {"run": self.actor.run, "bundle": directory.name, "nodes": list(names)}
        found = capture(
            self.connection,
            names,
            directory,
            scope=self.scope,
            reporter=self.reporter,
            now=self.now,
            reach=self.reach,
            begins=lambda pods: self.incident.journal.append(interrupting.BEGUN, {**about, "pods": pods}),
        )
        nodes = {name: {"verdict": one.verdict.value, "captured": one.captured} for name, one in found.nodes.items()}
        body = {"run": self.actor.run, "bundle": directory.name, "sumsSha256": found.digest, "nodes": nodes}
        try:
            self.incident.journal.append(interrupting.DONE, body)
        except KdnsctlError as error:  # a full disk: nothing more is changed without a journal, and the report says so
            self.scope.check()
            self.notes.append(str(error))
        return found

    def judged(self, result: NodeResult, judgement: Judgement) -> NodeResult:
        """Write the verdict on the node."""
        result = replace(result, judgement=judgement)
        if result.failed is not None:
            return result
        record = result.planned.record
        phase = Phase.CAPTURED if judgement.captured and record.phase is not Phase.DRAINED else record.phase
        after = replace(record, phase=phase, verdict=judgement.verdict.value)
        try:
            if after != record:
                self._write(result.planned, record, after)
        except KdnsctlError as error:
            self.scope.check()
            return replace(result, failed=Reason(error.code, str(error), error))
        return replace(result, phase=phase, planned=replace(result.planned, record=after))

    def drain(
        self, results: Mapping[str, NodeResult], options: QuarantineOptions, how: DrainOptions, probe: DnsProbe
    ) -> dict[str, NodeResult]:
        """Drain what the evidence allows; the pods are looked at anew, for much may have changed since the plan."""
        done = {name: replace(one, undrained=_gate(one, options)) for name, one in results.items()}
        for name, result in done.items():
            if not result.undrained:
                done[name] = self._still_contained(result)
        names = [name for name, one in done.items() if not one.undrained and not one.failed]
        if not names:
            return done
        everyone = list_nodes(self.connection, scope=self.scope)
        bad = [node.metadata.name for node in everyone if fields.RECORD in node.metadata.annotations]
        found = read_plan(self.connection, names, how, self.scope, now=self.now, affected=bad)
        send = draining.journaled(self.connection, self.incident.journal, self.actor.run)
        drained = draining.drain(
            found.plan, self.connection, self.scope, self.reporter, send=send, probe=probe, now=self.now
        )
        self.scope.check()
        for one in drained:
            done[one.node] = self._drained(replace(done[one.node], drained=one))
        return done

    def _still_contained(self, result: NodeResult) -> NodeResult:
        """The capture took a while: pods would come back to a node that somebody has uncordoned meanwhile."""
        try:
            self._read_back(result.planned)
        except KdnsctlError as error:
            self.scope.check()
            failed = Reason(error.code, str(error), error)
            return replace(result, failed=failed, undrained="it is not contained any more")
        return result

    def _drained(self, result: NodeResult) -> NodeResult:
        """Write on the node that it is drained, if it is."""
        if result.drained is None or not result.drained.drained:
            return result
        record = result.planned.record
        after = replace(record, phase=Phase.DRAINED)
        try:
            if after != record:
                self._write(result.planned, record, after)
            self._read_back(result.planned)
        except KdnsctlError as error:
            self.scope.check()
            return replace(result, failed=Reason(error.code, str(error), error))
        self._tell(result.planned.node, "Drained", f"drained by {self.actor.operator}, incident {self.incident.id}")
        return replace(result, phase=Phase.DRAINED, planned=replace(result.planned, record=after))

    def _write(self, one: Planned, before: NodeRecord, after: NodeRecord) -> NodeRecord:
        step = record_step(one.name, one.node.metadata.uid, before, after)
        take(step, self.incident.journal, self.means, self.actor.run)
        return after

    def _tell(self, node: Node, reason: str, message: str) -> None:
        problem = events.emit(self.connection, node, reason, message, self.now(), scope=self.scope)
        if problem:
            self.notes.append(problem)
