"""`kdnsctl repair …`: one node after the other is made well again. The commands are imported when they run."""

from __future__ import annotations

from typing import Annotated

from kdnsctl.cli.commands import Entry, Group, Hidden
from kdnsctl.cli.options import Common, Connection, Record

COMMANDS = {
    "flush": Entry(
        "kdnsctl.cli.repair.flush:flush",
        "Delete the stale conntrack entries of nodes, and no others",
        needs="kdnsctl.repair.flushplan:NEEDS",
        changes=True,
    ),
    "restart-kube-proxy": Entry(
        "kdnsctl.cli.repair.restart_kube_proxy:restart_kube_proxy",
        "Have kube-proxy write its rules anew, one node after the other",
        needs="kdnsctl.repair.restart:NEEDS",
        changes=True,
    ),
}


def repair(
    common: Common,
    connection: Annotated[Connection, Hidden],
    record: Annotated[Record, Hidden],
) -> None:
    """Repair nodes narrowly: delete what is stale, and nothing else.

    Every node is judged by its state as it is now, whatever a report said before. What is done is journaled in an
    incident. Secure the evidence before: kdnsctl collect NODE.

    Examples:
      # What would be done?
      kdnsctl repair flush ip-10-0-0-1 --dry-run=client
      # All that are affected, the first of them alone
      kdnsctl find-affected --live -o json | kdnsctl repair flush - --yes
    """


REPAIR = Group(repair, COMMANDS)
