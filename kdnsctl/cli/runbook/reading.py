"""`kdnsctl runbook list` and `show`: which runbooks there are (kind `RunbookList`), and one of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdnsctl.cli.options import Answer, Common, Form
from kdnsctl.cli.terminal import put, tell, visible
from kdnsctl.model import API_VERSION, ExitCode, UsageError

if TYPE_CHECKING:
    from kdnsctl.runbook.book import Runbook

HEADINGS = ("NAME", "STEPS", "CHANGES", "TITLE", "FROM")


def complete_runbook(ctx: typer.Context, incomplete: str) -> list[str]:
    """The runbooks that there are, for TAB."""
    from kdnsctl.runbook import shelf  # noqa: PLC0415

    named = [Path(one) for one in ctx.params.get("runbook_dir") or () if Path(one).is_dir()]
    found = shelf.places(shelf.directories(named, os.environ))
    return [one.name for one in found if one.name.startswith(incomplete)]


Directories = Annotated[
    list[Path] | None,
    typer.Option("--runbook-dir", metavar="DIR", help="A directory with runbooks of your own (repeatable)."),
]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", autocompletion=complete_runbook, help="The runbook; `runbook list` has them."),
]


def list_(common: Common, answer: Answer, runbook_dir: Directories = None) -> int:
    """List the runbooks that there are.

    Examples:
      kdnsctl runbook list
      kdnsctl runbook list --runbook-dir ./our-runbooks -o json

    Exit codes: 0 listed, 4 a file is no runbook and was left out, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.cli import output, table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415
    from kdnsctl.runbook import shelf  # noqa: PLC0415
    from kdnsctl.runbook.book import Kind  # noqa: PLC0415

    items: list[dict[str, Any]] = []
    code = ExitCode.OK
    for place in shelf.places(shelf.directories(runbook_dir or (), os.environ)):
        try:
            book = shelf.read(place)
        except UsageError as error:
            tell(f"note: left out: {error}")
            code = ExitCode.INCOMPLETE
            continue
        items.append(
            {
                "name": book.name,
                "title": book.title,
                "summary": book.summary,
                "steps": len(book.steps),
                "changes": sum(step.kind is Kind.CHANGES for step in book.steps),
                "builtIn": place.built_in,
                "path": str(place.path),
            }
        )
    if answer.output is not Form.TABLE:
        output.document({"apiVersion": API_VERSION, "kind": "RunbookList", "items": items}, answer.format)
        return code
    rows = [
        [
            table.Cell.of(text)
            for text in (
                item["name"],
                str(item["steps"]),
                str(item["changes"] or "none"),
                item["title"],
                "kdnsctl" if item["builtIn"] else str(Path(item["path"]).parent),
            )
        ]
        for item in items
    ]
    paint = table.painter(color=has_color(sys.stdout, common.color))
    put("\n".join(table.lay_out(HEADINGS, rows, width=columns(sys.stdout), paint=paint)) + "\n")
    return code


def show(common: Common, answer: Answer, name: Name, runbook_dir: Directories = None) -> int:  # noqa: ARG001
    """Print a runbook as it stands.

    Examples:
      kdnsctl runbook show dns-blackhole | less
      # What would be run, for scripts
      kdnsctl runbook show dns-blackhole -o json

    Exit codes: 0 printed, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.cli import output  # noqa: PLC0415
    from kdnsctl.runbook import shelf  # noqa: PLC0415

    book = shelf.load(name, shelf.directories(runbook_dir or (), os.environ))
    if answer.output is Form.TABLE:
        put("\n".join(visible(line) for line in book.text.splitlines()) + "\n")
    else:
        output.document(_to_json(book), answer.format)
    return ExitCode.OK


def _to_json(book: Runbook) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Runbook",
        "name": book.name,
        "title": book.title,
        "summary": book.summary,
        "variables": [{"name": one.name, "about": one.about, "default": one.default} for one in book.variables],
        "steps": [
            {
                "step": step.number,
                "title": step.title,
                "kind": step.kind.value,
                "effect": step.effect,
                "commands": [_words(pipeline) for pipeline in step.commands],
                "remembers": step.remembers or None,
                "outcomes": [
                    {"exitCode": one.code, "meaning": one.meaning, "next": str(one.next)} for one in step.outcomes
                ],
            }
            for step in book.steps
        ],
    }


def _words(pipeline: Any) -> list[list[str]]:
    """A pipeline with its variables as they are written."""
    return [
        ["".join(part.text or f"${part.variable}" * bool(part.variable) for part in word) for word in command]
        for command in pipeline
    ]
