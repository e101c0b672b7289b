"""What analyze found, as values, and their stable JSON form (kind `AnalyzeReport`).

Nothing is judged here and nothing printed: `diagnosis` judges, `cli` renders. The JSON keys are a promise
(docs/schemas/AnalyzeReport.schema.json): they may grow, they never change meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kdnsctl.diagnosis.findings import Diagnosis, Finding
from kdnsctl.find.report import (
    KubeProxy,
    Problem,
    coverage_to_json,
    finding_to_json,
    problem_to_json,
    timestamp,
)
from kdnsctl.model import API_VERSION, Basis, Coverage, Reason, Verdict


@dataclass(frozen=True, slots=True)
class NodeAnalysis:
    """The judgement on one node from its state.

    `identified` is False when the input did not say which node it was from: `name` is then a file's or folder's name,
    shown but never passed on to another command. `diagnosis` is None when there was nothing to judge: `reason` then
    says why. `read_at` is when its connection tracking was last read, `via` by which way. `problems` are pieces of
    evidence that could not be used, with where they are from.
    """

    name: str
    verdict: Verdict
    reason: str
    reason_code: str
    diagnosis: Diagnosis | None = None
    identified: bool = True
    name_from: str = ""
    kube_proxy: KubeProxy = field(default_factory=KubeProxy)
    read_at: datetime | None = None
    via: str = ""
    problems: tuple[Problem, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the checks found."""
        return self.diagnosis.findings if self.diagnosis else ()

    @property
    def stale_entries(self) -> int | None:
        """UDP entries that lead nowhere, None when connection tracking was not read."""
        return self.diagnosis.stale_entries if self.diagnosis else None

    @property
    def complete(self) -> bool:
        """Whether nothing was missing or cut off."""
        return self.diagnosis is not None and self.diagnosis.complete and not self.problems


@dataclass(frozen=True, slots=True)
class AnalyzeReport:
    """The whole answer. `services` are those that were asked for (none: all). `notes` are lines for people about the
    run as a whole, `next_commands` what to run now.
    """

    generated_at: datetime
    nodes: tuple[NodeAnalysis, ...]
    coverage: Coverage
    cluster: str | None = None
    services: tuple[str, ...] = ()
    skipped: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    next_commands: tuple[str, ...] = ()


def judged(name: str, diagnosis: Diagnosis, **more: Any) -> NodeAnalysis:
    """A node with its diagnosis; `more` are fields of NodeAnalysis."""
    reason = diagnosis.reason
    return NodeAnalysis(name, diagnosis.verdict, reason.message, reason.code, diagnosis, **more)


def unjudged(name: str, verdict: Verdict, reason: Reason, **more: Any) -> NodeAnalysis:
    """A node without one, and why."""
    return NodeAnalysis(name, verdict, reason.message, reason.code, **more)


def to_json(report: AnalyzeReport) -> dict[str, Any]:
    """The report as plain data for `-o json` and `-o yaml`, keys in their documented order."""
    return {
        "apiVersion": API_VERSION,
        "kind": "AnalyzeReport",
        "cluster": report.cluster,
        "generatedAt": timestamp(report.generated_at),
        "services": list(report.services),
        "nodes": [_node(node) for node in report.nodes],
        "coverage": coverage_to_json(report.coverage),
        "skipped": [problem_to_json(problem) for problem in report.skipped],
        "notes": list(report.notes),
        "nextCommands": list(report.next_commands),
    }


def _node(node: NodeAnalysis) -> dict[str, Any]:
    diagnosis, proxy = node.diagnosis, node.kube_proxy
    return {
        "name": node.name,
        "identified": node.identified,
        "nameFrom": node.name_from,
        "verdict": node.verdict.value,
        "basis": Basis.STATE.value if diagnosis else None,
        "reason": node.reason,
        "reasonCode": node.reason_code,
        "complete": node.complete,
        "staleEntries": node.stale_entries,
        "reads": diagnosis.reads if diagnosis else 0,
        "readAt": timestamp(node.read_at),
        "via": node.via,
        "findings": [finding_to_json(finding) for finding in node.findings],
        "missing": [
            {"code": reason.code, "message": reason.message} for reason in (diagnosis.missing if diagnosis else ())
        ],
        "kubeProxy": {"version": proxy.version, "mode": proxy.mode, "pods": list(proxy.pods)},
        "problems": [problem_to_json(problem) for problem in node.problems],
        "sources": list(node.sources),
    }
