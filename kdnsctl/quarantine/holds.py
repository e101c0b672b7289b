"""Holds: what keeps an autoscaler or a repair controller from removing a node, and what each does not protect from.

Keys and their reach are facts about each manager: cluster-autoscaler (FAQ; pkg/core/scaledown/eligibility), Karpenter
(pkg/controllers/state/statenode.go; designs/v1-api.md), Cluster API (api/core/v1beta2), Gardener's
machine-controller-manager (docs/usage/machine-preservation.md, v0.62.0), node-healthcheck-operator, OpenShift's
machine-api. A manager is looked for by what it leaves on the node, and its object is read where there is one. Nothing
is changed here: the answer is steps, and words for what no step can do.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.fields import node_path
from kdnsctl.cluster.errors import ApiError
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Step

AUTO: Final = "auto"
AUTOSCALER_KEY: Final = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
KARPENTER_KEY: Final = "karpenter.sh/do-not-disrupt"
GARDENER_KEY: Final = "node.machine.sapcloud.io/preserve"
NHC_KEY: Final = "remediation.medik8s.io/exclude-from-remediation"
CAPI_HOOK: Final = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kdnsctl"
CAPI_SKIP: Final = "cluster.x-k8s.io/skip-remediation"
HOOK: Final = "kdnsctl"
KEYS: Final = (AUTOSCALER_KEY, KARPENTER_KEY, GARDENER_KEY, NHC_KEY, CAPI_HOOK, CAPI_SKIP)
_WITHOUT: Final = "machines are not held, or only by hand"
HELPFUL: Final = (
    Permission("get", "machines", group="cluster.x-k8s.io", without=_WITHOUT),
    Permission("patch", "machines", group="cluster.x-k8s.io", without=_WITHOUT),
    Permission("get", "machines", group="machine.openshift.io", without=_WITHOUT),
    Permission("patch", "machines", group="machine.openshift.io", without=_WITHOUT),
)


class Held(enum.StrEnum):
    """What can be said of one manager and one node."""

    HELD = "held"
    NOT_FROM_HERE = "cannotBeHeldFromHere"
    TERMINATING = "alreadyTerminating"


@dataclass(frozen=True, slots=True)
class Hold:
    """One manager. `steps` hold the node, `run` is what to run where they cannot, `risk` what it does not protect
    from.
    """

    manager: str
    verdict: Held
    steps: tuple[Step, ...] = ()
    run: str = ""
    risk: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a manager is looked for in: the node, the cluster's API groups, and how an object is read (None: not)."""

    node: Node
    groups: Collection[str]
    read: Callable[[str], Mapping[str, Any] | None]
    incident: str
    said: bool  # whether the operator named this manager


Manager = Callable[[Surroundings], Hold | None]


def holds_for(
    node: Node,
    wanted: Collection[str],
    groups: Collection[str],
    incident: str,
    read: Callable[[str], Mapping[str, Any] | None],
) -> list[Hold]:
    """Every manager that may remove the node, cluster-autoscaler first. `wanted`: `auto`, or names of managers."""
    found: list[Hold] = []
    for name, manager in MANAGERS.items():
        said = name in wanted
        if name == "cluster-autoscaler" or said or AUTO in wanted:
            hold = manager(Surroundings(node, groups, read, incident, said))
            if hold is not None:
                found.append(hold)
    return found


def reader(connection: Connection, scope: CancelScope) -> Callable[[str], Mapping[str, Any] | None]:
    """Reads a manager's object; None where there is none, or it may not be read."""

    def read(path: str) -> Mapping[str, Any] | None:
        try:
            return connection.get(path, dict[str, Any], scope=scope)
        except ApiError:
            scope.check()
            return None

    return read


def api_groups(connection: Connection, *, scope: CancelScope) -> frozenset[str]:
    """The names of the API groups that the cluster serves. Raises as `Connection.get`."""
    found = connection.get("/apis", dict[str, Any], scope=scope)
    return frozenset(str(group.get("name", "")) for group in found.get("groups") or ())


def _on_node(around: Surroundings, verb: str, key: str, value: str) -> Step:
    metadata = around.node.metadata
    entries = metadata.annotations if verb == "object.annotate" else metadata.labels
    return Step(verb, {"path": node_path(metadata.name), "key": key}, metadata.uid, entries.get(key), value)


def _autoscaler(around: Surroundings) -> Hold:
    return Hold(
        "cluster-autoscaler",
        Held.HELD,
        (_on_node(around, "object.annotate", AUTOSCALER_KEY, "true"),),
        risk="not from the removal of nodes that never registered, a group resized by hand, or the cloud's own repair",
    )


def _karpenter(around: Surroundings) -> Hold | None:
    node = around.node
    if "karpenter.sh/nodepool" not in node.metadata.labels and not around.said:
        return None
    risk = "not from expireAfter, node repair, an interruption, static pools being scaled down, or deletion by hand"
    if (at := node.metadata.annotations.get("karpenter.sh/nodeclaim-termination-timestamp")) is not None:
        return Hold("karpenter", Held.TERMINATING, risk=risk, why=f"its NodeClaim ends at {at}")
    return Hold("karpenter", Held.HELD, (_on_node(around, "object.annotate", KARPENTER_KEY, "true"),), risk=risk)


def _cluster_api(around: Surroundings) -> Hold | None:
    annotations = around.node.metadata.annotations
    machine = annotations.get("cluster.x-k8s.io/machine")
    namespace = annotations.get("cluster.x-k8s.io/cluster-namespace")
    if not machine or not namespace:
        return None
    risk = "not from a deletion of the instance in the cloud; a drain by Cluster API comes before this hook"
    for version in ("v1beta2", "v1beta1"):
        path = f"/apis/cluster.x-k8s.io/{version}/namespaces/{namespace}/machines/{machine}"
        found = around.read(path) if "cluster.x-k8s.io" in around.groups else None
        if found is not None:
            if (found.get("metadata") or {}).get("deletionTimestamp"):
                return Hold("cluster-api", Held.TERMINATING, risk=risk, why=f"Machine {machine} is being deleted")
            steps = (
                _annotation(path, found, CAPI_HOOK, around.incident),
                _annotation(path, found, CAPI_SKIP, ""),
            )
            return Hold("cluster-api", Held.HELD, steps, risk=risk)
    run = (
        f"kubectl --context MANAGEMENT-CLUSTER -n {namespace} annotate machine {machine} "
        f"{CAPI_HOOK}={around.incident} {CAPI_SKIP}="
    )
    return Hold("cluster-api", Held.NOT_FROM_HERE, run=run, risk=risk, why="its Machine is not in this cluster")


def _annotation(path: str, found: Mapping[str, Any], key: str, value: str) -> Step:
    metadata = found.get("metadata") or {}
    before = (metadata.get("annotations") or {}).get(key)
    return Step("object.annotate", {"path": path, "key": key}, str(metadata.get("uid", "")), before, value)


def _openshift(around: Surroundings) -> Hold | None:
    namespace, slash, name = around.node.metadata.annotations.get("machine.openshift.io/machine", "").partition("/")
    if not slash:
        return None
    path = f"/apis/machine.openshift.io/v1beta1/namespaces/{namespace}/machines/{name}"
    found = around.read(path)
    risk = "not from reboots by the machine config operator: pause the node's pool (oc edit mcp, spec.paused)"
    if found is None:
        run = f"oc -n {namespace} edit machine {name}  # spec.lifecycleHooks.preTerminate: name {HOOK}, owner {HOOK}"
        return Hold("openshift-machine-api", Held.NOT_FROM_HERE, run=run, risk=risk, why="its Machine cannot be read")
    metadata = found.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        return Hold("openshift-machine-api", Held.TERMINATING, risk=risk, why=f"Machine {name} is being deleted")
    hooks = ((found.get("spec") or {}).get("lifecycleHooks") or {}).get("preTerminate") or []
    before = next((hook for hook in hooks if hook.get("name") == HOOK), None)
    step = Step(
        "machine.hook",
        {"path": path, "moment": "preTerminate", "name": HOOK},
        str(metadata.get("uid", "")),
        before,
        {"name": HOOK, "owner": HOOK},
    )
    return Hold("openshift-machine-api", Held.HELD, (step,), risk=risk)


def _gardener(around: Surroundings) -> Hold | None:
    labels = around.node.metadata.labels
    if (
        not any(key.startswith(("node.gardener.cloud/", "worker.gardener.cloud/")) for key in labels)
        and not around.said
    ):
        return None
    return Hold(
        "gardener",
        Held.HELD,
        (_on_node(around, "object.annotate", GARDENER_KEY, "now"),),
        risk="it ends after machinePreserveTimeout (96 h unless set); not from deletion by hand or a rolling update, "
        "nor with a machine-controller-manager before v0.62",
    )


def _health_check(around: Surroundings) -> Hold | None:
    if "remediation.medik8s.io" not in around.groups and not around.said:
        return None
    step = _on_node(around, "object.label", NHC_KEY, "true")
    return Hold("node-healthcheck", Held.HELD, (step,), risk="not from remediation that has begun")


def _pool(manager: str, label: str, run: str, risk: str) -> Manager:
    def look(around: Surroundings) -> Hold | None:
        pool = around.node.metadata.labels.get(label)
        if pool is None:
            return None
        return Hold(manager, Held.NOT_FROM_HERE, run=run.format(pool=pool), risk=risk, why="it is set for a whole pool")

    return look


MANAGERS: Final[Mapping[str, Manager]] = {
    "cluster-autoscaler": _autoscaler,
    "karpenter": _karpenter,
    "cluster-api": _cluster_api,
    "openshift-machine-api": _openshift,
    "gardener": _gardener,
    "node-healthcheck": _health_check,
    "gke": _pool(
        "gke",
        "cloud.google.com/gke-nodepool",
        "gcloud container node-pools update {pool} --cluster CLUSTER --no-enable-autorepair; the same with "
        "--no-enable-autoupgrade",
        "a node that is NotReady for about 10 minutes is created anew",
    ),
    "aks": _pool(
        "aks",
        "kubernetes.azure.com/agentpool",
        "there is no switch for one node: keep it Ready, or collect at once",
        "a node of pool that is NotReady for 5 minutes is rebooted, then reimaged: the evidence is gone",
    ),
    "eks": _pool(
        "eks",
        "eks.amazonaws.com/nodegroup",
        "aws eks update-nodegroup-config --cluster-name CLUSTER --nodegroup-name {pool} --node-repair-config "
        "enabled=false; aws autoscaling suspend-processes --auto-scaling-group-name GROUP --scaling-processes "
        "ReplaceUnhealthy Terminate",
        "node repair and the auto scaling group's health check replace the instance",
    ),
}
