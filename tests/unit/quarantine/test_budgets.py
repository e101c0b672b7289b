from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kdnsctl.cluster.policy import LabelSelector
from kdnsctl.quarantine.budgets import Chance, has_room, prospects
from tests.unit.quarantine.objects import budget, pod

THREE = [pod("web-1"), pod("web-2"), pod("web-3")]


@pytest.mark.parametrize(
    ("given", "chances"),
    [
        ([], [Chance.FREE] * 3),
        ([budget(allowed=2)], [Chance.NOW, Chance.NOW, Chance.WAITS]),
        ([budget(allowed=0, current=2)], [Chance.WAITS] * 3),
        ([budget(allowed=0, desired=3)], [Chance.NEVER] * 3),
        ([budget(allowed=3, observed=False)], [Chance.WAITS] * 3),
        ([budget("a"), budget("b")], [Chance.CONFLICT] * 3),
        ([budget(selector={"matchLabels": {"app": "other"}})], [Chance.FREE] * 3),
        ([budget(allowed=1, selector={})], [Chance.NOW, Chance.WAITS, Chance.WAITS]),
    ],
)
def test_chances_are_counted_cumulatively(given: Any, chances: list[Chance]) -> None:
    assert [one.chance for one in prospects(THREE, given)] == chances


def test_a_budget_in_another_namespace_or_without_a_selector_selects_nothing() -> None:
    elsewhere = msgspec.structs.replace(budget(), metadata=msgspec.structs.replace(budget().metadata, namespace="x"))
    bare = msgspec.structs.replace(budget(), spec=msgspec.structs.replace(budget().spec, selector=None))
    assert [one.chance for one in prospects(THREE[:1], [elsewhere, bare])] == [Chance.FREE]


@pytest.mark.parametrize(
    "state", [{"phase": "Pending"}, {"phase": "Failed"}, {"deletionTimestamp": "2026-11-28T12:00:00Z"}]
)
def test_pods_whose_end_is_no_disruption_use_nothing_up(state: dict[str, Any]) -> None:
    pods = [pod("web-0", **state), *THREE[:1]]
    assert [one.chance for one in prospects(pods, [budget(allowed=1)])] == [Chance.FREE, Chance.NOW]


@pytest.mark.parametrize(
    ("given", "chance"),
    [
        (budget(allowed=0, current=2, desired=2), Chance.FREE),
        (budget(allowed=0, current=1, desired=2), Chance.WAITS),
        (budget(allowed=0, current=0, desired=0), Chance.WAITS),
        (budget(allowed=0, current=1, desired=2, unhealthyPodEvictionPolicy="AlwaysAllow"), Chance.FREE),
    ],
)
def test_pods_that_are_not_ready(given: Any, chance: Chance) -> None:
    unready = pod(ready=False)
    assert prospects([unready], [given])[0].chance is chance
    assert has_room(unready, given) == (chance is Chance.FREE)


def test_why_is_said() -> None:
    short, nothing = budget(allowed=0, current=2), budget(allowed=0, desired=3)
    assert prospects(THREE[:1], [short])[0].why == "budget default/web needs 2 healthy pods and has 2"
    assert "needs 3 healthy pods of 3: it allows no disruption" in prospects(THREE[:1], [nothing])[0].why
    assert "default/a, default/b" in prospects(THREE[:1], [budget("a"), budget("b")])[0].why


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "DoesNotExist"}, False),
        ({"key": "b", "operator": "DoesNotExist"}, True),
        ({"key": "a", "operator": "Gt", "values": ["0"]}, False),
    ],
)
def test_label_selectors(expression: dict[str, Any], fits: bool) -> None:
    selector = msgspec.convert({"matchExpressions": [expression]}, LabelSelector)
    assert selector.matches({"a": "1"}) is fits
