"""The row `kubectl get pods` prints for a pod: its state in one word is more than its phase.

Source: Kubernetes 1.36, pkg/printers/internalversion/printers.go `printPod`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from kdnsctl.lab.api.durations import age, parse_time

_NONE: Final = "<none>"
_NODE_LOST: Final = "NodeLost"


def pod_cells(pod: Mapping[str, Any], now: datetime) -> list[Any]:
    """Name, ready, status, restarts, age, IP, node, nominated node, readiness gates."""
    status, spec = pod.get("status", {}), pod.get("spec", {})
    statuses = status.get("containerStatuses") or []
    ready = sum(1 for item in statuses if item.get("ready"))
    addresses = [item["ip"] for item in status.get("podIPs") or []]
    return [
        pod["metadata"]["name"],
        f"{ready}/{len(spec.get('containers', []))}",
        _word(pod, statuses),
        _restarts([*(status.get("initContainerStatuses") or []), *statuses], now),
        age(pod["metadata"].get("creationTimestamp"), now),
        addresses[0] if addresses else _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _gates(spec, status),
    ]


def completion(pod: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """The row condition that lets `kubectl get` mark pods that have ended; None for the others."""
    phase = pod.get("status", {}).get("phase")
    messages = {
        "Succeeded": "The pod has completed successfully.",
        "Failed": "The pod failed.",
    }
    if phase not in messages:
        return None
    return [{"type": "Completed", "status": "True", "reason": phase, "message": messages[phase]}]


def _word(pod: Mapping[str, Any], statuses: list[Mapping[str, Any]]) -> str:
    status = pod.get("status", {})
    word = str(status.get("reason") or status.get("phase", "Unknown"))
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            word = "SchedulingGated"
    initializing = _initializing(pod)
    if initializing:
        word = initializing
    else:
        running = False
        for item in reversed(statuses):
            state = item.get("state", {})
            if state.get("waiting", {}).get("reason"):
                word = state["waiting"]["reason"]
            elif "terminated" in state:
                word = _ended(state["terminated"])
            elif item.get("ready") and "running" in state:
                running = True
        if word == "Completed" and running:
            word = "Running" if _is_ready(status) else "NotReady"
    if "deletionTimestamp" in pod["metadata"] and status.get("phase") not in ("Succeeded", "Failed"):
        word = "Unknown" if status.get("reason") == _NODE_LOST else "Terminating"
    return word


def _ended(terminated: Mapping[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _initializing(pod: Mapping[str, Any]) -> str:
    """`Init:1/2` and the like while init containers run or fail, "" once they are done."""
    total = len(pod.get("spec", {}).get("initContainers") or [])
    for index, item in enumerate(pod.get("status", {}).get("initContainerStatuses") or []):
        state = item.get("state", {})
        if "terminated" in state and state["terminated"].get("exitCode", 0) == 0:
            continue
        if "terminated" in state:
            return "Init:" + _ended(state["terminated"])
        waiting = state.get("waiting", {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{total}"
    return ""


def _is_ready(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _restarts(statuses: list[Mapping[str, Any]], now: datetime) -> str:
    count = sum(item.get("restartCount", 0) for item in statuses)
    ends = [item["lastState"]["terminated"].get("finishedAt") for item in statuses
            if "terminated" in (item.get("lastState") or {})]  # fmt: skip
    last = max((parse_time(end) for end in ends if end), default=None)
    if not count or last is None:
        return str(count)
    return f"{count} ({age(last.isoformat(), now)} ago)"


def _gates(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    gates = [gate["conditionType"] for gate in spec.get("readinessGates") or []]
    if not gates:
        return _NONE
    true = {item["type"] for item in status.get("conditions") or [] if item["status"] == "True"}
    return f"{sum(1 for gate in gates if gate in true)}/{len(gates)}"
