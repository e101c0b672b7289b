"""How nodes are reached, as collect is told: for the capture, for judging before a release, and for asking DNS.

The rungs themselves are known to `evidence.ways`. Nothing is read here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence.collect import internal_addresses
from kdnsctl.evidence.ways import Ladder, Via
from kdnsctl.find.scope import InScope
from kdnsctl.reach.podkeeper import PodKeeper, PodSettings, new_run

if TYPE_CHECKING:
    from kdnsctl.evidence.sshways import SshWays


@dataclass(frozen=True, slots=True)
class Reach:
    """The ways to nodes. `pods`, `ssh` None: not in these ways."""

    via: Via = Via.EXEC
    pods: PodSettings | None = None
    ssh: SshWays | None = None

    @property
    def pods_anew(self) -> PodSettings | None:
        """How pods are made by a run of its own: what keeps its pods makes none any more once it is closed."""
        return None if self.pods is None else replace(self.pods, run=new_run())


BY_EXEC: Final = Reach()


@contextlib.contextmanager
def ladder_to(found: InScope, reach: Reach, connection: Connection, note: Callable[[str], None]) -> Iterator[Ladder]:
    """The ladder to the nodes in `found`, for the length of the block. `note` hears of pods that are left."""
    settings = reach.pods_anew
    keeper = None if settings is None else PodKeeper(connection, settings)
    if reach.ssh is not None:
        reach.ssh.addresses = internal_addresses(found.nodes)
    try:
        yield Ladder(reach.via, connection, reach.ssh, keeper, found)
    finally:
        for left in keeper.close() if keeper else ():
            note(left)
