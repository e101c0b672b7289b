"""StatefulSets: pods with names that come back. A pod that went is made again under the same name, with a new UID.

Source: Kubernetes 1.36, pkg/controller/statefulset. OrderedReady makes one pod after the other and waits for each;
Parallel makes all at once. Left out: roll-outs of a changed template, volumes, and starting ordinals.
"""

from __future__ import annotations

from typing import Final

from kdnsctl.lab.controllers.ownership import has_ended, is_ready, is_terminating, owned_by, pod_from
from kdnsctl.lab.controllers.pods import create_pod, delete_pod
from kdnsctl.lab.kinds import PODS, STATEFUL_SETS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import Store

_SOURCE: Final = "statefulset-controller"
_NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
_INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"


def reconcile_stateful_sets(store: Store) -> None:
    """One pass over all StatefulSets."""
    pods = store.select(PODS)
    for owner in store.select(STATEFUL_SETS):
        if not is_terminating(owner):
            owned = {pod["metadata"]["name"]: pod for pod in owned_by(owner, pods)}
            _grow(store, owner, owned)
            _shrink(store, owner, owned)
            _report(store, owner, list(owned.values()))


def _name(owner: JSON, ordinal: int) -> str:
    return f"{owner['metadata']['name']}-{ordinal}"


def _grow(store: Store, owner: JSON, owned: dict[str, JSON]) -> None:
    ordered = owner["spec"].get("podManagementPolicy") != "Parallel"
    for ordinal in range(int(owner["spec"]["replicas"])):
        name = _name(owner, ordinal)
        pod = owned.get(name)
        if pod is None:
            # A name that something else has is not taken away from it; the refusal becomes an event.
            create_pod(store, STATEFUL_SETS, owner, _pod(owner, name, ordinal), source=_SOURCE)
        elif has_ended(pod) and not is_terminating(pod):
            delete_pod(store, STATEFUL_SETS, owner, pod, source=_SOURCE)
        if ordered and (pod is None or is_terminating(pod) or not is_ready(pod)):
            return


def _pod(owner: JSON, name: str, ordinal: int) -> JSON:
    pod = pod_from(owner["spec"]["template"], STATEFUL_SETS, owner)
    metadata = pod["metadata"]
    del metadata["generateName"]
    metadata["name"] = name
    metadata["labels"] = {**metadata["labels"], _INDEX_LABEL: str(ordinal), _NAME_LABEL: name}
    pod["spec"] = {**pod["spec"], "hostname": name}
    return pod


def _shrink(store: Store, owner: JSON, owned: dict[str, JSON]) -> None:
    wanted = {_name(owner, ordinal) for ordinal in range(int(owner["spec"]["replicas"]))}
    extra = sorted((pod for name, pod in owned.items() if name not in wanted), key=_ordinal, reverse=True)
    for pod in extra:
        if not is_terminating(pod):
            delete_pod(store, STATEFUL_SETS, owner, pod, source=_SOURCE)
        if owner["spec"].get("podManagementPolicy") != "Parallel":
            return


def _ordinal(pod: JSON) -> int:
    tail = pod["metadata"]["name"].rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def _report(store: Store, owner: JSON, pods: list[JSON]) -> None:
    active = [pod for pod in pods if not is_terminating(pod)]
    ready = sum(1 for pod in active if is_ready(pod))
    status: JSON = {
        "observedGeneration": owner["metadata"].get("generation", 1),
        "replicas": len(pods),
        "availableReplicas": ready,
    }
    if ready:
        status["readyReplicas"] = ready
    if status == owner.get("status"):
        return
    metadata = owner["metadata"]
    store.change(
        STATEFUL_SETS, metadata["name"], metadata["namespace"], lambda old: old | {"status": status},
        subresource="status",
    )  # fmt: skip
