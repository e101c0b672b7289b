"""`kdnsctl runbook …`: what to do, step by step. The commands are imported when they run."""

from __future__ import annotations

from typing import Annotated

from kdnsctl.cli.commands import Entry, Group, Hidden
from kdnsctl.cli.options import Common, Connection, Record

COMMANDS = {
    "list": Entry("kdnsctl.cli.runbook.reading:list_", "List the runbooks that there are"),
    "show": Entry("kdnsctl.cli.runbook.reading:show", "Print a runbook"),
    "run": Entry("kdnsctl.cli.runbook.run:run", "Go through a runbook, step by step"),
}


def runbook(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Go through an incident by a runbook, step by step.

    Each step says why, is agreed to, is run and is written down. Runbooks are Markdown: the page that is read is what
    is run. Those of your own are found in ~/.config/kdnsctl/runbooks and with --runbook-dir.

    Examples:
      # Which are there?
      kdnsctl runbook list
      kdnsctl runbook show dns-blackhole
      # Steps that only read are not asked for
      kdnsctl runbook run dns-blackhole --yes-to-reads
    """


RUNBOOK = Group(runbook, COMMANDS)
