"""A pod's status from the states of its containers, in the shape of the recorded pods. Pure but for the clock."""

from __future__ import annotations

from kdnsctl.lab.kubeclient import JSON
from kdnsctl.lab.nodestatus import now
from kdnsctl.lab.podstate import ContainerState


def is_ready(pod: JSON) -> bool:
    """Whether a pod object says that it is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _state(each: ContainerState) -> JSON:
    if each.pid is not None:
        return {"running": {"startedAt": each.started_at}}
    if each.restart_at is not None or each.terminated is None:
        reason, message = each.waiting
        if each.terminated is not None and reason == "ContainerCreating":
            return {"terminated": each.terminated}
        return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {"terminated": each.terminated}


def _container_status(each: ContainerState) -> JSON:
    last = each.last_terminated
    if each.terminated is not None and "waiting" in _state(each):
        last = each.terminated
    return {
        "name": each.name,
        "state": _state(each),
        "lastState": {"terminated": last} if last else {},
        "ready": each.ready if not each.is_init else bool(each.terminated and each.terminated["exitCode"] == 0),
        "restartCount": max(each.attempt, 0),
        "image": each.spec["image"],
        "imageID": "",
        **({"containerID": f"containerd://{each.container_id}"} if each.container_id else {}),
        "started": each.pid is not None,
    }


def phase(containers: list[ContainerState], *, failed: bool) -> str:
    """Pending, Running, Succeeded or Failed, as the kubelet decides (pkg/kubelet/kubelet_pods.go, getPhase)."""
    main = [each for each in containers if not each.is_init]
    if failed:
        return "Failed"
    if all(each.terminated is not None and each.restart_at is None for each in main):
        return "Succeeded" if all(each.terminated and each.terminated["exitCode"] == 0 for each in main) else "Failed"
    if all(each.attempt < 0 for each in main):
        return "Pending"
    return "Running"


def pod_status(
    containers: list[ContainerState],
    pod_ip: str,
    host_ip: str,
    started_at: str,
    failed: tuple[str, str] | None,
    before: JSON | None,
) -> JSON:
    """The whole status; transition times are taken from `before` where a condition did not change."""
    main = [each for each in containers if not each.is_init]
    inits = [each for each in containers if each.is_init]
    ready = bool(main) and all(each.ready for each in main)
    initialized = all(each.terminated and each.terminated["exitCode"] == 0 for each in inits)
    unready = [each.name for each in main if not each.ready]
    detail = (
        {}
        if ready
        else {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    )
    old = {each["type"]: each for each in (before or {}).get("conditions") or ()}
    wanted: list[tuple[str, bool, JSON]] = [
        ("PodReadyToStartContainers", bool(pod_ip), {}),
        ("Initialized", initialized, {}),
        ("Ready", ready, detail),
        ("ContainersReady", ready, detail),
        ("PodScheduled", True, {}),
    ]
    conditions = []
    for kind, value, extra in wanted:
        status = "True" if value else "False"
        same = kind in old and old[kind]["status"] == status
        moment = old[kind]["lastTransitionTime"] if same else now()
        conditions.append(
            {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": moment, **extra}
        )
    status_body: JSON = {
        "phase": phase(containers, failed=failed is not None),
        "conditions": conditions,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "startTime": started_at,
        "containerStatuses": [_container_status(each) for each in main],
        "qosClass": "BestEffort",
    }
    if pod_ip:
        status_body |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
    if inits:
        status_body["initContainerStatuses"] = [_container_status(each) for each in inits]
    if failed is not None and failed[0]:
        status_body |= {"reason": failed[0], "message": failed[1]}
    return status_body
