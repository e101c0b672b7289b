"""Evictions: a pod's deletion that asks its disruption budget first, with the arithmetic of a real server.

Source: Kubernetes 1.36, pkg/registry/core/pod/storage/eviction.go, and the recordings `api/evict-*`. The store is only
written to; what counts the budgets anew is a controller's (`controllers.budgets`). No HTTP.

Two things of a real server matter to those who evict: the budget is used up *before* the preconditions are looked at,
so that an attempt with a wrong UID costs one disruption for two minutes; and a dry run uses up nothing, so that two
dry runs may both be allowed where only one eviction would be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from kdnsctl.lab import replies
from kdnsctl.lab.controllers.ownership import has_ended, is_ready, is_terminating
from kdnsctl.lab.kinds import DISRUPTION_BUDGETS, PODS
from kdnsctl.lab.replies import JSON, Refused
from kdnsctl.lab.selectors import labels_of, match_selector
from kdnsctl.lab.store import DeleteOptions, Store, timestamp

MOST_DISRUPTED: Final = 2000  # MaxDisruptedPodSize
SOON: Final = 10  # seconds; Retry-After of a budget that is being processed


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Whether the pod may go only if nothing has changed since it was looked at: it was not ready then."""

    budget: str = ""
    only_as_seen: bool = False


def evict(store: Store, name: str, namespace: str, options: DeleteOptions) -> None:
    """Evict a pod, as one step. Raises Refused: 404, 409, 429, 403 or 500 as a real server would."""
    with store.lock:
        pod = store.get(PODS, name, namespace)
        if _ends_anyway(pod):
            # Its end is no disruption, or has begun: no budget is asked.
            if pod["status"].get("phase") == "Pending" and options.version is None and not is_terminating(pod):
                options = replace(options, version=pod["metadata"]["resourceVersion"])
            _delete(store, pod, options)
            return
        verdict = _ask_budget(store, pod, dry_run=options.dry_run)
        if verdict.only_as_seen and options.version is None:
            options = replace(options, version=pod["metadata"]["resourceVersion"])
        _delete(store, pod, options)


def budgets_of(store: Store, pod: JSON) -> list[JSON]:
    """Every budget of the pod's namespace that selects it."""
    labels = labels_of(pod)
    budgets = store.select(DISRUPTION_BUDGETS, pod["metadata"]["namespace"])
    return [budget for budget in budgets if match_selector(budget.get("spec", {}).get("selector"))(labels)]


def set_allowed(status: JSON, generation: int, now: str) -> JSON:
    """The status with the condition DisruptionAllowed that goes with its count (pkg/apis/policy/helper)."""
    allowed = status.get("disruptionsAllowed", 0) > 0
    return with_condition(
        status, "True" if allowed else "False", "SufficientPods" if allowed else "InsufficientPods", "", generation, now
    )


def with_condition(status: JSON, value: str, reason: str, message: str, generation: int, now: str) -> JSON:
    """The status with one condition DisruptionAllowed; its transition time moves only with its value."""
    known = next((one for one in status.get("conditions") or [] if one["type"] == "DisruptionAllowed"), None)
    moved = now if known is None or known["status"] != value else known["lastTransitionTime"]
    condition = {
        "type": "DisruptionAllowed",
        "status": value,
        "observedGeneration": generation,
        "lastTransitionTime": moved,
        "reason": reason,
        "message": message,
    }
    return status | {"conditions": [condition]}


def _ends_anyway(pod: JSON) -> bool:
    return has_ended(pod) or pod["status"].get("phase") == "Pending" or is_terminating(pod)


def _ask_budget(store: Store, pod: JSON, *, dry_run: bool) -> _Verdict:
    budgets = budgets_of(store, pod)
    if len(budgets) > 1:
        message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise Refused(500, None, message)
    if not budgets:
        return _Verdict()
    budget = budgets[0]
    name, status = budget["metadata"]["name"], budget.get("status") or {}
    if not is_ready(pod):
        desired = status.get("desiredHealthy", 0)
        satisfied = status.get("currentHealthy", 0) >= desired > 0
        if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or satisfied:
            return _Verdict(name, only_as_seen=True)
    _use_up(store, budget, pod["metadata"]["name"], dry_run=dry_run)
    return _Verdict(name)


def _use_up(store: Store, budget: JSON, pod: str, *, dry_run: bool) -> None:
    metadata, status = budget["metadata"], budget.get("status") or {}
    name, generation = metadata["name"], metadata.get("generation", 1)
    allowed = status.get("disruptionsAllowed", 0)
    if status.get("observedGeneration", 0) < generation:
        raise _not_now(f"The disruption budget {name} is still being processed by the server.", SOON)
    if allowed < 0:
        raise replies.forbidden("poddisruptionbudget", "policy", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or {}) > MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise replies.forbidden("poddisruptionbudget", "policy", name, why)
    if allowed == 0:
        raise _not_now(_why_not(name, status))
    if dry_run:
        return
    now = timestamp(store.clock())
    used = status | {
        "disruptionsAllowed": allowed - 1,
        "disruptedPods": {**(status.get("disruptedPods") or {}), pod: now},
    }
    if allowed == 1:
        used = set_allowed(used, generation, now)
    store.change(
        DISRUPTION_BUDGETS, name, metadata["namespace"], lambda old: old | {"status": used}, subresource="status"
    )


def _why_not(name: str, status: JSON) -> str:
    conditions: list[JSON] = status.get("conditions") or []
    condition: JSON = next((one for one in conditions if one["type"] == "DisruptionAllowed"), {})
    if condition.get("status") == "False" and condition.get("reason") == "SyncFailed" and condition.get("message"):
        failed = condition["message"]
        return f"The disruption budget {name} does not allow evicting pods currently because it failed sync: {failed}"
    current, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    if current <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
    return f"The disruption budget {name} does not allow evicting pods currently"


def _not_now(cause: str, retry_after: int = 0) -> Refused:
    """429 with its cause, `api/evict-pdb-blocked.json`; seconds only where waiting helps, `evict-pdb-not-observed`."""
    details: JSON = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    return Refused(429, "TooManyRequests", message, details=details, retry_after=retry_after or None)


def _delete(store: Store, pod: JSON, options: DeleteOptions) -> None:
    """Mark the pod as evicted, then delete it; what the caller demanded of the pod is looked at only now."""
    metadata = pod["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    if options.uid is not None and options.uid != metadata["uid"]:
        raise replies.wrong_uid(PODS, name, options.uid, metadata["uid"])
    if options.version is not None and options.version != metadata["resourceVersion"]:
        raise replies.wrong_version(PODS, name, options.version, metadata["resourceVersion"])
    if options.dry_run:
        store.delete(PODS, name, namespace, options)
        return
    condition: JSON = {
        "type": "DisruptionTarget",
        "observedGeneration": metadata.get("generation", 1),
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": timestamp(store.clock()),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }

    def marked(current: JSON) -> JSON:
        status = current.setdefault("status", {})
        others = [one for one in status.get("conditions") or [] if one["type"] != condition["type"]]
        return current | {"status": status | {"conditions": [*others, condition]}}

    store.change(PODS, name, namespace, marked, subresource="status")
    store.delete(PODS, name, namespace, replace(options, version=None))
