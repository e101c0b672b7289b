"""ReplicaSets: as many pods as they ask for. Source: Kubernetes 1.36, pkg/controller/replicaset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kdnsctl.lab.controllers.ownership import has_ended, is_ready, is_terminating, owned_by, pod_from
from kdnsctl.lab.controllers.pods import create_pod, delete_pod
from kdnsctl.lab.kinds import PODS, REPLICA_SETS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import Store

_SOURCE: Final = "replicaset-controller"


def reconcile_replica_sets(store: Store) -> None:
    """One pass over all ReplicaSets."""
    pods = store.select(PODS)
    for replica_set in store.select(REPLICA_SETS):
        if is_terminating(replica_set):
            continue
        active = [pod for pod in owned_by(replica_set, pods) if not is_terminating(pod) and not has_ended(pod)]
        wanted = int(replica_set["spec"]["replicas"])
        for _ in range(wanted - len(active)):
            pod = pod_from(replica_set["spec"]["template"], REPLICA_SETS, replica_set)
            create_pod(store, REPLICA_SETS, replica_set, pod, source=_SOURCE)
        for pod in sorted(active, key=_worth)[: max(0, len(active) - wanted)]:
            delete_pod(store, REPLICA_SETS, replica_set, pod, source=_SOURCE)
        _report(store, replica_set, active)


def _worth(pod: Mapping[str, Any]) -> tuple[bool, bool, int, str]:
    """The least useful pod first: without a node, not ready, the youngest."""
    metadata = pod["metadata"]
    return bool(pod["spec"].get("nodeName")), is_ready(pod), -_seconds(metadata["creationTimestamp"]), metadata["name"]


def _seconds(created: str) -> int:
    """A number that grows with the timestamp; timestamps of the API are of one length and sort as text."""
    return int("".join(character for character in created if character.isdigit()))


def _report(store: Store, replica_set: JSON, active: list[JSON]) -> None:
    ready = sum(1 for pod in active if is_ready(pod))
    status: JSON = {"replicas": len(active)}
    if active:
        status["fullyLabeledReplicas"] = len(active)
    if ready:
        status |= {"readyReplicas": ready, "availableReplicas": ready}
    status["observedGeneration"] = replica_set["metadata"]["generation"]
    if status == replica_set.get("status"):
        return
    metadata = replica_set["metadata"]
    store.change(
        REPLICA_SETS,
        metadata["name"],
        metadata["namespace"],
        lambda current: current | {"status": status},
        subresource="status",
    )
