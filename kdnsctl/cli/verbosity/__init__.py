"""`kdnsctl verbosity …`: how much kube-proxy logs. The commands are imported when they run."""

from __future__ import annotations

from typing import Annotated

from kdnsctl.cli.commands import Entry, Group, Hidden
from kdnsctl.cli.options import Common, Connection, Record

COMMANDS = {
    "show": Entry(
        "kdnsctl.cli.verbosity.show:show",
        "Show at which level kube-proxy logs, how that can be raised, and where it is raised",
        needs="kdnsctl.repair.levels:NEEDS",
    ),
    "raise": Entry(
        "kdnsctl.cli.verbosity.raising:raise_",
        "Have kube-proxy log more on some nodes, for a while",
        needs="kdnsctl.repair.raiseplan:NEEDS",
        changes=True,
    ),
    "restore": Entry(
        "kdnsctl.cli.verbosity.restoring:restore",
        "Have kube-proxy log as before, wherever raising it broke off",
        needs="kdnsctl.repair.restoring:NEEDS",
        changes=True,
    ),
}


def verbosity(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """See more of what kube-proxy does, without breaking more.

    At runtime where kube-proxy takes it (enableProfiling), else by its DaemonSet's command line, so that only the named
    nodes restart. Never by its ConfigMap: when that changes, kube-proxy exits on every node.

    Examples:
      # How could it be raised?
      kdnsctl verbosity show
      # For half an hour; Ctrl-C puts it back earlier
      kdnsctl verbosity raise ip-10-0-0-1 --for 30m
      # Whatever is still raised
      kdnsctl verbosity restore
    """


VERBOSITY = Group(verbosity, COMMANDS)
