"""The first objects of a lab: namespaces, nodes, and the DNS and kube-proxy workloads of kube-system.

Shapes follow the recordings (`api/nodes.json`, `daemonset-kube-proxy.json`, `configmap-kube-proxy.json`,
`service-kube-dns.json`); names, addresses and images are the caller's. Pods are not made here: the controllers make
them from the DaemonSet and the Deployment, and kubelets report their state.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kdnsctl.lab import kinds
from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import Store, timestamp

DNS_ADDRESS: Final = "10.96.0.10"
KUBELET_VERSION: Final = "v1.36.2"
_NODE_NAMESPACE: Final = uuid.UUID("8f5f7a0e-3d0f-4a39-9d52-9f0d8a0d1d5c")


@dataclass(frozen=True, slots=True)
class NodeSeed:
    """One node. `pod_cidr` "" leaves spec.podCIDR out, as on the recorded cluster."""

    name: str
    address: str
    pod_cidr: str = ""
    kernel: str = "6.18.44"
    os_image: str = "Debian GNU/Linux 12 (bookworm)"


@dataclass(frozen=True, slots=True)
class Images:
    """The images the workloads name; a kubelet stand-in knows what is in them."""

    kube_proxy: str = "registry.k8s.io/kube-proxy:v1.36.2"
    dns: str = "registry.k8s.io/coredns/coredns:v1.13.1"


def numbered_nodes(count: int) -> tuple[NodeSeed, ...]:
    """knode1 to knodeN with the addresses of the recorded cluster."""
    return tuple(
        NodeSeed(f"knode{number}", f"10.88.{number // 245}.{10 + number % 245}") for number in range(1, count + 1)
    )


def seed_cluster(
    store: Store,
    nodes: Sequence[NodeSeed],
    *,
    images: Images = Images(),
    dns_replicas: int = 2,
    proxy_config: str = "",
    proxy_verbosity: int = 2,
) -> None:
    """Fill an empty store. `proxy_config` "" means the recorded one (iptables mode)."""
    for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
        store.create(kinds.NAMESPACES, {"metadata": {"name": name}})
        store.create(kinds.SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
    for name in ("coredns", "kube-proxy"):
        store.create(kinds.SERVICE_ACCOUNTS, {"metadata": {"name": name, "namespace": "kube-system"}})
    for node in nodes:
        store.create(kinds.NODES, node_object(node, timestamp(store.clock())))
    for kind, obj in _workloads(images, dns_replicas, proxy_config or PROXY_CONFIG, proxy_verbosity):
        store.create(kind, obj)


def node_object(node: NodeSeed, now: str) -> JSON:
    """A ready node as its kubelet registers it. Ids are derived from the name, so that they are the same every time."""
    machine = uuid.uuid5(_NODE_NAMESPACE, node.name)
    conditions = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    resources = {"cpu": "2", "hugepages-1Gi": "0", "hugepages-2Mi": "0", "memory": "24684084Ki", "pods": "110"}
    return {
        "metadata": {
            "name": node.name,
            "labels": {
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
            },
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {"podCIDR": node.pod_cidr, "podCIDRs": [node.pod_cidr]} if node.pod_cidr else {},
        "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": [
                {
                    "type": type_,
                    "status": status,
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                    "reason": reason,
                    "message": message,
                }
                for type_, status, reason, message in conditions
            ],
            "addresses": [
                {"type": "InternalIP", "address": node.address},
                {"type": "Hostname", "address": node.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": machine.hex,
                "systemUUID": machine.hex,
                "bootID": str(uuid.uuid5(machine, "boot")),
                "kernelVersion": node.kernel,
                "osImage": node.os_image,
                "containerRuntimeVersion": "containerd://1.6.20",
                "kubeletVersion": KUBELET_VERSION,
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            "declaredFeatures": [
                "ExtendWebSocketsToKubelet",
                "InPlacePodLevelResourcesVerticalScaling",
                "InPlacePodVerticalScalingInitContainers",
                "RestartAllContainersOnContainerExits",
            ],
        },
    }


PROXY_CONFIG: Final = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: 10.244.0.0/16
metricsBindAddress: 127.0.0.1:10249
enableProfiling: false
conntrack: {maxPerCore: 0}
clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig}
"""
_PROXY_KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://10.88.0.1:6443", \
certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt}}]
users: [{name: u, user: {tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
_COREFILE: Final = """\
.:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    cache 30
    reload
}
"""


def _workloads(images: Images, dns_replicas: int, proxy_config: str, verbosity: int) -> Iterable[tuple[Kind, JSON]]:
    def meta(name: str, labels: JSON | None = None) -> JSON:
        return {"name": name, "namespace": "kube-system"} | ({"labels": labels} if labels else {})

    dns_labels = {"k8s-app": "kube-dns"}
    proxy_labels = {"k8s-app": "kube-proxy"}
    yield (
        kinds.CONFIG_MAPS,
        {
            "metadata": meta("kube-proxy", {"app": "kube-proxy"}),
            "data": {"config.conf": proxy_config, "kubeconfig": _PROXY_KUBECONFIG},
        },
    )
    yield kinds.CONFIG_MAPS, {"metadata": meta("coredns"), "data": {"Corefile": _COREFILE}}
    yield (
        kinds.SERVICES,
        {
            "metadata": meta("kube-dns", {**dns_labels, "kubernetes.io/name": "CoreDNS"}),
            "spec": {
                "ports": [
                    {"name": "dns", "protocol": "UDP", "port": 53},
                    {"name": "dns-tcp", "protocol": "TCP", "port": 53},
                ],
                "selector": dns_labels,
                "clusterIP": DNS_ADDRESS,
            },
        },
    )
    yield (
        kinds.DAEMON_SETS,
        {
            "metadata": meta("kube-proxy", proxy_labels),
            "spec": {
                "selector": {"matchLabels": proxy_labels},
                "template": {"metadata": {"labels": proxy_labels}, "spec": _proxy_pod(images.kube_proxy, verbosity)},
            },
        },
    )
    yield (
        kinds.DEPLOYMENTS,
        {
            "metadata": meta("coredns", dns_labels),
            "spec": {
                "replicas": dns_replicas,
                "selector": {"matchLabels": dns_labels},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": "25%"}},
                "template": {"metadata": {"labels": dns_labels}, "spec": _dns_pod(images.dns)},
            },
        },
    )


def _proxy_pod(image: str, verbosity: int) -> JSON:
    return {
        "volumes": [{"name": "c", "configMap": {"name": "kube-proxy"}}],
        "containers": [
            {
                "name": "kube-proxy",
                "image": image,
                "command": [
                    "/bin/kube-proxy",
                    "--config=/var/lib/kube-proxy/config.conf",
                    "--hostname-override=$(NODE_NAME)",
                    f"--v={verbosity}",
                ],
                "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                "volumeMounts": [{"name": "c", "mountPath": "/var/lib/kube-proxy"}],
                "securityContext": {"privileged": True},
            }
        ],
        "serviceAccountName": "kube-proxy",
        "hostNetwork": True,
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-node-critical",
    }


def _dns_pod(image: str) -> JSON:
    return {
        "volumes": [{"name": "c", "configMap": {"name": "coredns"}}],
        "containers": [
            {
                "name": "coredns",
                "image": image,
                "command": ["/coredns", "-conf", "/etc/coredns/Corefile"],
                "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                ],
                "volumeMounts": [{"name": "c", "mountPath": "/etc/coredns"}],
                "readinessProbe": {
                    "httpGet": {"path": "/health", "port": 8080},
                    "periodSeconds": 1,
                },
            }
        ],
        "serviceAccountName": "coredns",
        "terminationGracePeriodSeconds": 3,
        "dnsPolicy": "Default",
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
    }
