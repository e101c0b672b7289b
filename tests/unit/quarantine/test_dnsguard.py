from __future__ import annotations

import json
from typing import Any

import pytest

from kdnsctl.quarantine.dnsguard import autoscaler_effect, dns_pods, floor_of
from tests.unit.quarantine.objects import node, slice_of

READY: dict[str, bool] = {"ready": True}
NODES = [node("n1"), node("n2"), node("n3"), node("n4", "3920m")]


def test_who_serves() -> None:
    now = dns_pods("kube-system/kube-dns", [
        slice_of(("a", "n1", READY), ("b", "n2", {"ready": False})),
        slice_of(("c", "n3", {"ready": False, "serving": True, "terminating": True}), ("d", "", READY)),
    ])  # fmt: skip
    assert now.nodes == {"a": "n1", "b": "n2", "c": "n3", "d": ""}
    assert now.serving == {"a", "d"}
    assert now.serving_on(()) == {"a"}, "one whose node is not known is not known to be safe"


@pytest.mark.parametrize(
    ("serving", "drained", "affected", "least", "allowed"),
    [
        ("n1 n2", ["n1"], [], 1, True),
        ("n1 n1", ["n1"], [], 1, False),
        ("n1 n2 n3", ["n1"], [], 2, True),
        ("n1 n2 n3", ["n1"], ["n3"], 2, False),
        ("n1 n2 n3 n4", ["n1"], ["n3"], 2, True),
        ("n1", ["n1"], [], 1, False),
    ],
)
def test_the_floor(serving: str, drained: list[str], affected: list[str], least: int, allowed: bool) -> None:
    now = dns_pods("dns", [slice_of(*((f"p{number}", at, READY) for number, at in enumerate(serving.split())))])
    floor = floor_of(now, drained, affected)
    assert floor.least == least
    assert (floor.shortage(now) == "") is allowed


def test_the_floor_is_that_of_the_beginning() -> None:
    before = dns_pods("dns", [slice_of(*((f"p{number}", f"n{number}", READY) for number in range(4)))])
    floor = floor_of(before, ["n0"], [])
    later = dns_pods("dns", [slice_of(("p0", "n0", READY), ("p1", "n1", READY))])
    assert "needs 2 serving" in floor.shortage(later)


@pytest.mark.parametrize(
    ("mode", "parameters", "effect"),
    [
        ("linear", {"nodesPerReplica": 1, "min": 1}, (4, 2)),
        ("linear", {"coresPerReplica": 4}, (4, 2)),
        ("linear", {"nodesPerReplica": 1, "includeUnschedulableNodes": True}, (4, 4)),
        ("linear", {"nodesPerReplica": 100, "preventSinglePointFailure": True}, (2, 2)),
        ("linear", {"nodesPerReplica": 1, "max": 3}, (3, 2)),
        ("ladder", {"nodesToReplicas": [[1, 1], [3, 3], [4, 5]]}, (5, 1)),
        ("ladder", {"coresToReplicas": [[1, 1], [8, 2]], "nodesToReplicas": [[1, 1]]}, (2, 1)),
    ],
)
def test_what_an_autoscaler_does(mode: str, parameters: Any, effect: tuple[int, int]) -> None:
    found = autoscaler_effect({mode: json.dumps(parameters)}, NODES, ["n1", "n2"])
    assert found is not None
    assert (found.before, found.after) == effect


@pytest.mark.parametrize("data", [{}, {"linear": "{"}, {"linear": "[]"}, {"other": "{}"}])
def test_what_says_nothing_is_not_guessed(data: dict[str, str]) -> None:
    assert autoscaler_effect(data, NODES, ["n1"]) is None
