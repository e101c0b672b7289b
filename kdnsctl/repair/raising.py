"""verbosity raise: kube-proxy logs more on some nodes, for a while, and nothing else changes.

At runtime the record is written on the node, then kube-proxy is told. By the DaemonSet's command line it goes in this
order: the record, the strategy OnDelete, read back, the command line, then only the named nodes' pods, one after the
other. Before each of these steps the strategy is looked at again: when somebody has set it back, the command line is
put back at once, and no further pod is deleted. Putting all of it back is `restoring`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import proxies
from kdnsctl.changes.proxies import ON_DELETE, line_of, strategy_of
from kdnsctl.changes.raised import Raised, RaisedTemplate, Way
from kdnsctl.changes.verbs import DriftError
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.watch import watch
from kdnsctl.model import CancelledError, KdnsctlError, Reason, Step
from kdnsctl.repair.levels import Level
from kdnsctl.repair.raiseplan import Prepared, Template, node_record, port_on, row, runtime_steps
from kdnsctl.repair.replacing import replace_proxy
from kdnsctl.repair.session import Session
from kdnsctl.repair.verbosityreport import NodeVerbosity, Result, VerbosityReport


@dataclass(slots=True)
class Work:
    """What the parts of one run share. `results` has one answer for each node that was begun."""

    prepared: Prepared
    session: Session
    results: dict[str, NodeVerbosity] = field(default_factory=dict)
    bundle: Path | None = None

    def report(self) -> VerbosityReport:
        """The report, as far as it has come."""
        ended = Reason("stopped", "it was not begun")
        for level in (*(one for one, _ in self.prepared.runtime), *self._restarted):
            self.results.setdefault(level.name, row(level, Result.NOT_TRIED, ended))
        return self.prepared.report(self.results, self.session.now(), self.bundle)

    @property
    def _restarted(self) -> list[Level]:
        return [one for template in self.prepared.templates for one in template.nodes]

    def run(self) -> None:
        """Raise what was planned. Raises what ended the scope: the records tell what was done."""
        self.session.begin("verbosity raise", self.prepared.names)
        for level, raised in self.prepared.runtime:
            self.results[level.name] = self._at_runtime(level, raised)
        if self.prepared.templates and self.prepared.options.collect:
            self._capture()
        for template in self.prepared.templates:
            self._by_template(template)

    def _failed(self, level: Level, error: KdnsctlError, **more: Any) -> NodeVerbosity:
        self.session.scope.check()
        return row(level, Result.FAILED, Reason(error.code, str(error), error), **more)

    def _at_runtime(self, level: Level, raised: Raised) -> NodeVerbosity:
        record, set_level = runtime_steps(level, raised)
        try:
            self.session.take(record)
        except KdnsctlError as error:
            return self._failed(level, error, way=Way.RUNTIME.value)
        try:
            self.session.take(set_level)
        except KdnsctlError as error:
            advice = "it may be raised or not: kdnsctl verbosity restore settles that"
            return self._failed(level, error, way=Way.RUNTIME.value, raised=raised, advice=advice)
        return row(level, Result.RAISED, level=raised.level, raised=raised, way=Way.RUNTIME.value)

    def _capture(self) -> None:
        """Capture the nodes that are going to be restarted; one that cannot be is left alone."""
        names = [one.name for one in self._restarted]
        self.bundle, captured = self.session.secure(names, "before-raising")
        for level in self._restarted:
            if level.name not in captured or not captured[level.name].captured:
                why = Reason("notCaptured", "its evidence could not be captured, so it is not restarted")
                self.results[level.name] = row(
                    level, Result.FAILED, why, advice="--no-collect restarts it all the same"
                )

    def _by_template(self, template: Template) -> None:
        nodes = [one for one in template.nodes if one.name not in self.results]
        if not nodes:
            return
        try:
            self._set_template(template)
        except KdnsctlError as error:
            self.results |= {one.name: self._failed(one, error, way=Way.TEMPLATE.value) for one in nodes}
            return
        for level in nodes:
            if level.proxy is None:
                continue
            try:
                self._check(template)
                self.session.take(node_record(level, template))
                replace_proxy(self.session, level.proxy, port=port_on(level))
            except DriftError as error:
                self.session.take(
                    _back(template.command)
                )  # at once: who set the strategy back restarts every kube-proxy
                self.results[level.name] = self._failed(level, error, way=Way.TEMPLATE.value)
                return
            except KdnsctlError as error:
                self.results[level.name] = self._failed(level, error, way=Way.TEMPLATE.value)
                return
            record = template.record.raised
            self.results[level.name] = row(
                level, Result.RAISED, level=record.level, start=record.level, raised=record, way=Way.TEMPLATE.value
            )

    def _set_template(self, template: Template) -> None:
        record, *others = template.steps
        self.session.take(record)
        try:
            for step in others:
                self.session.take(step)
        except DriftError:
            self.session.take(_back(record))  # the command line was not changed, and the strategy is somebody else's
            raise

    def _check(self, template: Template) -> None:
        """That the DaemonSet still is as we left it. Raises DriftError."""
        found = self.session.connection.get(template.path, dict[str, Any], scope=self.session.scope)
        if why := drifted(found, template.record):
            raise DriftError(f"{why}: no kube-proxy is restarted any more, and its command line is put back")


def _back(step: Step) -> Step:
    return replace(step, before=step.after, after=step.before)


def drifted(found: Mapping[str, Any], record: RaisedTemplate) -> str:
    """Why a DaemonSet is not as it was left when it was raised; "" when it is."""
    strategy = strategy_of(found).get("type")
    if strategy != ON_DELETE:
        return f"the update strategy is {strategy} again: somebody else looks after this DaemonSet"
    container = next((one for one in proxies.containers_of(found) if one.get("name") == record.container), {})
    return "" if line_of(container) == record.line else "its command line was changed by somebody else"


def hold(prepared: Prepared, connection: Connection, *, scope: CancelScope) -> str:
    """Wait for as long as was asked. Returns earlier, with why, when a DaemonSet is not as it was left.

    Raises what ended the scope.
    """
    seconds = prepared.options.lasts.total_seconds() if prepared.options.lasts else 0.0
    with scope.child(seconds) as limit:
        try:
            if not prepared.templates:
                limit.pause(seconds)
                scope.check()
                return ""
            template = prepared.templates[0]
            path, _, name = template.path.rpartition("/")
            for event in watch(connection, path, dict[str, Any], fields=f"metadata.name={name}", scope=limit):
                for found in event.items:
                    if why := drifted(found, template.record):
                        return why
        except CancelledError:
            raise
        except KdnsctlError:
            scope.check()
            if limit.reason is None:
                raise
    return ""
