"""What runs have written on nodes and is still there, for `cleanup`: told, and never taken away by it.

A quarantine or a raised verbosity is no litter: `release` judges before, `verbosity restore` knows the order. Here is
only said which nodes are marked, by whom, and whether it should be over.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kdnsctl.quarantine.status import StatusReport


class Kind(enum.StrEnum):
    """What is on the node."""

    QUARANTINE = "quarantine"
    VERBOSITY = "verbosity"


@dataclass(frozen=True, slots=True)
class Mark:
    """One of them. `command` ends it; `overdue`: it should be over by now; `problem`: its record cannot be read."""

    node: str
    kind: Kind
    command: str
    incident: str = ""
    operator: str = ""
    since: datetime | None = None
    overdue: bool = False
    problem: str = ""

    def __str__(self) -> str:
        """For people."""
        if self.problem:
            return f"{self.node}: {self.problem}"
        what = "is in quarantine" if self.kind is Kind.QUARANTINE else "logs more than usual"
        overdue = "OVERDUE: " if self.overdue else ""
        return (
            f"{overdue}{self.node} {what} since {self.since:%Y-%m-%d %H:%M:%SZ}, by {self.operator} ({self.incident})"
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data (docs/schemas/CleanupReport.schema.json)."""
        return {
            "node": self.node,
            "kind": self.kind.value,
            "incident": self.incident,
            "operator": self.operator,
            "since": self.since.isoformat() if self.since else None,
            "overdue": self.overdue,
            "problem": self.problem,
        }


def marks(report: StatusReport) -> Iterator[Mark]:
    """Those of all nodes, as a `status` without names has found them."""
    for node in report.nodes:
        release = f"kdnsctl release {node.name}"
        record = node.record
        if record is not None:
            yield Mark(node.name, Kind.QUARANTINE, release, record.incident, record.operator, record.since)
        elif node.problem:
            yield Mark(node.name, Kind.QUARANTINE, f"kdnsctl status {node.name}", problem=node.problem)
    for name, raised in report.raised:
        yield Mark(
            name,
            Kind.VERBOSITY,
            f"kdnsctl verbosity restore {name}",
            raised.incident,
            raised.operator,
            raised.since,
            overdue=raised.overdue(report.generated_at),
        )
