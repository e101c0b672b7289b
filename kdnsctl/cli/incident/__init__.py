"""`kdnsctl incident …`: what was changed, by incident, and taking it back. The commands are imported when they run."""

from __future__ import annotations

from typing import Annotated

from kdnsctl.cli.commands import Entry, Group, Hidden
from kdnsctl.cli.options import Common, Connection, Record

COMMANDS = {
    "list": Entry("kdnsctl.cli.incident.reading:list_", "List the incidents on this machine"),
    "show": Entry("kdnsctl.cli.incident.reading:show", "Show what was done in an incident"),
    "report": Entry("kdnsctl.cli.incident.reading:report", "Print the timeline of an incident as Markdown"),
    "undo": Entry(
        "kdnsctl.cli.incident.undo:undo", "Take back what an incident changed, where it still is as it was left"
    ),
}


def incident(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Look at what was changed in an incident, and take it back.

    Every command that changes something belongs to an incident, whose journal is on the machine it ran on. Nodes carry
    a record of their own: `kdnsctl release` works from everywhere.

    Examples:
      # Which are there?
      kdnsctl incident list
      # For the review afterwards
      kdnsctl incident report 20261123t030239z-1f2e > timeline.md
      # Take everything back
      kdnsctl incident undo 20261123t030239z-1f2e
    """


INCIDENT = Group(incident, COMMANDS)
