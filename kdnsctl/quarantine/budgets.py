"""What disruption budgets will say to evictions, worked out before the first: cumulatively, as dry runs cannot.

A server's dry run does not use the budget up, so two pods under a budget of one both pass it (Kubernetes 1.36,
pkg/registry/core/pod/storage/eviction.go). Here each pod that goes uses up one. Pure. An answer is a prospect and no
promise: budgets change, and who evicts asks the server.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.policy import DisruptionBudget


class Chance(enum.StrEnum):
    """How an eviction will probably be answered."""

    FREE = "free"  # no budget is asked, or it does not count this pod
    NOW = "now"  # its budget has room for it, the pods before it counted
    WAITS = "waits"  # its budget has room later, when replacements are ready
    NEVER = "never"  # the budget, as it is, will not allow it
    CONFLICT = "conflict"  # two budgets or more: the server answers 500, always


@dataclass(frozen=True, slots=True)
class Prospect:
    """The chance of one pod, the budgets that decide it, and why, for people."""

    chance: Chance
    budgets: tuple[str, ...] = ()
    why: str = ""


def prospects(pods: Iterable[Pod], budgets: Sequence[DisruptionBudget]) -> list[Prospect]:
    """The prospect of each pod, if they are evicted in this order."""
    used: Counter[str] = Counter()
    return [_prospect(pod, selecting(pod, budgets), used) for pod in pods]


def selecting(pod: Pod, budgets: Iterable[DisruptionBudget]) -> list[DisruptionBudget]:
    """The budgets that a pod falls under."""
    return [one for one in budgets if one.selects(pod.metadata.namespace, pod.metadata.labels)]


def asks_no_budget(pod: Pod) -> bool:
    """Whether the server deletes it without asking: it has not begun, has ended, or is ending."""
    return pod.ended or pod.status.phase == "Pending" or pod.metadata.deletion_timestamp is not None


def has_room(pod: Pod, budget: DisruptionBudget) -> bool:
    """Whether the budget, as it is now, would let the pod go."""
    if not pod.ready and _lets_unready_go(budget):
        return True
    return budget.observed and budget.status.disruptions_allowed > 0


def shortage(budget: DisruptionBudget) -> str:
    """Why a budget says no, for people."""
    status = budget.status
    if not budget.observed:
        return f"budget {budget} is still being processed by the server"
    failed = next((one.message for one in status.conditions or () if one.reason == "SyncFailed"), "")
    if failed:
        return f"budget {budget} cannot be computed: {failed}"
    return f"budget {budget} needs {status.desired_healthy} healthy pods and has {status.current_healthy}"


def allows_nothing_ever(budget: DisruptionBudget) -> bool:
    """Whether it would refuse even if all its pods were healthy."""
    status = budget.status
    if not budget.observed or status.expected_pods <= 0:
        return False
    return status.desired_healthy >= status.expected_pods


def _lets_unready_go(budget: DisruptionBudget) -> bool:
    status = budget.status
    satisfied = status.current_healthy >= status.desired_healthy > 0
    return satisfied or budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow"


def _prospect(pod: Pod, budgets: Sequence[DisruptionBudget], used: Counter[str]) -> Prospect:
    names = tuple(str(one) for one in budgets)
    if not budgets or asks_no_budget(pod):
        return Prospect(Chance.FREE)
    if len(budgets) > 1:
        return Prospect(Chance.CONFLICT, names, f"under {len(budgets)} budgets ({', '.join(names)}): cannot be evicted")
    budget = budgets[0]
    if not pod.ready and _lets_unready_go(budget):
        return Prospect(Chance.FREE, names)
    if budget.observed and budget.status.disruptions_allowed > used[names[0]]:
        used[names[0]] += 1
        return Prospect(Chance.NOW, names)
    if allows_nothing_ever(budget):
        needed, expected = budget.status.desired_healthy, budget.status.expected_pods
        why = f"budget {budget} needs {needed} healthy pods of {expected}: it allows no disruption"
        return Prospect(Chance.NEVER, names, why)
    if budget.status.disruptions_allowed and used[names[0]]:
        return Prospect(Chance.WAITS, names, f"budget {budget} allows {used[names[0]]} at a time")
    return Prospect(Chance.WAITS, names, shortage(budget))
