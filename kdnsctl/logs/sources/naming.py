"""Whose log a file is, told by its path: node, pod, container. Guesses are marked as guesses; nothing is opened.

Known places: the kubelet's `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` and
`/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` (Kubernetes, pkg/kubelet/kuberuntime), `/var/log/kube-proxy.log`
(GCE, kOps), and what people make of them when they copy logs: a directory a node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_POD_TREE = re.compile(
    r"(?:^|/)(?P<namespace>[a-z0-9-]+)_(?P<pod>[a-z0-9.-]+)_[A-Za-z0-9-]+/(?P<container>[a-z0-9-]+)/[^/]+$"
)
_CONTAINER_FILE = re.compile(
    r"(?:^|/)(?P<pod>[a-z0-9.-]+)_(?P<namespace>[a-z0-9-]+)_(?P<container>[a-z0-9-]+?)-[0-9a-f]{64}\.log[^/]*$"
)
_NODE_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$")
_DAEMONSET_SUFFIX = re.compile(r"(?P<owner>.+)-[bcdfghjklmnpqrstvwxz2456789]{5}$")
"""Pods of a DaemonSet end in five of these characters (k8s.io/apimachinery/pkg/util/rand)."""
_STATIC_POD = re.compile(r"kube-proxy-(?P<node>.+)$")
_LOG_SUFFIX = re.compile(
    r"\.(?:log|txt|json|jsonl|ndjson|out)(?:[.\-]\d[\w.\-]*|\.previous|\.old)?$|\.(?:previous|old)$"
)
_WORDS_OF_LOG_NAMES = re.compile(r"^kube-proxy[._-](?P<after>.+)$|^(?P<before>.+)[._-]kube-proxy$")
_GENERIC = frozenset(
    """
    kube-proxy kube_proxy kubeproxy proxy current previous log logs pods containers var tmp dump dumps evidence
    kube-system archive default host hostfs rootfs root node nodes data out output export stdout stderr
    """.split()  # noqa: SIM905 - read as prose, not as a column of thirty lines
)
"""Names of files and directories that are no node's."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream is from. `node` is "" when nothing says it; `node_from` says what did.

    `node_from`: "field" or "prefix" (the lines themselves), "flag" (kube-proxy's own --hostname-override), "path",
    "pod" (a static pod carries its node's name), "option" (--node), or "" for none.
    """

    node: str = ""
    node_from: str = ""
    pod: str = ""
    container: str = ""


def origin_of(path: str) -> Origin:
    """What a "/"-separated path tells; an Origin without anything when it tells nothing."""
    for pattern in (_POD_TREE, _CONTAINER_FILE):
        match = pattern.search(path)
        if match:
            before = path[: match.start()]
            node = _node_above_var_log(before)
            origin = Origin(node, "path" if node else "", match["pod"], match["container"])
            return origin if node else _by_static_pod(origin)
    node = _node_above_var_log(path) or _node_of_names(path)
    return Origin(node, "path" if node else "", _pod_of_file(path))


def _by_static_pod(origin: Origin) -> Origin:
    node = node_of_static_pod(origin.pod)
    return Origin(node, "pod", origin.pod, origin.container) if node else origin


def node_of_static_pod(pod: str) -> str:
    """The node of a static pod "kube-proxy-NODE", "" when the name is a DaemonSet pod's or no kube-proxy's."""
    match = _STATIC_POD.match(pod)
    if match is None or _DAEMONSET_SUFFIX.match(pod) or not _NODE_NAME.match(match["node"]):
        return ""
    return match["node"]


def is_kube_proxy(container: str) -> bool:
    """Whether a container of this name holds kube-proxy: under its own name, or inside openshift-sdn's "sdn"."""
    return "kube-proxy" in container or container == "sdn"


def _node_above_var_log(path: str) -> str:
    parts = path.split("/")
    for index in range(len(parts) - 1):
        if parts[index] == "var" and parts[index + 1] == "log":
            node = parts[index - 1] if index else ""
            if node in _GENERIC and index > 1:
                node = parts[index - 2]
            return node if node not in _GENERIC and _NODE_NAME.match(node) else ""
    return ""


def _node_of_names(path: str) -> str:
    """A node from `NODE/kube-proxy.log`, `kube-proxy-NODE.log` or `NODE-kube-proxy.log`, else ""."""
    folder, _, name = path.rpartition("/")
    stem = _stem(name)
    if stem in _GENERIC:
        parent = folder.rpartition("/")[2]
        return parent if parent not in _GENERIC and _NODE_NAME.match(parent) else ""
    match = _WORDS_OF_LOG_NAMES.match(stem)
    if match is None or _DAEMONSET_SUFFIX.match(stem):
        return ""
    node = match["after"] or match["before"]
    return node if node not in _GENERIC and _NODE_NAME.match(node) and not node.isdigit() else ""


def _pod_of_file(path: str) -> str:
    stem = _stem(path.rpartition("/")[2])
    return stem if stem.startswith("kube-proxy-") and _DAEMONSET_SUFFIX.match(stem) else ""


def _stem(name: str) -> str:
    while True:
        shorter = _LOG_SUFFIX.sub("", name)
        if shorter == name or not shorter:
            return name
        name = shorter
