"""The status of PodDisruptionBudgets: how many pods there should be, how many are healthy, how many may go.

Source: Kubernetes 1.36, pkg/controller/disruption. A pod that an eviction has used the budget up for counts as gone
until it really is, or for two minutes; then its entry expires and the budget is counted anew. Who evicts is not known
here (`lab.eviction`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kdnsctl.lab.controllers.ownership import is_ready, is_terminating, scaled
from kdnsctl.lab.eviction import set_allowed, with_condition
from kdnsctl.lab.kinds import DEPLOYMENTS, DISRUPTION_BUDGETS, PODS, REPLICA_SETS, STATEFUL_SETS
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.selectors import labels_of, match_selector
from kdnsctl.lab.store import Store, timestamp

DELETION_TIMEOUT: Final = timedelta(minutes=2)
_SCALED: Final = {"ReplicaSet": REPLICA_SETS, "StatefulSet": STATEFUL_SETS}


class _SyncError(Exception):
    """The budget cannot be computed: then it allows nothing."""


def reconcile_budgets(store: Store) -> None:
    """One pass over all budgets."""
    for budget in store.select(DISRUPTION_BUDGETS):
        if is_terminating(budget):
            continue
        status = _counted(store, budget)
        if status != budget.get("status"):
            metadata = budget["metadata"]
            store.update(DISRUPTION_BUDGETS, {**budget, "metadata": metadata, "status": status}, subresource="status")


def next_expiry(store: Store) -> datetime | None:
    """When the first entry of an eviction that did not happen expires."""
    moments = [
        _moment(entry) + DELETION_TIMEOUT
        for budget in store.page(DISRUPTION_BUDGETS).items
        if not is_terminating(budget)
        for entry in ((budget.get("status") or {}).get("disruptedPods") or {}).values()
    ]
    # The controller looks whether the time is past, not whether it has come; times are whole seconds.
    return min(moments) + timedelta(microseconds=1) if moments else None


def _counted(store: Store, budget: JSON) -> JSON:
    now, generation = store.clock(), budget["metadata"].get("generation", 1)
    pods = _selected(store, budget)
    known = budget.get("status") or {}
    try:
        expected, desired = _expectation(store, budget, pods)
    except _SyncError as error:
        failed = known | {"disruptionsAllowed": 0, "observedGeneration": generation}
        for count in ("currentHealthy", "desiredHealthy", "expectedPods"):
            failed.setdefault(count, 0)
        return with_condition(failed, "False", "SyncFailed", str(error), generation, timestamp(now))
    disrupted = _still_disrupted(pods, known.get("disruptedPods") or {}, now)
    healthy = sum(
        1 for pod in pods if not is_terminating(pod) and pod["metadata"]["name"] not in disrupted and is_ready(pod)
    )
    allowed = max(0, healthy - desired) if expected > 0 else 0
    status: JSON = {"observedGeneration": generation}
    if disrupted:
        status["disruptedPods"] = disrupted
    status |= {
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
    }
    if known.get("conditions"):
        status["conditions"] = known["conditions"]
    return set_allowed(status, generation, timestamp(now))


def _selected(store: Store, budget: JSON) -> list[JSON]:
    matches = match_selector(budget.get("spec", {}).get("selector"))
    return [pod for pod in store.select(PODS, budget["metadata"]["namespace"]) if matches(labels_of(pod))]


def _still_disrupted(pods: list[JSON], entries: Mapping[str, str], now: datetime) -> JSON:
    names = {pod["metadata"]["name"] for pod in pods if not is_terminating(pod)}
    return {
        name: since for name, since in entries.items() if name in names and not _moment(since) + DELETION_TIMEOUT < now
    }


def _expectation(store: Store, budget: JSON, pods: list[JSON]) -> tuple[int, int]:
    """How many pods there should be, and how many of them must be healthy."""
    spec = budget.get("spec", {})
    if "maxUnavailable" in spec:
        expected = _expected_scale(store, pods)
        return expected, max(0, expected - scaled(spec["maxUnavailable"], expected, round_up=True))
    least = spec.get("minAvailable", 1)
    if isinstance(least, int):
        return len(pods), least
    expected = _expected_scale(store, pods)
    return expected, scaled(least, expected, round_up=True)


def _expected_scale(store: Store, pods: list[JSON]) -> int:
    """The replicas that the owners of the pods ask for, each owner counted once; pods without an owner do not count."""
    owners: dict[str, int] = {}
    for pod in pods:
        reference = _controller(pod)
        if reference is None:
            continue
        uid, replicas = _scale(store, reference, pod["metadata"]["namespace"])
        owners[uid] = replicas
    return sum(owners.values())


def _controller(obj: Mapping[str, Any]) -> JSON | None:
    references = obj["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def _scale(store: Store, reference: JSON, namespace: str) -> tuple[str, int]:
    kind = _SCALED.get(reference["kind"])
    if kind is None:
        raise _SyncError(f"{reference['kind'].lower()}s.apps does not implement the scale subresource")
    owner = store.find(kind, reference["name"], namespace)
    if owner is None or owner["metadata"]["uid"] != reference["uid"]:
        return str(reference["uid"]), 0
    above = _controller(owner)
    if kind is REPLICA_SETS and above is not None and above["kind"] == "Deployment":
        deployment = store.find(DEPLOYMENTS, above["name"], namespace)
        if deployment is not None and deployment["metadata"]["uid"] == above["uid"]:
            return str(above["uid"]), int(deployment["spec"]["replicas"])
    return str(reference["uid"]), int(owner["spec"]["replicas"])


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
