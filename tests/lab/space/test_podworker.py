"""A pod whose worker fails: it is reported as failed, and it can be deleted, whenever the deletion comes."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from kdnsctl.lab.kubeclient import ApiError
from kdnsctl.lab.podnode import PodNode
from kdnsctl.lab.podworker import PodWorker


class BrokenNode:
    """What a worker asks of its kubelet, on a node where no network can be entered."""

    def __init__(self, space: Path) -> None:
        self.net = SimpleNamespace(name="knode1", address="10.88.0.11")
        self.shared = SimpleNamespace(space=space)
        self.log_root = space
        self.told: list[Any] = []
        self.ended = threading.Event()
        self.before_the_end: Any = None

    def netns_fd(self, _: str) -> int:
        if self.before_the_end is not None:
            self.before_the_end()
        raise RuntimeError("no network")

    def report_pod(self, _: str, name: str, uid: str, status: dict[str, Any]) -> None:
        self.told.append((name, uid, status["phase"], status["reason"], status["message"]))

    def finish_deletion(self, pod: dict[str, Any]) -> None:
        self.told.append(("deleted", pod["metadata"]["name"]))
        self.ended.set()


class DeafApi(BrokenNode):
    """A node on which nothing happens, and whose API does not take the first reports."""

    def __init__(self, space: Path) -> None:
        super().__init__(space)
        self.refusals = 2

    def report_pod(self, _: str, name: str, uid: str, status: dict[str, Any]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ApiError(0, "timed out")
        self.told.append((name, uid, status["phase"]))
        self.ended.set()


class QuietWorker(PodWorker):
    """A worker without containers: once set up there is no event that would make it do anything."""

    def _set_up(self) -> None:
        self._report()

    def _advance(self) -> None:
        pass


def make_pod() -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "default", "uid": "7b0c"}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "kdnsctl.io/lab/tools:1"}]}}


FAILED = ("p", "7b0c", "Failed", "UnexpectedError", "the lab's kubelet failed on this pod: RuntimeError: no network")


def test_a_failed_worker_says_so(tmp_path: Path) -> None:
    node = BrokenNode(tmp_path)
    (tmp_path / "pods" / "7b0c" / "left").mkdir(parents=True)  # by a worker before
    over = threading.Event()
    PodWorker(make_pod(), cast("PodNode", node), lambda _: over.set()).start()
    assert over.wait(120)
    assert node.told == [FAILED]
    assert not (tmp_path / "pods" / "7b0c" / "left").exists()


def test_what_the_api_did_not_take_is_told_again_without_any_event(tmp_path: Path) -> None:
    node, over = DeafApi(tmp_path), threading.Event()
    worker = QuietWorker(make_pod(), cast("PodNode", node), lambda _: over.set())
    worker.start()
    assert node.ended.wait(120)
    assert node.told == [("p", "7b0c", "Pending")]
    worker.vanish()
    assert over.wait(120)


def test_a_deletion_that_comes_meanwhile_is_finished(tmp_path: Path) -> None:
    node = BrokenNode(tmp_path)
    worker = PodWorker(make_pod(), cast("PodNode", node), lambda _: None)
    gone = make_pod()
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    node.before_the_end = lambda: worker.update(gone)
    worker.start()
    assert node.ended.wait(120)
    assert node.told == [FAILED, ("deleted", "p")]
