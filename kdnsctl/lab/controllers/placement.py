"""Which nodes a pod may run on: node selector, required node affinity, taints and tolerations, cordon. Pure.

Source: Kubernetes 1.36, component-helpers scheduling/corev1. Resources, ports, volumes and the affinities between
pods are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kdnsctl.lab.replies import JSON
from kdnsctl.lab.selectors import expression_test, labels_of

UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
_HARD: Final = ("NoSchedule", "NoExecute")


def is_selected(spec: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether the pod's node selector and required node affinity let it run there."""
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    name = {"metadata.name": node["metadata"]["name"]}
    for term in required.get("nodeSelectorTerms") or []:
        by_label = [expression_test(item) for item in term.get("matchExpressions") or []]
        by_name = [expression_test(item) for item in term.get("matchFields") or []]
        if (by_label or by_name) and all(test(labels) for test in by_label) and all(test(name) for test in by_name):
            return True
    return False


def untolerated_taint(
    tolerations: list[JSON], node: Mapping[str, Any], effects: tuple[str, ...] = _HARD
) -> JSON | None:
    """The first taint with one of the effects that the tolerations do not cover."""
    for taint in taints_of(node):
        if taint["effect"] in effects and not any(tolerates(toleration, taint) for toleration in tolerations):
            return taint
    return None


def taints_of(node: Mapping[str, Any]) -> list[JSON]:
    """The node's taints; a cordon counts as one even before the taint for it is written."""
    taints: list[JSON] = list(node["spec"].get("taints") or [])
    if node["spec"].get("unschedulable") and not any(taint["key"] == UNSCHEDULABLE for taint in taints):
        taints.append({"key": UNSCHEDULABLE, "effect": "NoSchedule"})
    return taints


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """An empty key with Exists tolerates everything, an empty effect every effect."""
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key", "") in ("", taint["key"])
    return bool(toleration.get("key") == taint["key"] and toleration.get("value", "") == taint.get("value", ""))
