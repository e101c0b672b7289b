"""What a node says about itself: labels, addresses, capacity, conditions, in the shape of the recorded nodes. Pure."""

# ruff: noqa: PTH123 - paths here go straight into system calls and argument lists
from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

from kdnsctl.lab.kubeclient import JSON
from kdnsctl.lab.network import NodeNet


def now() -> str:
    """This moment as the API writes times: RFC 3339, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def node_labels(name: str) -> dict[str, str]:
    """The labels every kubelet puts on its node."""
    return {
        "beta.kubernetes.io/arch": _architecture(),
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": _architecture(),
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
    }


_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node_status(net: NodeNet, version: str, before: JSON) -> JSON:
    """The node's status now; transition times are kept from `before` where nothing changed."""
    moment = now()
    old = {each["type"]: each for each in before.get("conditions") or ()}
    conditions = []
    for kind, status, reason, message in _CONDITIONS:
        same = kind in old and old[kind].get("status") == status
        conditions.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": moment,
                "lastTransitionTime": old[kind]["lastTransitionTime"] if same else moment,
                "reason": reason,
                "message": message,
            }
        )
    size = {
        "cpu": str(os.cpu_count() or 1),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": f"{_memory_kib()}Ki",
        "pods": "110",
    }
    return {
        "capacity": size,
        "allocatable": size,
        "conditions": conditions,
        "addresses": [{"type": "InternalIP", "address": net.address}, {"type": "Hostname", "address": net.name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": f"{net.number:032x}",
            "systemUUID": f"00000000-0000-0000-0000-{net.number:012x}",
            "bootID": _boot_id(),
            "kernelVersion": platform.release(),
            "osImage": "kdnsctl lab",
            "containerRuntimeVersion": "kdnsctl-lab://1",
            "kubeletVersion": version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": _architecture(),
        },
    }


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _memory_kib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
