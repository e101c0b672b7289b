"""The kinds of objects the lab serves, as data: names, scope, verbs, subresources. No behaviour.

The core/v1 entries equal `api/discovery-api-v1.json` of the recordings for what is served. Discovery, the store, the
tables and the access rules all read this one list, so a kind is added in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ALL_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
NAMESPACE_VERBS: Final = ("create", "delete", "get", "list", "patch", "update", "watch")
STATUS_VERBS: Final = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """One path below an object, for example `pods/log`. `group` and `version` only when they differ from the kind's."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """A served kind. `counts_generation`: metadata.generation is kept for it, as on a real server."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    counts_generation: bool = False
    storage_hash: str | None = None

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    @property
    def resource(self) -> str:
        """The name with its group as error messages write it: `leases.coordination.k8s.io`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def has_status(self) -> bool:
        """Whether status is written through its own subresource and therefore ignored in ordinary writes."""
        return any(sub.name == "status" for sub in self.subresources)


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, STATUS_VERBS)


NODES: Final = Kind(
    "", "v1", "nodes", "node", "Node", namespaced=False, short_names=("no",),
    subresources=(_status("Node"),), storage_hash="XwShjMxG9Fs=",
)  # fmt: skip
PODS: Final = Kind(
    "", "v1", "pods", "pod", "Pod", short_names=("po",), categories=("all",), counts_generation=True,
    subresources=(
        Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
        Subresource("exec", "PodExecOptions", ("create", "get")),
        Subresource("log", "Pod", ("get",)),
        Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
        _status("Pod"),
    ),
    storage_hash="xPOwRZ+Yhw8=",
)  # fmt: skip
SERVICES: Final = Kind(
    "", "v1", "services", "service", "Service", short_names=("svc",), categories=("all",),
    subresources=(_status("Service"),), storage_hash="0/CO1lhkEBI=",
)  # fmt: skip
CONFIG_MAPS: Final = Kind(
    "", "v1", "configmaps", "configmap", "ConfigMap", short_names=("cm",), storage_hash="qFsyl6wFWjQ="
)
SECRETS: Final = Kind("", "v1", "secrets", "secret", "Secret", storage_hash="S6u1pOWzb84=")
EVENTS: Final = Kind("", "v1", "events", "event", "Event", short_names=("ev",), storage_hash="r2yiGXH7wu8=")
NAMESPACES: Final = Kind(
    "", "v1", "namespaces", "namespace", "Namespace", namespaced=False, short_names=("ns",), verbs=NAMESPACE_VERBS,
    subresources=(_status("Namespace"),), storage_hash="Q3oi5N2YM8M=",
)  # fmt: skip
SERVICE_ACCOUNTS: Final = Kind(
    "", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount", short_names=("sa",), storage_hash="pbx9ZvyFpBE="
)
DAEMON_SETS: Final = Kind(
    "apps", "v1", "daemonsets", "daemonset", "DaemonSet", short_names=("ds",), categories=("all",),
    subresources=(_status("DaemonSet"),), counts_generation=True,
)  # fmt: skip
DEPLOYMENTS: Final = Kind(
    "apps", "v1", "deployments", "deployment", "Deployment", short_names=("deploy",), categories=("all",),
    subresources=(_status("Deployment"),), counts_generation=True,
)  # fmt: skip
REPLICA_SETS: Final = Kind(
    "apps", "v1", "replicasets", "replicaset", "ReplicaSet", short_names=("rs",), categories=("all",),
    subresources=(_status("ReplicaSet"),), counts_generation=True,
)  # fmt: skip
STATEFUL_SETS: Final = Kind(
    "apps", "v1", "statefulsets", "statefulset", "StatefulSet", short_names=("sts",), categories=("all",),
    subresources=(_status("StatefulSet"),), counts_generation=True,
)  # fmt: skip
CONTROLLER_REVISIONS: Final = Kind("apps", "v1", "controllerrevisions", "controllerrevision", "ControllerRevision")
ENDPOINT_SLICES: Final = Kind(
    "discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice", counts_generation=True
)
DISRUPTION_BUDGETS: Final = Kind(
    "policy", "v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget", short_names=("pdb",),
    subresources=(_status("PodDisruptionBudget"),), counts_generation=True,
)  # fmt: skip
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases", "lease", "Lease")
CUSTOM_RESOURCE_DEFINITIONS: Final = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "customresourcedefinition", "CustomResourceDefinition",
    namespaced=False, short_names=("crd", "crds"), categories=("api-extensions",),
    subresources=(_status("CustomResourceDefinition"),), counts_generation=True,
)  # fmt: skip

KINDS: Final[tuple[Kind, ...]] = (
    CONFIG_MAPS, EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES,
    CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS,
    DISRUPTION_BUDGETS, LEASES, ENDPOINT_SLICES, CUSTOM_RESOURCE_DEFINITIONS,
)  # fmt: skip

_BY_PATH: Final = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}


def find_kind(group: str, version: str, plural: str) -> Kind | None:
    """The kind of a URL path among those that are always served; None for any other."""
    return _BY_PATH.get((group, version, plural))
