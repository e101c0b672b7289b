"""The types of the fields that the lab reads, checked before anything reads them: a wrong one is 400, not an accident.

A selection of the published types of Kubernetes 1.36 (its OpenAPI definitions);
fields that are not listed are kept unread. Values and what goes together are `validation`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kdnsctl.lab.kinds import KINDS, Kind
from kdnsctl.lab.replies import JSON, bad_request

# A dict names fields, a list has items of one shape, `_Map` any keys with values of one shape, a type is a plain value.
Shape = Any


class _Map:
    def __init__(self, values: Shape) -> None:
        self.values = values


class _Either:
    """A number or a text: ports by number or name, counts or percentages, quantities."""


_TEXTS: Final = _Map(str)
_OWNER: Final = {"apiVersion": str, "kind": str, "name": str, "uid": str, "controller": bool}
METADATA: Final = {
    "name": str, "generateName": str, "namespace": str, "uid": str, "resourceVersion": str, "generation": int,
    "creationTimestamp": str, "deletionTimestamp": str, "deletionGracePeriodSeconds": int, "labels": _TEXTS,
    "annotations": _TEXTS, "ownerReferences": [_OWNER], "finalizers": [str],
}  # fmt: skip
_EXPRESSION: Final = {"key": str, "operator": str, "values": [str]}
_SELECTOR: Final = {"matchLabels": _TEXTS, "matchExpressions": [_EXPRESSION]}
_PROFILE: Final = {"type": str, "localhostProfile": str}
_SE_LINUX: Final = {"user": str, "role": str, "type": str, "level": str}
_OF_BOTH: Final = {
    "runAsUser": int, "runAsGroup": int, "runAsNonRoot": bool, "seccompProfile": _PROFILE, "appArmorProfile": _PROFILE,
    "seLinuxOptions": _SE_LINUX,
}  # fmt: skip
_CONTAINER_SECURITY: Final = _OF_BOTH | {
    "privileged": bool, "allowPrivilegeEscalation": bool, "readOnlyRootFilesystem": bool, "procMount": str,
    "capabilities": {"add": [str], "drop": [str]},
}  # fmt: skip
_POD_SECURITY: Final = _OF_BOTH | {
    "fsGroup": int, "supplementalGroups": [int], "sysctls": [{"name": str, "value": str}]
}  # fmt: skip
_HTTP_GET: Final = {"path": str, "port": _Either, "host": str, "scheme": str}
_TCP: Final = {"port": _Either, "host": str}
_HANDLER: Final = {"exec": {"command": [str]}, "httpGet": _HTTP_GET, "tcpSocket": _TCP}
_PROBE: Final = _HANDLER | {
    "timeoutSeconds": int, "periodSeconds": int, "successThreshold": int, "failureThreshold": int,
    "initialDelaySeconds": int,
}  # fmt: skip
_CONTAINER: Final = {
    "name": str, "image": str, "command": [str], "args": [str], "workingDir": str, "imagePullPolicy": str,
    "ports": [{"name": str, "containerPort": int, "hostPort": int, "protocol": str, "hostIP": str}],
    "env": [{"name": str, "value": str, "valueFrom": {"fieldRef": {"apiVersion": str, "fieldPath": str}}}],
    "resources": {"limits": _Map(_Either), "requests": _Map(_Either)},
    "volumeMounts": [{"name": str, "mountPath": str, "subPath": str, "subPathExpr": str, "readOnly": bool}],
    "readinessProbe": _PROBE, "livenessProbe": _PROBE, "startupProbe": _PROBE,
    "lifecycle": {"postStart": _HANDLER, "preStop": _HANDLER}, "securityContext": _CONTAINER_SECURITY,
    "restartPolicy": str, "terminationMessagePath": str, "stdin": bool, "tty": bool,
}  # fmt: skip
_ITEMS: Final = [{"key": str, "path": str, "mode": int}]
_FILES: Final = {"name": str, "items": _ITEMS, "optional": bool}
_FIELDS: Final = {"items": [{"path": str, "fieldRef": {"apiVersion": str, "fieldPath": str}}]}
_TOKEN: Final = {"path": str, "audience": str, "expirationSeconds": int}
_VOLUME: Final = {
    "name": str, "emptyDir": {"medium": str}, "hostPath": {"path": str, "type": str},
    "configMap": _FILES | {"defaultMode": int}, "downwardAPI": _FIELDS | {"defaultMode": int},
    "secret": {"secretName": str, "items": _ITEMS, "optional": bool, "defaultMode": int},
    "projected": {
        "defaultMode": int,
        "sources": [{"configMap": _FILES, "secret": _FILES, "downwardAPI": _FIELDS, "serviceAccountToken": _TOKEN}],
    },
}  # fmt: skip
_TERM: Final = {"matchExpressions": [_EXPRESSION], "matchFields": [_EXPRESSION]}
_POD_SPEC: Final = {
    "containers": [_CONTAINER], "initContainers": [_CONTAINER], "volumes": [_VOLUME], "nodeName": str,
    "nodeSelector": _TEXTS, "hostNetwork": bool, "hostPID": bool, "hostIPC": bool, "hostname": str,
    "restartPolicy": str, "dnsPolicy": str, "serviceAccountName": str, "serviceAccount": str, "schedulerName": str,
    "priority": int, "priorityClassName": str, "terminationGracePeriodSeconds": int, "activeDeadlineSeconds": int,
    "enableServiceLinks": bool, "securityContext": _POD_SECURITY, "shareProcessNamespace": bool,
    "tolerations": [{"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}],
    "affinity": {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_TERM]}}
    },
}  # fmt: skip
_TEMPLATE: Final = {"metadata": METADATA, "spec": _POD_SPEC}
_ROLLING: Final = {"maxUnavailable": _Either, "maxSurge": _Either}
_STRATEGY: Final = {"type": str, "rollingUpdate": _ROLLING}
_SET: Final = {"selector": _SELECTOR, "template": _TEMPLATE, "minReadySeconds": int}
_SERVICE_PORT: Final = {"name": str, "port": int, "targetPort": _Either, "protocol": str, "nodePort": int}
_CONDITIONS: Final = {"conditions": [{"type": str, "status": str, "reason": str, "message": str}]}
_ENDPOINT: Final = {
    "addresses": [str], "conditions": {"ready": bool, "serving": bool, "terminating": bool}, "nodeName": str,
}  # fmt: skip
SHAPES: Final[dict[str, Shape]] = {
    "Node": {
        "spec": {
            "unschedulable": bool, "podCIDR": str, "podCIDRs": [str], "providerID": str,
            "taints": [{"key": str, "value": str, "effect": str, "timeAdded": str}],
        },
        "status": _CONDITIONS | {"addresses": [{"type": str, "address": str}]},
    },
    "Pod": {"spec": _POD_SPEC, "status": _CONDITIONS | {"phase": str, "podIP": str, "podIPs": [{"ip": str}]}},
    "Service": {
        "spec": {
            "ports": [_SERVICE_PORT], "selector": _TEXTS, "clusterIP": str, "clusterIPs": [str], "type": str,
            "sessionAffinity": str,
        },
        "status": {},
    },
    "ConfigMap": {"data": _TEXTS, "binaryData": _TEXTS, "immutable": bool},
    "Secret": {"data": _TEXTS, "stringData": _TEXTS, "type": str, "immutable": bool},
    "Namespace": {"spec": {"finalizers": [str]}, "status": {"phase": str}},
    "DaemonSet": {"spec": _SET | {"updateStrategy": _STRATEGY, "revisionHistoryLimit": int}, "status": {}},
    "Deployment": {
        "spec": _SET | {"replicas": int, "strategy": _STRATEGY, "revisionHistoryLimit": int, "paused": bool,
                        "progressDeadlineSeconds": int},
        "status": {},
    },
    "ReplicaSet": {"spec": _SET | {"replicas": int}, "status": {}},
    "StatefulSet": {
        "spec": _SET | {"replicas": int, "serviceName": str, "podManagementPolicy": str, "revisionHistoryLimit": int,
                        "updateStrategy": {"type": str}},
        "status": {},
    },
    "EndpointSlice": {
        "addressType": str, "endpoints": [_ENDPOINT], "ports": [{"name": str, "port": int, "protocol": str}],
    },
    "CustomResourceDefinition": {
        "spec": {
            "group": str, "scope": str, "versions": [{"name": str, "served": bool, "storage": bool}],
            "names": {"plural": str, "singular": str, "kind": str, "listKind": str, "shortNames": [str],
                      "categories": [str]},
        },
        "status": _CONDITIONS,
    },
    "Lease": {"spec": {"holderIdentity": str, "leaseDurationSeconds": int, "leaseTransitions": int}},
    "PodDisruptionBudget": {
        "spec": {
            "selector": _SELECTOR, "minAvailable": _Either, "maxUnavailable": _Either,
            "unhealthyPodEvictionPolicy": str,
        },
        "status": _CONDITIONS | {
            "disruptionsAllowed": int, "currentHealthy": int, "desiredHealthy": int, "expectedPods": int,
            "observedGeneration": int, "disruptedPods": _TEXTS,
        },
    },
}  # fmt: skip
_NAMES: Final = {str: "string", int: "int", bool: "bool", _Either: "intstr.IntOrString", dict: "object", list: "array"}
_GIVEN: Final = {str: "string", int: "number", float: "number", bool: "bool", dict: "object", list: "array"}


@dataclass(frozen=True, slots=True)
class _Place:
    kind: str
    version: str


def check_shape(kind: Kind, obj: JSON) -> None:
    """Raises Refused (400) for the first field of a wrong type; takes out known fields that are null, as Go does."""
    shape = SHAPES.get(kind.kind, {}) if kind in KINDS else {}  # a custom kind may have the name of one of ours
    check_types(kind.kind, obj, {"metadata": METADATA} | shape, kind.version)


def check_types(kind: str, obj: Any, shape: Shape, version: str = "v1") -> None:
    """The same for a body that is no stored object."""
    place = _Place(kind, version)
    _check(place, "", obj, shape)


def _check(kind: _Place, path: str, value: Any, shape: Shape) -> None:
    if isinstance(shape, dict):
        _expect(kind, path, value, dict)
        for key, below in shape.items():
            if key in value and value[key] is None:
                del value[key]
            elif key in value:
                _check(kind, f"{path}.{key}" if path else key, value[key], below)
    elif isinstance(shape, list):
        _expect(kind, path, value, list)
        for item in value:
            _check(kind, path, item, shape[0])
    elif isinstance(shape, _Map):
        _expect(kind, path, value, dict)
        for item in value.values():
            _check(kind, path, item, shape.values)
    else:
        _expect(kind, path, value, shape)


def _expect(kind: _Place, path: str, value: Any, wanted: Any) -> None:
    fits = type(value) in (str, int, float) if wanted is _Either else type(value) is wanted
    if fits:
        return
    given = _GIVEN.get(type(value), "null")
    why = f"json: cannot unmarshal {given} into Go struct field {kind.kind}.{path} of type {_NAMES[wanted]}"
    raise bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')
