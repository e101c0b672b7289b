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
