"""verbosity raise, before anything is changed: how each node can be raised, and the plan that is shown.

At runtime first, where kube-proxy takes it: nothing restarts. Else by the DaemonSet's command line under OnDelete, if
nobody else looks after it. Nothing is changed here; `raising` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from kdnsctl import fleet
from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import fields, incidents, lock, proxies
from kdnsctl.changes.fields import node_path
from kdnsctl.changes.incidents import Actor
from kdnsctl.changes.plan import NodePlan, Plan
from kdnsctl.changes.proxies import ON_DELETE, daemon_set_path, line_of, record_step, strategy_of, with_level
from kdnsctl.changes.raised import Raised, RaisedTemplate, Way, of_daemon_set
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import collect as collecting
from kdnsctl.find.online import identity_of
from kdnsctl.find.scope import Chosen
from kdnsctl.model import Outcome, Reason, Reporter, Step
from kdnsctl.quarantine.allowed import check_allowed
from kdnsctl.repair import levels, replacing
from kdnsctl.repair.levels import CannotRaise, Level, Survey, survey, template_way, way_of
from kdnsctl.repair.replacing import deletion, port_of
from kdnsctl.repair.session import CAPTURED
from kdnsctl.repair.verbosityreport import NodeVerbosity, Result, VerbosityReport

DEFAULT_LEVEL: Final = 4  # what every version says about conntrack, and no dump of all rules
PARALLEL: Final = 16
TEMPLATE_NEEDS: Final = (
    *(
        Permission(
            verb,
            "daemonsets",
            group="apps",
            namespace=replacing.NAMESPACE,
            without="without enableProfiling no verbosity is raised",
        )
        for verb in ("get", "patch")
    ),
    *replacing.NEEDED,
)
NEEDS: Final = Needs(
    needed=tuple(dict.fromkeys((*fields.NEEDED, *incidents.NEEDED, *levels.NEEDS.needed, *replacing.HELPFUL))),
    helpful=tuple(
        dict.fromkeys(
            (*lock.needed(instead=lock.UNPROTECTED), *levels.NEEDS.helpful, *TEMPLATE_NEEDS, *collecting.NEEDS.all)
        )
    ),
)


@dataclass(frozen=True, slots=True)
class RaiseOptions:
    """What was asked. `lasts` None: until somebody restores it. `restart`: also where kube-proxy has to restart."""

    chosen: Chosen
    level: int = DEFAULT_LEVEL
    lasts: timedelta | None = None
    restart: bool = True
    collect: bool = True


@dataclass(frozen=True, slots=True)
class Template:
    """A DaemonSet whose command line is to be raised: as it is, the record that will be on it, and its nodes."""

    path: str
    found: Mapping[str, Any]
    record: RaisedTemplate
    before: RaisedTemplate | None
    nodes: tuple[Level, ...]

    @property
    def uid(self) -> str:
        """The DaemonSet's UID."""
        return str(self.found["metadata"]["uid"])

    @property
    def steps(self) -> tuple[Step, ...]:
        """The record, the strategy, the command line: in this order."""
        before = self.before.to_json() if self.before else None
        steps = [record_step(self.path, self.uid, before, self.record.to_json())]
        if self.record.strategy.get("type") != ON_DELETE:
            steps.append(
                Step(proxies.STRATEGY, {"path": self.path}, self.uid, dict(self.record.strategy), {"type": ON_DELETE})
            )
        return (*steps, self.command)

    @property
    def command(self) -> Step:
        """The step that raises the command line."""
        args = {"path": self.path, "container": self.record.container}
        return Step(proxies.COMMAND, args, self.uid, dict(self.record.was), dict(self.record.line))


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before anything is changed. `done` has the answer on nodes that will not be changed."""

    options: RaiseOptions
    survey: Survey
    incident: str
    plan: Plan
    runtime: tuple[tuple[Level, Raised], ...]
    templates: tuple[Template, ...]
    done: Mapping[str, NodeVerbosity]
    until: datetime | None

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes that will be changed."""
        return (
            *(one.name for one, _ in self.runtime),
            *(one.name for template in self.templates for one in template.nodes),
        )

    @property
    def locks(self) -> tuple[str, ...]:
        """What has to be locked: the nodes, and the DaemonSets by their names."""
        return (*self.names, *(one.path.rpartition("/")[2] for one in self.templates))

    def report(
        self, nodes: Mapping[str, NodeVerbosity], now: datetime, bundle: Path | None = None, notes: Sequence[str] = ()
    ) -> VerbosityReport:
        """The report on all nodes: `nodes`, and those that were not to be changed."""
        every = {**self.done, **nodes}
        return VerbosityReport(
            generated_at=now,
            cluster=self.plan.cluster,
            action="raise",
            nodes=tuple(every[name] for name in self.survey.found.names if name in every),
            incident=self.incident if nodes else "",
            bundle=bundle,
            scope=self.survey.found.scope,
            notes=(*self.survey.notes, *notes),
        )


def row(of: Level, result: Result, reason: Reason | None = None, **more: Any) -> NodeVerbosity:
    """The answer on one node; `more` are fields of it that are not as they were before."""
    proxy = of.proxy
    known: dict[str, Any] = {"level": of.now, "start": of.start, "raised": of.raised, **more}
    return NodeVerbosity(
        of.name,
        result,
        reason,
        version=proxy.version if proxy else None,
        applicable=proxy is None or proxy.applicable,
        **known,
    )


def prepare(
    options: RaiseOptions,
    connection: Connection,
    actor: Actor,
    *,
    incident: str | None,
    new_incident: str,
    scope: CancelScope,
    reporter: Reporter,
    now: datetime,
) -> Prepared:
    """Look at the nodes, find out how each can be raised, and make the plan. Changes nothing.

    Raises RefusedError for what is not allowed, UsageError for a node that does not exist, else as `Connection.get`.
    """
    check_allowed(connection, (*fields.NEEDED, *incidents.NEEDED), "verbosity", scope=scope)
    found = survey(connection, options.chosen, scope=scope, command="verbosity raise")
    by_template = found.templates()
    known = {one.raised.incident for one in found.levels if one.raised}
    known |= {one.raised.incident for one in by_template.values()}
    name = incident or (known.pop() if len(known) == 1 else new_incident)
    until = now + options.lasts if options.lasts else None
    done: dict[str, NodeVerbosity] = {}
    ways: dict[str, Way] = {}
    for level in found.levels:
        decided = _decide(level, options, found)
        if isinstance(decided, NodeVerbosity):
            done[level.name] = decided
        else:
            ways[level.name] = decided
    tried = _try(connection, [one for one in found.levels if ways.get(one.name) is Way.RUNTIME], reporter, scope)
    runtime, sets = [], dict[str, list[Level]]()
    for level in found.levels:
        if level.name in done:
            continue
        decided = _asked(level, ways[level.name], tried.get(level.name), options, found)
        if isinstance(decided, NodeVerbosity):
            done[level.name] = decided
        elif decided is Way.RUNTIME:
            runtime.append((level, _record(level, options, name, actor, now, until)))
        elif level.proxy is not None and level.proxy.place is not None:
            path = daemon_set_path(level.proxy.place.namespace, level.proxy.place.owner)
            sets.setdefault(path, []).append(level)
    templates = []
    for path, nodes in sets.items():
        made = _template(path, nodes, found.daemon_sets[path], options, name, actor, now, until)
        if isinstance(made, Template):
            templates.append(made)
        else:
            done |= {one.name: row(one, Result.REFUSED, made, way=Way.TEMPLATE) for one in nodes}
    if templates:
        check_allowed(connection, TEMPLATE_NEEDS, "verbosity", scope=scope)
    plan = Plan("verbosity raise", identity_of(connection.target), (), notes=tuple(_notes(options, found, templates)))
    prepared = Prepared(options, found, name, plan, tuple(runtime), tuple(templates), done, until)
    return replace(prepared, plan=replace(plan, nodes=tuple(_plans(prepared))))


def _decide(level: Level, options: RaiseOptions, found: Survey) -> NodeVerbosity | Way:
    if level.problem:
        return row(level, Result.REFUSED, Reason("badRecord", level.problem))
    way = way_of(level, found.daemon_sets, found.found.nodes)
    if isinstance(way, CannotRaise):
        return row(level, Result.REFUSED, way.reason, advice=way.advice)
    if level.now is not None and level.now >= options.level:
        return row(level, Result.NOTHING_TO_DO, Reason("already", f"it logs at {level.now}"), way=way.value)
    if level.start is None:
        return row(
            level,
            Result.REFUSED,
            Reason("unknownLevel", "at which level it logs now is not known, so it could not be put back exactly"),
            advice="have somebody allow `get configmaps` in kube-system",
        )
    return way


def _try(
    connection: Connection, asked: Sequence[Level], reporter: Reporter, scope: CancelScope
) -> dict[str, Outcome[bool]]:
    """Whether each of these kube-proxies takes another level."""
    by_name = {one.name: one for one in asked}

    def work(name: str, limit: CancelScope) -> bool:
        place = by_name[name].proxy.place if by_name[name].proxy else None  # type: ignore[union-attr]
        if place is None:
            return False
        port = port_on(by_name[name])
        return proxies.answers_flags(connection, place.namespace, place.pod, port, scope=limit)

    if not asked:
        return {}
    outcomes = fleet.run(
        by_name, work, parallel=PARALLEL, deadline=None, reporter=reporter, scope=scope, what="asking kube-proxies"
    )
    scope.check()
    return {one.node: one for one in outcomes}


def port_on(level: Level) -> int:
    """The port of its kube-proxy's metrics."""
    return port_of(level.config.metrics_address if level.config else None)


def _asked(
    level: Level, way: Way, outcome: Outcome[bool] | None, options: RaiseOptions, found: Survey
) -> NodeVerbosity | Way:
    """The way after kube-proxy was asked. One that cannot be asked is not restarted for that."""
    if way is Way.RUNTIME:
        if outcome is None or outcome.reason is not None:
            reason = outcome.reason if outcome else None
            return row(
                level,
                Result.REFUSED,
                Reason(
                    reason.code if reason else "notAsked", f"it cannot be asked: {reason.message if reason else ''}"
                ),
                way=way.value,
            )
        if outcome.value:
            return way
        decided = template_way(level, found.daemon_sets, found.found.nodes)
        if isinstance(decided, CannotRaise):
            return row(level, Result.REFUSED, decided.reason, advice=decided.advice)
    if not options.restart:
        why = Reason(
            "restart", "enableProfiling is off, so kube-proxy would have to restart, and --no-restart was said"
        )
        return row(level, Result.REFUSED, why, way=Way.TEMPLATE.value)
    return Way.TEMPLATE


def _record(
    level: Level, options: RaiseOptions, incident: str, actor: Actor, now: datetime, until: datetime | None
) -> Raised:
    """What will be written on a node that is raised at runtime."""
    place = level.proxy.place if level.proxy else None
    same = level.raised is not None and place is not None and level.raised.uid == place.uid
    before = level.raised.before if same and level.raised else level.start or 0
    uid = place.uid if place else ""
    return Raised(incident, actor.operator, actor.run, now, until, Way.RUNTIME, options.level, before, uid)


def _template(
    path: str,
    nodes: Sequence[Level],
    found: Mapping[str, Any],
    options: RaiseOptions,
    incident: str,
    actor: Actor,
    now: datetime,
    until: datetime | None,
) -> Template | Reason:
    """What will be done to a DaemonSet, or why nothing is."""
    place = nodes[0].proxy.place if nodes[0].proxy else None
    before = of_daemon_set(found)
    container = next(
        (one for one in proxies.containers_of(found) if place and one.get("name") == place.container), None
    )
    if place is None or container is None:
        return Reason("unknownContainer", f"{path.rpartition('/')[2]} has no container {place and place.container}")
    uid = str(found["metadata"]["uid"])
    start = nodes[0].start or 0
    raised = Raised(incident, actor.operator, actor.run, now, until, Way.TEMPLATE, options.level, start, uid)
    if before is not None:
        if before.raised.level != options.level:
            return Reason("raised", f"its DaemonSet is raised to {before.raised.level} already: restore that first")
        record = replace(before, raised=replace(raised, before=before.raised.before))
        return Template(path, found, record, before, tuple(nodes))
    if why := unsettled(found):
        return Reason("rollout", f"{why}: raise it when that is over")
    was = line_of(container)
    line = with_level(was, options.level)
    if line is None:
        return Reason("commandLine", "its command line is a script, or the image's own: --v cannot be added to it")
    record = RaisedTemplate(raised, place.container, dict(strategy_of(found)), was, line)
    return Template(path, found, record, None, tuple(nodes))


def unsettled(found: Mapping[str, Any]) -> str:
    """Why not every pod of a DaemonSet is of its newest revision, as its controller says; "" when all are."""
    status, metadata = found.get("status") or {}, found.get("metadata") or {}
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return "its controller has not seen its last change"
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    return f"{updated} of {wanted} pods are of the newest revision" if updated < wanted else ""


def _plans(prepared: Prepared) -> list[NodePlan]:
    plans = []
    for level, raised in prepared.runtime:
        plans.append(NodePlan(level.name, runtime_steps(level, raised), notes=("at runtime: nothing restarts",)))
    for template in prepared.templates:
        name = template.path.rpartition("/")[2]
        plans.append(
            NodePlan(name, template.steps, notes=("the strategy is read back before the command line is set",))
        )
        for level in template.nodes:
            if level.proxy is None:
                continue
            steps = (node_record(level, template), deletion(level.proxy))
            notes = (CAPTURED,) if prepared.options.collect else ()
            plans.append(NodePlan(level.name, steps, ("wait until the new kube-proxy has written its rules",), notes))
    for name, node in prepared.done.items():
        if node.result is Result.REFUSED and node.reason is not None:
            said = f"is left as it is: {node.reason.message}"
            plans.append(NodePlan(name, notes=(said, *((node.advice,) if node.advice else ()))))
        elif node.reason is not None:
            plans.append(NodePlan(name, notes=(f"nothing to do: {node.reason.message}",)))
    return plans


def runtime_steps(level: Level, raised: Raised) -> tuple[Step, ...]:
    """The record on the node, then the level."""
    place = level.proxy.place if level.proxy else None
    if place is None:
        raise ValueError(f"kube-proxy on {level.name} is no pod")
    before = level.raised.to_json() if level.raised else None
    levels_ = (level.now if level.now is not None else raised.before, raised.level)
    return (
        record_step(node_path(level.name), level.uid, before, raised.to_json()),
        proxies.runtime_step(level.name, place.namespace, place.pod, place.uid, port_on(level), levels_),
    )


def node_record(level: Level, template: Template) -> Step:
    """The step that writes on a node that its kube-proxy is raised by the template."""
    before = level.raised.to_json() if level.raised else None
    return record_step(node_path(level.name), level.uid, before, template.record.raised.to_json())


def _notes(options: RaiseOptions, found: Survey, templates: Sequence[Template]) -> list[str]:
    notes = []
    minors = [(one.proxy.version or "").split(".")[1] for one in found.levels if one.proxy and one.proxy.version]
    if options.level >= 5 and any(minor.isdigit() and int(minor) <= 23 for minor in minors):
        notes.append(
            f"level {options.level} on 1.23 and older prints all rules at each sync (until 1.24, kubernetes#108224): "
            "with many Services that fills disks; 4 says all about conntrack"
        )
    if templates:
        notes.append(
            "a restart of kube-proxy usually heals its node, and destroys the evidence of what was wrong with it"
            + (": that is captured first" if options.collect else "; none is captured (--no-collect)")
        )
        notes.append("nodes that join meanwhile start with the new level; they are put back with the others")
    if options.lasts is None:
        notes.append("it stays until kdnsctl verbosity restore; --for puts it back by itself")
    return notes
