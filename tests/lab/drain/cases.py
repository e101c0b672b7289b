"""What a stock `kubectl drain` and ours are compared on: how a node is set up, and what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kdnsctl.lab.kinds import DAEMON_SETS, NAMESPACES, PODS, STATEFUL_SETS
from kdnsctl.quarantine.podfilters import DrainOptions
from tests.lab.api.fake_kubelet import report_ready
from tests.lab.drain.cluster import NODE, Lab

PLAIN: Final = DrainOptions()
EMPTY_DIR: Final = [{"name": "scratch", "emptyDir": {}}]
MIRROR: Final = {"kubernetes.io/config.mirror": "abc"}


@dataclass(frozen=True)
class Case:
    """`refused`: nothing goes, and the message has this in it."""

    name: str
    set_up: Callable[[Lab], object]
    options: DrainOptions = PLAIN
    refused: str = ""

    @property
    def arguments(self) -> list[str]:
        """The options as kubectl takes them."""
        given, options = ["--ignore-daemonsets"], self.options
        if options.force:
            given.append("--force")
        if options.delete_emptydir_data:
            given.append("--delete-emptydir-data")
        if options.disable_eviction:
            given.append("--disable-eviction")
        if options.grace_period is not None:
            given.append(f"--grace-period={options.grace_period}")
        if options.pod_selector:
            given.append(f"--pod-selector={options.pod_selector}")
        if options.skip_wait:
            given.append(f"--skip-wait-for-delete-timeout={options.skip_wait:g}")
        return given


def _finished(phase: str, **more: Any) -> Callable[[Lab], object]:
    return lambda made: made.bare("job", phase=phase, **more)


def _terminating(made: Lab) -> None:
    made.deploy("web")
    made.bare("going", finalizers=["example.com/hold"])
    made.store.delete(PODS, "going", "default")
    made.store.change(
        PODS, "going", "default",
        lambda pod: pod | {"metadata": {key: value for key, value in pod["metadata"].items() if key != "finalizers"}},
    )  # fmt: skip


def _unready(made: Lab, policy: str | None = None, least: int = 1) -> None:
    pods = made.deploy("web", 2)
    made.protect("web", "web", minAvailable=least, **({"unhealthyPodEvictionPolicy": policy} if policy else {}))
    report_ready(made.store, "default", pods[0]["metadata"]["name"], ready=False)
    made.manager.step()


def _with_budget(replicas: int = 2, **spec: Any) -> Callable[[Lab], None]:
    def set_up(made: Lab) -> None:
        made.deploy("web", replicas)
        made.protect("web", "web", **spec)

    return set_up


def _orphan_of_daemon_set(made: Lab) -> None:
    made.manager.pause("garbage-collector")
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "lost", "uid": "1", "controller": True}
    made.bare("orphan", ownerReferences=[owner])


def _other_daemon_set(made: Lab) -> None:
    made.manager.pause("garbage-collector")
    owner = {"apiVersion": "apps.kruise.io/v1", "kind": "DaemonSet", "name": "k", "uid": "1", "controller": True}
    made.bare("kruise", ownerReferences=[owner])


def _owner_without_control(made: Lab) -> None:
    made.manager.pause("garbage-collector")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}
    made.bare("owned", ownerReferences=[owner])


def _mixed(made: Lab) -> None:
    made.deploy("web", 3)
    made.deploy("store", 2, STATEFUL_SETS)
    made.deploy("agent", kind=DAEMON_SETS)
    made.bare("static", annotations=MIRROR)
    made.bare("done", phase="Succeeded")
    made.protect("web", "web", maxUnavailable=2)


def _two_namespaces(made: Lab) -> None:
    made.store.create(NAMESPACES, {"metadata": {"name": "other"}})
    made.deploy("web")
    pod = {"metadata": {"name": "alone", "namespace": "other"}, "spec": {"nodeName": NODE, "containers": [
        {"name": "c", "image": "i:1"}]}}  # fmt: skip
    made.store.create(PODS, pod)
    report_ready(made.store, "other", "alone")


ALL: Final = (
    Case("nothing but DaemonSets", lambda made: made.on()),
    Case("a Deployment", lambda made: made.deploy("web", 3)),
    Case("a StatefulSet that comes back under its names", lambda made: made.deploy("store", 3, STATEFUL_SETS)),
    Case("a DaemonSet with an emptyDir", lambda made: made.deploy("agent", kind=DAEMON_SETS, volumes=EMPTY_DIR)),
    Case("a static pod", lambda made: made.bare("static", annotations=MIRROR)),
    Case("a static pod with an emptyDir",
         lambda made: made.bare("static", annotations=MIRROR, spec={"volumes": EMPTY_DIR})),
    Case("an unmanaged pod", lambda made: made.bare("alone"), refused="Pods that declare no controller (use --force"),
    Case("an unmanaged pod, by force", lambda made: made.bare("alone"), DrainOptions(force=True)),
    Case("an owner that does not control", _owner_without_control, refused="Pods that declare no controller"),
    Case("an emptyDir", lambda made: made.deploy("web", volumes=EMPTY_DIR), refused="Pods with local storage (use"),
    Case("an emptyDir, given up", lambda made: made.deploy("web", volumes=EMPTY_DIR),
         DrainOptions(delete_emptydir_data=True)),
    Case("an unmanaged pod with an emptyDir, by force only",
         lambda made: made.bare("alone", spec={"volumes": EMPTY_DIR}), DrainOptions(force=True),
         refused="Pods with local storage"),
    Case("both allowed", lambda made: made.bare("alone", spec={"volumes": EMPTY_DIR}),
         DrainOptions(force=True, delete_emptydir_data=True)),
    Case("one refusal holds all", lambda made: (made.deploy("web"), made.bare("alone")),
         refused="Pods that declare no controller"),
    Case("a finished pod", _finished("Succeeded")),
    Case("a failed pod", _finished("Failed")),
    Case("a finished pod with an emptyDir", _finished("Succeeded", spec={"volumes": EMPTY_DIR})),
    Case("a pod that is terminating", _terminating, DrainOptions(force=True)),
    Case("an orphan of a DaemonSet", _orphan_of_daemon_set, refused='daemonsets.apps "lost" not found'),
    Case("an orphan of a DaemonSet, by force", _orphan_of_daemon_set, DrainOptions(force=True)),
    Case("a DaemonSet of another group", _other_daemon_set),
    Case("a budget with room", _with_budget(minAvailable=0)),
    Case("a budget that frees as replacements come", _with_budget(2, minAvailable=1)),
    Case("a budget by percentage", _with_budget(4, maxUnavailable="50%")),
    Case("a pod that is not ready, its budget healthy", _unready),
    Case("a pod that is not ready, always allowed", lambda made: _unready(made, "AlwaysAllow")),
    Case("deletion past the budgets", _with_budget(2, minAvailable=2), DrainOptions(disable_eviction=True)),
    Case("a selector", lambda made: (made.deploy("web"), made.deploy("other")), DrainOptions(pod_selector="app=web")),
    Case("a selector past what would refuse", lambda made: (made.deploy("web"), made.bare("alone")),
         DrainOptions(pod_selector="app in (web)")),
    Case("a grace period", lambda made: made.deploy("web"), DrainOptions(grace_period=1)),
    Case("no grace at all", lambda made: made.deploy("web"), DrainOptions(grace_period=0)),
    Case("two namespaces", _two_namespaces, DrainOptions(force=True)),
    Case("all of it together", _mixed, DrainOptions(force=True, delete_emptydir_data=True)),
)  # fmt: skip
