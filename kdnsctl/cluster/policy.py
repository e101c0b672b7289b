"""Disruption budgets as records, and which pods they select. Pure; what they allow is judged in `quarantine`.

Field names are those of policy/v1 and meta/v1 (k8s.io/api 1.36).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from kdnsctl.cluster.objects import Condition, Metadata, Object


class Requirement(Object, frozen=True):
    """One expression of a label selector: `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels fulfil it; one without the key fulfils NotIn. An operator nobody knows holds nothing."""
        values = self.values or ()
        match self.operator:
            case "In":
                return labels.get(self.key) in values
            case "NotIn":
                return labels.get(self.key) not in values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case _:
                return False


class LabelSelector(Object, frozen=True):
    """All of it must match; an empty one matches everything."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[Requirement, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether something with these labels is selected."""
        equal = all(labels.get(key) == value for key, value in (self.match_labels or {}).items())
        return equal and all(one.matches(labels) for one in self.match_expressions or ())


class DisruptionBudgetSpec(Object, frozen=True):
    """What must be kept up. Without a selector it selects nothing. Numbers may be percentages, as text."""

    selector: LabelSelector | None = None
    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    unhealthy_pod_eviction_policy: str = ""


class DisruptionBudgetStatus(Object, frozen=True):
    """What the disruption controller counted; out of date while `observed_generation` is behind."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    disrupted_pods: dict[str, dt.datetime] | None = None
    conditions: tuple[Condition, ...] | None = None


class BudgetMetadata(Metadata, frozen=True):
    """A budget's identity, and how often what is asked of it was changed."""

    generation: int = 0


class DisruptionBudget(Object, frozen=True):
    """A PodDisruptionBudget."""

    metadata: BudgetMetadata = BudgetMetadata()
    spec: DisruptionBudgetSpec = DisruptionBudgetSpec()
    status: DisruptionBudgetStatus = DisruptionBudgetStatus()

    @property
    def observed(self) -> bool:
        """Whether its status is about what is asked now."""
        return self.status.observed_generation >= self.metadata.generation

    def selects(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a pod falls under it."""
        selector = self.spec.selector
        return namespace == self.metadata.namespace and selector is not None and selector.matches(labels)

    def __str__(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"
