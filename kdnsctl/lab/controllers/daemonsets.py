"""DaemonSets: one pod on every node that should have one, replaced as OnDelete or RollingUpdate say.

Source: Kubernetes 1.36, pkg/controller/daemon. Left out: maxSurge, minReadySeconds, failed-pod back-off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kdnsctl.lab.controllers.ownership import (
    has_ended,
    is_ready,
    is_terminating,
    owned_by,
    owner_reference,
    pod_from,
    scaled,
    template_hash,
)
from kdnsctl.lab.controllers.placement import is_selected, untolerated_taint
from kdnsctl.lab.controllers.pods import create_pod, delete_pod
from kdnsctl.lab.history import copied
from kdnsctl.lab.kinds import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import DeleteOptions, Store

HASH_LABEL: Final = "controller-revision-hash"
_GENERATION_LABEL: Final = "pod-template-generation"
_SOURCE: Final = "daemonset-controller"
# The tolerations every daemon pod gets, in the recorded order; the last only with hostNetwork.
_TOLERATED: Final = (
    ("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"), ("pid-pressure", "NoSchedule"), ("unschedulable", "NoSchedule"),
)  # fmt: skip


def reconcile_daemon_sets(store: Store) -> None:
    """One pass over all DaemonSets."""
    nodes = store.select(NODES)
    pods = store.select(PODS)
    for daemon_set in store.select(DAEMON_SETS):
        if not is_terminating(daemon_set):
            _reconcile(store, daemon_set, nodes, owned_by(daemon_set, pods))


def _reconcile(store: Store, daemon_set: JSON, nodes: list[JSON], pods: list[JSON]) -> None:
    revision = _current_revision(store, daemon_set)
    by_node: dict[str, list[JSON]] = {}
    for pod in pods:
        by_node.setdefault(target_node(pod), []).append(pod)
    spec = _daemon_pod_spec(daemon_set)
    desired = []
    for node in nodes:
        name = node["metadata"]["name"]
        here = by_node.pop(name, [])
        selected = is_selected(spec, node)
        tolerations = spec["tolerations"]
        if selected and untolerated_taint(tolerations, node) is None:
            desired.append((name, here))
        if selected and untolerated_taint(tolerations, node, ("NoExecute",)) is None:
            _prune(store, daemon_set, here)
            if not here and desired and desired[-1][0] == name:
                create_pod(store, DAEMON_SETS, daemon_set, _daemon_pod(daemon_set, revision, name), source=_SOURCE)
        else:
            _remove(store, daemon_set, here)
    for leftover in by_node.values():
        _remove(store, daemon_set, leftover)
    label = revision["metadata"]["labels"][HASH_LABEL]
    if daemon_set["spec"]["updateStrategy"]["type"] == "RollingUpdate":
        _roll(store, daemon_set, desired, label)
    _report(store, daemon_set, desired, pods, label)


def target_node(pod: Mapping[str, Any]) -> str:
    """The node a daemon pod runs on or is meant for."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms", []):
        for field in term.get("matchFields", []):
            if field["key"] == "metadata.name":
                return str(field["values"][0])
    return ""


def _prune(store: Store, daemon_set: JSON, pods: list[JSON]) -> None:
    """Remove pods that ended and all but the oldest of several."""
    running = []
    for pod in pods:
        if is_terminating(pod):
            continue
        if has_ended(pod):
            delete_pod(store, DAEMON_SETS, daemon_set, pod, source=_SOURCE)
        else:
            running.append(pod)
    running.sort(key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
    _remove(store, daemon_set, running[1:])


def _remove(store: Store, daemon_set: JSON, pods: list[JSON]) -> None:
    for pod in pods:
        if not is_terminating(pod):
            delete_pod(store, DAEMON_SETS, daemon_set, pod, source=_SOURCE)


def _roll(store: Store, daemon_set: JSON, desired: list[tuple[str, list[JSON]]], label: str) -> None:
    """Delete old pods: those that serve nobody at once, the others as far as maxUnavailable allows."""
    rolling = daemon_set["spec"]["updateStrategy"].get("rollingUpdate") or {}
    allowed = max(1, scaled(rolling.get("maxUnavailable", 1), len(desired), round_up=True))
    unavailable, useless, candidates = 0, [], []
    for _, pods in desired:
        staying = [pod for pod in pods if not is_terminating(pod)]
        old = [pod for pod in staying if _label(pod) != label]
        if not staying:
            unavailable += 1
        elif not old:
            unavailable += 0 if any(is_ready(pod) for pod in staying) else 1
        elif is_ready(old[0]):
            candidates.append(old[0])
        else:
            unavailable += 1
            useless.append(old[0])
    _remove(store, daemon_set, [*useless, *candidates[: max(0, allowed - unavailable)]])


def _label(pod: Mapping[str, Any]) -> str:
    return str((pod["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


def _daemon_pod_spec(daemon_set: JSON) -> JSON:
    spec: JSON = copied(daemon_set["spec"]["template"]["spec"])
    tolerations = spec.setdefault("tolerations", [])
    tolerated = [*_TOLERATED, ("network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else _TOLERATED
    for name, effect in tolerated:
        tolerations.append({"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect})
    return spec


def _daemon_pod(daemon_set: JSON, revision: JSON, node: str) -> JSON:
    pod = pod_from(daemon_set["spec"]["template"], DAEMON_SETS, daemon_set)
    pod["spec"] = _daemon_pod_spec(daemon_set)
    here = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
    affinity = pod["spec"].setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": here}
    pod["metadata"]["labels"] |= {
        HASH_LABEL: revision["metadata"]["labels"][HASH_LABEL],
        _GENERATION_LABEL: str(revision["revision"]),
    }
    return pod


def _current_revision(store: Store, daemon_set: JSON) -> JSON:
    """The ControllerRevision of the template as it is now; made, or brought to the front, when it is not."""
    metadata = daemon_set["metadata"]
    known = owned_by(daemon_set, store.select(CONTROLLER_REVISIONS, metadata["namespace"]))
    known.sort(key=lambda revision: int(revision["revision"]))
    newest = known[-1]["revision"] if known else 0
    label = template_hash(daemon_set["spec"]["template"])
    current = next((item for item in known if item["metadata"]["labels"][HASH_LABEL] == label), None)
    if current is not None:
        if current["revision"] < newest:
            current = store.update(CONTROLLER_REVISIONS, current | {"revision": newest + 1})
        return current
    limit = daemon_set["spec"].get("revisionHistoryLimit", 10)
    for old in known[: max(0, len(known) - limit)]:
        store.delete(CONTROLLER_REVISIONS, old["metadata"]["name"], metadata["namespace"], DeleteOptions())
    labels = daemon_set["spec"]["template"].get("metadata", {}).get("labels") or {}
    return store.create(
        CONTROLLER_REVISIONS,
        {
            "metadata": {
                "name": f"{metadata['name']}-{label}",
                "namespace": metadata["namespace"],
                "labels": {**labels, HASH_LABEL: label},
                "ownerReferences": [owner_reference(DAEMON_SETS, daemon_set)],
            },
            "data": {"spec": {"template": {**daemon_set["spec"]["template"], "$patch": "replace"}}},
            "revision": newest + 1,
        },
    )


def _report(
    store: Store, daemon_set: JSON, desired: list[tuple[str, list[JSON]]], pods: list[JSON], label: str
) -> None:
    """Write the status, counted from the pods as they were before this pass."""
    staying = [[pod for pod in here if not is_terminating(pod)] for _, here in desired]
    ready = sum(1 for here in staying if any(is_ready(pod) for pod in here))
    names = {name for name, _ in desired}
    misplaced = {target_node(pod) for pod in pods if not is_terminating(pod)} - names
    status = {
        "currentNumberScheduled": sum(1 for here in staying if here),
        "numberMisscheduled": len(misplaced),
        "desiredNumberScheduled": len(desired),
        "numberReady": ready,
        "observedGeneration": daemon_set["metadata"]["generation"],
        "updatedNumberScheduled": sum(1 for here in staying if here and _label(here[0]) == label),
        "numberAvailable": ready,
        "numberUnavailable": len(desired) - ready,
    }
    # Left out when zero, as recorded.
    for name in ("updatedNumberScheduled", "numberAvailable", "numberUnavailable"):
        if not status[name]:
            del status[name]
    if status != daemon_set.get("status"):
        metadata = daemon_set["metadata"]
        store.change(
            DAEMON_SETS,
            metadata["name"],
            metadata["namespace"],
            lambda current: current | {"status": status},
            subresource="status",
        )
