"""A process that serves nodes to read: the lab's API, with pods in memory whose commands are this machine's.

Prints one line when it is ready, and ends when its standard input does. It stands apart so that its time and memory are
not counted with those of who reads.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.seed import numbered_nodes, seed_cluster
from tests.lab.api.fake_kubelet import settle
from tests.lab.api.memory_runtime import MemoryRuntime


def main(kubeconfig: str, nodes: str) -> None:
    store = new_store(lambda: datetime.now(UTC), seed=1)
    seed_cluster(store, numbered_nodes(int(nodes)))
    manager = ControllerManager(store)
    settle(store, manager)
    manager.stop()
    with ApiServer(store, MemoryRuntime(), [listen()]) as server:
        Path(kubeconfig).write_text(server.kubeconfig(), encoding="utf-8")
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
