"""`kdnsctl lab shell`: the words after `--` run inside the lab, with this terminal; its exit code is the command's."""

from __future__ import annotations

from typing import Annotated

import typer

from kdnsctl.cli import values
from kdnsctl.cli.commands import words_after_dashes
from kdnsctl.cli.lab.shared import complete_lab, complete_node, contained, one_at_most
from kdnsctl.cli.options import Common
from kdnsctl.cli.terminal import flush
from kdnsctl.model import KdnsctlError


def shell(
    ctx: typer.Context,
    common: Common,  # noqa: ARG001
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME] [-- COMMAND...]",
            autocompletion=complete_lab,
            help="The lab's name, and behind -- the command. Default: a shell.",
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node",
            metavar="NODE",
            parser=values.node,
            autocompletion=complete_node,
            help="Inside this node. Default: in the hub, where every node answers.",
        ),
    ] = None,
) -> int:
    """Run a command, or a shell, inside a lab.

    Examples:
      # Look at what the kernel of a node remembers
      kdnsctl lab shell --node knode2 -- conntrack -L -p udp --orig-dst 10.96.0.10
      # A shell on a node
      kdnsctl lab shell --node knode2
      # In the hub of the lab 'demo', from which every node and pod can be reached
      kdnsctl lab shell demo -- ip netns exec knode3 iptables-save -t nat

    A node sees this machine's files, read-only. The exit code is the command's: 127 when there is no such command,
    126 when it cannot run, 128 and the number of the signal that ended it.
    """
    names, command = words_after_dashes(ctx, words)
    name = one_at_most(names, "put -- before the command: kdnsctl lab shell -- " + " ".join(names))

    from kdnsctl.lab import space  # noqa: PLC0415

    if names and not command and not space.status(name).exists:
        raise KdnsctlError(
            f"there is no lab '{name}'",
            hint=f"to run the command {name} in the default lab: kdnsctl lab shell -- {name}",
        )
    flush()  # the command writes to the same place
    with contained():
        return space.shell(command, name=name, node=node)
