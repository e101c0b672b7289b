"""Holds: what keeps an autoscaler or a repair controller from removing a node, and what each does not protect from.

All managers are in one table, in the order in which they are told; what each is held by stands in `holdsnodes`,
`holdsmachines` and `holdsothers`. Nothing is changed here: the answer is steps, and words for what no step can do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from kdnsctl.cluster.objects import Node
from kdnsctl.model import RefusedError, Step
from kdnsctl.quarantine import holdsmachines, holdsnodes, holdsothers
from kdnsctl.quarantine.holdsbase import JSON, Groups, Held, Hold, Manager, Objects, Surroundings, whose

AUTO: Final = "auto"
HELPFUL: Final = (*holdsnodes.HELPFUL, *holdsmachines.HELPFUL, *holdsothers.HELPFUL)
MANAGERS: Final[Mapping[str, Manager]] = {
    "cluster-autoscaler": holdsnodes.cluster_autoscaler,
    "karpenter": holdsnodes.karpenter,
    "cluster-api": holdsmachines.cluster_api,
    "openshift-machine-api": holdsmachines.openshift_machine,
    "openshift-health-check": holdsmachines.openshift_health_check,
    "machine-config": holdsmachines.machine_config,
    "gardener": holdsnodes.gardener,
    "node-healthcheck": holdsnodes.node_health_check,
    "system-upgrade": holdsnodes.system_upgrade,
    "kured": holdsothers.kured,
    "draino": holdsothers.draino,
    "descheduler": holdsothers.descheduler,
    "gke": holdsothers.gke,
    "aks": holdsothers.aks,
    "eks": holdsothers.eks,
    "ec2": holdsothers.ec2,
}


def holds_for(node: Node, wanted: Collection[str], groups: Groups, incident: str, objects: Objects) -> list[Hold]:
    """Every manager that may remove the node, cluster-autoscaler first. `wanted`: `auto`, or names of managers.

    One that was named and is nowhere to be seen is told, too.
    """
    found: list[Hold] = []
    for name, manager in MANAGERS.items():
        said = name in wanted
        if name == "cluster-autoscaler" or said or AUTO in wanted:
            hold = manager(Surroundings(node, groups, objects, incident, said))
            if hold is not None:
                found.append(hold)
            elif said:
                found.append(Hold(name, Held.NOT_FROM_HERE, why="nothing on the node or in this cluster tells of it"))
    return found


def is_key(key: str) -> bool:
    """Whether holds use this label or annotation. A record may ask for no other."""
    return holdsnodes.is_key(key) or holdsmachines.is_key(key)


def terminating(holds: Iterable[Hold]) -> str:
    """Why the node is going away already, by what its managers say; empty when it is not."""
    return next((f"{one.manager}: {one.why}" for one in holds if one.verdict is Held.TERMINATING), "")


def check_whose(node: Node, steps: Iterable[Step], objects: Objects) -> None:
    """Refuse steps of a record that are about another node's Machine or NodeClaim: who may change nodes may write one.

    An object that is gone, or cannot be read, is no reason. Raises RefusedError.
    """
    for step in steps:
        path = step.args["path"]
        kind = next((kind for plural, kind in _KINDS.items() if f"/{plural}/" in path), "")
        found = objects.get(path).found if kind else None
        if found is not None and (other := _others(found, kind, node)):
            name = path.rpartition("/")[2]
            raise RefusedError(
                f"the record on {node.metadata.name} is about {kind} {name}, and that is not this node's: {other}; "
                "nothing was changed",
                hint=f"find out who wrote it: kubectl get node {node.metadata.name} -o yaml",
            )


_KINDS: Final = {"machines": "Machine", "nodeclaims": "NodeClaim"}


def _others(found: JSON, kind: str, node: Node) -> str:
    """Why an object is another node's; empty when it is this node's, or a Machine that has lost its node."""
    if kind == "NodeClaim":
        return "" if holdsnodes.is_claim_of(found, node) else "it is another node's claim"
    return whose(found, node) if (found.get("status") or {}).get("nodeRef") else ""
