"""The objects a new lab starts with, as plain manifests: what kubeadm makes that matters here, and the DNS clients."""

from __future__ import annotations

from kdnsctl.lab import clients, images
from kdnsctl.lab.kubeclient import JSON
from kdnsctl.lab.network import API_PORT, DNS_ADDRESS, HUB_ADDRESS, POD_RANGE

COREDNS_VERSION = "v1.11.1"
COREDNS_REPLICAS = 2
_EVERYWHERE = [{"operator": "Exists"}]


def kube_proxy_config() -> JSON:
    """kube-proxy's ConfigMap; profiling is on, so that its verbosity can be changed at run time."""
    config = (
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\n"
        "kind: KubeProxyConfiguration\n"
        "mode: iptables\n"
        f"clusterCIDR: {POD_RANGE}\n"
        "metricsBindAddress: 127.0.0.1:10249\n"
        "enableProfiling: true\n"
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system", "labels": {"app": "kube-proxy"}},
        "data": {"config.conf": config},
    }


def kube_proxy(version: str, verbosity: int, *, as_json: bool = False) -> JSON:
    """The DaemonSet of kube-proxy, in the shape kubeadm gives it."""
    container = {
        "name": "kube-proxy",
        "image": f"{images.KUBE_PROXY}:{version}",
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "/usr/local/bin/kube-proxy",
            "--config=/var/lib/kube-proxy/config.conf",
            "--hostname-override=$(NODE_NAME)",
            f"--v={verbosity}",
            *(["--logging-format=json"] if as_json else []),
        ],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}}],
        "securityContext": {"privileged": True},
        "volumeMounts": [{"name": "kube-proxy", "mountPath": "/var/lib/kube-proxy"}],
    }
    return _daemon_set(
        "kube-system", "kube-proxy", {"k8s-app": "kube-proxy"},
        {
            "hostNetwork": True,
            "priorityClassName": "system-node-critical",
            "serviceAccountName": "kube-proxy",
            "tolerations": _EVERYWHERE,
            "containers": [container],
            "volumes": [{"name": "kube-proxy", "configMap": {"name": "kube-proxy"}}],
        },
    )  # fmt: skip


def _daemon_set(namespace: str, name: str, labels: dict[str, str], spec: JSON) -> JSON:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        },
    }


def coredns() -> JSON:
    """The Deployment of CoreDNS."""
    labels = {"k8s-app": "kube-dns"}
    container = {
        "name": "coredns",
        "image": f"{images.COREDNS}:{COREDNS_VERSION}",
        "imagePullPolicy": "IfNotPresent",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"containerPort": 53, "name": "dns", "protocol": "UDP"},
            {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181, "scheme": "HTTP"}, "periodSeconds": 2},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
        "spec": {
            "replicas": COREDNS_REPLICAS,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "dnsPolicy": "Default",
                    "terminationGracePeriodSeconds": 30,
                    "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
                    "containers": [container],
                },
            },
        },
    }


def kube_dns() -> JSON:
    """The DNS Service with its well-known address."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "clusterIP": DNS_ADDRESS,
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }


def kubernetes_service() -> tuple[JSON, JSON]:
    """The API's own Service and the EndpointSlice that the API server (not a controller) keeps for it."""
    service: JSON = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": API_PORT}],
        },
    }
    endpoint_slice: JSON = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [HUB_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
    }
    return service, endpoint_slice


def dns_clients() -> JSON:
    """On every node one client that holds its source port and one that never does, in a pod that a drain leaves."""

    def container(kind: str, port: int) -> JSON:
        return {
            "name": kind,
            "image": f"{images.DNS_CLIENT}:1",
            "imagePullPolicy": "IfNotPresent",
            "command": ["/dns-client", kind],
            "ports": [{"containerPort": port, "name": "counters", "protocol": "TCP"}],
        }

    return _daemon_set(
        "kdnsctl-lab", "dns-client", {"app": "dns-client"},
        {
            "tolerations": _EVERYWHERE,
            "terminationGracePeriodSeconds": 1,
            "containers": [container("fixed", clients.FIXED_HTTP), container("fresh", clients.FRESH_HTTP)],
        },
    )  # fmt: skip


def namespaces() -> list[str]:
    """Namespaces a lab starts with."""
    return ["default", "kube-system", "kube-public", "kube-node-lease", "kdnsctl-lab"]
