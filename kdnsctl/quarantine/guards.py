"""What says no before anything is changed: too many nodes, the control plane, a quarantine of another incident.

Pure: nodes in, refusals out. A refusal names what would have to be said to do it all the same, where there is such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from kdnsctl.changes.fields import RECORD
from kdnsctl.cluster.objects import Node
from kdnsctl.model import RefusedError

CONTROL_PLANE: Final = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
DEFAULT_MOST: Final = "10%"
_MOST: Final = re.compile(r"([0-9]{1,6})(%?)")
# Taints of who is about to remove a node; sources: cluster-autoscaler's and Karpenter's, see reference of holds.
DYING_TAINTS: Final = {
    "ToBeDeletedByClusterAutoscaler": "cluster-autoscaler is removing it",
    "karpenter.sh/disrupted": "Karpenter is removing it",
    "karpenter.sh/disruption": "Karpenter is removing it",
    "node.cloudprovider.kubernetes.io/shutdown": "the cloud has shut it down",
}
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Most:
    """How many nodes may be quarantined at once: a count, or a percentage of the Ready ones."""

    number: int
    percent: bool

    def of(self, ready: int) -> int:
        """The count: a percentage is rounded down, and is at least one node."""
        return max(1, math.floor(ready * self.number / 100)) if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number}{'%' if self.percent else ''}"


def most_of(text: str) -> Most:
    """`10%` or `3`. Raises ValueError."""
    match = _MOST.fullmatch(text)
    if match is None or int(match[1]) == 0 or (match[2] and int(match[1]) > 100):
        raise ValueError(f"a number of nodes, or a percentage of them up to 100%, is expected, not {text!r}")
    return Most(int(match[1]), bool(match[2]))


def check_count(chosen: Collection[str], quarantined: Collection[str], nodes: Sequence[Node], most: Most) -> None:
    """Refuse when more nodes would be in quarantine than may be. `nodes` are all of the cluster."""
    ready = sum(node.ready for node in nodes)
    together = set(chosen) | set(quarantined)
    if len(together) <= most.of(ready) or set(chosen) <= set(quarantined):
        return
    already = f", {len(quarantined)} of them in quarantine already" if quarantined else ""
    raise RefusedError(
        f"{len(together)} of {len(nodes)} nodes would be in quarantine{already}: so many are a cluster fault; "
        f"collect, then flush. --max-nodes {most} allows {most.of(ready)} of {ready} Ready nodes; nothing was changed",
        hint="kdnsctl collect secures the evidence; quarantining many nodes takes away the room for their pods",
    )


def check_control_plane(nodes: Sequence[Node], *, allowed: bool) -> None:
    """Refuse nodes of the control plane unless that was said."""
    found = [node.metadata.name for node in nodes if any(label in node.metadata.labels for label in CONTROL_PLANE)]
    if found and not allowed:
        raise RefusedError(
            f"{named(found)}: part of the control plane; nothing was changed",
            hint="say --allow-control-plane if that is meant",
        )


def in_quarantine(node: Node) -> bool:
    """Whether anything of a quarantine is on a node: the record, or our taint without one."""
    return RECORD in node.metadata.annotations or any(taint.key == RECORD for taint in node.spec.taints)


def dying(node: Node) -> str:
    """Why a node is going away already; empty when it is not, as far as the node tells."""
    if node.metadata.deletion_timestamp is not None:
        return f"it is being deleted since {node.metadata.deletion_timestamp:%Y-%m-%d %H:%M:%SZ}"
    return next((DYING_TAINTS[taint.key] for taint in node.spec.taints if taint.key in DYING_TAINTS), "")


def named(names: Sequence[str]) -> str:
    """A few of the names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
