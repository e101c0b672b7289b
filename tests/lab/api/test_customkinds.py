"""Custom resources on the lab's API: served as their definition says, and only as long as it is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdnsctl.lab.customkinds import kind_of
from kdnsctl.lab.kinds import CUSTOM_RESOURCE_DEFINITIONS
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import Store
from tests.lab.api.client import Client
from tests.lab.kubectl import Kubectl

PATH = "/apis/example.org/v1beta2/namespaces/default/widgets"


def definition(**spec: Any) -> dict[str, Any]:
    body = {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [{"name": "v1beta2", "served": True, "storage": True, "subresources": {"status": {}}}],
    }
    return {"metadata": {"name": "widgets.example.org"}, "spec": {**body, **spec}}


def widget(**more: Any) -> dict[str, Any]:
    return {"apiVersion": "example.org/v1beta2", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"a": 1}, **more}


def test_they_are_served_from_when_they_are_defined_until_they_are_not(client: Client, store: Store) -> None:
    assert client.get(PATH).code == 404
    made = client.send("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition())
    assert made.json["status"]["conditions"][1] == {"type": "Established", "status": "True"}
    groups = {group["name"]: group["preferredVersion"]["version"] for group in client.get("/apis").json["groups"]}
    assert groups["example.org"] == "v1beta2"
    listed = client.get("/apis/example.org/v1beta2").json["resources"]
    assert [(one["name"], one["kind"]) for one in listed] == [("widgets", "Widget"), ("widgets/status", "Widget")]

    created = client.send("POST", PATH, widget(status={"ignored": True}))
    assert (created.code, created.json["metadata"]["generation"]) == (201, 1)
    assert "status" not in created.json
    status = client.send("PUT", f"{PATH}/w/status", widget(status={"nodeRef": {"name": "knode1"}}))
    assert status.json["status"] == {"nodeRef": {"name": "knode1"}}
    assert [one["metadata"]["name"] for one in client.get(PATH).json["items"]] == ["w"]
    assert client.get("/apis/example.org/v1beta1/namespaces/default/widgets").code == 404

    store.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.org")
    assert client.get(f"{PATH}/w").code == 404
    assert client.get("/apis/example.org").code == 404


def test_they_take_json_and_merge_patches_only(client: Client, store: Store) -> None:
    store.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
    store.create(kind_of(definition()), widget())
    for media, body, code in (
        ("application/json-patch+json", [{"op": "add", "path": "/spec/b", "value": 2}], 200),
        ("application/merge-patch+json", {"spec": {"a": None}}, 200),
        ("application/strategic-merge-patch+json", {"spec": {"c": 3}}, 415),
    ):
        reply = client.send("PATCH", f"{PATH}/w", body, headers={"Content-Type": media})
        assert reply.code == code, media
    assert store.get(kind_of(definition()), "w", "default")["spec"] == {"b": 2}


def test_kubectl_finds_them(kubectl: Kubectl, store: Store) -> None:
    store.create(CUSTOM_RESOURCE_DEFINITIONS, definition())
    store.create(kind_of(definition()), widget())
    assert json.loads(kubectl.text("get", "wd", "w", "-o", "json"))["spec"] == {"a": 1}
    kubectl.text("annotate", "widgets.example.org", "w", "mine=yes")
    assert store.get(kind_of(definition()), "w", "default")["metadata"]["annotations"] == {"mine": "yes"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"group": "other.org"}, "must be spec.names.plural"),
        ({"versions": [{"name": "v1", "served": True, "storage": False}]}, "exactly one version"),
        ({"scope": ""}, "spec.scope: Required value"),
    ],
)
def test_a_definition_that_defines_nothing_is_refused(store: Store, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words) as refusal:
        store.create(CUSTOM_RESOURCE_DEFINITIONS, definition(**spec))
    assert refusal.value.code == 422
