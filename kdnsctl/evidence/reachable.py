"""Which ways to nodes may work from here, as far as that is known without trying one: for `doctor`.

`collect --plan` tries them, node by node. What each rung is and needs is known to `reach`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Final

from kdnsctl.access.checkup import Ability, CommandState
from kdnsctl.access.needs import Needs
from kdnsctl.cluster import execs
from kdnsctl.reach import ownpod
from kdnsctl.reach.kubeproxyexec import RUNG as EXEC
from kdnsctl.reach.podkeeper import PodSettings

UNTRIED: Final = "no node was tried: collect NODE --plan tries"


def ways_to_nodes(
    environment: Mapping[str, str], which: Callable[[str], str | None] = shutil.which
) -> tuple[dict[str, Needs], tuple[CommandState, ...]]:
    """The rungs through the API with what they need, and those over SSH with what this machine has for them."""
    namespace = PodSettings().namespace
    through = {EXEC: Needs(needed=execs.needed(namespace)), "pod": Needs(needed=ownpod.needed(namespace))}
    agent = (
        "an agent is there" if environment.get("SSH_AUTH_SOCK") else "no agent is there, so keys are read from files"
    )
    program = which("ssh")
    openssh = (
        CommandState("openssh", Ability.UNKNOWN, why=f"{program}; {UNTRIED}")
        if program
        else CommandState("openssh", Ability.FAILS, why="there is no ssh on the PATH")
    )
    return through, (CommandState("ssh", Ability.UNKNOWN, why=f"{agent}; {UNTRIED}"), openssh)
