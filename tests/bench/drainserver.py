"""A process that serves a cluster to drain: twenty nodes, workloads under budgets on the first ten, all in memory.

Prints one line when it is ready, then one for each line it reads (pods left on the first ten), and ends with its input.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.kinds import DEPLOYMENTS, DISRUPTION_BUDGETS, NODES, PODS
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.seed import numbered_nodes, seed_cluster
from kdnsctl.lab.store import Store
from tests.lab.api.fake_kubelet import Cluster, settle
from tests.lab.api.memory_runtime import MemoryRuntime

DRAINED: Final = 10
PODS_EACH: Final = 10
WORKLOADS: Final = 10


def main(kubeconfig: str) -> None:
    store = new_store(lambda: datetime.now(UTC), seed=1)
    nodes = [node.name for node in numbered_nodes(2 * DRAINED)]
    seed_cluster(store, numbered_nodes(2 * DRAINED), dns_replicas=0)
    manager = ControllerManager(store)
    cordon(store, nodes[DRAINED:], on=True)
    settle(store, manager)
    for number in range(WORKLOADS):
        deploy(store, f"app{number}", DRAINED * PODS_EACH // WORKLOADS)
    settle(store, manager)
    cordon(store, nodes[DRAINED:], on=False)
    with Cluster(store, manager), ApiServer(store, MemoryRuntime(), [listen()]) as server:
        Path(kubeconfig).write_text(server.kubeconfig(), encoding="utf-8")
        print("ready", flush=True)
        for _ in sys.stdin:
            left = [pod for pod in store.select(PODS, "default") if pod["spec"].get("nodeName") in nodes[:DRAINED]]
            print(len(left), flush=True)
    manager.stop()


def cordon(store: Store, nodes: list[str], *, on: bool) -> None:
    for name in nodes:
        store.change(NODES, name, "", lambda node: node | {"spec": {"unschedulable": True} if on else {}})


def deploy(store: Store, name: str, replicas: int) -> None:
    """A workload spread over the nodes, of which a third may be away."""
    metadata, labels = {"name": name, "namespace": "default"}, {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
    selector = {"matchLabels": labels}
    spec = {"replicas": replicas, "selector": selector, "template": template}
    store.create(DEPLOYMENTS, {"metadata": metadata, "spec": spec})
    budget = {"selector": selector, "maxUnavailable": "30%"}
    store.create(DISRUPTION_BUDGETS, {"metadata": metadata, "spec": budget})


if __name__ == "__main__":
    main(sys.argv[1])
