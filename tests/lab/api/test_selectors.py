from __future__ import annotations

from typing import Any

import pytest

from kdnsctl.lab.kinds import EVENTS, NODES, PODS
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.selectors import match_selector, parse_fields, parse_labels


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", "abc"),
        ("app=web", "a"),
        ("app==web", "a"),
        ("app!=web", "bc"),
        ("app", "ab"),
        ("!app", "c"),
        ("app in (web, db)", "ab"),
        ("app notin (web,db)", "c"),
        ("app in (web,db),tier", "b"),
        ("size>2", "b"),
        ("size<3", "a"),
        ("app=", ""),
    ],
)
def test_label_selectors(selector: str, expected: str) -> None:
    labels = {"a": {"app": "web", "size": "2"}, "b": {"app": "db", "tier": "x", "size": "3"}, "c": {}}
    matches = parse_labels(selector)
    assert "".join(name for name, given in labels.items() if matches(given)) == expected


@pytest.mark.parametrize("selector", ["a b", "app in web", "=x", "a=b=c", "app in (", "(a)"])
def test_a_label_selector_that_cannot_be_read_is_a_bad_request(selector: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_labels(selector)
    assert refusal.value.code == 400


def test_the_selectors_of_objects() -> None:
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["x"]},
            {"key": "size", "operator": "Exists"},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }
    matches = match_selector(selector)
    assert matches({"app": "web", "size": "1"})
    assert not matches({"app": "web", "size": "1", "tier": "x"})
    assert not matches({"app": "web"})
    assert not matches({"app": "web", "size": "1", "old": ""})
    assert match_selector({})({})
    assert not match_selector(None)({"app": "web"})


def test_field_selectors_of_pods_and_nodes() -> None:
    pod: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "d"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    assert parse_fields(PODS, "spec.nodeName=n1,status.phase!=Failed")(pod)
    assert not parse_fields(PODS, "spec.nodeName=n2")(pod)
    assert parse_fields(PODS, "metadata.namespace=d,metadata.name==p")(pod)
    assert parse_fields(NODES, "spec.unschedulable=true")({"spec": {"unschedulable": True}})
    assert parse_fields(NODES, "spec.unschedulable=false")({"spec": {}})
    assert parse_fields(EVENTS, "involvedObject.name=x,source=kubelet")(
        {"involvedObject": {"name": "x"}, "source": {"component": "kubelet"}}
    )


def test_a_field_that_is_not_offered_is_a_bad_request() -> None:
    with pytest.raises(Refused) as refusal:
        parse_fields(PODS, "spec.color=red")
    assert refusal.value.code == 400
    assert refusal.value.message.endswith("field label not supported: spec.color")
