"""Whose log a path says it is: real layouts, what people call files, and what must not pass for a node's name."""

# ruff: noqa: E501 - a path stays on one line, beside what it says

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.logs.sources.naming import Origin, is_kube_proxy, node_of_static_pod, origin_of

UUID = "6c1f0c1e-94f5-4c1b-9a7e-0f6f2a1f8b11"
HASH = "6c1f0c1e94f54c1b9a7e0f6f2a1f8b11"
ID = "4f8e1d9c" * 8
PROXY_TREE = f"pods/kube-system_kube-proxy-x7x2p_{UUID}/kube-proxy"
PROXY_FILE = f"kube-proxy-x7x2p_kube-system_kube-proxy-{ID}.log"


@pytest.mark.parametrize(
    ("path", "node", "pod", "container"),
    [
        # the kubelet's trees, on the node itself and copied
        (f"/var/log/{PROXY_TREE}/0.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"var/log/{PROXY_TREE}/0.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"/host/var/log/{PROXY_TREE}/0.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"/root/var/log/{PROXY_TREE}/0.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"node-a/var/log/{PROXY_TREE}/0.log", "node-a", "kube-proxy-x7x2p", "kube-proxy"),
        (f"logs/node-a/var/log/{PROXY_TREE}/0.log.20240606-164946", "node-a", "kube-proxy-x7x2p", "kube-proxy"),
        (f"/tmp/x/node-a/host/var/log/{PROXY_TREE}/12.log", "node-a", "kube-proxy-x7x2p", "kube-proxy"),
        (f"node-a/rootfs/var/log/{PROXY_TREE}/0.log", "node-a", "kube-proxy-x7x2p", "kube-proxy"),
        (f"ip-10-0-0-1.ec2.internal/var/log/containers/{PROXY_FILE}", "ip-10-0-0-1.ec2.internal", "kube-proxy-x7x2p", "kube-proxy"),
        (f"10.176.48.67/var/log/containers/{PROXY_FILE}", "10.176.48.67", "kube-proxy-x7x2p", "kube-proxy"),
        (f"/var/log/containers/{PROXY_FILE}", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"logs/{PROXY_TREE}/0.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"node-a/log/{PROXY_TREE}/0.log", "node-a", "kube-proxy-x7x2p", "kube-proxy"),
        (f"node-a/var/log/pods/kube-system_coredns-76f75df574-8kqhz_{UUID}/coredns/0.log", "node-a", "coredns-76f75df574-8kqhz", "coredns"),
        (f"node-a/var/log/containers/etcd-m1_kube-system_etcd-{ID}.log", "node-a", "etcd-m1", "etcd"),
        # static pods carry their node's name; the kubelet's uid of one is a hash without dashes
        (f"/var/log/pods/kube-system_kube-proxy-worker-1_{HASH}/kube-proxy/0.log", "worker-1", "kube-proxy-worker-1", "kube-proxy"),
        (f"/var/log/pods/kube-system_kube-proxy-rke2-md-0-h5x2k_{HASH}/kube-proxy/0.log", "rke2-md-0-h5x2k", "kube-proxy-rke2-md-0-h5x2k", "kube-proxy"),
        (f"/var/log/containers/kube-proxy-gke-c1-default-pool-1a2b3c4d-x1yz_kube-system_kube-proxy-{ID}.log", "gke-c1-default-pool-1a2b3c4d-x1yz", "kube-proxy-gke-c1-default-pool-1a2b3c4d-x1yz", "kube-proxy"),
        # Gardener, OpenShift
        (f"/var/log/pods/kube-system_kube-proxy-worker-kkfk1-v1.30.3-x7x2p_{UUID}/kube-proxy/0.log", "", "kube-proxy-worker-kkfk1-v1.30.3-x7x2p", "kube-proxy"),
        (f"n1/var/log/pods/openshift-sdn_sdn-9p4vf_{UUID}/sdn/0.log", "n1", "sdn-9p4vf", "sdn"),
        # kind export logs
        (f"kind-logs/kind-worker/{PROXY_TREE}/0.log", "kind-worker", "kube-proxy-x7x2p", "kube-proxy"),
        (f"kind-logs/kind-worker/containers/{PROXY_FILE}", "kind-worker", "kube-proxy-x7x2p", "kube-proxy"),
        # eks-log-collector: the folder has the instance's id, not the node's name
        (f"eks_i-0123456789abcdef0_2024-06-06_1649-UTC_0.7.6/var_log/{PROXY_FILE}", "", "kube-proxy-x7x2p", "kube-proxy"),
        (f"ip-10-0-0-1.ec2.internal/var_log/{PROXY_FILE}", "ip-10-0-0-1.ec2.internal", "kube-proxy-x7x2p", "kube-proxy"),
        # must-gather
        ("must-gather.local.1/quay-io-x/namespaces/openshift-kube-proxy/pods/openshift-kube-proxy-9k2lm/kube-proxy/kube-proxy/logs/current.log", "", "openshift-kube-proxy-9k2lm", "kube-proxy"),
        ("mg/namespaces/openshift-kube-proxy/pods/openshift-kube-proxy-9k2lm/kube-proxy/kube-proxy/logs/previous.insecure.log", "", "openshift-kube-proxy-9k2lm", "kube-proxy"),
        ("mg/namespaces/openshift-kube-proxy/pods/openshift-kube-proxy-9k2lm/kube-proxy/kube-proxy/logs/rotated/0.log.20250217-072641", "", "openshift-kube-proxy-9k2lm", "kube-proxy"),
        ("mg/namespaces/openshift-kube-proxy/pods/openshift-kube-proxy-9k2lm/kube-rbac-proxy/kube-rbac-proxy/logs/current.log", "", "openshift-kube-proxy-9k2lm", "kube-rbac-proxy"),
        ("mg/namespaces/openshift-dns/pods/dns-default-2xx7q/dns/dns/logs/current.log", "", "dns-default-2xx7q", "dns"),
        # sos report, plugin kubernetes: the log of every pod, taken on a control-plane node
        ("sosreport-m1-2024-06-06-abcdefg/sos_commands/kubernetes/cluster-info/kube-system/podlogs/kube-proxy-x7x2p/kubectl_--kubeconfig_.etc.kubernetes.admin.conf_--namespace_kube-system_logs_kube-proxy-x7x2p_-c_kube-proxy", "", "kube-proxy-x7x2p", "kube-proxy"),
        # sos report, the host's own files
        (f"sosreport-worker-3-2024-06-06-abcdefg/var/log/{PROXY_TREE}/0.log", "worker-3", "kube-proxy-x7x2p", "kube-proxy"),
        (f"sosreport-worker-3-01234567-2024-06-06-abcdefg/var/log/containers/{PROXY_FILE}", "worker-3", "kube-proxy-x7x2p", "kube-proxy"),
    ],
)  # fmt: skip
def test_layouts_tell_node_pod_and_container(path: str, node: str, pod: str, container: str) -> None:
    origin = origin_of(path)
    assert (origin.node, origin.pod, origin.container) == (node, pod, container)
    assert origin.is_kube_proxys is (container in {"kube-proxy", "sdn"})
    assert origin.is_anothers is not origin.is_kube_proxys


@pytest.mark.parametrize(
    ("path", "node", "pod", "component"),
    [
        # GCE and kOps write to the node's disk
        ("node-a/var/log/kube-proxy.log", "node-a", "", "kube-proxy"),
        ("gke-c1-pool-1a2b/var/log/kube-proxy.log-20240606", "gke-c1-pool-1a2b", "", "kube-proxy"),
        ("/var/log/kube-proxy.log", "", "", "kube-proxy"),
        ("node-a/var/log/kubelet.log", "node-a", "", "kubelet"),
        ("node-a/var/lib/docker/containers/0a1b/0a1b-json.log", "node-a", "", ""),
        # a directory a node
        ("logs/node-a/kube-proxy.log", "node-a", "", "kube-proxy"),
        ("logs/node-a/kube-proxy.previous.log", "node-a", "", "kube-proxy"),
        ("logs/node-a/kube-proxy-previous.log", "node-a", "", "kube-proxy"),
        ("logs/node-a/kube-proxy.log.1", "node-a", "", "kube-proxy"),
        ("logs/node-a/kube-proxy.json.log", "node-a", "", "kube-proxy"),
        ("logs/node-a/current.log", "node-a", "", ""),
        ("logs/node-a/kube-proxy/0.log", "node-a", "", "kube-proxy"),
        ("logs/10.0.0.7/kube-proxy.log", "10.0.0.7", "", "kube-proxy"),
        ("incident/node-a/logs.txt", "node-a", "", ""),
        # the node in the file's name
        ("kube-proxy-node-a.log", "node-a", "", "kube-proxy"),
        ("kube-proxy_node-a.txt", "node-a", "", "kube-proxy"),
        ("kube-proxy.node-a.log.1", "node-a", "", "kube-proxy"),
        ("node-a-kube-proxy.log", "node-a", "", "kube-proxy"),
        ("x/ip-10-0-0-1.ec2.internal_kube-proxy.log", "ip-10-0-0-1.ec2.internal", "", "kube-proxy"),
        ("kube-proxy-node-a.previous.log", "node-a", "", "kube-proxy"),
        # the pod in it
        ("logs/kube-proxy-x7x2p.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        ("logs/kube-proxy-x7x2p.previous.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        ("logs/kube-system_kube-proxy-x7x2p.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        ("logs/openshift-kube-proxy-9k2lm.log", "", "openshift-kube-proxy-9k2lm", "kube-proxy"),
        ("logs/kube-proxy-x7x2p/current.log", "", "kube-proxy-x7x2p", "kube-proxy"),
        ("node-a/var/log/kube-proxy-x7x2p.log", "node-a", "kube-proxy-x7x2p", "kube-proxy"),
        ("logs/kube-proxy-worker-1/current.log", "worker-1", "kube-proxy-worker-1", "kube-proxy"),
        # kubectl cluster-info dump
        ("dump/kube-system/kube-proxy-x7x2p/logs.txt", "", "kube-proxy-x7x2p", "kube-proxy"),
        ("dump/kube-system/kube-proxy-worker-1/logs.txt", "worker-1", "kube-proxy-worker-1", "kube-proxy"),
        ("dump/kube-system/kube-apiserver-m1/logs.txt", "", "kube-apiserver-m1", "kube-apiserver-m1"),
        ("dump/cert-manager/cert-manager-7d4b8c9f-x7x2p/logs.txt", "", "cert-manager-7d4b8c9f-x7x2p", "cert-manager-7d4b8c9f-x7x2p"),
        # Rancher's collector: RKE2's kube-proxy is a static pod
        ("m1-2024-06-06/rke2/podlogs/kube-system-kube-proxy-worker-1", "worker-1", "kube-proxy-worker-1", "kube-proxy"),
        ("m1-2024-06-06/rke2/podlogs/kube-system-kube-proxy-md-0-h5x2k-previous", "md-0-h5x2k", "kube-proxy-md-0-h5x2k", "kube-proxy"),
        ("m1-2024-06-06/k3s/podlogs/kube-system-kube-proxy-x7x2p", "", "kube-proxy-x7x2p", "kube-proxy"),
        ("m1-2024-06-06/rke2/podlogs/kube-system-coredns-abc-previous", "", "", "kube-system-coredns-abc"),
        # other components by name
        ("kind-logs/kind-worker/kubelet.log", "", "", "kubelet"),
        ("logs/node-a-kubelet.log", "", "", "kubelet"),
        ("kube-apiserver-m1.log", "", "", "kube-apiserver"),
        ("containerd.log", "", "", "containerd"),
    ],
)  # fmt: skip
def test_names_tell_node_pod_and_component(path: str, node: str, pod: str, component: str) -> None:
    origin = origin_of(path)
    assert (origin.node, origin.pod, origin.component, origin.container) == (node, pod, component, "")
    assert origin.is_kube_proxys is (component == "kube-proxy")
    assert not origin.is_anothers  # a mere name is no proof


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "log.txt",
        "logs/kube-proxy.log",
        "/tmp/kube-proxy.log",
        "kube-proxy.log",
        "kube-proxy-20240606.log",
        "kube-proxy-20240606-164946.log",
        "kube-proxy-v1.30.log",
        "kube-proxy-current.log",
        "kube-proxy-errors.log",
        "kube-proxy-Node_A.log",
        "logs/Node A/kube-proxy.log",
        "../kube-proxy.log",
        "-/kube-proxy.log",
        "-oProxyCommand=x/kube-proxy.log",
        "$(reboot)/kube-proxy.log",
        "default/kube-proxy.log",
        "var/log/kube-proxy.log",
        f"/home/x/{'a' * 254}/kube-proxy.log",
    ],
)
def test_what_is_no_nodes_name_is_not_taken_for_one(path: str) -> None:
    origin = origin_of(path)
    assert (origin.node, origin.node_from) == ("", "")


@pytest.mark.parametrize(
    ("path", "said_by"),
    [
        ("node-a/kube-proxy.log", "path"),
        (f"node-a/var/log/{PROXY_TREE}/0.log", "path"),
        (f"/var/log/pods/kube-system_kube-proxy-worker-1_{HASH}/kube-proxy/0.log", "pod"),
        ("dump/kube-system/kube-proxy-worker-1/logs.txt", "pod"),
        (f"/var/log/{PROXY_TREE}/0.log", ""),
    ],
)
def test_it_says_what_named_the_node(path: str, said_by: str) -> None:
    assert origin_of(path).node_from == said_by


@pytest.mark.parametrize(
    ("pod", "node"),
    [
        ("kube-proxy-worker-1", "worker-1"),
        ("kube-proxy-ip-10-0-0-1.ec2.internal", "ip-10-0-0-1.ec2.internal"),
        ("kube-proxy-x7x2p", ""),
        ("kube-proxy-windows-x7x2p", ""),
        ("coredns-76f75df574-8kqhz", ""),
        ("kube-proxy-", ""),
        ("kube-proxy-UPPER", ""),
        ("", ""),
    ],
)
def test_a_static_pod_names_its_node(pod: str, node: str) -> None:
    assert node_of_static_pod(pod) == node


def test_sdn_holds_kube_proxy_too() -> None:
    assert [name for name in ("kube-proxy", "sdn", "sdn-controller", "coredns", "") if is_kube_proxy(name)] == [
        "kube-proxy",
        "sdn",
    ]


PARTS = st.one_of(
    st.sampled_from(
        [
            "var",
            "log",
            "pods",
            "containers",
            "host",
            "kube-proxy",
            "kube-system",
            "podlogs",
            "namespaces",
            "logs",
            "node-a",
        ]
    ),
    st.text(alphabet=string.ascii_letters + string.digits + "._-$ ;`'\"\\\u2028", max_size=12),
)


@given(st.lists(PARTS, max_size=8).map("/".join))
def test_any_path_is_read_and_only_a_possible_name_comes_out(path: str) -> None:
    origin = origin_of(path)
    assert isinstance(origin, Origin)
    assert bool(origin.node) is bool(origin.node_from)
    assert set(origin.node) <= set(string.ascii_lowercase + string.digits + ".-")
    assert not origin.node.startswith(("-", "."))
