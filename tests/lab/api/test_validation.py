"""What the API refuses to store: names and paths that lead elsewhere, bodies of the wrong shape."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.api import recordings
from tests.lab.api.client import Client

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
UP = "../../../tmp/x"


def pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"} | container]} | (spec or {})}


def mounted(source: dict[str, Any], **mount: Any) -> dict[str, Any]:
    volume = {"name": "v"} | source
    return pod({"volumes": [volume]}, volumeMounts=[{"name": "v", "mountPath": "/x"} | mount])


@pytest.mark.parametrize(
    ("body", "field", "reason", "message"),
    [
        (pod(name=UP), "spec.containers[0].name", "Invalid", "RFC 1123 label"),
        (pod(name="c\n"), "spec.containers[0].name", "Invalid", "RFC 1123 label"),
        (pod(name="c" * 64), "spec.containers[0].name", "Invalid", "no more than 63"),
        (pod(name=""), "spec.containers[0].name", "Required", "Required value"),
        (pod(image=""), "spec.containers[0].image", "Required", "Required value"),
        (pod({"initContainers": [{"name": "a.b", "image": "i"}]}), "spec.initContainers[0].name", "Invalid", "label"),
        (pod({"initContainers": [{"name": "c", "image": "i"}]}), "spec.initContainers[0].name", "Duplicate", '"c"'),
        (pod({"containers": []}), "spec.containers", "Required", "Required value"),
        (pod({"volumes": [{"name": UP, "emptyDir": {}}]}), "spec.volumes[0].name", "Invalid", "RFC 1123 label"),
        (pod({"hostname": UP}), "spec.hostname", "Invalid", "RFC 1123 label"),
        (pod(ports=[{}]), "spec.containers[0].ports[0].containerPort", "Required", "Required value"),
        (pod(ports=[{"containerPort": 65536}]), "spec.containers[0].ports[0].containerPort", "Invalid", "65535"),
        (pod(volumeMounts=[{"name": "v", "mountPath": "/x"}]), "spec.containers[0].volumeMounts[0].name", "NotFound",
         'Not found: "v"'),
        (mounted({"emptyDir": {}}, subPath=UP), "spec.containers[0].volumeMounts[0].subPath", "Invalid",
         f'Invalid value: "{UP}": must not contain \'..\''),
        (mounted({"emptyDir": {}}, subPath="/etc"), "spec.containers[0].volumeMounts[0].subPath", "Invalid",
         "must be a relative path"),
        (mounted({"configMap": {"name": "m", "items": [{"key": "k", "path": UP}]}}),
         "spec.volumes[0].configMap.items[0].path", "Invalid", "must not contain '..'"),
        (mounted({"projected": {"sources": [{"secret": {"name": "m", "items": [{"key": "k", "path": "/p"}]}}]}}),
         "spec.volumes[0].projected.sources[0].secret.items[0].path", "Invalid", "must be a relative path"),
        (mounted({"projected": {"sources": [{"serviceAccountToken": {"path": "..t"}}]}}),
         "spec.volumes[0].projected.sources[0].serviceAccountToken.path", "Invalid", "must not start with '..'"),
        (mounted({"hostPath": {"path": "/a/../b"}}), "spec.volumes[0].hostPath.path", "Invalid", "not contain '..'"),
    ],
)  # fmt: skip
def test_pods_that_lead_elsewhere(client: Client, body: Any, field: str, reason: str, message: str) -> None:
    reply = client.send("POST", PODS, body)
    assert reply.code == 422
    assert set(reply.json) == set(recordings.body("psa-denied"))
    assert (reply.json["reason"], reply.json["details"]["kind"]) == ("Invalid", "Pod")
    (cause,) = reply.json["details"]["causes"]
    assert (cause["field"], cause["reason"]) == (field, f"FieldValue{reason}")
    assert message in cause["message"]
    assert reply.json["message"] == f'Pod "p" is invalid: {field}: {cause["message"]}'


def test_templates_are_held_to_the_same(client: Client) -> None:
    labels = {"a": "b"}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}} | pod(name=UP)}
    spec["template"]["metadata"] = {"labels": labels}
    reply = client.send(
        "POST", "/apis/apps/v1/namespaces/default/daemonsets", {"metadata": {"name": "d"}, "spec": spec}
    )
    assert reply.code == 422
    assert reply.json["details"]["causes"][0]["field"] == "spec.template.spec.containers[0].name"


@pytest.mark.parametrize("key", [UP, "a/b", "..", ".", "..data", "", "a\n"])
def test_keys_of_config_maps_are_names_of_files(client: Client, key: str) -> None:
    reply = client.send("POST", MAPS, {"metadata": {"name": "m"}, "data": {key: "x"}})
    assert (reply.code, reply.json["details"]["causes"][0]["field"]) == (422, f"data[{key}]")


MERGE = {"Content-Type": "application/merge-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
NODE = "/api/v1/nodes/knode1"


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "field"),
    [
        ("PATCH", NODE, MERGE, {"spec": {"unschedulable": "yes"}}, "Node.spec.unschedulable of type bool"),
        ("PATCH", NODE, STRATEGIC, {"spec": {"unschedulable": 1}}, "Node.spec.unschedulable of type bool"),
        ("PATCH", NODE, MERGE, {"spec": {"taints": ["x"]}}, "Node.spec.taints of type object"),
        ("PATCH", NODE, MERGE, {"spec": "x"}, "Node.spec of type object"),
        ("PATCH", NODE, MERGE, {"metadata": {"labels": {"a": 1}}}, "Node.metadata.labels of type string"),
        ("PATCH", NODE, JSON_PATCH, [{"op": "add", "path": "/spec/taints", "value": {}}], "Node.spec.taints of type a"),
        ("POST", PODS, {}, pod({"containers": "foo"}), "Pod.spec.containers of type array"),
        ("POST", PODS, {}, pod({"containers": [None]}), "Pod.spec.containers of type object"),
        ("POST", PODS, {}, pod(image=5), "Pod.spec.containers.image of type string"),
        ("POST", PODS, {}, pod({"hostNetwork": "true"}), "Pod.spec.hostNetwork of type bool"),
        (
            "POST",
            PODS,
            {},
            {"metadata": {"name": "p", "labels": "q"}, "spec": {}},
            "Pod.metadata.labels of type object",
        ),
        ("POST", PODS, {}, {"metadata": {"name": 7}}, "Pod.metadata.name of type string"),
        ("POST", MAPS, {}, {"metadata": {"name": "m"}, "data": {"k": 1}}, "ConfigMap.data of type string"),
    ],
)
def test_fields_of_the_wrong_type(client: Client, method: str, path: str, headers: Any, body: Any, field: str) -> None:
    reply = client.send(method, path, body, headers)
    assert (reply.code, reply.json.get("reason")) == (400, "BadRequest")
    assert f"Go struct field {field}" in reply.json["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body"),
    [
        ("PATCH", NODE, STRATEGIC, {"spec": "x"}),
        ("PATCH", NODE, STRATEGIC, {"spec": {"taints": "x"}}),
        ("PATCH", NODE, STRATEGIC, {"status": {"conditions": ["x"]}}),
        ("PATCH", NODE, STRATEGIC, ["x"]),
        ("PATCH", NODE, MERGE, "x"),
        ("PATCH", NODE, JSON_PATCH, {"op": "add"}),
        ("PATCH", NODE, JSON_PATCH, ["x"]),
        ("PATCH", NODE, JSON_PATCH, [{"op": "add", "path": 5}]),
        ("PATCH", NODE, JSON_PATCH, [{"op": "add", "path": "", "value": "x"}]),
        ("DELETE", NODE, {}, {"preconditions": "x"}),
        ("DELETE", NODE, {}, {"dryRun": "All"}),
        ("DELETE", NODE, {}, {"dryRun": 5}),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}, {"spec": "x"}),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}, ["x"]),
        ("POST", MAPS, {}, {"metadata": "x"}),
        ("POST", MAPS, {}, {"apiVersion": 5, "metadata": {"name": "m"}}),
        ("POST", "/api/v1/namespaces/default/services", {}, {"metadata": {"name": "s"}, "spec": {"ports": [{}]}}),
        ("POST", "/apis/apps/v1/namespaces/default/daemonsets", {}, {"metadata": {"name": "d"}}),
    ],
)
def test_no_body_is_an_accident(client: Client, method: str, path: str, headers: Any, body: Any) -> None:
    reply = client.send(method, path, body, headers)
    assert reply.code in (400, 422)
    assert reply.json["kind"] == "Status"


def test_null_is_left_out(client: Client) -> None:
    body = pod({"volumes": None, "nodeName": None, "securityContext": None}, env=None, ports=None)
    body["metadata"]["labels"] = None
    reply = client.send("POST", PODS, body)
    assert reply.code == 201
    assert "volumes" not in reply.json["spec"]
    assert reply.json["spec"]["securityContext"] == {}


@pytest.mark.parametrize(
    ("path", "metadata"),
    [
        (MAPS, {"name": "abc\n"}),
        (MAPS, {"name": "m", "labels": {"x": "v\n"}}),
        (MAPS, {"name": "m", "labels": {"x\n": "v"}}),
        (MAPS, {"name": "m", "annotations": {"a.b\n/x": "v"}}),
        ("/api/v1/namespaces", {"name": "a.b"}),
        ("/api/v1/namespaces", {"name": "a" * 64}),
        ("/api/v1/namespaces/default/services", {"name": "a.b"}),
        ("/api/v1/namespaces/default/services", {"name": "1a"}),
    ],
)
def test_names_that_are_none(client: Client, path: str, metadata: Any) -> None:
    reply = client.send("POST", path, {"metadata": metadata})
    assert reply.code == 422
    cause = reply.json["details"]["causes"][0]
    assert cause["field"].startswith("metadata.")
