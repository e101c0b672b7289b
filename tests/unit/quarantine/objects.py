"""Pods, budgets and slices for the tests of what is only computed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from kdnsctl.cluster.objects import EndpointSlice, Node, Pod
from kdnsctl.cluster.policy import DisruptionBudget
from kdnsctl.quarantine.podfilters import DrainOptions, Known

NOW: Final = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
REPLICA_SET: Final = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": True}
DAEMON_SET: Final = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "ds", "controller": True}


def pod(
    name: str = "web-1", *, owner: dict[str, Any] | None = REPLICA_SET, node: str = "n1", phase: str = "Running",
    ready: bool = True, labels: dict[str, str] | None = None, volumes: list[Any] | None = None, **metadata: Any,
) -> Pod:  # fmt: skip
    body = {
        "metadata": {
            "name": name, "namespace": "default", "uid": f"uid-{name}", "labels": labels or {"app": "web"},
            "ownerReferences": [owner] if owner else [], **metadata,
        },
        "spec": {"nodeName": node, "volumes": volumes or []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }  # fmt: skip
    return msgspec.convert(body, Pod)


def budget(
    name: str = "web", *, allowed: int = 1, current: int = 3, desired: int = 2, expected: int = 3,
    observed: bool = True, selector: Any = None, **spec: Any,
) -> DisruptionBudget:  # fmt: skip
    body = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "web"}} if selector is None else selector, **spec},
        "status": {
            "observedGeneration": 2 if observed else 1, "disruptionsAllowed": allowed, "currentHealthy": current,
            "desiredHealthy": desired, "expectedPods": expected,
        },
    }  # fmt: skip
    return msgspec.convert(body, DisruptionBudget)


def known(options: DrainOptions | None = None, *daemon_sets: tuple[str, str]) -> Known:
    return Known(frozenset(daemon_sets), options or DrainOptions(), NOW)


def slice_of(*endpoints: tuple[str, str, dict[str, bool]]) -> EndpointSlice:
    """Endpoints as UID, node and conditions."""
    body = {
        "metadata": {"name": "dns", "namespace": "kube-system"},
        "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions,
             "targetRef": {"kind": "Pod", "name": uid, "uid": uid}}
            for uid, node, conditions in endpoints
        ],
    }  # fmt: skip
    return msgspec.convert(body, EndpointSlice)


def node(name: str, cpu: str | int = 4, *, unschedulable: bool = False) -> Node:
    body = {
        "metadata": {"name": name},
        "spec": {"unschedulable": unschedulable},
        "status": {"capacity": {"cpu": cpu}},
    }
    return msgspec.convert(body, Node)
