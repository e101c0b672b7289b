"""The answer of every repair: one row for each node, what was done to it, and whether it is well now.

The JSON form (kind `RepairReport`, docs/schemas) is a promise: it may grow, it never changes meaning. Nothing is
decided here but the exit code.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kdnsctl.find.report import coverage_to_json, timestamp
from kdnsctl.model import API_VERSION, Coverage, ExitCode, Reason, Scope, Verdict


class Result(enum.StrEnum):
    """What came of one node."""

    REPAIRED = "repaired"  # it was changed, and is proven well now
    NOTHING_TO_DO = "nothingToDo"  # it was well before
    REFUSED = "refused"  # a guard said no; it was not changed
    FAILED = "failed"  # it was tried, and the node is not proven well
    NOT_TRIED = "notTried"  # others failed before it, or the command was ended


@dataclass(frozen=True, slots=True)
class Probed:
    """What a DNS probe from the node said after the repair. `well` is None when it could not tell."""

    well: bool | None
    message: str


@dataclass(frozen=True, slots=True)
class NodeRepair:
    """One node. `before` and `after` are the verdicts on its state; `after` is None when it was not judged again.

    `changed` tells whether anything was done, also when it was not enough. `deleted` counts conntrack entries, in
    `rounds` of deleting and reading again; both are 0 for other repairs. `via` is the rung by which it was changed.
    `advice` says what to do next, `commands` what it speaks of: kdnsctl's own, else for somebody on the node.
    """

    name: str
    result: Result
    reason: Reason
    before: Verdict = Verdict.UNKNOWN
    after: Verdict | None = None
    changed: bool = False
    via: str = ""
    deleted: int = 0
    rounds: int = 0
    advice: str = ""
    commands: tuple[str, ...] = ()
    probed: Probed | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict on the node as it was seen last."""
        return self.before if self.after is None else self.after


@dataclass(frozen=True, slots=True)
class RepairReport:
    """The whole answer. `repair` is the command's own word (`flush`); `incident` is "" when nothing was to be done.

    `quarantined` are those of the nodes that are in quarantine, and have to be given back.
    """

    generated_at: datetime
    cluster: str
    repair: str
    nodes: tuple[NodeRepair, ...]
    incident: str = ""
    services: tuple[str, ...] = ()
    scope: Scope = Scope.FULL
    notes: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()

    @property
    def to_release(self) -> tuple[str, ...]:
        """The nodes that are well, and wait in quarantine."""
        well = [node.name for node in self.nodes if node.verdict is Verdict.CLEAN]
        return tuple(name for name in well if name in self.quarantined)

    @property
    def exit_code(self) -> ExitCode:
        """OK when every node is well; REFUSED when a guard said no and nothing was changed on any node."""
        results = {node.result for node in self.nodes}
        if results <= {Result.REPAIRED, Result.NOTHING_TO_DO}:
            return ExitCode.OK if self.scope is Scope.FULL else ExitCode.INCOMPLETE
        if Result.REPAIRED in results:
            return ExitCode.INCOMPLETE
        if Result.FAILED in results:
            return ExitCode.FAILED
        return ExitCode.REFUSED if Result.REFUSED in results else ExitCode.INCOMPLETE


def to_json(report: RepairReport) -> dict[str, Any]:
    """The report as plain data (docs/schemas/RepairReport.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "RepairReport",
        "cluster": report.cluster,
        "incident": report.incident or None,
        "generatedAt": timestamp(report.generated_at),
        "repair": report.repair,
        "services": list(report.services),
        "nodes": [_node(node) for node in report.nodes],
        "coverage": coverage_to_json(Coverage.of((node.verdict for node in report.nodes), report.scope)),
        "notes": list(report.notes),
    }


def _node(node: NodeRepair) -> dict[str, Any]:
    return {
        "name": node.name,
        "result": node.result.value,
        "reason": {"code": node.reason.code, "message": node.reason.message},
        "verdict": node.verdict.value,
        "verdictBefore": node.before.value,
        "changed": node.changed,
        "via": node.via or None,
        "deletedEntries": node.deleted,
        "rounds": node.rounds,
        "advice": node.advice,
        "commands": list(node.commands),
        "probe": None if node.probed is None else {"well": node.probed.well, "message": node.probed.message},
    }
