"""`kdnsctl bundle …`: looking at evidence that was collected. The commands are imported when they run."""

from __future__ import annotations

from typing import Annotated

from kdnsctl.cli.commands import Entry, Group, Hidden
from kdnsctl.cli.options import Common, Connection, Record

COMMANDS = {
    "show": Entry("kdnsctl.cli.bundle.reading:show", "List what is in a bundle, and what of it is whole"),
    "redact": Entry("kdnsctl.cli.bundle.redacting:redact", "Copy a bundle, with other names and addresses"),
    "verify": Entry("kdnsctl.cli.bundle.reading:verify", "Tell whether a bundle is what was collected"),
}


def bundle(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Look at evidence that was collected: a directory, or an archive of it.

    A bundle can come from anybody: nothing of an archive is unpacked, no link in it is followed.

    Examples:
      # Is it what was collected?
      kdnsctl bundle verify ./evidence
      # What is in it?
      kdnsctl bundle show evidence.tar.gz
      # Before it goes to somebody else: other names, other addresses, the same findings
      kdnsctl bundle redact ./evidence -O ./for-others
      # What does it prove? analyze judges it
      kdnsctl analyze ./evidence
    """


BUNDLE = Group(bundle, COMMANDS)
