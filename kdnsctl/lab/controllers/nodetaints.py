"""The taint that goes with a cordon, written and removed a moment after it, as the node lifecycle controller does.

Whoever patches `spec.taints` right after a cordon meets this write in between; that is why it is here. The taints for
nodes that are not ready are left to the kubelet stand-in.
"""

from __future__ import annotations

from kdnsctl.lab.controllers.placement import UNSCHEDULABLE
from kdnsctl.lab.kinds import NODES
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import Store, timestamp


def reconcile_node_taints(store: Store) -> None:
    """One pass over all nodes."""
    for node in store.select(NODES):
        taints: list[JSON] = node["spec"].get("taints") or []
        has_taint = any(taint["key"] == UNSCHEDULABLE and taint["effect"] == "NoSchedule" for taint in taints)
        cordoned = bool(node["spec"].get("unschedulable"))
        if cordoned == has_taint:
            continue
        if cordoned:
            now = timestamp(store.clock())
            taints = [*taints, {"key": UNSCHEDULABLE, "effect": "NoSchedule", "timeAdded": now}]
        else:
            taints = [taint for taint in taints if taint["key"] != UNSCHEDULABLE]
        node["spec"]["taints"] = taints
        if not taints:
            del node["spec"]["taints"]
        store.update(NODES, node)
