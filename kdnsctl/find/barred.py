"""Reading logs where a preflight says that some may not be read: one is tried, and hundreds are not.

Which logs are barred is known from `access.preflight`; how one is read, and what an outcome means, from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from kdnsctl.access.review import Access
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.logs.sources.pods import PodReading
from kdnsctl.model import Outcome, Reason

Read = Callable[[Sequence[str]], list[Outcome[PodReading]]]


def read_where_allowed(
    places: Mapping[str, PodPlace], barred: Mapping[str | None, Access], read: Read
) -> list[Outcome[PodReading]]:
    """One outcome for each node of `places`, in no order. `barred` are refusals by the namespace that they are for.

    A refusal is a forecast. So one log of each such namespace is tried, and only when that is refused too are the
    others spared; if not, all are read.
    """
    tried, spared = _parted(places, barred)
    outcomes = read(tried)
    if not all(_is_refused(outcome) for outcome in outcomes if places[outcome.node].namespace in barred):
        return outcomes + (read(spared) if spared else [])
    return outcomes + [Outcome(name, reason=_not_allowed(barred[places[name].namespace])) for name in spared]


def _parted(places: Mapping[str, PodPlace], barred: Collection[str | None]) -> tuple[list[str], list[str]]:
    tried: list[str] = []
    spared: list[str] = []
    seen: set[str] = set()
    for name, place in places.items():
        (spared if place.namespace in barred and place.namespace in seen else tried).append(name)
        seen.add(place.namespace)
    return tried, spared


def _is_refused(outcome: Outcome[PodReading]) -> bool:
    return outcome.value is not None and any(one.code == ForbiddenError.code for one in outcome.value.problems)


def _not_allowed(answer: Access) -> Reason:
    why = f" ({answer.why})" if answer.why else ""
    message = f"not allowed: {answer.permission}{why}; not tried, since another node's log was refused"
    return Reason(ForbiddenError.code, message)
