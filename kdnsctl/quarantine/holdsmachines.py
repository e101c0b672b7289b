"""Managers that have an object for a node: Cluster API's Machine, OpenShift's Machine, health check and config pool.

A Machine is only held when it says itself that it is this node's. What is set for a whole pool, or for all Machines of
a health check, is not set here: it would touch other nodes, and two quarantines would take it away from each other; the
command is told. Facts: Cluster API (api/core/v1beta2/machine_types.go, common_types.go; book, machine deletion),
OpenShift's machine-api-operator (pkg/webhooks: hooks are immutable once a Machine is being deleted; pkg/controller/
machinehealthcheck), machine-config-operator (docs/MachineConfigController.md). Nothing is changed here.
"""

from __future__ import annotations

import re
from typing import Final

from kdnsctl.cluster.permission import Permission
from kdnsctl.model import Step
from kdnsctl.quarantine.holdsbase import (
    JSON,
    Held,
    Hold,
    Seen,
    Surroundings,
    annotation,
    annotations_of,
    condition_of,
    is_name,
    selects,
    whose,
)
from kdnsctl.quarantine.record import HOOK_MOMENT

CAPI: Final = "cluster.x-k8s.io"
OPENSHIFT: Final = "machine.openshift.io"
CONFIG: Final = "machineconfiguration.openshift.io"
CAPI_HOOK: Final = "pre-terminate.delete.hook.machine.cluster.x-k8s.io/kdnsctl"
CAPI_SKIP: Final = "cluster.x-k8s.io/skip-remediation"
PAUSED: Final = "cluster.x-k8s.io/paused"
HOOK: Final = "kdnsctl"
_WITHOUT: Final = "machines are not held, or only by hand"
_PATCH_CAPI: Final = Permission("patch", "machines", group=CAPI, without=_WITHOUT)
_PATCH_OPENSHIFT: Final = Permission("patch", "machines", group=OPENSHIFT, without=_WITHOUT)
HELPFUL: Final = (
    Permission("get", "machines", group=CAPI, without=_WITHOUT),
    _PATCH_CAPI,
    Permission("get", "machines", group=OPENSHIFT, without=_WITHOUT),
    _PATCH_OPENSHIFT,
    Permission("list", "machinehealthchecks", group=OPENSHIFT, without="which health checks see it is not known"),
    Permission("get", "machineconfigpools", group=CONFIG, without="whether the node's pool is paused is not known"),
)
_ANNOTATION_OF: Final = {CAPI: "cluster.x-k8s.io/machine", OPENSHIFT: "machine.openshift.io/machine"}
_RENDERED: Final = re.compile(r"rendered-(.+)-[0-9a-f]+")


def cluster_api(around: Surroundings) -> Hold | None:
    """A pre-terminate hook, which keeps the instance, and a word to the health checks, both on the Machine."""
    machine = around.annotations.get(_ANNOTATION_OF[CAPI], "")
    namespace = around.annotations.get("cluster.x-k8s.io/cluster-namespace", "")
    if not (is_name(machine) and is_name(namespace)):
        return None
    risk = (
        "the instance being deleted in the cloud; a drain by Cluster API comes before this hook, and pods that nothing "
        "protects go with it"
    )
    path, seen = _machine(around, CAPI, namespace, machine)
    why = _not_here(around, seen, _PATCH_CAPI, f"Machine {namespace}/{machine}")
    if seen.found is None or why:
        there = f"kubectl --context MANAGEMENT-CLUSTER -n {namespace} annotate machines.cluster.x-k8s.io {machine}"
        run, back = f"{there} {CAPI_HOOK}={around.incident} {CAPI_SKIP}=", f"{there} {CAPI_HOOK}- {CAPI_SKIP}-"
        return Hold("cluster-api", Held.NOT_FROM_HERE, run=run, back=back, risk=risk, why=why)
    there_already = annotations_of(seen.found)
    # Whatever their value: it is the key that counts, and one that is there is somebody's.
    wanted = {key: value for key, value in ((CAPI_HOOK, around.incident), (CAPI_SKIP, "")) if key not in there_already}
    steps = tuple(annotation(path, seen.found, key, value) for key, value in wanted.items())
    if ends := _capi_ends(seen.found, machine):
        risk = f"the end of a deletion that has passed its drain already: the hook comes before the instance; {risk}"
        return Hold("cluster-api", Held.TERMINATING, steps, risk=risk, why=ends)
    if "cluster.x-k8s.io/delete-machine" in there_already:
        why = "it is marked to be the first to go when its MachineSet is scaled down"
    return Hold("cluster-api", Held.HELD, steps, risk=risk, why=why)


def _capi_ends(machine: JSON, name: str) -> str:
    """That a Machine is going away, or asked to; empty when it is not."""
    if at := (machine.get("metadata") or {}).get("deletionTimestamp"):
        return f"Machine {name} is being deleted since {at}"
    if "cluster.x-k8s.io/remediate-machine" in annotations_of(machine):
        return f"Machine {name} is marked to be remediated"
    if condition_of(machine, "OwnerRemediated").get("status") == "False":
        return f"a MachineHealthCheck has asked the owner of Machine {name} to replace it"
    return ""


def openshift_machine(around: Surroundings) -> Hold | None:
    """A preTerminate hook of the Machine: it keeps the instance, whoever deletes the Machine."""
    namespace, name = _openshift_machine_of(around)
    if not name:
        return None
    path, seen = _machine(around, OPENSHIFT, namespace, name)
    risk = "the instance being deleted in the cloud; a Machine that is deleted meanwhile goes at the release"
    why = _not_here(around, seen, _PATCH_OPENSHIFT, f"Machine {namespace}/{name}")
    if seen.found is not None and whose(seen.found, around.node):
        run = f"oc get machines.machine.openshift.io -A -o wide  # which is that of node {around.name}?"
        return Hold("openshift-machine-api", Held.NOT_FROM_HERE, run=run, risk=risk, why=why)
    if seen.found is None or why:
        run = f"oc -n {namespace} edit machine {name}  # spec.lifecycleHooks.preTerminate: name {HOOK}, owner {HOOK}"
        back = f"oc -n {namespace} edit machine {name}  # and take that hook away"
        return Hold("openshift-machine-api", Held.NOT_FROM_HERE, run=run, back=back, risk=risk, why=why)
    hooks = ((seen.found.get("spec") or {}).get("lifecycleHooks") or {}).get("preTerminate") or []
    if at := (seen.found.get("metadata") or {}).get("deletionTimestamp"):
        why = f"Machine {name} is being deleted since {at}, and takes no more hooks"
        if hooks:
            why += f"; its hook {hooks[0].get('name')} keeps the instance until it is gone"
        return Hold("openshift-machine-api", Held.TERMINATING, risk=risk, why=why)
    before = next((hook for hook in hooks if hook.get("name") == HOOK), None)
    if before is not None:
        return Hold("openshift-machine-api", Held.HELD, risk=risk, why="its hook is there already")
    step = Step(
        "machine.hook",
        {"path": path, "moment": HOOK_MOMENT, "name": HOOK},
        str((seen.found.get("metadata") or {}).get("uid", "")),
        None,
        {"name": HOOK, "owner": HOOK},
    )
    return Hold("openshift-machine-api", Held.HELD, (step,), risk=risk)


def _openshift_machine_of(around: Surroundings) -> tuple[str, str]:
    """Namespace and name of the node's Machine; empty when it names none, or what cannot be a name."""
    namespace, _, name = around.annotations.get(_ANNOTATION_OF[OPENSHIFT], "").partition("/")
    return (namespace, name) if is_name(namespace) and is_name(name) else ("", "")


def openshift_health_check(around: Surroundings) -> Hold | None:
    """MachineHealthChecks that select the node's Machine. They know no exception for one Machine."""
    namespace, name = _openshift_machine_of(around)
    if not name or OPENSHIFT not in around.groups:
        return None
    _, seen = _machine(around, OPENSHIFT, namespace, name)
    machine = None if seen.found is None or whose(seen.found, around.node) else seen.found
    labels = ((machine or {}).get("metadata") or {}).get("labels") or {}
    listed = around.listed(OPENSHIFT, "machinehealthchecks", namespace)
    checks = [
        one for one in listed.items if machine is None or selects((one.get("spec") or {}).get("selector"), labels)
    ]
    names = [str((one.get("metadata") or {}).get("name", "")) for one in checks if PAUSED not in annotations_of(one)]
    if listed.unknown:
        names = ["NAME"]
    elif not checks:
        return None
    risk = "remediation by power cycle, which a hook of the Machine does not hold up"
    if not names:
        paused = ", ".join(str(one["metadata"]["name"]) for one in checks)
        return Hold("openshift-health-check", Held.HELD, risk=risk, why=f"{paused}: paused already, by somebody")
    there = f"oc -n {namespace} annotate machinehealthchecks.machine.openshift.io {' '.join(names)}"
    return Hold(
        "openshift-health-check",
        Held.NOT_FROM_HERE,
        run=f"{there} {PAUSED}={around.incident}",
        back=f"{there} {PAUSED}-",
        risk=risk,
        why=f"its checks may not be read: {listed.unknown}" if listed.unknown else "it is paused for all its Machines",
    )


def machine_config(around: Surroundings) -> Hold | None:
    """The machine config operator, which drains and reboots nodes pool by pool."""
    annotations = around.annotations
    current, desired = (annotations.get(f"{CONFIG}/{name}", "") for name in ("currentConfig", "desiredConfig"))
    match = _RENDERED.fullmatch(desired or current)
    if match is None or not is_name(match[1]):
        return None
    pool = match[1]
    risk = "changes once the pool is not paused any more; a cordoned node counts as unavailable in its pool's updates"
    state = annotations.get(f"{CONFIG}/state", "")
    if current != desired or state == "Working":
        why = f"the machine config operator is at it, and reboots the node ({state or 'no state'}, {desired})"
        return Hold("machine-config", Held.TERMINATING, risk=risk, why=why)
    versions = around.groups.get(CONFIG) or ()
    seen = around.objects.get(f"/apis/{CONFIG}/{versions[0]}/machineconfigpools/{pool}") if versions else Seen(None)
    if ((seen.found or {}).get("spec") or {}).get("paused") is True:
        return Hold("machine-config", Held.HELD, risk=risk, why=f"pool {pool} is paused already, by somebody")
    there = f"oc patch machineconfigpools {pool} --type merge -p"
    return Hold(
        "machine-config",
        Held.NOT_FROM_HERE,
        run=f"""{there} '{{"spec":{{"paused":true}}}}'""",
        back=f"""{there} '{{"spec":{{"paused":false}}}}'""",
        risk=risk,
        why="it is paused for a whole pool",
    )


def _machine(around: Surroundings, group: str, namespace: str, name: str) -> tuple[str, Seen]:
    """Where the Machine is, and what was read there: in the first version that has it."""
    seen, path = Seen(None), ""
    for version in around.groups.get(group) or ():
        path = f"/apis/{group}/{version}/namespaces/{namespace}/machines/{name}"
        seen = around.objects.get(path)
        if seen.found is not None or seen.unknown:
            break
    return path, seen


def _not_here(around: Surroundings, seen: Seen, permission: Permission, what: str) -> str:
    """Why a Machine cannot be held from here; empty when it can."""
    if seen.unknown:
        return f"{what} cannot be read: {seen.unknown}"
    if seen.found is None:
        return f"{what} is not in this cluster"
    if other := whose(seen.found, around.node):
        return f"the {what} of this cluster is not this node's: {other}"
    return "" if around.objects.may(permission) else f"{what} may not be changed"


def is_key(key: str) -> bool:
    """Whether a Machine is held by this annotation."""
    return key in (CAPI_HOOK, CAPI_SKIP)
