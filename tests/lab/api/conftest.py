from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kdnsctl.lab.api.server import ApiServer, listen
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.seed import numbered_nodes, seed_cluster
from kdnsctl.lab.store import Store
from tests.lab.api.client import Client
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.kubectl import Kubectl


class ManualClock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Store:
    """A seeded cluster of three nodes with one pod, `web` on knode1, and nobody who controls anything."""
    store = new_store(clock, seed=7)
    seed_cluster(store, numbered_nodes(3))
    web = store.create(
        PODS,
        {
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"nodeName": "knode1", "containers": [{"name": "main", "image": "web:1"}]},
        },
    )
    web["status"] = {
        "phase": "Running",
        "podIP": "10.244.1.9",
        "podIPs": [{"ip": "10.244.1.9"}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0, "state": {"running": {}}}],
    }
    store.update(PODS, web, subresource="status")
    return store


@pytest.fixture
def runtime() -> MemoryRuntime:
    return MemoryRuntime()


@pytest.fixture
def server(store: Store, runtime: MemoryRuntime) -> Iterator[ApiServer]:
    with ApiServer(store, runtime, [listen()], bookmark_seconds=3600) as server:
        yield server
    assert server.errors == []


@pytest.fixture
def client(server: ApiServer) -> Iterator[Client]:
    """An administrator."""
    with Client(server) as client:
        yield client


@pytest.fixture
def kubectl(server: ApiServer, tmp_path: Path) -> Kubectl:
    config = tmp_path / "kubeconfig"
    config.write_text(server.kubeconfig(), encoding="utf-8")
    return Kubectl(config, tmp_path)
