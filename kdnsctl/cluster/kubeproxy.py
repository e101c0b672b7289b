"""Where kube-proxy is on each node: in a pod, inside another process, nowhere by design, or missing.

`locate` is pure: lists in, exactly one `KubeProxy` per node out. `proxyload` does the asking. How kube-proxy is set up
is read in `proxyconfig`; what its log says is no business of this room.

Which distribution runs it how: kubeadm, EKS, AKS, Talos, Gardener and k0s as a DaemonSet with different labels; GKE,
kOps and RKE2 as a static pod; k3s, MicroK8s, Charmed Kubernetes and EKS Auto Mode inside a process of the node.
Cilium's replacement, OVN-Kubernetes, GKE's Dataplane V2, Calico's eBPF mode and kube-router do without; so do nodes
that are no machines (virtual kubelet, Fargate). Windows has a kube-proxy that has no conntrack.
"""

from __future__ import annotations

import enum
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kdnsctl.cluster.objects import Container, DaemonSet, Node, Pod

CONTAINER: Final = "kube-proxy"
NAMESPACES: Final = ("kube-system", "openshift-kube-proxy")
# Tried in this order: kubeadm and its kin, static pods and AKS, OpenShift and old add-ons, Gardener.
SELECTORS: Final = (("k8s-app", CONTAINER), ("component", CONTAINER), ("app", CONTAINER), ("role", "proxy"))
OPENSHIFT_SDN: Final = "openshift-sdn"  # kube-proxy's code ran inside its pods until 4.16


class Kind(enum.StrEnum):
    """How a node has its kube-proxy."""

    DAEMON_SET = "daemonSet"
    STATIC_POD = "staticPod"
    OTHER_POD = "pod"  # a pod that something else made
    EMBEDDED = "embedded"  # in a process of the node: there is no pod, and its log is in the node's journal
    ABSENT = "absent"  # by design: the node is `notApplicable`
    MISSING = "missing"  # it should have one: a fault


@dataclass(frozen=True, slots=True)
class PodPlace:
    """The pod, and the container in it, that is a node's kube-proxy."""

    namespace: str
    pod: str
    uid: str
    container: str
    image: str
    restarts: int
    running: bool
    owner: str = ""  # the name of the DaemonSet
    image_id: str = ""  # what the runtime calls the image that runs there


@dataclass(frozen=True, slots=True)
class KubeProxy:
    """A node's kube-proxy. `place` is set for the kinds that are pods; `why` says how the rest are known.

    `version` (`v1.29.7`) is that of the image's tag, or the kubelet's where both are one process; None when the image
    is named by digest, or by a tag that is no version. `unit` is the journal's unit of an embedded one.
    """

    node: str
    kind: Kind
    why: str = ""
    version: str | None = None
    place: PodPlace | None = None
    unit: str = ""

    @property
    def applicable(self) -> bool:
        """Whether a kube-proxy is to be expected here."""
        return self.kind is not Kind.ABSENT


@dataclass(frozen=True, slots=True)
class Replacement:
    """What handles Services on the nodes instead of kube-proxy; `sure` when its own settings say so."""

    name: str
    sure: bool


def locate(
    nodes: Sequence[Node] | None,
    pods: Iterable[Pod],
    daemon_sets: Iterable[DaemonSet] = (),
    configs: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, KubeProxy]:
    """One `KubeProxy` for each node, by name, in the order of `nodes`.

    `nodes` None: they cannot be listed; then the answer has the nodes of the pods found, and no others. `pods` may be
    any pods, those of kube-proxy among them. `configs` are the data of ConfigMaps that could be read, by
    `namespace/name`: `kube-system/cilium-config` tells whether Cilium replaces kube-proxy.
    """
    found: dict[str, list[tuple[Pod, Container]]] = defaultdict(list)
    for pod in pods:
        container = kube_proxy_container(pod)
        if container and pod.spec.node_name:
            found[pod.spec.node_name].append((pod, container))
    if nodes is None:
        return {name: _in_pod(name, found[name]) for name in sorted(found)}
    sets = list(daemon_sets)
    replacement = replaced_by(sets, configs or {})
    workload = next((one for one in sets if _is_kube_proxy_set(one)), None)
    return {
        node.metadata.name: _of_node(node, found.get(node.metadata.name, []), replacement, workload) for node in nodes
    }


def kube_proxy_container(pod: Pod) -> Container | None:
    """The container of a pod that is kube-proxy, if one is: by its name, else by the pod's labels and its own image."""
    named = [container for container in pod.spec.containers if container.name == CONTAINER]
    if named:
        return named[0]
    if pod.metadata.namespace == OPENSHIFT_SDN and pod.metadata.labels.get("app") == "sdn":
        return next((container for container in pod.spec.containers if container.name == "sdn"), None)
    if pod.metadata.namespace in NAMESPACES and any(pod.metadata.labels.get(key) == name for key, name in SELECTORS):
        alike = [container for container in pod.spec.containers if "kube-proxy" in container.image]
        return alike[0] if alike else None
    return None


def version_of(image: str) -> str | None:
    """The Kubernetes version in an image's tag: `…/eks/kube-proxy:v1.29.0-minimal-eksbuild.1` is v1.29.0."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    match = re.match(r"v?(\d+\.\d+\.\d+)(?![\d.])", tag)
    return f"v{match[1]}" if match else None


def replaced_by(sets: Iterable[DaemonSet], configs: Mapping[str, Mapping[str, str]]) -> Replacement | None:
    """What replaces kube-proxy in this cluster, judged by the DaemonSets there are; None when nothing is known to."""
    guesses: list[Replacement] = []
    for one in sets:
        name, namespace = one.metadata.name, one.metadata.namespace
        if name == "anetd":
            guesses.append(Replacement("GKE Dataplane V2", sure=True))
        elif name in ("ovnkube-node", "ovnkube-node-dpu"):
            guesses.append(Replacement("OVN-Kubernetes", sure=True))
        elif name == "cilium" or one.metadata.labels.get("k8s-app") == "cilium":
            guesses += _cilium(configs.get(f"{namespace}/cilium-config"))
        elif name == "calico-node" and _variable(one, "FELIX_BPFENABLED") == "true":
            guesses.append(Replacement("Calico in eBPF mode", sure=True))
        elif name == "kube-router" and "--run-service-proxy=false" not in _words(one):
            guesses.append(Replacement("kube-router", sure=True))
    return max(guesses, key=lambda guess: guess.sure, default=None)


def _cilium(config: Mapping[str, str] | None) -> list[Replacement]:
    """Cilium by its ConfigMap: `true` since 1.14, `strict` and `partial` before (docs.cilium.io, kube-proxy-free)."""
    if config is None:
        return [Replacement("Cilium (its settings cannot be read)", sure=False)]
    asked = config.get("kube-proxy-replacement", "")
    return [Replacement("Cilium's kube-proxy replacement", sure=True)] if asked in ("true", "strict") else []


def _of_node(
    node: Node,
    pods: list[tuple[Pod, Container]],
    replacement: Replacement | None,
    workload: DaemonSet | None,
) -> KubeProxy:
    name, labels = node.metadata.name, node.metadata.labels
    kubelet = node.status.node_info.kubelet_version
    if node.os == "windows":
        return KubeProxy(name, Kind.ABSENT, "Windows: its kube-proxy has no conntrack table")
    virtual = _virtual(node)
    if virtual:
        return KubeProxy(name, Kind.ABSENT, virtual)
    if pods:
        return _in_pod(name, pods)
    if replacement and replacement.sure:
        return KubeProxy(name, Kind.ABSENT, f"{replacement.name} handles Services")
    embedded = _embedded(labels, kubelet)
    if embedded:
        what, unit = embedded
        return KubeProxy(name, Kind.EMBEDDED, f"part of {what}", version_of(f":{kubelet}"), unit=unit)
    if replacement and workload is None:
        return KubeProxy(
            name, Kind.ABSENT, f"{replacement.name} seems to handle Services: there is no kube-proxy at all"
        )
    return KubeProxy(name, Kind.MISSING, _why_missing(node, workload))


def _virtual(node: Node) -> str:
    labels = node.metadata.labels
    if labels.get("eks.amazonaws.com/compute-type") == "fargate":
        return "Fargate: no machine of its own"
    if labels.get("type") == "virtual-kubelet" or any(
        taint.key == "virtual-kubelet.io/provider" for taint in node.spec.taints
    ):
        return "virtual kubelet: no machine of its own"
    return ""


def _embedded(labels: Mapping[str, str], kubelet: str) -> tuple[str, str] | None:
    """In which process, and in which unit's journal."""
    if "+k3s" in kubelet:
        unit = "k3s" if "node-role.kubernetes.io/control-plane" in labels else "k3s-agent"
        return "k3s", unit
    if "microk8s.io/cluster" in labels:
        return "MicroK8s' kubelite", "snap.microk8s.daemon-kubelite"
    if "juju-application" in labels:
        return "Charmed Kubernetes, as a snap", "snap.kube-proxy.daemon"
    if labels.get("eks.amazonaws.com/compute-type") == "auto":
        return "EKS Auto Mode's node", "kube-proxy"
    return None


def _why_missing(node: Node, workload: DaemonSet | None) -> str:
    if "+rke2" in node.status.node_info.kubelet_version:
        return "RKE2 runs kube-proxy as a static pod, and this node has none"
    if workload is None:
        return "no kube-proxy pod, and no DaemonSet that would make one"
    which = f"DaemonSet {workload.metadata.namespace}/{workload.metadata.name}"
    for key, value in workload.spec.template.spec.node_selector.items():
        if node.metadata.labels.get(key) != value:
            return f"{which} leaves this node out: it has no label {key}={value}"
    return f"{which} has no pod here"


def _in_pod(node: str, pods: list[tuple[Pod, Container]]) -> KubeProxy:
    """The pod that counts: one that stays before one that goes, running before not, new before old."""
    pod, container = max(pods, key=lambda pair: _standing(pair[0]))
    status = pod.container_status(container.name)
    owner = pod.metadata.controller
    if pod.static:
        kind = Kind.STATIC_POD
    elif owner and owner.kind == "DaemonSet":
        kind = Kind.DAEMON_SET
    else:
        kind = Kind.OTHER_POD
    place = PodPlace(
        namespace=pod.metadata.namespace,
        pod=pod.metadata.name,
        uid=pod.metadata.uid,
        container=container.name,
        image=container.image,
        restarts=status.restart_count if status else 0,
        running=bool(status and status.state.running),
        owner=owner.name if owner and kind is Kind.DAEMON_SET else "",
        image_id=status.image_id if status else "",
    )
    version = version_of(container.image) or (version_of(status.image) if status else None)
    return KubeProxy(node, kind, "" if place.running else _why_not_running(pod, container), version, place)


def _standing(pod: Pod) -> tuple[bool, bool, float]:
    made = pod.metadata.creation_timestamp
    return (
        pod.metadata.deletion_timestamp is None,
        pod.status.phase == "Running",
        made.timestamp() if made else 0.0,
    )


def _why_not_running(pod: Pod, container: Container) -> str:
    status = pod.container_status(container.name)
    if status and status.state.waiting:
        return f"its container waits: {status.state.waiting.reason or 'no reason given'}"
    if status and status.state.terminated:
        return f"its container has ended with exit code {status.state.terminated.exit_code}"
    return f"its pod is {pod.status.phase or 'in no known phase'}"


def _is_kube_proxy_set(one: DaemonSet) -> bool:
    return any(container.name == CONTAINER for container in one.spec.template.spec.containers) and not any(
        "windows" in value for value in (one.metadata.name, *one.spec.template.spec.node_selector.values())
    )


def _variable(one: DaemonSet, name: str) -> str:
    for container in one.spec.template.spec.containers:
        for variable in container.env:
            if variable.name == name:
                return variable.value.lower()
    return ""


def _words(one: DaemonSet) -> list[str]:
    return [word for container in one.spec.template.spec.containers for word in (*container.command, *container.args)]
