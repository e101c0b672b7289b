"""Asking the API for what `kubeproxy.locate` judges: as few pods as possible, and what stands in for kube-proxy.

A cluster of 5,000 nodes has tens of thousands of pods in kube-system, so they are asked for by label, one kind of label
after the other, until every node that needs a kube-proxy has one; all pods only when some have none. Other namespaces
are asked only where a DaemonSet stands in them, or where that cannot be known. What may not be read is noted and gone
without, but for the pods themselves: a ForbiddenError for those is the caller's to handle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import ApiError, ForbiddenError, NotFoundError
from kdnsctl.cluster.kubeproxy import (
    NAMESPACES,
    OPENSHIFT_SDN,
    SELECTORS,
    Kind,
    KubeProxy,
    kube_proxy_container,
    locate,
)
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import ConfigMap, DaemonSet, Node, Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.proxyconfig import ProxyConfig, config_file, configuration
from kdnsctl.cluster.transport import Connection

LIST_NODES = Permission(
    "list", "nodes", without="only nodes that are named or have a kube-proxy pod are seen: the scope is partial"
)
NEEDED = (
    LIST_NODES,
    Permission("list", "pods", namespace="kube-system", without="kube-proxy is found on no node: they are unknown"),
)
HELPFUL = (
    Permission(
        "list", "daemonsets", group="apps", without="what replaces kube-proxy is not known: its nodes are unknown"
    ),
    Permission(
        "get",
        "configmaps",
        namespace="kube-system",
        name="cilium-config",
        without="with Cilium: whether it replaces kube-proxy is not known",
    ),
)

KUBE_SYSTEM = NAMESPACES[0]

# Without a pod, what else the cluster runs decides: k3s can have its own kube-proxy turned off for Cilium's
# replacement.
IN_QUESTION = (Kind.MISSING, Kind.EMBEDDED)


@dataclass(frozen=True, slots=True)
class Discovery:
    """Every node's kube-proxy by the node's name, their pods by uid, and what could not be read, for the output."""

    proxies: dict[str, KubeProxy]
    pods: dict[str, Pod]
    notes: tuple[str, ...]


def list_nodes(connection: Connection, *, scope: CancelScope, labels: str | None = None) -> Sequence[Node]:
    """All nodes, or those that a label selector names. Raises as `list_all`; ForbiddenError: the scope is partial."""
    return list_all(connection, "/api/v1/nodes", Node, labels=labels, scope=scope).items


def discover(connection: Connection, nodes: Sequence[Node] | None, *, scope: CancelScope) -> Discovery:
    """Where kube-proxy is on `nodes` (None: they cannot be listed; then on whatever nodes its pods are)."""
    notes: list[str] = []
    pods: dict[str, Pod] = {}

    def located(
        sets: Sequence[DaemonSet] = (), configs: dict[str, dict[str, str]] | None = None
    ) -> dict[str, KubeProxy]:
        return locate(nodes, pods.values(), sets, configs)

    def complete() -> bool:
        return nodes is not None and all(proxy.kind not in IN_QUESTION for proxy in located().values())

    def look(namespace: str, labels: str | None = None) -> None:
        found = _pods(connection, namespace, labels, notes, scope)
        pods.update({pod.metadata.uid: pod for pod in found if kube_proxy_container(pod)})

    sets: Sequence[DaemonSet] = ()
    everywhere = False  # whether `sets` are those of all namespaces
    for namespace in NAMESPACES:
        if namespace != KUBE_SYSTEM:
            sets, everywhere = _daemon_sets(connection, notes, scope)
            if everywhere and not _stands_in(namespace, sets):
                continue
        for key, value in SELECTORS:
            look(namespace, f"{key}={value}")
            if complete():
                return Discovery(located(), pods, tuple(notes))
        if nodes is None and pods:
            return Discovery(located(), pods, tuple(notes))
    configs = _cilium_configs(connection, sets, notes, scope)
    proxies = located(sets, configs)
    if any(proxy.kind is Kind.MISSING for proxy in proxies.values()) or (nodes is None and not pods):
        look(KUBE_SYSTEM)
        if not everywhere or _stands_in(OPENSHIFT_SDN, sets):
            look(OPENSHIFT_SDN)
        proxies = located(sets, configs)
    return Discovery(proxies, pods, tuple(notes))


class ConfigReader:
    """The settings of kube-proxies, as far as readable; each ConfigMap is read once. `notes` has what cannot be."""

    def __init__(self, connection: Connection, scope: CancelScope) -> None:
        self._connection = connection
        self._scope = scope
        self._maps: dict[str, Mapping[str, str] | None] = {}
        self.notes: list[str] = []

    def of(self, pod: Pod) -> ProxyConfig | None:
        """Those of the kube-proxy in `pod`; None when it has none."""
        container = kube_proxy_container(pod)
        if container is None:
            return None
        file = config_file(pod.spec, container)
        if file is None:
            return configuration(container, None)
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/configmaps/{file.config_map}"
        if path not in self._maps:
            self._maps[path] = self._read(path)
        return configuration(container, self._maps[path], file.key)

    def _read(self, path: str) -> Mapping[str, str] | None:
        try:
            return self._connection.get(path, ConfigMap, scope=self._scope).data
        except (ForbiddenError, NotFoundError) as error:
            self.notes.append(f"kube-proxy's configuration cannot be read: {error}")
            return None


def read_config(connection: Connection, pod: Pod, *, scope: CancelScope) -> ProxyConfig | None:
    """The settings of the kube-proxy in `pod`, as far as they can be read; None when the pod has none."""
    return ConfigReader(connection, scope).of(pod)


def _pods(
    connection: Connection, namespace: str, labels: str | None, notes: list[str], scope: CancelScope
) -> Sequence[Pod]:
    try:
        return list_all(connection, f"/api/v1/namespaces/{namespace}/pods", Pod, labels=labels, scope=scope).items
    except ForbiddenError as error:
        if namespace == KUBE_SYSTEM:
            raise
        _note(notes, f"pods in {namespace} may not be listed: {error}")
        return ()


def _stands_in(namespace: str, sets: Sequence[DaemonSet]) -> bool:
    return any(one.metadata.namespace == namespace for one in sets)


def _daemon_sets(connection: Connection, notes: list[str], scope: CancelScope) -> tuple[Sequence[DaemonSet], bool]:
    """The DaemonSets that may be listed, and whether those are all."""
    try:
        return list_all(connection, "/apis/apps/v1/daemonsets", DaemonSet, scope=scope).items, True
    except ForbiddenError as error:
        _note(notes, f"DaemonSets may not be listed everywhere: {error}")
    try:
        path = f"/apis/apps/v1/namespaces/{KUBE_SYSTEM}/daemonsets"
        return list_all(connection, path, DaemonSet, scope=scope).items, False
    except ForbiddenError as error:
        _note(notes, f"whether something replaces kube-proxy is not known: {error}")
        return (), False


def _cilium_configs(
    connection: Connection, sets: Sequence[DaemonSet], notes: list[str], scope: CancelScope
) -> dict[str, dict[str, str]]:
    configs: dict[str, dict[str, str]] = {}
    for one in sets:
        if one.metadata.name == "cilium" or one.metadata.labels.get("k8s-app") == "cilium":
            where = f"{one.metadata.namespace}/cilium-config"
            path = f"/api/v1/namespaces/{one.metadata.namespace}/configmaps/cilium-config"
            try:
                configs[where] = connection.get(path, ConfigMap, scope=scope).data
            except (ForbiddenError, NotFoundError) as error:
                _note(notes, f"whether Cilium replaces kube-proxy is not known: {_short(error)}")
    return configs


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def _short(error: ApiError) -> str:
    return error.failure.message or str(error)
