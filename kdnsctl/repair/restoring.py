"""verbosity restore: every kube-proxy logs as before, from what is written on the cluster, wherever raising broke off.

At runtime kube-proxy is told its old level, if it is still the pod that was raised; then the record goes. By the
DaemonSet's command line the order is: the command line, the pods that run with the raised one (those of nodes that
joined meanwhile too), until the controller says that all are of the newest revision, **then** the strategy, and the
records last. With the strategy earlier, the controller would restart the pods itself, as many at once as it likes.
It can be run again wherever it was interrupted: what is done already is seen, and left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope, duration
from kdnsctl.changes import fields, incidents, lock, proxies
from kdnsctl.changes.executor import Taken, Undone, UndoneStep, take_back
from kdnsctl.changes.fields import node_path
from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.changes.proxies import ON_DELETE, daemon_set_path, line_of, record_step
from kdnsctl.changes.raised import Raised, RaisedTemplate, Way, sentence
from kdnsctl.changes.verbs import DriftError
from kdnsctl.cluster.kubeproxy import Kind, kube_proxy_container
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import watch
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen
from kdnsctl.model import KdnsctlError, Reason, RefusedError, Step
from kdnsctl.quarantine.allowed import check_allowed
from kdnsctl.repair import raiseplan
from kdnsctl.repair.levels import Level, Survey, survey
from kdnsctl.repair.raiseplan import TEMPLATE_NEEDS, port_on, row, unsettled
from kdnsctl.repair.replacing import deletion, replace_proxy
from kdnsctl.repair.session import CAPTURED, Session
from kdnsctl.repair.verbosityreport import NodeVerbosity, Result, VerbosityReport

SETTLES: Final = 120.0  # seconds until the controller has seen that all pods are as they should be
NEEDS: Final = Needs(
    needed=raiseplan.NEEDS.needed,
    helpful=tuple(dict.fromkeys((*lock.needed(instead=lock.UNPROTECTED), *raiseplan.NEEDS.helpful))),
)


@dataclass(frozen=True, slots=True)
class Leaving:
    """A node that is to be put back: at runtime (`record` on it), or by replacing its pod (`path` of the DaemonSet)."""

    level: Level
    path: str = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.level.name

    @property
    def same_pod(self) -> bool:
        """Whether its kube-proxy is still the one that was told at runtime."""
        place = self.level.proxy.place if self.level.proxy else None
        raised = self.level.raised
        return raised is not None and place is not None and place.uid == raised.uid

    @property
    def steps(self) -> tuple[Step, ...]:
        """What puts a node back that was raised at runtime."""
        level, raised = self.level, self.level.raised
        if raised is None:
            return ()
        last = record_step(node_path(level.name), level.uid, raised.to_json(), None)
        place = level.proxy.place if level.proxy else None
        if raised.way is not Way.RUNTIME or not self.same_pod or place is None:
            return (last,)
        levels = (raised.level, raised.before)
        told = proxies.runtime_step(level.name, place.namespace, place.pod, place.uid, port_on(level), levels)
        return (told, last)


@dataclass(frozen=True, slots=True)
class Template:
    """A DaemonSet that is to be put back: its record, the nodes whose pods go now, and how many raised ones stay."""

    path: str
    found: Mapping[str, Any]
    record: RaisedTemplate
    nodes: tuple[Leaving, ...]
    staying: int

    @property
    def uid(self) -> str:
        """The DaemonSet's UID."""
        return str(self.found["metadata"]["uid"])

    @property
    def command(self) -> Step:
        """The step that puts the command line back."""
        args = {"path": self.path, "container": self.record.container}
        return Step(proxies.COMMAND, args, self.uid, dict(self.record.line), dict(self.record.was))

    @property
    def strategy(self) -> Step | None:
        """The step that puts the strategy back; None when it was OnDelete before."""
        if self.record.strategy.get("type") == ON_DELETE:
            return None
        return Step(proxies.STRATEGY, {"path": self.path}, self.uid, {"type": ON_DELETE}, dict(self.record.strategy))

    @property
    def last(self) -> Step:
        """The step that removes the record."""
        return record_step(self.path, self.uid, self.record.to_json(), None)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is changed. `incident` is None when nothing is raised."""

    survey: Survey
    incident: str | None
    plan: Plan
    runtime: tuple[Leaving, ...]
    templates: tuple[Template, ...]
    done: Mapping[str, NodeVerbosity]

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes that will be changed."""
        by_template = [one.name for template in self.templates for one in template.nodes]
        return tuple(dict.fromkeys((*(one.name for one in self.runtime), *by_template)))

    @property
    def locks(self) -> tuple[str, ...]:
        """What has to be locked: the nodes, and the DaemonSets by their names."""
        return (*self.names, *(one.path.rpartition("/")[2] for one in self.templates))

    def report(
        self, nodes: Mapping[str, NodeVerbosity], now: datetime, bundle: Path | None = None, notes: Sequence[str] = ()
    ) -> VerbosityReport:
        """The report on the nodes that were raised, or named."""
        every = {**self.done, **nodes}
        return VerbosityReport(
            generated_at=now,
            cluster=self.plan.cluster,
            action="restore",
            nodes=tuple(every[name] for name in self.survey.found.names if name in every),
            incident=self.incident or "",
            bundle=bundle,
            scope=self.survey.found.scope,
            notes=(*self.survey.notes, *notes),
        )


def prepare(
    chosen: Chosen, connection: Connection, *, incident: str | None, collect: bool, scope: CancelScope, now: datetime
) -> Prepared:
    """Read what is raised, and make the plan. No node chosen: all that are. Changes nothing.

    Raises RefusedError for what is not allowed, or when several incidents have raised them; RecordError for a record
    that is none.
    """
    check_allowed(connection, (*fields.NEEDED, *incidents.NEEDED), "verbosity", scope=scope)
    found = survey(connection, chosen, scope=scope, command="verbosity restore")
    records = found.templates()
    runtime, templates, done = [], [], dict[str, NodeVerbosity]()
    running = {path: _running(found, path, record) for path, record in records.items()}
    by_pod = {one.name for leaving in running.values() for one in leaving}
    for level in found.levels:
        if level.problem:
            done[level.name] = row(level, Result.REFUSED, Reason("badRecord", level.problem))
        elif level.raised is None and level.name not in by_pod and (chosen.names or chosen.selector):
            done[level.name] = row(level, Result.NOTHING_TO_DO, Reason("notRaised", "it is not raised"))
        elif level.raised is not None and (level.raised.way is Way.RUNTIME or level.name not in by_pod):
            runtime.append(Leaving(level))
    everywhere = not (chosen.names or chosen.selector)
    for path, record in records.items():
        others = 0 if everywhere else _others(connection, path, record, found, scope)
        if others and not running[path]:
            continue  # none of the nodes that were named is raised by it, and others are
        templates.append(Template(path, found.daemon_sets[path], record, tuple(running[path]), others))
    raised: list[Raised] = [one.level.raised for one in runtime if one.level.raised]
    raised += [one.record.raised for one in templates]
    name = _incident(raised, incident)
    if templates:
        check_allowed(connection, TEMPLATE_NEEDS, "verbosity", scope=scope)
    plan = Plan("verbosity restore", identity_of(connection.target), tuple(_plans(runtime, templates, collect, now)))
    return Prepared(found, name, plan, tuple(runtime), tuple(templates), done)


def _incident(raised: Sequence[Raised], asked: str | None) -> str | None:
    known = {one.incident for one in raised}
    if not known:
        return None
    if asked is None and len(known) > 1:
        raise RefusedError(
            f"verbosity was raised by {len(known)} incidents ({', '.join(sorted(known))}); nothing was changed",
            hint="name with --incident the one in whose journal all is to be put back",
        )
    return asked or known.pop()


def _running(found: Survey, path: str, record: RaisedTemplate) -> list[Leaving]:
    """The nodes in scope whose kube-proxy runs with the raised command line."""
    leaving = []
    for level in found.levels:
        place, pod = (level.proxy.place if level.proxy else None), found.pod(level)
        container = kube_proxy_container(pod) if pod else None
        if place is None or container is None or level.proxy is None or level.proxy.kind is not Kind.DAEMON_SET:
            continue
        line = line_of({"command": list(container.command), "args": list(container.args)})
        if daemon_set_path(place.namespace, place.owner) == path and line == record.line:
            leaving.append(Leaving(level, path))
    return leaving


def _others(connection: Connection, path: str, record: RaisedTemplate, found: Survey, scope: CancelScope) -> int:
    """How many raised pods are on nodes that were not named."""
    everyone = survey(connection, Chosen(), scope=scope, command="verbosity restore")
    names = {one.name for one in _running(everyone, path, record)}
    return len(names - set(found.found.names))


def _plans(runtime: Sequence[Leaving], templates: Sequence[Template], collect: bool, now: datetime) -> list[NodePlan]:  # noqa: FBT001
    plans = []
    for template in templates:
        name = template.path.rpartition("/")[2]
        note = sentence(name, template.record.raised, now)
        plans.append(NodePlan(name, (template.command,), notes=(note,)))
        for one in template.nodes:
            if one.level.proxy is not None:
                captured = (CAPTURED,) if collect else ()
                then = ("wait until it has written its rules",)
                plans.append(NodePlan(one.name, (deletion(one.level.proxy),), then, captured))
        if template.staying:
            plans.append(NodePlan(name, notes=(_staying(template),)))
        else:
            steps = (*((template.strategy,) if template.strategy else ()), template.last)
            plans.append(NodePlan(name, steps, notes=("when all its pods are of the newest revision",)))
    for one in runtime:
        note = sentence(one.name, one.level.raised, now) if one.level.raised else ""
        plans.append(NodePlan(one.name, one.steps, notes=(note,)))
    return plans


def _staying(template: Template) -> str:
    return f"{template.staying} other nodes stay raised, so its strategy stays {ON_DELETE} until they are restored"


# --- doing it ---


def _ended(one: Leaving) -> NodeVerbosity:
    """The answer on a node whose restoring is ended before its own."""
    why = Reason("ended", "ended while it was put back: run it again to go on")
    return row(one.level, Result.FAILED, why)


@dataclass(slots=True)
class Work:
    """What the parts of one run share. `results` has one answer for each node that is done.

    `begun` is the answer on the node at work, should that be ended.
    """

    prepared: Prepared
    session: Session
    collect: bool = True
    results: dict[str, NodeVerbosity] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bundle: Path | None = None
    begun: NodeVerbosity | None = None

    def report(self) -> VerbosityReport:
        """The report, as far as it has come."""
        if self.begun is not None:
            self.results.setdefault(self.begun.name, self.begun)
        stopped = Reason("stopped", "it was not begun")
        for one in (*self.prepared.runtime, *(one for each in self.prepared.templates for one in each.nodes)):
            self.results.setdefault(one.name, row(one.level, Result.NOT_TRIED, stopped))
        return self.prepared.report(self.results, self.session.now(), self.bundle, self.notes)

    def run(self) -> None:
        """Put back what was planned. Raises what ended the scope: run again to go on."""
        self.session.begin("verbosity restore", self.prepared.names)
        whole = True
        for template in self.prepared.templates:
            try:
                whole = self._by_template(template) and whole
            except DriftError as error:
                whole = False
                self.notes.append(f"left as it is: {error}")
        for one in self.prepared.runtime:
            if one.level.raised is not None and one.level.raised.way is Way.TEMPLATE and not whole:
                continue
            self.begun = _ended(one)
            self.results[one.name] = self._at_runtime(one)

    def _back(self, step: Step) -> UndoneStep:
        at = self.session
        meant = Taken((), replace(step, before=step.after, after=step.before), certain=True)
        return take_back(meant, step, at.incident.journal, at.means, at.actor.run)

    def _at_runtime(self, one: Leaving) -> NodeVerbosity:
        """Tell kube-proxy its old level, and remove the record; a pod that is gone has taken its level with it."""
        raised, undone = one.level.raised, UndoneStep(Taken((), one.steps[-1], certain=True), "", Undone.ALREADY)
        for step in one.steps:
            undone = self._back(step)
            replaced = step.verb == proxies.RUNTIME and undone.outcome in (Undone.DRIFT, Undone.GONE)
            if undone.outcome in (Undone.FAILED, Undone.DRIFT) and not replaced:
                why = undone.reason or Reason("failed", "it could not be put back")
                return row(one.level, Result.FAILED, why)
        if raised is None or raised.way is Way.TEMPLATE or not one.same_pod:
            why = Reason("replaced", "its kube-proxy is another one by now, which started at its own level")
            return row(one.level, Result.RESTORED, why, level=one.level.start, raised=None)
        return row(one.level, Result.RESTORED, level=raised.before, raised=None)

    def _by_template(self, template: Template) -> bool:
        """Put a DaemonSet back; False when some of it is left."""
        undone = self._back(template.command)
        if undone.outcome in (Undone.FAILED, Undone.DRIFT, Undone.GONE):
            why = undone.reason or Reason("failed", "its command line could not be put back")
            self.results |= {one.name: row(one.level, Result.FAILED, why) for one in template.nodes}
            self.notes.append(why.message)
            return False
        nodes = self._captured(template.nodes) if self.collect else template.nodes
        for one in nodes:
            if one.level.proxy is None:
                continue
            self.begun = _ended(one)
            self.results[one.name] = self._replaced(one, template)
            if self.results[one.name].result is Result.FAILED:
                return False
        if len(nodes) < len(template.nodes):
            return False
        if template.staying:
            self.notes.append(_staying(template))
            return False
        self._settled(template)
        if template.strategy is not None:
            undone = self._back(template.strategy)
            if undone.outcome in (Undone.FAILED, Undone.DRIFT):
                self.notes.append(undone.reason.message if undone.reason else "the strategy could not be put back")
                if undone.outcome is Undone.FAILED:
                    return False
        self._back(template.last)
        return True

    def _captured(self, nodes: Sequence[Leaving]) -> Sequence[Leaving]:
        """The nodes whose evidence is secured; the others stay as they are."""
        if not nodes:
            return nodes
        self.bundle, captured = self.session.secure([one.name for one in nodes], "before-restoring")
        kept = [one for one in nodes if one.name in captured and captured[one.name].captured]
        for one in nodes:
            if one not in kept:
                why = Reason("notCaptured", "its evidence could not be captured, so it is not restarted")
                advice = "--no-collect restarts it all the same"
                self.results[one.name] = row(one.level, Result.FAILED, why, advice=advice)
        return kept

    def _replaced(self, one: Leaving, template: Template) -> NodeVerbosity:
        level, before = one.level, template.record.raised.before
        if level.proxy is None:
            raise ValueError(f"{one.name} has no kube-proxy")
        try:
            replace_proxy(self.session, level.proxy, port=port_on(level))
        except KdnsctlError as error:
            self.session.scope.check()
            return row(level, Result.FAILED, Reason(error.code, str(error), error))
        if level.raised is not None:
            undone = self._back(record_step(node_path(one.name), level.uid, level.raised.to_json(), None))
            if undone.outcome in (Undone.FAILED, Undone.DRIFT):
                return row(level, Result.FAILED, undone.reason, level=before, start=before)
        return row(level, Result.RESTORED, level=before, start=before, raised=None)

    def _settled(self, template: Template) -> None:
        """Wait until every pod is of the newest revision, by the controller's word. Raises DriftError when not."""
        path, _, name = template.path.rpartition("/")
        last = ""
        scope = self.session.scope
        with scope.child(SETTLES) as limit:
            try:
                events = watch(
                    self.session.connection, path, dict[str, Any], fields=f"metadata.name={name}", scope=limit
                )
                for event in events:
                    for found in event.items:
                        last = unsettled(found)
                        if not last:
                            return
            except KdnsctlError:
                scope.check()
                if limit.reason is None:
                    raise
        raise DriftError(
            f"the update strategy of {name} stays {ON_DELETE}: {last} after {duration(SETTLES)}, and with another "
            "strategy its controller would restart the others; run it again when they are"
        )
