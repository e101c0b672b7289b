"""The work of one run of quarantine, part by part: contain nodes, capture them, write the verdict on them, drain them.

Each part takes nodes and gives one result for each; what has been done is journaled, and written on the node. In which
order the parts come, and what the guards say, is known to `quarantine`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from kdnsctl import fleet
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import fields
from kdnsctl.changes.executor import take
from kdnsctl.changes.fields import VERBS
from kdnsctl.changes.incidents import Actor, Incident
from kdnsctl.changes.verbs import DriftError, Means
from kdnsctl.cluster.errors import ApiError
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.proxyload import list_nodes
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Reason, RefusedError, Reporter, Verdict
from kdnsctl.quarantine import draining, events, guards
from kdnsctl.quarantine.capture import Captured, Judgement
from kdnsctl.quarantine.dnsdrain import DnsProbe
from kdnsctl.quarantine.dnsprobe import Asked
from kdnsctl.quarantine.drainplan import PodPlan
from kdnsctl.quarantine.drainreading import read_plan
from kdnsctl.quarantine.guards import Most
from kdnsctl.quarantine.outcome import NodeResult
from kdnsctl.quarantine.planning import Planned
from kdnsctl.quarantine.podfilters import DrainOptions
from kdnsctl.quarantine.reaching import Reach
from kdnsctl.quarantine.record import NodeRecord, Phase, record_step
from kdnsctl.quarantine.remembered import DNS_ASKED, DNS_POD, Remembered
from kdnsctl.quarantine.securing import secured

AT_ONCE: Final = 8  # nodes that are held, cordoned and tainted at the same time
GOING_AWAY: Final = "going-away"  # what nodes are called that are captured before anything else, as they will be gone


@dataclass(slots=True)
class Work:
    """What the parts of one run share, and the parts."""

    connection: Connection
    incident: Incident
    actor: Actor
    scope: CancelScope
    reporter: Reporter
    now: Callable[[], datetime]
    reach: Reach
    seconds: float | None = None  # for a capture
    notes: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

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
        marked = [node.metadata.name for node in everyone if guards.in_quarantine(node)]
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
        record = one.record
        try:
            for step in one.record.steps:
                effect = take(step, self.incident.journal, self.means, self.actor.run)
                if not effect.changed and not (one.found is not None and one.found.has_done(step)):
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

    def capture(self, names: Sequence[str], which: str = "") -> Captured:
        """Capture and judge nodes into a bundle of this run, named for `which` they are."""
        return secured(
            names,
            which,
            self.connection,
            self.incident,
            self.actor,
            scope=self.scope,
            reporter=self.reporter,
            now=self.now,
            reach=self.reach,
            seconds=self.seconds,
        )

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
        self, results: Mapping[str, NodeResult], how: DrainOptions, probe: DnsProbe, known: Remembered, *, anyway: bool
    ) -> dict[str, NodeResult]:
        """Drain what the evidence allows; the pods are looked at anew, for much may have changed since the plan."""
        done = {name: replace(one, undrained=_gate(one, anyway=anyway)) for name, one in results.items()}
        for name, result in done.items():
            if not result.undrained:
                done[name] = self._still_contained(result)
        names = [name for name, one in done.items() if not one.undrained and not one.failed]
        if not names:
            return done
        try:
            everyone = list_nodes(self.connection, scope=self.scope)
            bad = known.affected | {node.metadata.name for node in everyone if guards.in_quarantine(node)}
            found = read_plan(self.connection, names, how, self.scope, now=self.now, affected=bad)
            self.notes += found.notes
            send = draining.journaled(self.connection, self.incident.journal, self.actor.run)
            drained = draining.drain(
                found.plan,
                self.connection,
                self.scope,
                self.reporter,
                send=send,
                probe=probe,
                unproven=known.unproven,
                taking=self._taking,
                now=self.now,
            )
        except KdnsctlError as error:  # before anything was evicted
            self.scope.check()
            failed = Reason(error.code, str(error), error)
            return {
                name: replace(one, undrained=f"its drain could not be begun: {error}", failed=failed)
                if name in names
                else one
                for name, one in done.items()
            }
        self.scope.check()
        for one in drained:
            done[one.node] = self._drained(replace(done[one.node], drained=one))
        return done

    def heard(self, asked: Asked) -> None:
        """Keep what DNS answered between two DNS pods; journaled."""
        said = {"service": asked.service, "answers": asked.answer.well, "message": asked.answer.message}
        self.incident.journal.append(DNS_ASKED, {"run": self.actor.run, **said})
        self.asked.append(asked)

    def _taking(self, one: PodPlan) -> None:
        """Journaled before: whoever goes on must know of which Service a pod was taken."""
        said = {"service": one.service, "pod": one.name, "uid": one.pod.metadata.uid}
        self.incident.journal.append(DNS_POD, {"run": self.actor.run, **said})

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


def _gate(one: NodeResult, *, anyway: bool) -> str:
    """Why a node is not drained; empty when it may be."""
    if one.failed is not None:
        return "it is not contained"
    if anyway:
        return ""
    if one.judgement is None:
        return "it was not captured, so nothing proves that it is affected (--drain-anyway drains it all the same)"
    if one.judgement.verdict is not Verdict.AFFECTED:
        return f"the capture does not prove it affected, it is {one.judgement.verdict} (--drain-anyway drains it)"
    return ""
