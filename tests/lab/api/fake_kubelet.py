"""The least a kubelet does, in one call: pods that have a node run, pods that are terminating go."""

from __future__ import annotations

import threading
from typing import Self

from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import DeleteOptions, Store


def run_pods(store: Store) -> int:
    """Run and remove what there is to run and to remove; the number of pods touched."""
    with store.lock:  # nobody takes a pod away between reading and writing
        return sum(_run_pod(store, pod) for pod in store.select(PODS))


def _run_pod(store: Store, pod: JSON) -> bool:
    metadata, spec, before = pod["metadata"], pod["spec"], store.version
    if "deletionTimestamp" in metadata:
        store.delete(PODS, metadata["name"], metadata["namespace"], DeleteOptions(grace_seconds=0))
    elif spec.get("nodeName") and pod["status"]["phase"] == "Pending":
        report_ready(store, metadata["namespace"], metadata["name"])
    return store.version != before  # one with finalizers stays as it is


def report_ready(store: Store, namespace: str, name: str, *, ready: bool = True) -> None:
    """What a kubelet writes when the pod's containers run."""
    pod = store.get(PODS, name, namespace)
    status = pod["status"]
    address = status.get("podIP") or f"10.244.{store.version // 250 % 250}.{store.version % 250 + 1}"
    word = "True" if ready else "False"
    others = [item for item in status.get("conditions") or [] if item["type"] != "Ready"]
    pod["status"] = status | {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [*others, {"type": "Ready", "status": word}],
        "containerStatuses": [
            {
                "name": container["name"],
                "ready": ready,
                "restartCount": 0,
                "state": {"running": {}},
                "image": container["image"],
                "imageID": "",
            }
            for container in pod["spec"]["containers"]
        ],
    }
    store.update(PODS, pod, subresource="status")


def settle(store: Store, manager: ControllerManager) -> None:
    """Controllers and kubelets take turns until neither has anything to do."""
    for _ in range(50):
        if not manager.step() + run_pods(store):
            return
    raise AssertionError("the cluster found no rest")


class Cluster:
    """Controllers and kubelets that work by themselves for the length of a `with` block."""

    def __init__(self, store: Store, manager: ControllerManager) -> None:
        self._store, self._manager = store, manager
        self._changes = store.subscribe()
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self.errors: list[BaseException] = []

    def _run(self) -> None:
        try:
            while not self._changes.closed:
                settle(self._store, self._manager)
                self._changes.take()
                settle(self._store, self._manager)  # what came between the two
                # Budgets are counted anew when time has passed, by a clock that may be faster than this machine's.
                self._changes.wait_for_news(0.2)
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            self.errors.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()
        self._thread.join()
        if self.errors:
            raise self.errors[0]
