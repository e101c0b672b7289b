"""The answer of `verbosity show`, `raise` and `restore`: one row for each node, at which level its kube-proxy logs.

The JSON form (kind `VerbosityReport`, docs/schemas) is a promise: it may grow, it never changes meaning. Nothing is
decided here but the exit code.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kdnsctl.changes.raised import Raised
from kdnsctl.find.report import coverage_to_json, timestamp
from kdnsctl.model import API_VERSION, Coverage, ExitCode, Reason, Scope, Verdict


class Result(enum.StrEnum):
    """What came of one node."""

    SHOWN = "shown"
    RAISED = "raised"
    RESTORED = "restored"
    NOTHING_TO_DO = "nothingToDo"
    REFUSED = "refused"  # it cannot, or must not, be raised from here; nothing was changed
    FAILED = "failed"
    NOT_TRIED = "notTried"  # others failed before it, or the command was ended

    @property
    def good(self) -> bool:
        """Whether the node is as it was asked for."""
        return self in (Result.SHOWN, Result.RAISED, Result.RESTORED, Result.NOTHING_TO_DO)


@dataclass(frozen=True, slots=True)
class NodeVerbosity:
    """One node. `level` is what its kube-proxy logs at, None when that is not known; `start` what it starts with.

    `way` is how it is, or can be, raised; "" when it cannot be from here: then `advice` says how it is done.
    """

    name: str
    result: Result
    reason: Reason | None = None
    level: int | None = None
    start: int | None = None
    way: str = ""
    version: str | None = None
    raised: Raised | None = None
    advice: str = ""
    applicable: bool = True


@dataclass(frozen=True, slots=True)
class VerbosityReport:
    """The whole answer. `action` is the command's own word; `incident` is "" when nothing was changed.

    `bundle` is where the evidence of nodes is whose kube-proxy was restarted, None when none was.
    """

    generated_at: datetime
    cluster: str
    action: str
    nodes: tuple[NodeVerbosity, ...]
    incident: str = ""
    bundle: Path | None = None
    scope: Scope = Scope.FULL
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """OK when every node is as asked; REFUSED when nothing was changed because none may be."""
        results = {node.result for node in self.nodes}
        if all(result.good for result in results):
            known = self.scope is Scope.FULL and not self._coverage.unknown
            return ExitCode.OK if known or self.action != "show" else ExitCode.INCOMPLETE
        if results & {Result.RAISED, Result.RESTORED}:
            return ExitCode.INCOMPLETE
        if Result.FAILED in results:
            return ExitCode.FAILED
        return ExitCode.REFUSED if Result.REFUSED in results else ExitCode.INCOMPLETE

    @property
    def _coverage(self) -> Coverage:
        return Coverage.of((_verdict(node) for node in self.nodes), self.scope)


def _verdict(node: NodeVerbosity) -> Verdict:
    """A node counts as judged when its level is known."""
    if not node.applicable:
        return Verdict.NOT_APPLICABLE
    return Verdict.UNKNOWN if node.level is None else Verdict.CLEAN


def to_json(report: VerbosityReport) -> dict[str, Any]:
    """The report as plain data (docs/schemas/VerbosityReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "VerbosityReport",
        "cluster": report.cluster,
        "incident": report.incident or None,
        "generatedAt": timestamp(report.generated_at),
        "action": report.action,
        "nodes": [_node(node, report.generated_at) for node in report.nodes],
        "bundle": None if report.bundle is None else str(report.bundle),
        "coverage": coverage_to_json(Coverage.of(map(_verdict, report.nodes), report.scope)),
        "notes": list(report.notes),
    }


def raised_to_json(raised: Raised, now: datetime) -> dict[str, Any]:
    """That one verbosity is raised."""
    return {
        "incident": raised.incident,
        "operator": raised.operator,
        "since": timestamp(raised.since),
        "until": None if raised.until is None else timestamp(raised.until),
        "overdue": raised.overdue(now),
        "way": raised.way.value,
        "level": raised.level,
        "before": raised.before,
    }


def _node(node: NodeVerbosity, now: datetime) -> dict[str, Any]:
    reason = node.reason
    return {
        "name": node.name,
        "result": node.result.value,
        "reason": None if reason is None else {"code": reason.code, "message": reason.message},
        "level": node.level,
        "startLevel": node.start,
        "way": node.way or None,
        "kubeProxyVersion": node.version,
        "raised": None if node.raised is None else raised_to_json(node.raised, now),
        "advice": node.advice,
    }
