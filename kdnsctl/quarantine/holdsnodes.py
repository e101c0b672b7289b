"""Managers that are held by a key on the node itself: cluster-autoscaler, Karpenter, Gardener, the Node Healthcheck
Operator, the system upgrade controller.

Facts: cluster-autoscaler (FAQ; pkg/core/scaledown/eligibility), Karpenter (pkg/controllers/state/statenode.go, which
reads the NodeClaim instead of the node until that is registered; nodeclaim/expiration; apis/v1/nodeclaim.go), the
machine-controller-manager of Gardener v0.62.0 (docs/usage/machine-preservation.md; pkg/util/provider/machineutils),
medik8s node-healthcheck-operator (nodehealthcheck_controller.go), rancher system-upgrade-controller
(pkg/upgrade/plan/plan.go).
Nothing is changed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.permission import Permission
from kdnsctl.quarantine.holdsbase import (
    ANNOTATE,
    JSON,
    LABEL,
    Held,
    Hold,
    Surroundings,
    annotation,
    annotations_of,
    condition_of,
    selects,
)

AUTOSCALER_KEY: Final = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
KARPENTER_KEY: Final = "karpenter.sh/do-not-disrupt"
GARDENER_KEY: Final = "node.machine.sapcloud.io/preserve"
HEALTH_KEY: Final = "remediation.medik8s.io/exclude-from-remediation"
PLAN_PREFIX: Final = "plan.upgrade.cattle.io/"
KARPENTER: Final = "karpenter.sh"
MEDIK8S: Final = "remediation.medik8s.io"
RANCHER: Final = "upgrade.cattle.io"
_WITHOUT: Final = "a node that is not registered yet is not held"
_CLAIM: Final = tuple(Permission(verb, "nodeclaims", group=KARPENTER, without=_WITHOUT) for verb in ("get", "patch"))
HELPFUL: Final = (
    Permission("list", "nodeclaims", group=KARPENTER, without="when a node expires is not known"),
    *_CLAIM,
    Permission("get", "nodepools", group=KARPENTER, without="static pools of Karpenter are not known"),
    Permission("list", "nodehealthchecks", group=MEDIK8S, without="that a remediation has begun is not known"),
    Permission("list", "plans", group=RANCHER, without="plans of the system upgrade controller are not held off"),
)
_ENDS: Final = "karpenter.sh/nodeclaim-termination-timestamp"
_DURATION: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def cluster_autoscaler(around: Surroundings) -> Hold:
    """Always held: a cordoned, empty node is what it deletes, and nothing on a node tells that it is there."""
    taints = {taint.key for taint in around.node.spec.taints}
    dying = "ToBeDeletedByClusterAutoscaler" in taints
    candidate = "it has chosen the node to be removed" if "DeletionCandidateOfClusterAutoscaler" in taints else ""
    return Hold(
        "cluster-autoscaler",
        Held.TERMINATING if dying else Held.HELD,
        (around.on_node(ANNOTATE, AUTOSCALER_KEY, "true"),),
        why="it is removing the node" if dying else candidate,
        risk="the removal of nodes that never registered, a group resized by hand, and the cloud's own repair",
    )


# --- Karpenter ---


def karpenter(around: Surroundings) -> Hold | None:
    """Held on the node; on its NodeClaim as long as the node is not registered."""
    labels, pool = around.labels, around.labels.get("karpenter.sh/nodepool")
    listed = around.listed(KARPENTER, "nodeclaims")
    claim = next((one for one in listed.items if is_claim_of(one, around.node)), None)
    if pool is None and claim is None:
        if "karpenter.sh/provisioner-name" in labels:
            return _before_v032(around)
        if not around.said:
            return None
    steps = [around.on_node(ANNOTATE, KARPENTER_KEY, "true")]
    verdict, run, back, why = Held.HELD, "", "", ""
    if claim is not None and labels.get("karpenter.sh/registered") != "true":
        name = str(claim["metadata"]["name"])
        if all(around.objects.may(one) for one in _CLAIM):
            path = f"/apis/{KARPENTER}/{around.groups[KARPENTER][0]}/nodeclaims/{name}"
            steps.append(annotation(path, claim, KARPENTER_KEY, "true"))
        else:
            verdict, why = Held.NOT_FROM_HERE, "the node is not registered, and its NodeClaim may not be changed"
            run = f"kubectl annotate nodeclaims.karpenter.sh {name} {KARPENTER_KEY}=true"
            back = f"kubectl annotate nodeclaims.karpenter.sh {name} {KARPENTER_KEY}-"
    if ends := _disrupted(around, claim):
        verdict, why = Held.TERMINATING, ends
    risk = "; ".join(_anyway(around, claim, pool, listed.unknown))
    return Hold("karpenter", verdict, tuple(steps), run=run, back=back, why=why, risk=risk)


def is_claim_of(claim: JSON, node: Node) -> bool:
    """Whether a NodeClaim is this node's."""
    status = claim.get("status") or {}
    if status.get("nodeName"):
        return bool(status["nodeName"] == node.metadata.name)
    return bool(status.get("providerID")) and status["providerID"] == node.spec.provider_id


def _disrupted(around: Surroundings, claim: JSON | None) -> str:
    """That Karpenter is taking the node away already; empty when it is not, as far as can be seen."""
    found = claim or {}
    metadata = found.get("metadata") or {}
    if at := metadata.get("deletionTimestamp"):
        return f"NodeClaim {metadata.get('name')} is being deleted since {at}"
    if at := annotations_of(found).get(_ENDS) or around.annotations.get(_ENDS):
        return f"its NodeClaim ends at {at}"
    reason = condition_of(found, "DisruptionReason")
    if reason.get("status") == "True":
        return f"it is being disrupted: {reason.get('reason') or 'no reason given'}"
    # v1 and v1beta1; a replacement that fails takes the taint away again
    if any(taint.key in ("karpenter.sh/disrupted", "karpenter.sh/disruption") for taint in around.node.spec.taints):
        return "it has tainted the node to replace it"
    return ""


def _anyway(around: Surroundings, claim: JSON | None, pool: str | None, unknown: str) -> Iterator[str]:
    """What Karpenter does whatever the annotation says."""
    spec = (claim or {}).get("spec") or {}
    expires = str(spec.get("expireAfter") or "")
    if (at := _expiry(claim, expires)) is not None:
        when = f"{at:%Y-%m-%d %H:%M:%SZ}"
        yield f"its end at {when} (expireAfter {expires}): Karpenter deletes the node then, held or not"
    elif claim is None:
        yield "expireAfter" + (f" (when is not known: {unknown})" if unknown else "")
    if grace := spec.get("terminationGracePeriod"):
        yield f"the end of a termination that has begun: pods are deleted {grace} later, whatever protects them"
    if pool and around.groups.get(KARPENTER):
        path = f"/apis/{KARPENTER}/{around.groups[KARPENTER][0]}/nodepools/{pool}"
        of_pool = (around.objects.get(path).found or {}).get("spec") or {}
        if of_pool.get("replicas") is not None:
            yield f"the static NodePool {pool} being scaled down: it gives up empty nodes first"
    yield "node repair, an interruption, or deletion by hand"


def _expiry(claim: JSON | None, expires: str) -> datetime | None:
    match = _DURATION.fullmatch(expires)
    if claim is None or match is None or not expires:  # Never
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    try:
        made = datetime.fromisoformat(str(claim["metadata"]["creationTimestamp"]))
        return made + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    except (KeyError, ValueError, OverflowError):
        return None


def _before_v032(around: Surroundings) -> Hold:
    key = "karpenter.sh/do-not-consolidate"
    return Hold(
        "karpenter",
        Held.NOT_FROM_HERE,
        run=f"kubectl annotate node {around.name} {key}=true",
        back=f"kubectl annotate node {around.name} {key}-",
        why="a Karpenter before v0.32 does not know do-not-disrupt, and later ones do not know what it knows",
        risk="ttlSecondsUntilExpired, an interruption, or deletion by hand",
    )


# --- the others ---


def gardener(around: Surroundings) -> Hold | None:
    """Machine preservation. The Machine itself is in another cluster (the seed), where the shoot has no access."""
    if not around.said and not any(
        key.startswith(("node.gardener.cloud/", "worker.gardener.cloud/")) for key in around.labels
    ):
        return None
    dying = around.condition("Terminating")
    return Hold(
        "gardener",
        Held.TERMINATING if dying else Held.HELD,
        (around.on_node(ANNOTATE, GARDENER_KEY, "now"),),
        why="its machine is terminating" if dying else "",
        risk="the end of machinePreserveTimeout (96 h unless set), deletion by hand, a rolling update, and a "
        "machine-controller-manager before v0.62; a machine that has Failed by then is terminated at the release",
    )


def node_health_check(around: Surroundings) -> Hold | None:
    """The label that it and the remediators of medik8s look at."""
    if MEDIK8S not in around.groups and not around.said:
        return None
    listed = around.listed(MEDIK8S, "nodehealthchecks")
    checks = [one for one in listed.items if selects((one.get("spec") or {}).get("selector"), around.labels)]
    if not (checks or listed.unknown or around.said):
        return None
    begun = next((one for one in checks if _is_remediated(one, around.name)), None)
    return Hold(
        "node-healthcheck",
        Held.TERMINATING if begun else Held.HELD,
        (around.on_node(LABEL, HEALTH_KEY, "true"),),
        why=f"NodeHealthCheck {begun['metadata']['name']} has begun to remediate the node" if begun else "",
        risk="remediation that has begun, the end of a NodeMaintenance, which takes the label away, and an operator "
        "too old to know the label (there: spec.pauseRequests of its NodeHealthCheck)",
    )


def _is_remediated(check: JSON, name: str) -> bool:
    status: JSON = check.get("status") or {}
    unhealthy = [one for one in status.get("unhealthyNodes") or () if one.get("name") == name]
    # inFlightRemediations: until v0.4
    return any(one.get("remediations") for one in unhealthy) or name in (status.get("inFlightRemediations") or {})


def system_upgrade(around: Surroundings) -> Hold | None:
    """A label for each plan that selects the node. Its value otherwise is the hash of what was applied."""
    if RANCHER not in around.groups:
        return None
    listed = around.listed(RANCHER, "plans")
    if listed.unknown:
        return Hold(
            "system-upgrade",
            Held.NOT_FROM_HERE,
            run=f"kubectl label node {around.name} --overwrite {PLAN_PREFIX}PLAN=disabled",
            back=f"kubectl label node {around.name} {PLAN_PREFIX}PLAN-",
            why=f"its plans may not be read: {listed.unknown}",
            risk="plans that are made later",
        )
    plans = [one for one in listed.items if selects((one.get("spec") or {}).get("nodeSelector"), around.labels)]
    if not plans:
        return None
    at_it = [_named(one) for one in plans if around.name in ((one.get("status") or {}).get("applying") or ())]
    keys = sorted({PLAN_PREFIX + _named(one) for one in plans})
    return Hold(
        "system-upgrade",
        Held.TERMINATING if at_it else Held.HELD,
        tuple(around.on_node(LABEL, key, "disabled") for key in keys),
        why=f"plan {at_it[0]} is being applied to the node" if at_it else "",
        risk="plans that are made later; a plan that changes meanwhile is applied after the release",
    )


def _named(found: JSON) -> str:
    metadata: dict[str, Any] = found.get("metadata") or {}
    return str(metadata.get("name", ""))


def is_key(key: str) -> bool:
    """Whether these managers are held by this key of a node or a NodeClaim."""
    return key in (AUTOSCALER_KEY, KARPENTER_KEY, GARDENER_KEY, HEALTH_KEY) or key.startswith(PLAN_PREFIX)
