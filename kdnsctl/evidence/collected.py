"""What came of collecting, as records and as plain data: a row for each node in scope, and what is missing. Pure.

How it is collected is `collect`'s business, and what the evidence means `analyze`'s.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kdnsctl.evidence.resuming import Gap
from kdnsctl.model import API_VERSION, ExitCode, Scope


class Status(enum.StrEnum):
    """What came of one node."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node: by which rung it was reached ("" for none), how many items are whole, and what is missing.

    `capture` is the one that counts for it: an earlier one, when it was finished there and not read again.
    `lacking` are extra items that are not there on the node, or not by this rung: it is complete without them.
    """

    name: str
    status: Status
    via: str = ""
    whole: int = 0
    missing: tuple[Gap, ...] = ()
    capture: int = 1
    lacking: tuple[Gap, ...] = ()

    @property
    def reason(self) -> str:
        """Why it is not complete: each reason once, in words."""
        return "; ".join(dict.fromkeys(gap.reason.message for gap in self.missing))


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What was collected. `sums_digest` is the SHA-256 of SHA256SUMS.

    `cluster_missing` is what was not had of the cluster's side, `cluster_lacking` what no verdict hangs on. `run` is
    what pods of our own were labelled with, `pods_left` those that could not be deleted, in words.
    """

    cluster: str
    bundle: Path
    capture: int
    started: datetime
    ended: datetime
    nodes: tuple[NodeRow, ...]
    cluster_missing: tuple[Gap, ...]
    cluster_lacking: tuple[Gap, ...]
    scope: Scope
    sums_digest: str
    notes: tuple[str, ...] = ()
    run: str = ""
    pods_left: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """OK when nothing is missing and no pod is left, else INCOMPLETE."""
        whole = all(node.status is Status.COMPLETE for node in self.nodes)
        whole = whole and not self.cluster_missing and not self.pods_left
        return ExitCode.OK if whole and self.scope is Scope.FULL else ExitCode.INCOMPLETE


def to_json(report: CollectReport, archive: Path | None = None) -> dict[str, Any]:
    """The report as plain data (docs/schemas/CollectReport.schema.json). `archive`: what the bundle was packed into."""
    return {
        "apiVersion": API_VERSION,
        "kind": "CollectReport",
        "cluster": report.cluster,
        "bundle": str(report.bundle),
        "archive": None if archive is None else str(archive),
        "capture": report.capture,
        "startedAt": report.started.isoformat(),
        "endedAt": report.ended.isoformat(),
        "scope": report.scope.value,
        "sumsSha256": report.sums_digest,
        "nodes": [
            {
                "name": node.name,
                "status": node.status.value,
                "via": node.via or None,
                "whole": node.whole,
                "capture": node.capture,
                "missing": [gap.to_json() for gap in node.missing],
                "lacking": [gap.to_json() for gap in node.lacking],
            }
            for node in report.nodes
        ],
        "clusterMissing": [gap.to_json() for gap in report.cluster_missing],
        "clusterLacking": [gap.to_json() for gap in report.cluster_lacking],
        "notes": list(report.notes),
        "run": report.run or None,
        "podsLeft": list(report.pods_left),
    }
