"""The scheduler: a node for every pod that has none, where its selectors and tolerations allow.

Among the allowed nodes the one with the fewest pods of the same owner wins, then the one with the fewest pods, then
the first by name: spread as a real cluster does by default, and the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kdnsctl.lab.controllers import events
from kdnsctl.lab.controllers.ownership import controller_of, has_ended, is_terminating
from kdnsctl.lab.controllers.placement import is_selected, taints_of, tolerates, untolerated_taint
from kdnsctl.lab.kinds import NODES, PODS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import Store, timestamp

_SOURCE = "default-scheduler"


def schedule(store: Store) -> None:
    """One pass over all pods without a node."""
    pods = store.select(PODS)
    nodes = store.select(NODES)
    placed = [pod for pod in pods if pod["spec"].get("nodeName") and not has_ended(pod)]
    per_node = Counter(pod["spec"]["nodeName"] for pod in placed)
    per_owner = Counter((controller_of(pod), pod["spec"]["nodeName"]) for pod in placed if not is_terminating(pod))
    for pod in pods:
        if pod["spec"].get("nodeName") or is_terminating(pod) or has_ended(pod):
            continue
        owner = controller_of(pod)
        fitting = [node["metadata"]["name"] for node in nodes if _fits(pod["spec"], node)]
        if not fitting:
            _mark_unschedulable(store, pod, nodes)
            continue
        chosen = min(fitting, key=lambda name: (per_owner[owner, name] if owner else 0, per_node[name], name))
        _bind(store, pod, chosen)
        per_node[chosen] += 1
        per_owner[owner, chosen] += 1


def _fits(spec: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    return is_selected(spec, node) and untolerated_taint(spec.get("tolerations") or [], node) is None


def _bind(store: Store, pod: JSON, node: str) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    store.bind(name, namespace, node)
    condition = _condition(store, pod, "True")
    store.change(PODS, name, namespace, lambda current: _with_condition(current, condition), subresource="status")
    message = f"Successfully assigned {namespace}/{name} to {node}"
    events.record(store, PODS, pod, "Scheduled", message, source=_SOURCE)


def _mark_unschedulable(store: Store, pod: JSON, nodes: list[JSON]) -> None:
    message = _why(pod["spec"], nodes)
    condition = _condition(store, pod, "False") | {"reason": "Unschedulable", "message": message}
    known = _find(pod)
    if known is not None and known.get("message") == message and known["status"] == "False":
        return
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    store.change(PODS, name, namespace, lambda current: _with_condition(current, condition), subresource="status")
    events.record(store, PODS, pod, "FailedScheduling", message, source=_SOURCE, warning=True)


def _why(spec: Mapping[str, Any], nodes: list[JSON]) -> str:
    reasons: Counter[str] = Counter()
    for node in nodes:
        if not is_selected(spec, node):
            reasons["node(s) didn't match Pod's node affinity/selector"] += 1
            continue
        tolerations = spec.get("tolerations") or []
        if node["spec"].get("unschedulable") and not any(
            tolerates(toleration, taint)
            for toleration in tolerations
            for taint in taints_of(node)
            if taint["key"] == "node.kubernetes.io/unschedulable"
        ):
            reasons["node(s) were unschedulable"] += 1
        else:
            reasons["node(s) had untolerated taint(s)"] += 1
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f"0/{len(nodes)} nodes are available: {listed or 'there are none'}."


def _find(pod: Mapping[str, Any]) -> JSON | None:
    conditions: list[JSON] = pod.get("status", {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == "PodScheduled"), None)


def _condition(store: Store, pod: Mapping[str, Any], status: str) -> JSON:
    return {
        "type": "PodScheduled",
        "observedGeneration": pod["metadata"].get("generation", 1),
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": timestamp(store.clock()),
    }


def _with_condition(pod: JSON, condition: JSON) -> JSON:
    status = pod.setdefault("status", {})
    others = [item for item in status.get("conditions") or [] if item["type"] != condition["type"]]
    return pod | {"status": status | {"conditions": [*others, condition]}}
