"""The scene that later tests judge: its entries are really in the kernel, a log knows nothing of them, and they go."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.seeding import Scene, seeded

pytestmark = pytest.mark.ssh


def test_stale_entries_lead_from_the_client_to_an_address_that_no_longer_serves(scene: Scene) -> None:
    scene.make_stale(3)
    lines = scene.stale()
    assert len(lines) == 3
    assert all(f"src={scene.client} dst={scene.vip} " in line and f"src={scene.dead} " in line for line in lines)
    assert len(scene.serving) == 2
    assert scene.dead not in scene.serving
    scene.clean()
    assert scene.stale() == []


def test_what_is_only_in_the_kernel_changes_nothing_in_what_a_log_proves(cluster: Cluster, scene: Scene) -> None:
    def judged() -> dict[str, Any]:
        report = cluster.kdnsctl("find-affected", scene.node, "--service", scene.service, "-o", "json").json
        assert report["services"] == [scene.service]
        (finding,) = report["nodes"]
        return {key: finding[key] for key in ("verdict", "reasonCode", "basis", "staleEntries", "signatures")}

    before = judged()
    scene.make_stale(2)
    try:
        assert judged() == before
    finally:
        scene.clean()
    assert before["verdict"] != "affected"
    assert before["staleEntries"] is None


def test_nothing_is_left_behind(cluster: Cluster, node: str) -> None:
    with seeded(cluster, node) as scene:
        scene.make_stale(1)
    assert scene.stale() == []
    assert cluster.kubectl("get", "namespace", scene.namespace).code == 1
