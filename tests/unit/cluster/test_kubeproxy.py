from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kdnsctl.cluster.kubeproxy import Kind, KubeProxy, kube_proxy_container, locate, version_of
from kdnsctl.cluster.objects import ConfigMap, DaemonSet, Node, Page, Pod
from kdnsctl.cluster.proxyconfig import ProxyConfig, config_file, configuration, flags
from tests.unit.cluster.apiserver import API

NODES = msgspec.json.decode((API / "nodes.json").read_bytes(), type=Page[Node]).items or ()
PODS = msgspec.json.decode((API / "pods-kube-system.json").read_bytes(), type=Page[Pod]).items or ()
CONFIG = msgspec.json.decode((API / "configmap-kube-proxy.json").read_bytes(), type=ConfigMap)
RECORDED_SET = msgspec.json.decode((API / "daemonset-kube-proxy.json").read_bytes(), type=DaemonSet)


def node(
    name: str = "n1", *, version: str = "v1.30.1", os: str = "linux", labels: dict[str, str] | None = None, **spec: Any
) -> Node:
    status = {"nodeInfo": {"kubeletVersion": version, "operatingSystem": os}}
    made = {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": status}
    return msgspec.convert(made, Node)


def pod(
    name: str = "kube-proxy-x",
    *,
    on: str = "n1",
    labels: dict[str, str] | None = None,
    image: str = "registry.k8s.io/kube-proxy:v1.30.1",
    container: str = "kube-proxy",
    owner: str = "DaemonSet",
    static: bool = False,
    namespace: str = "kube-system",
    phase: str = "Running",
    state: dict[str, Any] | None = None,
    **metadata: Any,
) -> Pod:
    made = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-of-{name}",
            "labels": {"k8s-app": "kube-proxy"} if labels is None else labels,
            "annotations": {"kubernetes.io/config.mirror": "x"} if static else {},
            "ownerReferences": [{"kind": "Node" if static else owner, "name": "kube-proxy", "controller": True}],
            **metadata,
        },
        "spec": {"nodeName": on, "containers": [{"name": container, "image": image}]},
        "status": {
            "phase": phase,
            "containerStatuses": [
                {
                    "name": container,
                    "restartCount": 3,
                    "image": image,
                    "state": {"running": {}} if state is None else state,
                }
            ],
        },
    }
    return msgspec.convert(made, Pod)


def daemon_set(name: str, *, namespace: str = "kube-system", **template: Any) -> DaemonSet:
    containers = template.pop("containers", [{"name": name}])
    made = {
        "metadata": {"name": name, "namespace": namespace, "labels": template.pop("labels", {})},
        "spec": {"template": {"spec": {"containers": containers, **template}}},
    }
    return msgspec.convert(made, DaemonSet)


def only(found: dict[str, KubeProxy]) -> KubeProxy:
    (one,) = found.values()
    return one


def test_the_recorded_cluster() -> None:
    found = locate(NODES, PODS, [RECORDED_SET])
    assert list(found) == ["knode1", "knode2", "knode3"]
    assert {proxy.kind for proxy in found.values()} == {Kind.DAEMON_SET}
    place = found["knode3"].place
    assert place is not None
    assert (place.namespace, place.pod, place.container) == ("kube-system", "kube-proxy-5wt8d", "kube-proxy")
    assert (place.uid, place.owner) == ("91da2bab-60e4-4c31-b60f-371ab6f456c5", "kube-proxy")
    assert (place.running, place.restarts, found["knode3"].version) == (True, 0, None)  # its image's tag is `1`


@pytest.mark.parametrize(
    ("made", "kind", "version"),
    [
        (pod(), Kind.DAEMON_SET, "v1.30.1"),
        (
            pod(labels={"component": "kube-proxy"}, image="mcr/oss/kubernetes/kube-proxy:v1.29.7"),
            Kind.DAEMON_SET,
            "v1.29.7",
        ),
        (pod(labels={"app": "openshift-kube-proxy"}, namespace="openshift-kube-proxy"), Kind.DAEMON_SET, "v1.30.1"),
        (pod(labels={"app": "kubernetes", "role": "proxy"}), Kind.DAEMON_SET, "v1.30.1"),
        (pod(labels={"component": "kube-proxy", "tier": "node"}, static=True), Kind.STATIC_POD, "v1.30.1"),
        (pod(image="rancher/hardened-kubernetes:v1.28.3-rke2r1-build2023", static=True), Kind.STATIC_POD, "v1.28.3"),
        (pod(container="proxy", image="eu.gcr.io/kube-proxy-amd64:v1.27.1"), Kind.DAEMON_SET, "v1.27.1"),
        (
            pod(container="sdn", labels={"app": "sdn"}, namespace="openshift-sdn", image="q/x@sha256:00"),
            Kind.DAEMON_SET,
            None,
        ),
        (pod(owner="ReplicaSet"), Kind.OTHER_POD, "v1.30.1"),
    ],
)
def test_a_pod_of_any_distribution(made: Pod, kind: Kind, version: str | None) -> None:
    found = only(locate([node()], [made]))
    assert (found.kind, found.version, found.why) == (kind, version, "")
    assert found.place is not None
    assert found.place.restarts == 3
    assert found.applicable


@pytest.mark.parametrize(
    "made",
    [
        pod(container="coredns", labels={"k8s-app": "kube-dns"}, image="coredns:1"),
        pod(container="metrics", image="kube-rbac-proxy:v1"),
        pod(on=""),
    ],
)
def test_other_pods_are_none(made: Pod) -> None:
    assert only(locate([node()], [made])).kind is Kind.MISSING


def test_of_two_pods_the_one_that_stays_counts() -> None:
    going = pod("old", deletionTimestamp="2026-11-23T03:00:00Z", creationTimestamp="2026-11-23T02:00:00Z")
    pending = pod("new", phase="Pending", creationTimestamp="2026-11-23T04:00:00Z", state={"waiting": {"reason": "X"}})
    running = pod("now", creationTimestamp="2026-11-23T03:30:00Z")
    newer = pod("newer", creationTimestamp="2026-11-23T03:31:00Z")
    for pods, expected in (
        ([going, running], "now"),
        ([pending, going], "new"),
        ([pending, running], "now"),
        ([newer, running], "newer"),
    ):
        for order in (pods, pods[::-1]):
            place = only(locate([node()], order)).place
            assert place is not None
            assert place.pod == expected


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (pod(state={"waiting": {"reason": "CrashLoopBackOff"}}), "its container waits: CrashLoopBackOff"),
        (pod(state={"terminated": {"exitCode": 255}}), "its container has ended with exit code 255"),
        (pod(phase="Pending", state={}), "its pod is Pending"),
    ],
)
def test_a_pod_that_does_not_run_says_why(made: Pod, why: str) -> None:
    found = only(locate([node()], [made]))
    assert found.place is not None
    assert (found.kind, found.place.running, found.why) == (Kind.DAEMON_SET, False, why)


@pytest.mark.parametrize(
    ("made", "unit", "why"),
    [
        (node(version="v1.31.2+k3s1"), "k3s-agent", "part of k3s"),
        (node(version="v1.31.2+k3s1", labels={"node-role.kubernetes.io/control-plane": "true"}), "k3s", "part of k3s"),
        (node(labels={"microk8s.io/cluster": "true"}), "snap.microk8s.daemon-kubelite", "part of MicroK8s' kubelite"),
        (
            node(labels={"juju-application": "worker"}),
            "snap.kube-proxy.daemon",
            "part of Charmed Kubernetes, as a snap",
        ),
        (node(labels={"eks.amazonaws.com/compute-type": "auto"}), "kube-proxy", "part of EKS Auto Mode's node"),
    ],
)
def test_where_it_is_part_of_another_process(made: Node, unit: str, why: str) -> None:
    found = only(locate([made], []))
    assert (found.kind, found.unit, found.why) == (Kind.EMBEDDED, unit, why)
    assert found.version == made.status.node_info.kubelet_version.partition("+")[0]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (node(os="windows"), "Windows: its kube-proxy has no conntrack table"),
        (node(os="", labels={"kubernetes.io/os": "windows"}), "Windows: its kube-proxy has no conntrack table"),
        (node(labels={"type": "virtual-kubelet"}), "virtual kubelet: no machine of its own"),
        (
            node(taints=[{"key": "virtual-kubelet.io/provider", "value": "azure"}]),
            "virtual kubelet: no machine of its own",
        ),
        (node(labels={"eks.amazonaws.com/compute-type": "fargate"}), "Fargate: no machine of its own"),
    ],
)
def test_nodes_that_are_no_linux_machines(made: Node, why: str) -> None:
    found = only(locate([made], [pod()] if made.os == "windows" else []))
    assert (found.kind, found.why, found.applicable) == (Kind.ABSENT, why, False)


CILIUM = daemon_set("cilium", labels={"k8s-app": "cilium"})


@pytest.mark.parametrize(
    ("sets", "config", "why"),
    [
        ([CILIUM], {"kube-proxy-replacement": "true"}, "Cilium's kube-proxy replacement handles Services"),
        ([CILIUM], {"kube-proxy-replacement": "strict"}, "Cilium's kube-proxy replacement handles Services"),
        (
            [CILIUM],
            None,
            "Cilium (its settings cannot be read) seems to handle Services: there is no kube-proxy at all",
        ),
        ([daemon_set("anetd", labels={"k8s-app": "cilium"})], None, "GKE Dataplane V2 handles Services"),
        ([daemon_set("ovnkube-node", namespace="openshift-ovn-kubernetes")], None, "OVN-Kubernetes handles Services"),
        ([daemon_set("kube-router")], None, "kube-router handles Services"),
        (
            [
                daemon_set(
                    "calico-node", containers=[{"name": "c", "env": [{"name": "FELIX_BPFENABLED", "value": "True"}]}]
                )
            ],
            None,
            "Calico in eBPF mode handles Services",
        ),
    ],
)
def test_absent_by_design(sets: list[DaemonSet], config: dict[str, str] | None, why: str) -> None:
    configs = {"kube-system/cilium-config": config} if config else {}
    found = only(locate([node()], [], sets, configs))
    assert (found.kind, found.why) == (Kind.ABSENT, why)


@pytest.mark.parametrize(
    ("made", "sets", "config", "why"),
    [
        (node(), [], None, "no kube-proxy pod, and no DaemonSet that would make one"),
        (node(), [daemon_set("kube-proxy")], None, "DaemonSet kube-system/kube-proxy has no pod here"),
        (
            node(),
            [daemon_set("kube-proxy", nodeSelector={"pool": "a"})],
            None,
            "DaemonSet kube-system/kube-proxy leaves this node out: it has no label pool=a",
        ),
        (node(version="v1.30.1+rke2r1"), [], None, "RKE2 runs kube-proxy as a static pod, and this node has none"),
        (
            node(),
            [CILIUM],
            {"kube-proxy-replacement": "false"},
            "no kube-proxy pod, and no DaemonSet that would make one",
        ),
        (node(), [CILIUM, daemon_set("kube-proxy")], None, "DaemonSet kube-system/kube-proxy has no pod here"),
        (
            node(),
            [daemon_set("kube-router", containers=[{"name": "r", "args": ["--run-service-proxy=false"]}])],
            None,
            "no kube-proxy pod, and no DaemonSet that would make one",
        ),
        (
            node(),
            [daemon_set("kube-proxy-windows", containers=[{"name": "kube-proxy"}])],
            None,
            "no kube-proxy pod, and no DaemonSet that would make one",
        ),
    ],
)
def test_missing_is_a_fault(made: Node, sets: list[DaemonSet], config: dict[str, str] | None, why: str) -> None:
    found = only(locate([made], [], sets, {"kube-system/cilium-config": config} if config else {}))
    assert (found.kind, found.why, found.applicable) == (Kind.MISSING, why, True)


def test_a_pod_wins_over_what_would_replace_it() -> None:
    k3s = node(version="v1.31.2+k3s1")
    config = {"kube-system/cilium-config": {"kube-proxy-replacement": "true"}}
    assert only(locate([k3s], [pod()], [CILIUM], config)).kind is Kind.DAEMON_SET
    assert only(locate([k3s], [], [CILIUM], config)).kind is Kind.ABSENT
    assert only(locate([k3s], [], [CILIUM], {})).kind is Kind.EMBEDDED


def test_without_nodes_the_pods_tell_which_there_are() -> None:
    found = locate(None, [pod("a", on="n2"), pod("b", on="n1")])
    assert {name: proxy.place.pod for name, proxy in found.items() if proxy.place} == {"n1": "b", "n2": "a"}


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.k8s.io/kube-proxy:v1.36.2", "v1.36.2"),
        ("602401143452.dkr.ecr.eu-west-1.amazonaws.com/eks/kube-proxy:v1.29.0-minimal-eksbuild.1", "v1.29.0"),
        ("reg.test:5000/kube-proxy:1.31.0_vmware.1@sha256:abcd", "v1.31.0"),
        ("reg.test:5000/kube-proxy", None),
        ("reg.test/kube-proxy@sha256:1111", None),
        ("docker.io/local/node:1", None),
        ("kube-proxy:v1.2.3.4", None),
        ("kube-proxy:latest", None),
        ("", None),
    ],
)
def test_versions_in_images(image: str, version: str | None) -> None:
    assert version_of(image) == version


# --- how it is set up ---


def settings(made: Pod, data: dict[str, str] | None) -> ProxyConfig:
    container = kube_proxy_container(made)
    assert container is not None
    file = config_file(made.spec, container)
    return configuration(container, data, file.key if file else "")


def with_command(*command: str, **more: Any) -> Pod:
    made = msgspec.json.decode(msgspec.json.encode(pod()))
    made["spec"]["containers"][0] |= {"command": command, **more.pop("container", {})}
    made["spec"] |= more
    return msgspec.convert(made, Pod)


def test_the_recorded_settings() -> None:
    made = next(pod for pod in PODS if pod.metadata.name == "kube-proxy-5wt8d")
    container = kube_proxy_container(made)
    assert container is not None
    file = config_file(made.spec, container)
    assert file is not None
    assert (file.config_map, file.key) == ("kube-proxy", "config.conf")
    found = settings(made, CONFIG.data)
    assert found == ProxyConfig("iptables", 2, "127.0.0.1:10249", False, "command line and ConfigMap")
    unread = settings(made, None)
    assert (unread.mode, unread.verbosity) == (None, 2)


def test_a_command_line_without_a_file() -> None:
    aks = with_command("kube-proxy", "--metrics-bind-address=0.0.0.0:10249", "--proxy-mode", "ipvs", "--v=3")
    assert settings(aks, None) == ProxyConfig("ipvs", 3, "0.0.0.0:10249", False, "command line")
    plain = with_command("kube-proxy", "--profiling")
    assert settings(plain, None) == ProxyConfig("iptables", 0, "127.0.0.1:10249", True, "command line")


def test_a_command_line_in_a_shell() -> None:
    gke = with_command(
        "/bin/sh", "-c", "exec kube-proxy --kubeconfig=/k --v=2 -proxy-mode='nftables' 1>>/var/log/k.log 2>&1"
    )
    found = settings(gke, None)
    assert (found.mode, found.verbosity) == ("nftables", 2)
    assert flags(gke.spec.containers[0])["kubeconfig"] == "/k"


def test_a_file_says_its_verbosity_and_the_flag_wins() -> None:
    text = "kind: KubeProxyConfiguration\nmode: ''\nlogging: {verbosity: 4}\nenableProfiling: true\n"
    mounts = {
        "container": {"volumeMounts": [{"name": "c", "mountPath": "/etc/kp"}, {"name": "o", "mountPath": "/etc"}]}
    }
    volumes = [{"name": "c", "configMap": {"name": "kp-7f"}}, {"name": "o", "configMap": {"name": "other"}}]
    quiet = with_command("kube-proxy", "--config=/etc/kp/config", volumes=volumes, **mounts)
    loud = with_command("kube-proxy", "--config=/etc/kp/config", "-v=6", volumes=volumes, **mounts)
    assert settings(quiet, {"config": text}) == ProxyConfig(
        "iptables", 4, "127.0.0.1:10249", True, "command line and ConfigMap"
    )
    assert settings(loud, {"elsewhere": text, "x": "{"}).verbosity == 6
    file = config_file(quiet.spec, quiet.spec.containers[0])
    assert file is not None
    assert (file.config_map, file.key) == ("kp-7f", "config")


@pytest.mark.parametrize("text", ["{", "KubeProxyConfiguration: [", "mode: 7\nkind: KubeProxyConfiguration"])
def test_a_file_that_cannot_be_read_is_unknown(text: str) -> None:
    made = with_command("kube-proxy", "--config=/etc/kp/config")
    assert settings(made, {"config": text}).mode is None
