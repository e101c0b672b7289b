"""verbosity raise: kube-proxy logs more on some nodes, for a while, and nothing else changes.

At runtime the record is written on the node, then kube-proxy is told. By the DaemonSet's command line it goes in this
order: the record, the strategy OnDelete, read back, the command line, then only the named nodes' pods, one after the
other. The DaemonSet is watched meanwhile, and looked at before each step: when somebody has set it back, the command
line is put back at once, and no further pod is deleted. Putting all of it back is `restoring`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.raised import RESTORE, Raised, Way
from kdnsctl.changes.verbs import DriftError
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Reason, Step
from kdnsctl.repair.guarding import drift_of, drifted, guarded
from kdnsctl.repair.levels import Level
from kdnsctl.repair.raiseplan import Prepared, Template, node_record, port_on, row, runtime_steps
from kdnsctl.repair.replacing import replace_proxy
from kdnsctl.repair.session import Session
from kdnsctl.repair.verbosityreport import NodeVerbosity, Result, VerbosityReport

ENDED: Final = "ended"  # code of a node that was at work when it ended: it may be raised or not


@dataclass(slots=True)
class Work:
    """What the parts of one run share. `results` has one answer for each node that is done.

    `begun` is the answer on the node at work, should that be ended.
    """

    prepared: Prepared
    session: Session
    results: dict[str, NodeVerbosity] = field(default_factory=dict)
    bundle: Path | None = None
    begun: NodeVerbosity | None = None

    def report(self) -> VerbosityReport:
        """The report, as far as it has come."""
        if self.begun is not None:
            self.results.setdefault(self.begun.name, self.begun)
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
            self.begun = _ended(level, raised)
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
        self.begun = _ended(nodes[0], template.record.raised)
        try:
            self._set_template(template)
        except KdnsctlError as error:
            failed = (self._failed(one, error, way=Way.TEMPLATE.value, advice=RESTORE) for one in nodes)
            self.results |= {one.name: one for one in failed}
            return
        with guarded(self.session.connection, [template], self.session.scope) as inner:
            at = replace(self.session, scope=inner)
            for level in nodes:
                if level.proxy is None:
                    continue
                self.begun = _ended(level, template.record.raised)
                try:
                    self._check(template)
                    at.take(node_record(level, template))
                    replace_proxy(at, level.proxy, port=port_on(level))
                    self._check(template)  # who set it back before the new pod was made had it started as before
                except KdnsctlError as error:
                    self.results[level.name] = self._stopped(level, template, error, drift_of(inner))
                    return
                record = template.record.raised
                self.results[level.name] = row(
                    level, Result.RAISED, level=record.level, start=record.level, raised=record, way=Way.TEMPLATE.value
                )

    def _stopped(self, level: Level, template: Template, error: KdnsctlError, drift: str) -> NodeVerbosity:
        """The answer on the node at which it ended. When the DaemonSet is not as it was left, its line goes back."""
        advice = RESTORE
        # Its controller may have been first at the pod, and the watch not have told of it yet.
        drift = drift or self._drift_now(template)
        if drift or isinstance(error, DriftError):
            error = DriftError(
                f"{drift or error}: no kube-proxy is restarted any more, and its command line is put back"
            )
            try:
                self.session.take(_back(template.command))
            except KdnsctlError as failure:
                self.session.scope.check()
                advice = f"its command line could not be put back ({failure}); {RESTORE}"
        return self._failed(level, error, way=Way.TEMPLATE.value, advice=advice)

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
            raise DriftError(why)

    def _drift_now(self, template: Template) -> str:
        """Why the DaemonSet is not as we left it, if it is known not to be; else ""."""
        try:
            self._check(template)
        except DriftError as error:
            return str(error)
        except KdnsctlError:
            self.session.scope.check()
        return ""


def _ended(level: Level, raised: Raised) -> NodeVerbosity:
    """The answer on a node whose raising is ended before its own."""
    why = Reason(ENDED, "ended while it was raised: it may be raised or not")
    return row(level, Result.FAILED, why, raised=raised, way=raised.way.value, advice=RESTORE)


def _back(step: Step) -> Step:
    return replace(step, before=step.after, after=step.before)


def hold(prepared: Prepared, connection: Connection, *, scope: CancelScope) -> str:
    """Wait for as long as was asked. Returns earlier, with why, when a DaemonSet is not as it was left.

    Raises what ended the scope.
    """
    with guarded(connection, prepared.templates, scope) as inner:
        inner.pause(prepared.options.lasts.total_seconds() if prepared.options.lasts else 0.0)
        scope.check()
        return drift_of(inner)
