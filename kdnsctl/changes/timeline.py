"""An incident's journal for people and programs: a timeline in UTC, as Markdown or as data (kind `IncidentReport`).

Whatever is quoted in it may come from a cluster: it stands in code spans, on one line, with no character that could end
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdnsctl.changes.executor import to_undo
from kdnsctl.changes.incidents import Summary
from kdnsctl.changes.journal import Record
from kdnsctl.model import API_VERSION

SHOWN_NAMES = 5  # of nodes in a line, for each verdict
LONGEST = 300  # characters of one text in a line


def told(record: Record) -> str:
    """One record in words, one line, without its time."""
    body = record.body
    match record.kind:
        case "incident":
            return f"{body.get('operator')} opened the incident on {body.get('cluster')}"
        case "run":
            return f"{body.get('operator')} ran {body.get('command')} ({', '.join(body.get('nodes') or [])})"
        case "found":
            return f"{body.get('operator')} ran {body.get('command')}: {_found(body)}"
        case "repaired":
            deleted = f", {body.get('deleted')} entries deleted" if body.get("deleted") else ""
            return f"{body.get('node')}: {body.get('result')}{deleted}: {body.get('message')}"
        case "captureBegun":
            return f"capturing {', '.join(map(str, body.get('nodes') or []))} into {body.get('bundle')}"
        case "captured":
            found = body.get("nodes") or {}
            nodes = ", ".join(f"{name} {one.get('verdict')}" for name, one in found.items() if isinstance(one, dict))
            return f"evidence in {body.get('bundle')} (SHA256SUMS {body.get('sumsSha256')}): {nodes}"
        case "dnsAsked":
            return f"DNS was asked: {body.get('message')}"
        case _:
            return _of_step(record)


def _of_step(record: Record) -> str:
    body, step = record.body, f"step {record.body.get('of')}"
    match record.kind:
        case "stepBegun":
            return f"step {record.number}: {body.get('says')}"
        case "stepDone":
            return f"{step} done" if body.get("changed") else f"{step}: it was so already"
        case "stepPart":
            return f"{step} has deleted {len(body.get('flows') or [])} entries"
        case "stepFailed":
            sure = "nothing was changed" if body.get("certain") else "whether it was done is not known"
            return f"{step} failed, {sure}: {body.get('message')}"
        case "undoBegun":
            return f"taking {step} back: {body.get('says')}"
        case "undoDone":
            return f"{step} was taken back" if body.get("changed") else f"{step} was taken back already"
        case "undoFailed":
            return f"{step} was not taken back: {body.get('message')}"
        case _:
            return record.kind


def _found(body: Mapping[str, Any]) -> str:
    """What a command found: the nodes by verdict, and how many of how many were judged."""
    counts, nodes = body.get("counts") or {}, body.get("nodes") or {}
    parts = []
    for verdict, count in counts.items():
        named = [str(name) for name in nodes.get(verdict) or []][:SHOWN_NAMES]
        more = f" and {count - len(named)} more" if count > len(named) else ""
        parts.append(f"{verdict}: {', '.join(named)}{more}")
    if "inScope" in body:
        parts.append(f"{body.get('judged')} of {body.get('inScope')} nodes judged")
    if "bundle" in body:
        parts.append(f"evidence in {body.get('bundle')} (SHA256SUMS {body.get('sumsSha256')})")
    return "; ".join(parts) or "nothing"


def markdown(incident: Summary) -> str:
    """The timeline as a document."""
    lines = [f"# Incident {incident.id}", ""]
    lines += [f"Cluster: {_code(incident.cluster)}, kube-system {_code(incident.cluster_uid)}", ""]
    lines += ["| time (UTC) | what | audit |", "|---|---|---|"]
    for record in incident.reading.records:
        audit = record.body.get("auditId")
        time = record.time.strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"| {time} | {_code(told(record))} | {_code(str(audit)) if audit else ''} |")
    lines += ["", *_left(incident), ""]
    if incident.reading.problem:
        lines += [f"**The journal is damaged:** {_code(incident.reading.problem.message)}", ""]
    lines += [f"Journal: {len(incident.reading.records)} records; SHA-256 of the last: `{incident.reading.head}`"]
    return "\n".join(lines) + "\n"


def to_json(incident: Summary) -> dict[str, Any]:
    """The incident as plain data (docs/schemas/IncidentReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "IncidentReport",
        **summary_to_json(incident),
        "records": [
            {
                "number": record.number,
                "time": record.time.isoformat(),
                "kind": record.kind,
                "description": told(record),
                "auditId": record.body.get("auditId"),
            }
            for record in incident.reading.records
        ],
    }


def summary_to_json(incident: Summary) -> dict[str, Any]:
    """What is known of the incident as a whole."""
    problem = incident.reading.problem
    return {
        "incident": incident.id,
        "cluster": incident.cluster,
        "clusterUid": incident.cluster_uid,
        "operator": incident.operator,
        "openedAt": incident.opened.isoformat() if incident.opened else None,
        "directory": str(incident.directory),
        "head": incident.reading.head,
        "stepsToUndo": open_steps(incident),
        "problem": {"code": problem.code, "message": problem.message} if problem else None,
    }


def open_steps(incident: Summary) -> int:
    """How many changes are not taken back."""
    return len(to_undo(incident.reading.records))


def _left(incident: Summary) -> Iterable[str]:
    left = to_undo(incident.reading.records)
    if not left:
        yield "Nothing is left that can be taken back."
        return
    yield f"Not taken back ({len(left)}):"
    yield ""
    said = {record.number: record.body.get("says") for record in incident.reading.records}
    for one in left:
        says = next((str(said[number]) for number in one.numbers if said.get(number)), one.step.verb)
        sure = "" if one.certain else " (whether it was done is not known)"
        yield f"- {_code(says)}{sure}"


def _code(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text)[:LONGEST]
    return "`" + shown.replace("`", "'").replace("|", "\\|") + "`"
