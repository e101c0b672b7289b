"""Whose log a file is, told by its path alone: node, pod, container. Nothing is opened, and a guess is marked as one.

Known are the places of the kubelet and of the usual setups, and the layouts of the usual collectors:

    NODE/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log      the kubelet (pkg/kubelet/kuberuntime), a copy of /var/log
    NODE/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log   the same
    NODE/pods/…, NODE/containers/…                           `kind export logs`
    NODE/var/log/kube-proxy.log                              GCE, kOps
    var_log/POD_NAMESPACE_CONTAINER-ID.log                   eks-log-collector.sh; the node is not in the path
    namespaces/NS/pods/POD/CONTAINER/CONTAINER/logs/…        `oc adm must-gather`, `oc adm inspect`
    NS/POD/logs.txt                                          `kubectl cluster-info dump --output-directory`
    cluster-info/NS/podlogs/POD/kubectl_…_-c_CONTAINER       sos report, plugin kubernetes
    rke2/podlogs/NS-POD, NS-POD-previous                     Rancher's log collector
    NODE/kube-proxy.log, kube-proxy-NODE.log, NODE-kube-proxy.log, kube-proxy-x7x2p.log   people
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a stream is from. `node` is "" when nothing says it; `node_from` says what did.

    `node_from`: "field" or "prefix" (the lines themselves), "flag" (kube-proxy's own --hostname-override), "path",
    "pod" (a static pod carries its node's name), "option" (--node), or "" for none.

    `container` is what a layout says, and layouts do not lie. `component` is what a mere file name says: whatever is in
    `kubelet.log` is probably the kubelet's. Both are "" when nothing says it. `folder` is the place among the path's
    names of the folder whose mere name is taken for the node's, -1 when it is something better; see `is_guess`.
    """

    node: str = ""
    node_from: str = ""
    pod: str = ""
    container: str = ""
    component: str = ""
    folder: int = field(default=-1, compare=False)

    @property
    def is_kube_proxys(self) -> bool:
        """Whether the path says that this is a log of kube-proxy."""
        return is_kube_proxy(self.container or self.component)

    @property
    def is_anothers(self) -> bool:
        """Whether a layout says that this is another container's log."""
        return bool(self.container) and not is_kube_proxy(self.container)


def origin_of(path: str) -> Origin:
    """What a "/"-separated path tells; an Origin without anything when it tells nothing."""
    for layout in (_kubelets, _must_gather, _sos, _rancher, _cluster_info_dump):
        origin = layout(path)
        if origin is not None:
            return origin
    return _peoples(path)


def is_guess(origin: Origin, path: str, arguments: Iterable[str]) -> bool:
    """Whether the node is the name of a folder that says little: home/ops/kube-proxy.log is not node ops's.

    Below a directory or glob that somebody gave, folders are how logs are told apart. The name of what was given, and
    what stands above it, is what somebody calls his work.
    """
    if origin.folder < 0 or origin.node_from != "path":
        return False
    names = path.split("/")
    for argument in arguments:
        given = [name for at, name in enumerate(argument.split("/")) if name not in ("", ".") or (at == 0 and not name)]
        literal = next((at for at, name in enumerate(given) if _WILDCARD.search(name)), len(given))
        for root in (given, given[:literal]):
            if len(root) <= origin.folder and _leads_to(root, names):
                return False
    return True


_WILDCARD = re.compile(r"[*?\[]")


def _leads_to(root: list[str], names: list[str]) -> bool:
    """Whether a path begins with the root; what is in an archive has its name without the suffixes."""
    if not root:
        return True
    last = names[len(root) - 1]
    return names[: len(root) - 1] == root[:-1] and (root[-1] == last or root[-1].startswith(f"{last}."))


def run_of(path: str, pod: str) -> str:
    """Names the one kube-proxy whose log a path is: the same for all files of a pod, or of a log that was rotated.

    Static pods keep their name for life, through upgrades; the UID or the container id tells them apart.
    """
    match = _POD_TREE.search(path) or _CONTAINER_FILE.search(path)
    if match is not None and match["pod"] == pod:
        unique = match["id"]
        return pod if _GENERATED_NAME.match(pod) and not _STATIC_UID.match(unique) else f"{pod} {unique}"
    if pod:
        return pod
    folder, _, name = path.rpartition("/")
    return f"{folder}/{_stem(name)}"


def node_of_static_pod(pod: str) -> str:
    """The node of a static pod "kube-proxy-NODE", "" when the name is a DaemonSet pod's or no kube-proxy's."""
    return "" if _GENERATED_NAME.match(pod) else _node_in_static_pod(pod)


def is_kube_proxy(container: str) -> bool:
    """Whether a container of this name holds kube-proxy: under its own name, or inside openshift-sdn's "sdn"."""
    return "kube-proxy" in container or container == "sdn"


# Layouts. Each takes a path and gives an Origin, or None when the path is not laid out so.

_POD_TREE = re.compile(
    r"(?:^|/)(?P<namespace>[a-z0-9-]+)_(?P<pod>[a-z0-9.-]+)_(?P<id>[A-Za-z0-9-]+)/(?P<container>[a-z0-9-]+)/[^/]+$"
)
_CONTAINER_FILE = re.compile(
    r"(?:^|/)(?P<pod>[a-z0-9.-]+)_(?P<namespace>[a-z0-9-]+)_(?P<container>[a-z0-9-]+?)-(?P<id>[0-9a-f]{64})\.log[^/]*$"
)
_STATIC_UID = re.compile(r"[0-9a-f]{32}$")
"""The kubelet names a static pod by a hash of its manifest; the API server gives dashed UUIDs (pkg/kubelet/config)."""


def _kubelets(path: str) -> Origin | None:
    match = _POD_TREE.search(path) or _CONTAINER_FILE.search(path)
    if match is None:
        return None
    pod, uid = match["pod"], match["id"]
    node, node_from = _above_tree(path[: match.start()]), "path"
    if not node:
        node = _node_in_static_pod(pod) if _STATIC_UID.match(uid) else node_of_static_pod(pod)
        node_from = "pod" if node else ""
    return Origin(node, node_from, pod, match["container"])


_MUST_GATHER = re.compile(
    r"(?:^|/)namespaces/[a-z0-9-]+/pods/(?P<pod>[a-z0-9.-]+)/(?P<container>[a-z0-9-]+)/(?:[a-z0-9-]+/)?logs/.+$"
)


def _must_gather(path: str) -> Origin | None:
    match = _MUST_GATHER.search(path)
    return _of_pod(match["pod"], match["container"]) if match else None


_SOS = re.compile(r"(?:^|/)podlogs/(?P<pod>[a-z0-9.-]+)/[^/]*_-c_(?P<container>[a-z0-9-]+)$")


def _sos(path: str) -> Origin | None:
    match = _SOS.search(path)
    return _of_pod(match["pod"], match["container"]) if match else None


_RANCHER = re.compile(r"(?:^|/)(?P<distribution>[a-z0-9]+)/podlogs/(?P<name>[^/]+?)(?:-previous)?$")


def _rancher(path: str) -> Origin | None:
    match = _RANCHER.search(path)
    if match is None:
        return None
    # NAMESPACE-POD: which dash parts them cannot be told, but kube-proxy's pods can be.
    pod = re.search(r"(?:^|-)(kube-proxy-.+)$", match["name"])
    if pod is None:
        return Origin(component=match["name"])
    if match["distribution"] == "rke2" and (node := _node_in_static_pod(pod[1])):
        return Origin(node, "pod", pod[1], component="kube-proxy")  # always a static pod there
    return _of_pod(pod[1], component="kube-proxy")


_DUMP = re.compile(r"(?:^|/)(?P<namespace>[a-z0-9-]+)/(?P<pod>[a-z0-9.-]+)/logs\.txt$")


def _cluster_info_dump(path: str) -> Origin | None:
    match = _DUMP.search(path)
    if match is None or not (match["namespace"] == "kube-system" or _GENERATED_NAME.match(match["pod"])):
        return None
    pod = match["pod"]
    return _of_pod(pod, component="kube-proxy" if "kube-proxy" in pod else pod)


def _of_pod(pod: str, container: str = "", component: str = "") -> Origin:
    node = node_of_static_pod(pod)
    return Origin(node, "pod" if node else "", pod, container, component)


# What people call files

_GENERIC = frozenset(
    """
    kube-proxy kube_proxy kubeproxy proxy current previous log logs pods containers var var_log tmp dump dumps evidence
    kube-system archive default host hostfs rootfs root node nodes data out output export stdout stderr podlogs
    containerlogs rotated before after old new last all errors
    """.split()  # noqa: SIM905 - read as prose, not as a column of thirty lines
)
"""Names of files and directories that are no node's."""
_LOG_SUFFIX = re.compile(
    r"\.(?:log|txt|json|jsonl|ndjson|out)(?:[.\-]\d[\w.\-]*|\.previous|\.old)?$|[._-](?:previous|prev|current)$|\.old$"
)
_KUBE_PROXY_IN_NAME = re.compile(r"^kube-proxy[._-](?P<after>.+)$|^(?P<before>.+)[._-]kube-proxy$")
_POD_IN_NAME = re.compile(r"(?:^|[._-])(?P<pod>(?:openshift-)?kube-proxy-(?:.+-)?[bcdfghjklmnpqrstvwxz2456789]{5})$")
_KUBE_PROXY = re.compile(r"kube[_-]?proxy")
_OTHERS = re.compile(
    r"(?:^|[._-])(?P<component>kubelet|kube-apiserver|kube-controller-manager|cloud-controller-manager|kube-scheduler|"
    r"etcd|coredns|kube-dns|containerd|crio|docker|dockerd|konnectivity|cluster-autoscaler|node-problem-detector|"
    r"aws-node|calico-node|cilium|flannel)(?:$|[._-])"
)


def _peoples(path: str) -> Origin:
    folder, _, name = path.rpartition("/")
    stem = _stem(name)
    component = _component(stem, folder)
    node = _above_var(path)
    if node:
        return Origin(node, "path", _pod_in(stem), component=component)
    if _is_generic(stem):
        return _by_folder(folder, component)
    pod = _pod_in(stem)
    if pod:
        return Origin(pod=pod, component=component)
    match = _KUBE_PROXY_IN_NAME.match(stem)
    node = _as_node(match["after"] or match["before"]) if match else ""
    return Origin(node, "path" if node else "", component=component)


def _by_folder(folder: str, component: str) -> Origin:
    """From `NODE/kube-proxy.log`, `NODE/kube-proxy/0.log` or `POD/current.log`."""
    above, _, parent = folder.rpartition("/")
    place = folder.count("/")
    if parent == "kube-proxy":
        parent = above.rpartition("/")[2]
        place -= 1
    pod = _pod_in(parent)
    if pod:
        return Origin(pod=pod, component=component)
    if node := _node_in_static_pod(parent):
        return Origin(node, "pod", parent, component=component)
    node = _as_node(parent)
    return Origin(node, "path", component=component, folder=place) if node else Origin(component=component)


def _component(stem: str, folder: str) -> str:
    if _KUBE_PROXY.search(stem) or (_is_generic(stem) and _KUBE_PROXY.search(folder.rpartition("/")[2])):
        return "kube-proxy"
    match = _OTHERS.search(stem)
    return match["component"] if match else ""


def _pod_in(stem: str) -> str:
    """The pod of a DaemonSet in the name of a file or folder."""
    match = _POD_IN_NAME.search(stem)
    return match["pod"] if match else ""


def _is_generic(stem: str) -> bool:
    return stem in _GENERIC or stem.isdigit()


def _stem(name: str) -> str:
    while True:
        shorter = _LOG_SUFFIX.sub("", name)
        if shorter == name or not shorter:
            return name
        name = shorter


# Nodes

_GENERATED_NAME = re.compile(r".+-[bcdfghjklmnpqrstvwxz2456789]{5}$")
"""Pods of a DaemonSet end in five of these characters (k8s.io/apimachinery/pkg/util/rand)."""
_STATIC_POD = re.compile(r"kube-proxy-(?P<node>.+)$")
_NODE_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$")
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}$")
_VERSION = re.compile(r"v\d+(?:\.\d+)*$")
_SOS_FOLDER = re.compile(r"sosreport-(?P<host>.+?)(?:-\d{6,8})?-\d{4}-\d\d-\d\d-[a-z]{7}$")
"""sosreport-HOST[-CASE]-DATE-RANDOM; a label between host and case number cannot be told from the host."""


def _as_node(text: str) -> str:
    """`text` if it can be a node's name, else "". Dates, numbers and versions are nobody's name."""
    sos = _SOS_FOLDER.match(text)
    if sos:
        text = sos["host"]
    if text in _GENERIC or not _NODE_NAME.match(text) or _VERSION.match(text):
        return ""
    return text if _IPV4.match(text) or any(character.isalpha() for character in text) else ""


def _node_in_static_pod(pod: str) -> str:
    match = _STATIC_POD.match(pod)
    return _as_node(match["node"]) if match else ""


def _above_tree(above: str) -> str:
    """The node from what stands above a tree of the kubelet's; "" when there is none, or it is not a tree's place."""
    parts = above.split("/")
    if parts[-1] not in ("pods", "containers", "var_log"):
        return ""
    parts.pop()
    for known in ("log", "var"):
        if parts and parts[-1] == known:
            parts.pop()
    return _last_node(parts)


def _above_var(path: str) -> str:
    parts = path.split("/")
    for index in range(len(parts) - 1):
        if parts[index] == "var" and parts[index + 1] in ("log", "lib"):
            return _last_node(parts[:index])
    return ""


def _last_node(parts: list[str]) -> str:
    """The last of `parts`, or, where a copy of a whole file system lies in a folder called "host" or so, the one above.

    Never further: everything lies below somebody's home in the end.
    """
    while parts and parts[-1] in ("host", "hostfs", "rootfs", "root"):
        parts = parts[:-1]
    return _as_node(parts[-1]) if parts else ""
