"""The reports of quarantine, release and status as plain data: their stable JSON forms.

The keys are a promise (docs/schemas): they may grow, they never change meaning. Nothing is decided here.
"""

from __future__ import annotations

from typing import Any

from kdnsctl.changes.executor import UndoneStep
from kdnsctl.find.report import coverage_to_json, timestamp
from kdnsctl.model import API_VERSION, Coverage, Reason, Verdict
from kdnsctl.probe.answering import Answering
from kdnsctl.quarantine import outcome, release, status
from kdnsctl.quarantine.draining import PodResult
from kdnsctl.quarantine.holdsbase import Hold
from kdnsctl.quarantine.podfilters import name_of
from kdnsctl.quarantine.record import NodeRecord
from kdnsctl.repair.verbosityreport import raised_to_json


def quarantine_to_json(report: outcome.QuarantineReport) -> dict[str, Any]:
    """docs/schemas/QuarantineReport.schema.json."""
    verdicts = [node.judgement.verdict if node.judgement else Verdict.UNKNOWN for node in report.nodes]
    return {
        "apiVersion": API_VERSION,
        "kind": "QuarantineReport",
        "cluster": report.cluster,
        "incident": report.incident,
        "generatedAt": timestamp(report.generated_at),
        "bundle": str(report.bundle) if report.bundle else None,
        "sumsSha256": report.digest or None,
        "nodes": [
            {
                "name": node.name,
                "phase": node.phase.value if node.phase else None,
                "verdict": verdict.value,
                "reason": node.judgement.reason if node.judgement else "",
                "staleEntries": node.judgement.stale_entries if node.judgement else None,
                "captured": bool(node.judgement and node.judgement.captured),
                "alreadyTerminating": node.planned.dying or None,
                "holds": [_hold(hold) for hold in node.planned.holds],
                "failed": _reason(node.failed),
                "drained": node.drained.drained if node.drained else False,
                "notDrained": node.undrained or (node.drained.refusal if node.drained else "") or None,
                "pods": [_pod(pod) for pod in node.drained.pods] if node.drained else [],
                "arrived": list(node.drained.arrived) if node.drained else [],
            }
            for node, verdict in zip(report.nodes, verdicts, strict=True)
        ],
        "dnsProbes": [
            {"service": one.service, "answers": one.answer.well, "message": one.answer.message} for one in report.asked
        ],
        "coverage": _coverage(verdicts),
        "notes": list(report.notes),
    }


def release_to_json(report: release.ReleaseReport) -> dict[str, Any]:
    """docs/schemas/ReleaseReport.schema.json."""
    verdicts = [node.proof.verdict if node.proof else Verdict.UNKNOWN for node in report.nodes]
    return {
        "apiVersion": API_VERSION,
        "kind": "ReleaseReport",
        "cluster": report.cluster,
        "incident": report.incident,
        "generatedAt": timestamp(report.generated_at),
        "nodes": [
            {
                "name": node.name,
                "wasQuarantined": node.record is not None,
                "released": node.released,
                "verdict": verdict.value,
                "reason": node.proof.reason if node.proof else "",
                "via": (node.proof.via if node.proof else "") or None,
                "dns": _answer(node.proof.dns if node.proof else None),
                "steps": [undone_to_json(one) for one in node.undone],
            }
            for node, verdict in zip(report.nodes, verdicts, strict=True)
        ],
        "coverage": _coverage(verdicts),
        "notes": list(report.notes),
    }


def status_to_json(report: status.StatusReport) -> dict[str, Any]:
    """docs/schemas/StatusReport.schema.json."""
    return {
        "apiVersion": API_VERSION,
        "kind": "StatusReport",
        "cluster": report.cluster,
        "generatedAt": timestamp(report.generated_at),
        "nodes": [
            {
                "name": node.name,
                "quarantine": _record(node.record, report) if node.record else None,
                "inForce": list(node.held),
                "drift": [{"step": one.says, "found": one.found} for one in node.drift],
                "holds": [{**_hold(hold), "inForce": hold.in_force} for hold in node.holds],
                "notLookedAt": list(node.unknown),
                "lockedBy": node.holder or None,
                "alreadyTerminating": node.dying or None,
                "problem": node.problem or None,
            }
            for node in report.nodes
        ],
        "raisedVerbosity": [
            {"node": name, **raised_to_json(raised, report.generated_at)} for name, raised in report.raised
        ],
        "raisedDaemonSets": [
            {"daemonSet": name, **raised_to_json(raised, report.generated_at)} for name, raised in report.raised_sets
        ],
        "notes": list(report.notes),
    }


def undone_to_json(one: UndoneStep) -> dict[str, Any]:
    """One step that was taken back, or not."""
    return {"description": one.says, "outcome": one.outcome.value, "reason": _reason(one.reason)}


def _record(record: NodeRecord, report: status.StatusReport) -> dict[str, Any]:
    return {
        "incident": record.incident,
        "operator": record.operator,
        "run": record.run,
        "since": timestamp(record.since),
        "ageSeconds": max(0, round((report.generated_at - record.since).total_seconds())),
        "phase": record.phase.value,
        "reason": record.reason,
        "verdict": record.verdict or None,
    }


def _pod(result: PodResult) -> dict[str, Any]:
    return {
        "pod": name_of(result.pod),
        "outcome": result.ending.value if result.ending else None,
        "reason": _reason(result.reason),
    }


def _hold(hold: Hold) -> dict[str, Any]:
    return {
        "manager": hold.manager,
        "verdict": hold.verdict.value,
        "keys": [str(step.args.get("key") or step.args.get("name")) for step in hold.steps],
        "run": hold.run or None,
        "undo": hold.back or None,
        "doesNotProtect": hold.risk,
        "why": hold.why,
    }


def _reason(reason: Reason | None) -> dict[str, str] | None:
    return None if reason is None else {"code": reason.code, "message": reason.message}


def _answer(answer: Answering | None) -> dict[str, Any] | None:
    return None if answer is None else {"answers": answer.well, "message": answer.message}


def _coverage(verdicts: list[Verdict]) -> dict[str, Any]:
    return coverage_to_json(Coverage.of(verdicts))
