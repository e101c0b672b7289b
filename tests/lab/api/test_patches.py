from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest

from kdnsctl.lab.kinds import CUSTOM_RESOURCE_DEFINITIONS, KINDS
from kdnsctl.lab.patch_schema import TYPES, Field
from kdnsctl.lab.patches import json_patch, merge_patch
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.strategic import strategic_merge

NODE: dict[str, Any] = {
    "metadata": {"name": "n", "labels": {"a": "1"}},
    "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]},
}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/spec/unschedulable", "value": True}], {**NODE["spec"], "unschedulable": True}),
        ([{"op": "remove", "path": "/spec/taints/0"}], {"taints": []}),
        (
            [{"op": "replace", "path": "/spec/taints/0/key", "value": "y"}],
            {"taints": [{"key": "y", "effect": "NoSchedule"}]},
        ),
        ([{"op": "add", "path": "/spec/taints/-", "value": 1}], {"taints": [NODE["spec"]["taints"][0], 1]}),
        ([{"op": "add", "path": "/spec/taints/0", "value": 1}], {"taints": [1, NODE["spec"]["taints"][0]]}),
        ([{"op": "move", "from": "/spec/taints", "path": "/spec/old"}], {"old": NODE["spec"]["taints"]}),
        ([{"op": "copy", "from": "/metadata/labels/a", "path": "/spec/a"}], {**NODE["spec"], "a": "1"}),
        ([{"op": "add", "path": "/spec/a~1b~0c", "value": 1}], {**NODE["spec"], "a/b~c": 1}),
        ([{"op": "test", "path": "/spec/absent", "value": None}], NODE["spec"]),
        ([{"op": "test", "path": "/metadata/labels", "value": {"a": "1"}}], NODE["spec"]),
    ],
)
def test_a_json_patch_does_what_its_operations_say(operations: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    before = json.dumps(NODE)
    assert json_patch(NODE, operations)["spec"] == expected
    assert json.dumps(NODE) == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/metadata/name", "value": "other"},
        {"op": "test", "path": "/spec/count", "value": 1},
        {"op": "remove", "path": "/spec/absent"},
        {"op": "replace", "path": "/spec/absent", "value": 1},
        {"op": "add", "path": "/absent/field", "value": 1},
        {"op": "add", "path": "/spec/taints/7", "value": 1},
        {"op": "remove", "path": "/spec/taints/01"},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "add", "path": "/spec/x"},
        {"op": "frobnicate", "path": "/spec"},
        {"op": "move", "from": "/spec", "path": "/spec/inside"},
        {"op": "remove", "path": ""},
    ],
)
def test_a_json_patch_that_does_not_apply_is_rejected_as_a_whole(operation: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refusal:
        json_patch(NODE, [{"op": "add", "path": "/spec/first", "value": 1}, operation])
    assert (refusal.value.code, refusal.value.reason) == (422, "Invalid")
    assert "first" not in NODE["spec"]


def test_true_is_not_one_for_a_test() -> None:
    with pytest.raises(Refused):
        json_patch({"a": True}, [{"op": "test", "path": "/a", "value": 1}])


def test_what_is_no_json_patch_is_a_bad_request() -> None:
    with pytest.raises(Refused) as refusal:
        json_patch(NODE, {"op": "add"})
    assert refusal.value.code == 400


def test_a_merge_patch_removes_with_null_and_replaces_lists() -> None:
    patched = merge_patch(NODE, {"metadata": {"labels": {"a": None, "b": "2"}}, "spec": {"taints": [1]}})
    assert patched == {"metadata": {"name": "n", "labels": {"b": "2"}}, "spec": {"taints": [1]}}


def test_strategic_merge_joins_lists_by_key_and_replaces_atomic_ones() -> None:
    pod = {
        "spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}], "tolerations": [1]}
    }
    patch = {
        "spec": {
            "containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}, {"name": "b", "image": "2"}],
            "tolerations": [2],
        }
    }
    spec = strategic_merge("Pod", pod, patch)["spec"]
    assert spec["containers"] == [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "b", "image": "2"},
    ]
    assert spec["tolerations"] == [2]


def test_a_strategic_merge_of_taints_wipes_the_taints_of_others() -> None:
    patched = strategic_merge("Node", NODE, {"spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]}})
    assert [taint["key"] for taint in patched["spec"]["taints"]] == ["mine"]


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"containers": [{"name": "a", "$patch": "delete"}]}, ["b"]),
        ({"containers": [{"$patch": "replace"}, {"name": "z"}]}, ["z"]),
        ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, ["b", "a"]),
        (
            {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]},
            ["c", "b", "a"],
        ),
        ({"containers": None}, None),
        ({"$retainKeys": ["other"], "other": 1}, None),
        ({"$patch": "replace", "other": 1}, None),
        ({"$patch": "delete"}, None),
    ],
)
def test_directives_of_strategic_merge(patch: dict[str, Any], expected: list[str] | None) -> None:
    pod = {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    spec = strategic_merge("Pod", pod, {"spec": patch})["spec"]
    names = [item["name"] for item in spec["containers"]] if "containers" in spec else None
    assert names == expected
    assert not [key for key in spec if key.startswith("$")]


def test_plain_values_are_united_and_deleted_by_directive() -> None:
    obj = {"metadata": {"finalizers": ["a", "b"]}}
    added = strategic_merge("Pod", obj, {"metadata": {"finalizers": ["b", "c"]}})
    assert added["metadata"]["finalizers"] == ["a", "b", "c"]
    removed = strategic_merge("Pod", obj, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert removed["metadata"]["finalizers"] == ["b"]


def test_an_item_without_its_merge_key_is_a_bad_request() -> None:
    with pytest.raises(Refused) as refusal:
        strategic_merge("Pod", {"spec": {}}, {"spec": {"containers": [{"image": "x"}]}})
    assert refusal.value.code == 400
    assert "merge key: name" in refusal.value.message


def test_the_merge_keys_are_those_of_the_published_schemas() -> None:
    path = resources.files("kubernetes_validate") / "kubernetes-json-schema" / "v1.36.0-local" / "_definitions.json"
    definitions = json.loads(path.read_bytes())["$defs"]
    by_name = {name.rpartition(".")[2]: schema for name, schema in definitions.items() if _is_served(name)}
    assert {kind.kind for kind in KINDS if kind is not CUSTOM_RESOURCE_DEFINITIONS} <= set(by_name)  # not in there
    found = {}
    for name, schema in by_name.items():
        for field, properties in schema.get("properties", {}).items():
            strategy = properties.get("x-kubernetes-patch-strategy", "")
            if strategy:
                found[name, field] = _field(strategy, properties.get("x-kubernetes-patch-merge-key"))
    ours = {
        (name, field): Field(None, ours.key, ours.merged_values, ours.retain_keys, ours.replaced)
        for name, fields in TYPES.items()
        for field, ours in fields.items()
        if ours != Field(ours.type)
    }
    assert ours == {place: field for place, field in found.items() if place[0] in TYPES}
    assert len(ours) > 30


def _is_served(name: str) -> bool:
    groups = ("api.core.v1.", "api.apps.v1.", "api.discovery.v1.", "api.policy.v1.", "api.coordination.v1.", "meta.v1.")
    return any(group in name for group in groups)


def _field(strategy: str, key: str | None) -> Field:
    parts = strategy.split(",")
    return Field(None, key, "merge" in parts and key is None, "retainKeys" in parts, "replace" in parts)
