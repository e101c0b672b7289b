"""Managers that have no switch for one node: kured, draino, the descheduler, and the pools of GKE, AKS, EKS and EC2.

They are looked for all the same: who knows that they are there can stop them, by the command that is told. None of it
is run here, for each stops more than one node's share. Facts: kured (pkg/daemonsetlock, cmd/kured), draino
(internal/kubernetes/drainer.go), descheduler (RemovePodsViolatingNodeTaints), and the providers' own documentation:
AKS node-auto-repair, GKE node-auto-repair, EKS node-repair, EC2 Auto Scaling instance protection and standby.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any, Final

from kdnsctl.cluster.permission import Permission
from kdnsctl.quarantine.holdsbase import JSON, Held, Hold, Manager, Surroundings, annotations_of

SYSTEM: Final = "kube-system"
DAEMON_SETS: Final = "/apis/apps/v1/daemonsets"
HELPFUL: Final = (
    Permission("list", "daemonsets", group="apps", without="whether kured reboots nodes is not known"),
    Permission("get", "deployments", group="apps", namespace=SYSTEM, without="draino, descheduler: not looked for"),
    Permission("get", "cronjobs", group="batch", namespace=SYSTEM, without="a descheduler as a job is not looked for"),
    Permission("get", "configmaps", namespace=SYSTEM, without="what the descheduler does is not known"),
)
KURED_LOCK: Final = "weave.works/kured-node-lock"
PLUGIN: Final = "RemovePodsViolatingNodeTaints"
_POLICIES: Final = ("descheduler-policy-configmap", "descheduler")  # its own manifests; its chart


def kured(around: Surroundings) -> Hold | None:
    """Reboots nodes one after the other, by a lock on its DaemonSet. Taking that lock stops it everywhere."""
    listed = around.objects.items(DAEMON_SETS)
    found = next((one for one in listed.items if _kured_arguments(one) is not None), None)
    if found is None:
        return None
    arguments = _kured_arguments(found) or {}
    key, most = arguments.get("lock-annotation") or KURED_LOCK, _number(arguments.get("concurrency"))
    namespace, name = (str(found["metadata"].get(part, "")) for part in ("namespace", "name"))
    locks = _locks(annotations_of(found).get(key))
    risk = "a reboot that has begun; the lock holds for all nodes, and lets go after --lock-ttl where that is set"
    at_it = any(one.get("nodeID") == around.name for one in locks)
    if at_it or "weave.works/kured-reboot-in-progress" in around.annotations:
        return Hold("kured", Held.TERMINATING, risk=risk, why="it has its lock for this node: it drains and reboots it")
    manual = [one for one in locks if one.get("nodeID") == "manual"]
    if len(manual) >= most:
        return Hold("kured", Held.HELD, risk=risk, why="its lock is held by hand already")
    lock: Any = {"nodeID": "manual"}
    if most > 1:  # with several owners that form is overwritten: it has no `locks`
        lock = {"maxOwners": most, "locks": [lock] * most}
    holders = ", ".join(str(one.get("nodeID")) for one in locks)
    why = "it knows no exception for one node" + (f"; its lock is held for {holders}: wait for that" if holders else "")
    there = f"kubectl -n {namespace} annotate daemonset {name}"
    run = f"{there} {shlex.quote(key)}='{json.dumps(lock, separators=(',', ':'))}'"
    return Hold("kured", Held.NOT_FROM_HERE, run=run, back=f"{there} {shlex.quote(f'{key}-')}", risk=risk, why=why)


def _kured_arguments(daemon_set: JSON) -> dict[str, str] | None:
    """The arguments of the kured in a DaemonSet; None when there is none in it."""
    for container in _pod_spec(daemon_set).get("containers") or ():
        image = str(container.get("image", "")).partition("@")[0].rpartition("/")[2].partition(":")[0]
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        if image == "kured" or any(str(word).rpartition("/")[2] == "kured" for word in words[:1]):
            pairs = (str(word).removeprefix("--").partition("=") for word in words if str(word).startswith("--"))
            return {name: value for name, _, value in pairs}
    return None


def _pod_spec(workload: JSON) -> JSON:
    spec: JSON = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    return spec


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 5 and int(text) > 0 else 1


def _locks(text: str | None) -> list[dict[str, Any]]:
    """Who holds kured's lock; nobody when that cannot be read."""
    try:
        lock = json.loads(text or "{}")
    except ValueError:
        return []
    if not isinstance(lock, dict):
        return []
    several = lock.get("locks")
    found = several if isinstance(several, list) else [lock]
    return [one for one in found if isinstance(one, dict) and one.get("nodeID")]


def draino(around: Surroundings) -> Hold | None:
    """Cordons and drains nodes whose conditions it is told to act on."""
    scheduled = around.condition("DrainScheduled")
    if not scheduled and around.objects.get(_deployment("draino")).found is None:
        return None
    there = f"kubectl -n {SYSTEM} scale deployment draino"
    return Hold(
        "draino",
        Held.TERMINATING if scheduled else Held.NOT_FROM_HERE,
        run=f"{there} --replicas=0",
        back=f"{there} --replicas=1",
        risk="its drain, which asks nobody for DNS, nor waits for the evidence",
        why="it has scheduled a drain of the node" if scheduled else "it knows no exception for one node",
    )


def descheduler(around: Surroundings) -> Hold | None:
    """Evicts pods that do not tolerate a taint of their node: also the one of a cordon, and ours."""
    deployment = around.objects.get(_deployment("descheduler")).found
    job = around.objects.get(f"/apis/batch/v1/namespaces/{SYSTEM}/cronjobs/descheduler").found
    if deployment is None and job is None:
        return None
    policies = [around.objects.get(f"/api/v1/namespaces/{SYSTEM}/configmaps/{name}") for name in _POLICIES]
    texts = [text for one in policies if one.found for text in (one.found.get("data") or {}).values()]
    if texts and not any(PLUGIN in text for text in texts):
        return None
    if deployment is not None:
        there = f"kubectl -n {SYSTEM} scale deployment descheduler"
        run, back = f"{there} --replicas=0", f"{there} --replicas=1"
    else:
        there = f"kubectl -n {SYSTEM} patch cronjob descheduler -p"
        run, back = f"""{there} '{{"spec":{{"suspend":true}}}}'""", f"""{there} '{{"spec":{{"suspend":false}}}}'"""
    return Hold(
        "descheduler",
        Held.NOT_FROM_HERE,
        run=run,
        back=back,
        risk=f"{PLUGIN}: it evicts pods because of the cordon and of our taint, those that serve DNS too, and before "
        "there is evidence",
        why=("" if texts else "its policy cannot be read; ") + "it knows no exception for one node; or name "
        "kdnsctl.io/quarantine and node.kubernetes.io/unschedulable in its excludedTaints",
    )


def _deployment(name: str) -> str:
    return f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/{name}"


# --- pools of a provider ---


def _pool(manager: str, label: str, run: str, back: str, why: str, risk: str) -> Manager:
    def look(around: Surroundings) -> Hold | None:
        pool = around.labels.get(label)
        if pool is None:
            return None
        told = {"pool": pool, "node": around.name}
        return Hold(manager, Held.NOT_FROM_HERE, run=run.format(**told), back=back.format(**told), risk=risk, why=why)

    return look


_GKE: Final = "gcloud container node-pools update {pool} --cluster CLUSTER --location LOCATION"
gke: Final = _pool(
    "gke",
    "cloud.google.com/gke-nodepool",
    f"{_GKE} --no-enable-autorepair && {_GKE} --no-enable-autoupgrade",
    f"{_GKE} --enable-autorepair && {_GKE} --enable-autoupgrade",
    "repair and upgrades are set for a whole pool; on Autopilot they cannot be",
    "node auto-repair: a node that is NotReady for about 10 minutes is created anew",
)
_INSTANCE: Final = re.compile(r"i-[0-9a-z]{1,32}")
_AKS_KEY: Final = "kubernetes.azure.com/azure-cluster-autoscaler-scale-down-disabled-reason"
aks: Final = _pool(
    "aks",
    "kubernetes.azure.com/agentpool",
    f"kubectl annotate node {{node}} {_AKS_KEY}=upgrade",
    f"kubectl annotate node {{node}} {_AKS_KEY}-",
    "auto-repair has no switch; its documentation says that it leaves nodes alone that have this annotation beside "
    "scale-down-disabled, as an upgrade sets it, and promises it for nothing else",
    "auto-repair: a node that is NotReady for 5 minutes is rebooted, then reimaged, and the evidence is gone",
)
eks: Final = _pool(
    "eks",
    "eks.amazonaws.com/nodegroup",
    "aws eks update-nodegroup-config --cluster-name CLUSTER --nodegroup-name {pool} --node-repair-config enabled=false",
    "aws eks update-nodegroup-config --cluster-name CLUSTER --nodegroup-name {pool} --node-repair-config enabled=true",
    "node repair is set for a whole group",
    "node repair, an upgrade of the group, or its deletion",
)


def ec2(around: Surroundings) -> Hold | None:
    """An instance of an Auto Scaling group: in standby it is neither checked nor replaced. Karpenter has no groups."""
    provider, _, rest = around.node.spec.provider_id.partition("://")
    instance = rest.rpartition("/")[2]
    if provider != "aws" or not _INSTANCE.fullmatch(instance) or "karpenter.sh/nodepool" in around.labels:
        return None
    region = around.labels.get("topology.kubernetes.io/region", "REGION")
    there = f"aws autoscaling {{}} --region {region} --instance-ids {instance} --auto-scaling-group-name GROUP"
    return Hold(
        "ec2",
        Held.NOT_FROM_HERE,
        run=there.format("enter-standby") + " --should-decrement-desired-capacity",
        back=there.format("exit-standby"),
        why="its Auto Scaling group is not in this cluster",
        risk="a health check of the group, which replaces the instance (protection from scale-in does not keep it), or "
        "a Spot interruption",
    )
