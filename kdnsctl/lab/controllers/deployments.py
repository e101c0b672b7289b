"""Deployments: a ReplicaSet per template, scaled from the old to the new within maxSurge and maxUnavailable.

Source: Kubernetes 1.36, pkg/controller/deployment. Left out: minReadySeconds, progress deadlines and proportional
scaling in the middle of a roll-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kdnsctl.lab.controllers import events
from kdnsctl.lab.controllers.ownership import is_terminating, owned_by, owner_reference, scaled, template_hash
from kdnsctl.lab.history import copied
from kdnsctl.lab.kinds import DEPLOYMENTS, REPLICA_SETS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import DeleteOptions, Store, timestamp

HASH_LABEL: Final = "pod-template-hash"
REVISION: Final = "deployment.kubernetes.io/revision"
_SOURCE: Final = "deployment-controller"


def reconcile_deployments(store: Store) -> None:
    """One pass over all Deployments."""
    for deployment in store.select(DEPLOYMENTS):
        if not is_terminating(deployment):
            _reconcile(store, deployment)


def _reconcile(store: Store, deployment: JSON) -> None:
    sets = owned_by(deployment, store.select(REPLICA_SETS, deployment["metadata"]["namespace"]))
    sets.sort(key=_revision)
    label = template_hash(deployment["spec"]["template"])
    current = next((item for item in sets if item["metadata"]["labels"].get(HASH_LABEL) == label), None)
    paused = bool(deployment["spec"].get("paused"))
    if current is None and not paused:
        current = _create(store, deployment, label, _revision(sets[-1]) + 1 if sets else 1)
    elif current is not None and sets and sets[-1] is not current:
        # A template that was there before becomes the newest again: a roll back.
        _revise(store, current, _revision(sets[-1]) + 1)
    old = [item for item in sets if current is None or item["metadata"]["uid"] != current["metadata"]["uid"]]
    if current is not None and not paused:
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            _recreate(store, deployment, current, old)
        else:
            _roll(store, deployment, current, old)
        _forget_old(store, deployment, old)
    _report(store, deployment, current, old)


def _revision(replica_set: JSON) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, 0))


def _create(store: Store, deployment: JSON, label: str, revision: int) -> JSON:
    metadata = deployment["metadata"]
    template = copied(deployment["spec"]["template"])
    template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = label
    selector = copied(deployment["spec"]["selector"])
    selector.setdefault("matchLabels", {})[HASH_LABEL] = label
    return store.create(
        REPLICA_SETS,
        {
            "metadata": {
                "name": f"{metadata['name']}-{label}",
                "namespace": metadata["namespace"],
                "labels": template["metadata"]["labels"],
                "annotations": {REVISION: str(revision)},
                "ownerReferences": [owner_reference(DEPLOYMENTS, deployment)],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        },
    )


def _revise(store: Store, replica_set: JSON, revision: int) -> None:
    metadata = replica_set["metadata"]

    def edit(obj: JSON) -> JSON:
        obj["metadata"].setdefault("annotations", {})[REVISION] = str(revision)
        return obj

    store.change(REPLICA_SETS, metadata["name"], metadata["namespace"], edit)
    metadata.setdefault("annotations", {})[REVISION] = str(revision)


def _scale(store: Store, deployment: JSON, replica_set: JSON, replicas: int) -> None:
    before = int(replica_set["spec"]["replicas"])
    if replicas == before:
        return
    metadata = replica_set["metadata"]

    def edit(obj: JSON) -> JSON:
        obj["spec"]["replicas"] = replicas
        return obj

    store.change(REPLICA_SETS, metadata["name"], metadata["namespace"], edit)
    replica_set["spec"]["replicas"] = replicas
    direction = "up" if replicas > before else "down"
    message = f"Scaled {direction} replica set {metadata['name']} from {before} to {replicas}"
    events.record(store, DEPLOYMENTS, deployment, "ScalingReplicaSet", message, source=_SOURCE)


def _recreate(store: Store, deployment: JSON, current: JSON, old: Sequence[JSON]) -> None:
    for item in old:
        _scale(store, deployment, item, 0)
    if all(item.get("status", {}).get("replicas", 0) == 0 for item in old):
        _scale(store, deployment, current, int(deployment["spec"]["replicas"]))


def _available(replica_set: JSON) -> int:
    return int(replica_set.get("status", {}).get("availableReplicas", 0))


def _roll(store: Store, deployment: JSON, current: JSON, old: Sequence[JSON]) -> None:
    wanted = int(deployment["spec"]["replicas"])
    rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge", "25%"), wanted, round_up=True)
    missing = scaled(rolling.get("maxUnavailable", "25%"), wanted, round_up=False)
    if surge == 0 and missing == 0:
        missing = 1
    new = int(current["spec"]["replicas"])
    total = new + sum(int(item["spec"]["replicas"]) for item in old)
    if new > wanted:
        _scale(store, deployment, current, wanted)
    elif new < wanted and total < wanted + surge:
        _scale(store, deployment, current, min(wanted, new + wanted + surge - total))
    _shrink_old(store, deployment, current, old, wanted - missing)


def _shrink_old(store: Store, deployment: JSON, current: JSON, old: Sequence[JSON], needed: int) -> None:
    """Scale old ReplicaSets down while `needed` pods stay available; pods that are not available go first."""
    total = int(current["spec"]["replicas"]) + sum(int(item["spec"]["replicas"]) for item in old)
    new_unavailable = int(current["spec"]["replicas"]) - _available(current)
    spare = total - needed - new_unavailable
    for item in old:
        useless = max(0, int(item["spec"]["replicas"]) - _available(item))
        cut = max(0, min(spare, useless))
        _scale(store, deployment, item, int(item["spec"]["replicas"]) - cut)
        spare -= cut
    spare = min(spare, _available(current) + sum(_available(item) for item in old) - needed)
    for item in old:
        cut = max(0, min(spare, int(item["spec"]["replicas"])))
        _scale(store, deployment, item, int(item["spec"]["replicas"]) - cut)
        spare -= cut


def _forget_old(store: Store, deployment: JSON, old: Sequence[JSON]) -> None:
    """Delete the oldest empty ReplicaSets beyond revisionHistoryLimit."""
    empty = [item for item in old if item["spec"]["replicas"] == 0 and item.get("status", {}).get("replicas", 0) == 0]
    limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
    for item in empty[: max(0, len(empty) - limit)]:
        store.delete(REPLICA_SETS, item["metadata"]["name"], item["metadata"]["namespace"], DeleteOptions())


def _report(store: Store, deployment: JSON, current: JSON | None, old: Sequence[JSON]) -> None:
    sets = [*old, *([current] if current is not None else [])]

    def total(field: str, items: Sequence[JSON]) -> int:
        return sum(int(item.get("status", {}).get(field, 0)) for item in items)

    replicas, available = total("replicas", sets), total("availableReplicas", sets)
    wanted = int(deployment["spec"]["replicas"])
    status: JSON = {"observedGeneration": deployment["metadata"]["generation"]}
    counts = {
        "replicas": replicas,
        "updatedReplicas": total("replicas", [current]) if current is not None else 0,
        "readyReplicas": total("readyReplicas", sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, wanted - available),
    }
    status |= {name: count for name, count in counts.items() if count}
    status["conditions"] = _conditions(store, deployment, current, available, wanted)
    metadata = deployment["metadata"]
    if current is not None:
        _note_revision(store, deployment, _revision(current))
    if status != deployment.get("status"):
        store.change(
            DEPLOYMENTS,
            metadata["name"],
            metadata["namespace"],
            lambda obj: obj | {"status": status},
            subresource="status",
        )


def _note_revision(store: Store, deployment: JSON, revision: int) -> None:
    metadata = deployment["metadata"]
    if (metadata.get("annotations") or {}).get(REVISION) == str(revision):
        return

    def edit(obj: JSON) -> JSON:
        obj["metadata"].setdefault("annotations", {})[REVISION] = str(revision)
        return obj

    store.change(DEPLOYMENTS, metadata["name"], metadata["namespace"], edit)


def _conditions(store: Store, deployment: JSON, current: JSON | None, available: int, wanted: int) -> list[JSON]:
    rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
    missing = scaled(rolling.get("maxUnavailable", "25%"), wanted, round_up=False)
    if available >= wanted - missing:
        wanted_conditions = [("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")]
    else:
        wanted_conditions = [
            ("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        ]
    if current is not None:
        name = current["metadata"]["name"]
        done = _available(current) >= wanted and available == _available(current)
        wanted_conditions.append(
            ("Progressing", "True", "NewReplicaSetAvailable", f'ReplicaSet "{name}" has successfully progressed.')
            if done
            else ("Progressing", "True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
        )
    now = timestamp(store.clock())
    known = {item["type"]: item for item in deployment.get("status", {}).get("conditions") or []}
    conditions = []
    for type_, status, reason, message in wanted_conditions:
        before = known.get(type_)
        if before is not None and (before["status"], before["reason"], before["message"]) == (status, reason, message):
            conditions.append(before)
            continue
        changed = now if before is None or before["status"] != status else before["lastTransitionTime"]
        conditions.append(
            {
                "type": type_,
                "status": status,
                "lastUpdateTime": now,
                "lastTransitionTime": changed,
                "reason": reason,
                "message": message,
            }
        )
    return conditions
