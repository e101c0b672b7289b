"""`kdnsctl incident list`, `show` and `report`: reading journals of this machine. No cluster is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kdnsctl.cli.options import Answer, Common, Form, Format, ListForm
from kdnsctl.cli.terminal import put
from kdnsctl.model import API_VERSION, ExitCode

if TYPE_CHECKING:
    from kdnsctl.changes.incidents import Summary
    from kdnsctl.changes.raised import Raised

LIST_HEADINGS = ("INCIDENT", "OPENED (UTC)", "CLUSTER", "BY", "RECORDS", "TO UNDO")
SHOW_HEADINGS = ("NUMBER", "TIME (UTC)", "WHAT")


def complete_incident(incomplete: str) -> list[str]:
    """The incidents on this machine, for TAB."""
    from kdnsctl.changes.incidents import incidents_directory, summaries  # noqa: PLC0415

    found = summaries(incidents_directory(os.environ))
    return [one.id for one in reversed(found) if one.id.startswith(incomplete)]


Name = Annotated[
    str, typer.Argument(metavar="ID", autocompletion=complete_incident, help="The incident; `incident list` has them.")
]


def list_(
    common: Common,
    form: Annotated[
        ListForm, typer.Option("--output", "-o", help="How to print the answer.", case_sensitive=False)
    ] = ListForm.TABLE,
) -> int:
    """List the incidents on this machine.

    Examples:
      kdnsctl incident list
      # The ids only, the newest last
      kdnsctl incident list -o name

    Exit codes: 0 listed, 3 a journal is not as it was written, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.changes.incidents import incidents_directory, summaries  # noqa: PLC0415
    from kdnsctl.changes.reminding import by_journal  # noqa: PLC0415
    from kdnsctl.changes.timeline import open_steps, summary_to_json  # noqa: PLC0415

    found = summaries(incidents_directory(os.environ))
    if form is ListForm.NAME:
        put("".join(f"{one.id}\n" for one in found))
    elif form is not ListForm.TABLE:
        from kdnsctl.cli import output  # noqa: PLC0415

        items = [summary_to_json(one) for one in found]
        output.document({"apiVersion": API_VERSION, "kind": "IncidentList", "items": items}, Format(form.value))
    elif not found:
        put("There is no incident on this machine.\n")
    else:
        rows = []
        for one in found:
            opened = f"{one.opened:%Y-%m-%d %H:%M:%S}" if one.opened else "unknown"
            state = "damaged" if one.reading.problem else str(open_steps(one))
            rows.append((one.id, opened, one.cluster, one.operator, str(len(one.reading.records)), state))
        put(
            _table(LIST_HEADINGS, rows, common)
            + _reminder([record for one in found for record in by_journal(one.reading.records)])
        )
    return ExitCode.FOUND if any(one.reading.problem for one in found) else ExitCode.OK


def show(common: Common, answer: Answer, name: Name) -> int:
    """Show what was done in an incident, record by record.

    Examples:
      kdnsctl incident show 20261123t030239z-1f2e
      kdnsctl incident show 20261123t030239z-1f2e -o json

    Exit codes: 0 shown, 3 the journal is not as it was written, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.changes.reminding import by_journal  # noqa: PLC0415
    from kdnsctl.changes.timeline import told  # noqa: PLC0415

    found = _summary(name)
    if answer.output is not Form.TABLE:
        from kdnsctl.changes.timeline import to_json  # noqa: PLC0415
        from kdnsctl.cli import output  # noqa: PLC0415

        output.document(to_json(found), answer.format)
    else:
        rows = [(str(one.number), f"{one.time:%Y-%m-%d %H:%M:%S}", told(one)) for one in found.reading.records]
        put(_table(SHOW_HEADINGS, rows, common) + _reminder(by_journal(found.reading.records)))
    return _code(found)


def report(common: Common, name: Name) -> int:  # noqa: ARG001
    """Print the timeline of an incident as Markdown, in UTC, with the server's audit ids.

    Example:
      kdnsctl incident report 20261123t030239z-1f2e > timeline.md

    Exit codes: 0 printed, 3 the journal is not as it was written, 1 failed, 2 wrong usage, 130 interrupted.
    """
    from kdnsctl.changes.timeline import markdown  # noqa: PLC0415

    found = _summary(name)
    put(markdown(found))
    return _code(found)


def _summary(name: str) -> Summary:
    from kdnsctl.changes.incidents import incidents_directory, summary  # noqa: PLC0415

    return summary(incidents_directory(os.environ), name)


def _code(found: Summary) -> int:
    from kdnsctl.cli.terminal import tell  # noqa: PLC0415

    if found.reading.problem is None:
        return ExitCode.OK
    tell(f"the journal is not as it was written: {found.reading.problem.message}")
    return ExitCode.FOUND


def _reminder(found: Sequence[tuple[str, Raised]]) -> str:
    """What these journals tell of a verbosity that is still raised."""
    from kdnsctl.changes.raised import reminder  # noqa: PLC0415
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, visible  # noqa: PLC0415

    width = columns(sys.stdout)
    said = reminder(found, datetime.now(UTC))
    if said:
        said[-1] += "; where it was put back from another machine, this journal does not tell"
    return "".join(f"{line}\n" for note in said for line in table.wrapped(visible(note), width, 0, 2))


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], common: Common) -> str:
    from kdnsctl.cli import table  # noqa: PLC0415
    from kdnsctl.cli.terminal import columns, has_color  # noqa: PLC0415

    cells = [[table.Cell.of(text) for text in row] for row in rows]
    paint = table.painter(color=has_color(sys.stdout, common.color))
    return "\n".join(table.lay_out(headings, cells, width=columns(sys.stdout), paint=paint)) + "\n"
