"""The recorded cluster as objects in the API's store: nothing changes them but who asks the API to.

No controller runs and no kubelet answers, so a deleted pod stays Terminating and no new one comes.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kdnsctl.lab import kinds
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.seed import NodeSeed, numbered_nodes, seed_cluster
from kdnsctl.lab.store import Store, utc_now

DATA: Final = Path(__file__).parent / "data"
NODES: Final = numbered_nodes(5)
_FAULTS: Final = {
    "knode2": ["kube-proxy stopped"],
    "knode4": ["conntrack table full"],
    "knode5": ["races between packets"],
}
_RECORDED: Final = datetime(2026, 11, 23, 2, 38, 27, tzinfo=UTC)
"""When the recorded pods were made."""


def fill(store: Store) -> None:
    """Put the recorded cluster into an empty store, as old as it was made then."""
    store.clock = lambda: _RECORDED
    seed_cluster(store, NODES)
    daemon_set = store.get(kinds.DAEMON_SETS, "kube-proxy", "kube-system")
    deployment = store.get(kinds.DEPLOYMENTS, "coredns", "kube-system")
    for pod in _load("pods.json"):
        if pod["metadata"]["labels"]["k8s-app"] == "kube-proxy":
            owner = daemon_set
        else:
            owner = _replica_set(store, deployment, pod)
        pod["metadata"]["ownerReferences"] = [_controlled_by(owner)]
        store.create(kinds.PODS, pod)
        store.update(kinds.PODS, pod, subresource="status")
    endpoint_slice = _load("endpointslice.json")
    service = store.get(kinds.SERVICES, "kube-dns", "kube-system")
    endpoint_slice["metadata"]["ownerReferences"] = [_controlled_by(service)]
    for endpoint in endpoint_slice["endpoints"]:
        pod = store.get(kinds.PODS, endpoint["targetRef"]["name"], "kube-system")
        endpoint["targetRef"]["uid"] = pod["metadata"]["uid"]
    store.create(kinds.ENDPOINT_SLICES, endpoint_slice)
    _report(store, daemon_set, deployment)
    store.clock = utc_now


def node_status(node: NodeSeed) -> JSON:
    """What `lab status` shows of a node."""
    return {"name": node.name, "address": node.address, "faults": _FAULTS.get(node.name, []), "clients": {}}


def _load(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def _controlled_by(owner: JSON) -> JSON:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _replica_set(store: Store, deployment: JSON, pod: JSON) -> JSON:
    """The ReplicaSet between the Deployment and one of its pods."""
    name = pod["metadata"]["generateName"].removesuffix("-")
    present = store.find(kinds.REPLICA_SETS, name, "kube-system")
    if present is not None:
        return present
    labels = pod["metadata"]["labels"]
    template = deployment["spec"]["template"]
    made = {
        "metadata": {
            "name": name,
            "namespace": "kube-system",
            "labels": labels,
            "ownerReferences": [_controlled_by(deployment)],
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
        },
    }
    created = store.create(kinds.REPLICA_SETS, made)
    counts = {"replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    return store.update(kinds.REPLICA_SETS, {**created, "status": counts}, subresource="status")


def _report(store: Store, daemon_set: JSON, deployment: JSON) -> None:
    everywhere = len(NODES)
    daemon_set["status"] = {
        "currentNumberScheduled": everywhere,
        "desiredNumberScheduled": everywhere,
        "numberAvailable": everywhere,
        "numberMisscheduled": 0,
        "numberReady": everywhere,
        "observedGeneration": 1,
        "updatedNumberScheduled": everywhere,
    }
    store.update(kinds.DAEMON_SETS, daemon_set, subresource="status")
    deployment["status"] = {
        "availableReplicas": 2,
        "observedGeneration": 1,
        "readyReplicas": 2,
        "replicas": 2,
        "updatedReplicas": 2,
    }
    store.update(kinds.DEPLOYMENTS, deployment, subresource="status")
