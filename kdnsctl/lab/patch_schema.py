"""Which lists of the served kinds a strategic merge patch merges, and by which key. Data only.

Extracted at development time from the OpenAPI definitions of Kubernetes 1.36 as the PyPI package `kubernetes-validate`
1.37.0 ships them (`x-kubernetes-patch-strategy`, `x-kubernetes-patch-merge-key`); a test compares this table with that
package. A type or field that is not listed has nothing special below it: its lists are replaced whole (a Node's
`spec.taints` is the one that matters: a strategic merge patch of it wipes the taints of others).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """How one field merges. `type`: where to look up the fields below it.

    `key`: the list's items are objects merged by this field. `merged_values`: the list's items are plain values and
    the lists are united. `retain_keys`: `$retainKeys` is understood. `replaced`: the object is replaced whole.
    """

    type: str | None = None
    key: str | None = None
    merged_values: bool = False
    retain_keys: bool = False
    replaced: bool = False


TYPES: Final[dict[str, dict[str, Field]]] = {
    "ConfigMap": {
        "metadata": Field(type="ObjectMeta"),
    },
    "Container": {
        "env": Field(key="name"),
        "ports": Field(key="containerPort"),
        "volumeDevices": Field(key="devicePath"),
        "volumeMounts": Field(key="mountPath"),
    },
    "ContainerStatus": {
        "allocatedResourcesStatus": Field(key="name"),
        "volumeMounts": Field(key="mountPath"),
    },
    "ControllerRevision": {
        "metadata": Field(type="ObjectMeta"),
    },
    "DaemonSet": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="DaemonSetSpec"),
        "status": Field(type="DaemonSetStatus"),
    },
    "DaemonSetSpec": {
        "template": Field(type="PodTemplateSpec"),
    },
    "DaemonSetStatus": {
        "conditions": Field(key="type"),
    },
    "Deployment": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="DeploymentSpec"),
        "status": Field(type="DeploymentStatus"),
    },
    "DeploymentSpec": {
        "strategy": Field(retain_keys=True),
        "template": Field(type="PodTemplateSpec"),
    },
    "DeploymentStatus": {
        "conditions": Field(key="type"),
    },
    "EndpointSlice": {
        "metadata": Field(type="ObjectMeta"),
    },
    "EphemeralContainer": {
        "env": Field(key="name"),
        "ports": Field(key="containerPort"),
        "volumeDevices": Field(key="devicePath"),
        "volumeMounts": Field(key="mountPath"),
    },
    "EphemeralVolumeSource": {
        "volumeClaimTemplate": Field(type="PersistentVolumeClaimTemplate"),
    },
    "Event": {
        "metadata": Field(type="ObjectMeta"),
    },
    "Lease": {
        "metadata": Field(type="ObjectMeta"),
    },
    "Namespace": {
        "metadata": Field(type="ObjectMeta"),
        "status": Field(type="NamespaceStatus"),
    },
    "NamespaceStatus": {
        "conditions": Field(key="type"),
    },
    "Node": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="NodeSpec"),
        "status": Field(type="NodeStatus"),
    },
    "NodeSpec": {
        "podCIDRs": Field(merged_values=True),
    },
    "NodeStatus": {
        "addresses": Field(key="type"),
        "conditions": Field(key="type"),
    },
    "ObjectMeta": {
        "finalizers": Field(merged_values=True),
        "ownerReferences": Field(key="uid"),
    },
    "PersistentVolumeClaimTemplate": {
        "metadata": Field(type="ObjectMeta"),
    },
    "Pod": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="PodSpec"),
        "status": Field(type="PodStatus"),
    },
    "PodDisruptionBudget": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="PodDisruptionBudgetSpec"),
        "status": Field(type="PodDisruptionBudgetStatus"),
    },
    "PodDisruptionBudgetSpec": {
        "selector": Field(replaced=True),
    },
    "PodDisruptionBudgetStatus": {
        "conditions": Field(key="type"),
    },
    "PodSpec": {
        "containers": Field(type="Container", key="name"),
        "ephemeralContainers": Field(type="EphemeralContainer", key="name"),
        "hostAliases": Field(key="ip"),
        "imagePullSecrets": Field(key="name"),
        "initContainers": Field(type="Container", key="name"),
        "resourceClaims": Field(key="name", retain_keys=True),
        "schedulingGates": Field(key="name"),
        "topologySpreadConstraints": Field(key="topologyKey"),
        "volumes": Field(type="Volume", key="name", retain_keys=True),
    },
    "PodStatus": {
        "conditions": Field(key="type"),
        "containerStatuses": Field(type="ContainerStatus"),
        "ephemeralContainerStatuses": Field(type="ContainerStatus"),
        "hostIPs": Field(key="ip"),
        "initContainerStatuses": Field(type="ContainerStatus"),
        "podIPs": Field(key="ip"),
        "resourceClaimStatuses": Field(key="name", retain_keys=True),
    },
    "PodTemplateSpec": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="PodSpec"),
    },
    "ReplicaSet": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="ReplicaSetSpec"),
        "status": Field(type="ReplicaSetStatus"),
    },
    "ReplicaSetSpec": {
        "template": Field(type="PodTemplateSpec"),
    },
    "ReplicaSetStatus": {
        "conditions": Field(key="type"),
    },
    "Secret": {
        "metadata": Field(type="ObjectMeta"),
    },
    "Service": {
        "metadata": Field(type="ObjectMeta"),
        "spec": Field(type="ServiceSpec"),
        "status": Field(type="ServiceStatus"),
    },
    "ServiceAccount": {
        "metadata": Field(type="ObjectMeta"),
        "secrets": Field(key="name"),
    },
    "ServiceSpec": {
        "ports": Field(key="port"),
    },
    "ServiceStatus": {
        "conditions": Field(key="type"),
    },
    "Volume": {
        "ephemeral": Field(type="EphemeralVolumeSource"),
    },
}
