"""Whose a change is: a step marks in the node's record, by its own patch, that it is done; else it was others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import marks
from kdnsctl.changes.fields import RECORD, VERBS, node_path
from kdnsctl.changes.verbs import DriftError, Means
from kdnsctl.cluster.errors import CutOffError
from kdnsctl.model import Step

HOLD = "cluster-autoscaler.kubernetes.io/scale-down-disabled"
PATH = node_path("n1")
CORDON = Step("node.cordon", {"path": PATH}, "u1", None, True)
ANNOTATE = Step("object.annotate", {"path": PATH, "key": HOLD}, "u1", "false", "true")
BACK = VERBS["node.cordon"].inverse(CORDON)


def record(*done: str) -> dict[str, Any]:
    return {"incident": "inc-1", "steps": [CORDON.to_json(), ANNOTATE.to_json()], "done": list(done)}


@dataclass
class Node:
    """A server with one node, which takes patches; `lost` answers are lost after `instead` was done to it."""

    cordoned: bool = False
    hold: str = "false"
    record: dict[str, Any] | None = None
    version: int = 1
    lost: int = 0
    instead: Callable[[Node], None] | None = None
    sent: list[list[dict[str, Any]]] = field(default_factory=list)

    @property
    def raw(self) -> dict[str, Any]:
        annotations = {} if self.record is None else {RECORD: json.dumps(self.record)}
        metadata = {"uid": "u1", "resourceVersion": str(self.version), "annotations": {HOLD: self.hold, **annotations}}
        return {"metadata": metadata, "spec": {"unschedulable": True} if self.cordoned else {}}

    def get(self, path: str, _: Any, *, scope: CancelScope) -> dict[str, Any]:  # noqa: ARG002
        assert path == PATH
        return self.raw

    def request(self, method: str, path: str, *, body: bytes, **_: Any) -> SimpleNamespace:
        assert (method, path) == ("PATCH", PATH)
        self.version += 1
        if self.lost:
            self.lost -= 1
            assert self.instead is not None
            self.instead(self)
            raise CutOffError("the connection was cut off")
        operations = json.loads(body)
        self.sent.append(operations)
        for one in operations:
            if one["path"] == "/spec/unschedulable":
                self.cordoned = one["op"] == "add"
            elif one["path"].endswith("~1scale-down-disabled"):
                self.hold = one["value"]
            elif one["path"].endswith("~1quarantine"):
                self.record = json.loads(one["value"])
        return SimpleNamespace(body=json.dumps(self.raw).encode(), audit_id="a")

    def take(self, step: Step | None) -> bool:
        assert step is not None
        with CancelScope() as scope:
            return VERBS[step.verb].apply(step, Means(self, scope)).changed  # type: ignore[arg-type]


def cordoned_by_others(node: Node) -> None:
    node.cordoned = True


def cordoned_by_us(node: Node) -> None:
    node.cordoned, node.record = True, record("node.cordon")


def test_a_step_and_its_mark_are_one_patch_and_so_is_the_way_back() -> None:
    node = Node(record=record())
    assert node.take(CORDON)
    assert (node.cordoned, node.record) == (True, record("node.cordon"))
    assert node.take(ANNOTATE)
    assert node.record == record("node.cordon", f"object.annotate {HOLD}")
    assert node.take(BACK)
    assert (node.cordoned, node.record) == (False, record(f"object.annotate {HOLD}"))
    assert len(node.sent) == 3


def test_a_cordon_between_the_record_and_ours_is_not_ours() -> None:
    node = Node(record=record(), cordoned=True)
    assert not node.take(CORDON)
    assert (node.sent, node.record) == ([], record())
    with pytest.raises(DriftError, match="somebody else has set"):
        node.take(BACK)
    assert (node.sent, node.cordoned) == ([], True)


def test_nor_is_one_of_which_the_record_does_not_speak() -> None:
    node = Node(record={**record(), "steps": [ANNOTATE.to_json()]}, cordoned=True)
    with pytest.raises(DriftError, match="somebody else has set"):
        node.take(BACK)


@pytest.mark.parametrize(("who", "ours"), [(cordoned_by_us, True), (cordoned_by_others, False)])
def test_after_a_lost_answer_the_mark_tells_who_it_was(who: Callable[[Node], None], ours: bool) -> None:
    node = Node(record=record(), lost=1, instead=who)
    assert node.take(CORDON) is ours


@pytest.mark.parametrize("there", [None, {"incident": "inc-1", "steps": [CORDON.to_json()]}])
def test_without_marks_the_value_has_to_do(there: dict[str, Any] | None) -> None:
    """No record, or one of an earlier version."""
    node = Node(record=there)
    assert node.take(CORDON)
    assert node.record == there
    assert node.take(BACK)
    assert not node.cordoned


def test_a_record_that_is_written_anew_keeps_the_marks_of_the_node() -> None:
    before, after = {**record(), "phase": "begun"}, {**record(), "phase": "contained"}
    node = Node(record={**before, "done": ["node.cordon"]})
    assert node.take(Step("node.record", {"path": PATH}, "u1", before, after))
    assert node.record == {**after, "done": ["node.cordon"]}


@pytest.mark.parametrize(
    "damaged", ["x", 7, None, {"done": 7}, {"done": [], "steps": 7}, {"steps": ["x"], "done": [1]}]
)
def test_what_is_no_record_says_nothing(damaged: Any) -> None:
    assert not marks.done_in(damaged)
    if isinstance(damaged, dict):
        assert marks.with_mark(damaged, CORDON) in (None, damaged)
