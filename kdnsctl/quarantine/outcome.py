"""What came of a quarantine: one result for each node, the report on all of them, and which exit code that is."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from kdnsctl.model import ExitCode, Reason, Verdict
from kdnsctl.quarantine import draining
from kdnsctl.quarantine.capture import Judgement
from kdnsctl.quarantine.dnsprobe import Asked
from kdnsctl.quarantine.planning import Planned
from kdnsctl.quarantine.record import Phase

MOST_NAMED = 5
"""Nodes that one command names: more are a line that nobody reads."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What came of one node. `failed` is why it stopped where it did; `judgement` None: it was not captured.

    `drained` is what became of its pods, None: it was not drained, and `undrained` says why if that was asked for.
    """

    name: str
    phase: Phase | None
    planned: Planned
    judgement: Judgement | None = None
    failed: Reason | None = None
    drained: draining.NodeResult | None = None
    undrained: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineReport:
    """The whole answer. `bundle` is where the evidence is, None without any; `asked` is what DNS answered meanwhile."""

    generated_at: datetime
    cluster: str
    incident: str
    nodes: tuple[NodeResult, ...]
    bundle: Path | None = None
    digest: str = ""
    collected: bool = True
    notes: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()

    @property
    def repairs(self) -> tuple[tuple[str, ...], ...]:
        """How the affected nodes are mended: words of commands of ours, one command for all that take the same."""
        named: dict[tuple[str, ...], list[str]] = {}
        for node in self.nodes:
            if node.judgement and node.judgement.verdict is Verdict.AFFECTED and node.judgement.repair:
                _, group, command, *more = shlex.split(node.judgement.repair)
                words = (group, command, *(word for word in more if word != node.name))
                named.setdefault(words, []).append(node.name)
        return tuple((*words[:2], *names[:MOST_NAMED], *words[2:]) for words, names in named.items())

    @property
    def exit_code(self) -> ExitCode:
        """OK when every node is contained, and proven affected where that was to be found out, or drained anyway."""
        if all(node.failed for node in self.nodes) and self.nodes:
            return ExitCode.FAILED
        if any(node.failed or node.undrained or (node.drained and not node.drained.drained) for node in self.nodes):
            return ExitCode.INCOMPLETE
        done = all(
            node.drained or (node.judgement and node.judgement.verdict is Verdict.AFFECTED) for node in self.nodes
        )
        return ExitCode.OK if done or not self.collected else ExitCode.INCOMPLETE
