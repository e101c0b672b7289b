"""What commands that change something have in common: the plan on the screen, the question before it, --dry-run, --yes.

The answer to a question comes from the terminal itself (/dev/tty), never from standard input, which may be a pipe of
nodes. What a plan is, and whether it is wise, is known to `changes` and the rooms above.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.changes.plan import DryRun
from kdnsctl.cli.terminal import tell
from kdnsctl.model import RefusedError

if TYPE_CHECKING:
    from kdnsctl.changes.plan import Plan
    from kdnsctl.cluster.target import Target

TERMINAL = Path("/dev/tty")
MOST_LINES = 40  # of a plan in a question; --dry-run=client shows all


@dataclass(frozen=True, slots=True)
class Changing:
    """How far to go, and whether to ask before."""

    dry_run: Annotated[
        DryRun,
        typer.Option("--dry-run", help="client: print the plan. server: also ask the server whether it would."),
    ] = DryRun.NONE
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.", show_default=False)] = False


def plan_lines(plan: Plan, target: Target) -> list[str]:
    """The plan for people: where, as whom, and what will be sent, node by node."""
    from kdnsctl.changes.plan import sentences  # noqa: PLC0415
    from kdnsctl.cli.terminal import visible  # noqa: PLC0415

    lines = [f"{plan.command} on {target}"]
    for node in plan.nodes:
        lines.append(f"  {node.node}:")
        for place, sentence in enumerate(sentences(node)):
            refused = (plan.refused or {}).get((node.node, place))
            lines.append(f"    {sentence}" + (f"  [the server refuses: {refused.message}]" if refused else ""))
        lines += [f"    note: {note}" for note in node.notes]
    lines += [f"note: {note}" for note in plan.notes]
    return [visible(line) for line in lines]


def confirm(plan: Plan, target: Target, *, yes: bool, no_input: bool) -> None:
    """Show what will be done and ask. Raises RefusedError for a no, and where there is nobody to ask."""
    if yes:
        return
    lines = plan_lines(plan, target)
    for line in lines[:MOST_LINES]:
        tell(line)
    if len(lines) > MOST_LINES:
        tell(f"… and {len(lines) - MOST_LINES} more lines: --dry-run=client shows all")
    if no_input:
        raise RefusedError("--no-input forbids the question, and --yes was not said; nothing was changed")
    try:
        answer = _asked("Go on? [y/N] ")
    except OSError:
        raise RefusedError(
            "there is no terminal to ask on, and --yes was not said; nothing was changed",
            hint="look at it with --dry-run=client, then say --yes",
        ) from None
    if answer.strip().lower() not in {"y", "yes"}:
        raise RefusedError("not confirmed; nothing was changed")


def _asked(question: str) -> str:
    sys.stderr.flush()
    with TERMINAL.open("r+b", buffering=0) as terminal:
        terminal.write(question.encode())
        said = b""
        while not said.endswith(b"\n") and (piece := terminal.read(256)):
            said += piece
    return said.decode("utf-8", "replace")
