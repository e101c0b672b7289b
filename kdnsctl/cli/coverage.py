"""What every report about nodes says besides its own: the unknown and why, who is not listed, coverage.

Lines of text, made safe to show and broken where the terminal ends. What a report found is rendered by its own module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from kdnsctl.cli import table
from kdnsctl.cli.table import Cell, wrapped
from kdnsctl.cli.terminal import tell, visible
from kdnsctl.find.report import Problem
from kdnsctl.model import Coverage, Scope, Verdict

NONE = "<none>"
UNREAD = "<unknown>"
MOST_NAMES = 8  # of a group of unknown nodes, on a terminal
MOST_PROBLEMS = 5  # told on stderr without -v

STYLES = {Verdict.AFFECTED: "red", Verdict.SUSPECT: "yellow", Verdict.CLEAN: "green", Verdict.UNKNOWN: "magenta"}
RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Judged(Protocol):
    """A node in a report."""

    @property
    def name(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def reason(self) -> str: ...
    @property
    def reason_code(self) -> str: ...


N = TypeVar("N", bound=Judged)


def unknown_groups(nodes: Iterable[N], width: int | None, paint: table.Paint, name: Callable[[N], str]) -> list[str]:
    """The nodes that could not be judged: why, how many, and which."""
    groups: dict[str, list[N]] = {}
    for node in nodes:
        if node.verdict is Verdict.UNKNOWN:
            groups.setdefault(node.reason_code or node.reason, []).append(node)
    lines: list[str] = []
    for group in sorted(groups.values(), key=len, reverse=True):
        reasons = {node.reason for node in group}
        shown = group if width is None else group[:MOST_NAMES]
        more = [f"and {len(group) - len(shown)} more (-o wide lists them)"] if len(group) > len(shown) else []
        why = visible(next(iter(reasons)) if len(reasons) == 1 else group[0].reason_code)
        head, *rest = wrapped(f"{len(group)} unknown: {why}", width)
        word = f"{len(group)} unknown"
        lines += [paint(word, STYLES[Verdict.UNKNOWN]) + head.removeprefix(word), *rest]
        if len(reasons) == 1:
            lines += wrapped(", ".join([*(visible(name(node)) for node in shown), *more]), width, indent=2)
        else:
            for node in shown:
                lines += wrapped(visible(f"{name(node)}: {node.reason}"), width, indent=2)
            lines += [f"  {line}" for line in more]
    return lines


def not_listed(verdicts: Sequence[Verdict], width: int | None) -> list[str]:
    """How many nodes have no row of their own."""
    said = [
        f"{number} {word}"
        for verdict, word in ((Verdict.CLEAN, "clean"), (Verdict.NOT_APPLICABLE, "not applicable"))
        if (number := verdicts.count(verdict))
    ]
    return wrapped(f"{' and '.join(said)}, not listed (-o wide lists them)", width) if said else []


def coverage_lines(coverage: Coverage, verdicts: Sequence[Verdict], width: int | None) -> list[str]:
    """How many nodes there were, and what was said of how many."""
    counts = [
        f"{number} {'not applicable' if verdict is Verdict.NOT_APPLICABLE else verdict.value}"
        for verdict in Verdict
        if (number := verdicts.count(verdict))
    ]
    text = f"{count(coverage.in_scope, 'node')} in scope, {coverage.judged} judged: {', '.join(counts) or 'none'}."
    if coverage.scope is Scope.PARTIAL:
        text += " The scope is partial: there may be nodes that could not even be listed."
    return wrapped(text, width)


def tell_notes(
    notes: Iterable[str],
    skipped: Sequence[Problem],
    of_nodes: Iterable[tuple[str, Problem]],
    *,
    nothing: tuple[str, str, str],
    verbose: bool,
) -> None:
    """On stderr: notes on the run, then what was not read; all of it when `verbose`, else the first few.

    `of_nodes` are problems by the name of their node. `nothing` is about files that are no evidence: the code of their
    problems, what they are not, and the same of a single one with its verb.
    """
    for note in notes:
        tell(f"note: {note}")
    code, what, verb = nothing
    others = [problem for problem in skipped if problem.code == code]
    if verbose:
        for problem in others:
            tell(f"note: {what}: {placed(problem)}")
    elif others:
        does, them = (verb, "it") if len(others) == 1 else (_PLURAL[verb], "them")
        tell(f"note: {count(len(others), 'file')} {does} {what} (-v lists {them})")
    problems = [
        f"{name}: {problem.message if problem.source == name else placed(problem)}" for name, problem in of_nodes
    ]
    problems += [f"not read: {placed(problem)}" for problem in skipped if problem.code != code]
    shown = problems if verbose else problems[:MOST_PROBLEMS]
    for line in shown:
        tell(f"warning: {line}")
    if len(problems) > len(shown):
        tell(f"warning: {len(problems) - len(shown)} more pieces of evidence missing or damaged (-v lists them)")


_PLURAL = {"is": "are", "holds": "hold"}


def placed(problem: Problem) -> str:
    """What is wrong, and where, unless the message has said that already."""
    known = not problem.source or problem.source in problem.message
    return problem.message if known else f"{problem.message} ({problem.source})"


def stale(entries: int | None, verdict: Verdict) -> str:
    """How many stale entries a node holds. None that count is no zero where its state could not be judged."""
    return UNREAD if entries is None or (not entries and verdict is Verdict.UNKNOWN) else str(entries)


def several(texts: Iterable[str], cap: int | None = None) -> Cell:
    """Some texts as one cell: the first `cap`, and how many more there are."""
    parts = list(texts)
    if cap is not None and len(parts) > cap:
        parts = [*parts[:cap], f"+{len(parts) - cap}"]
    return Cell.of(*parts) if parts else Cell.of(NONE)


def count(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def clock(moment: datetime) -> str:
    """A moment in UTC, to the second: JSON has the rest."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
