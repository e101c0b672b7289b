"""The failure, made on any cluster without touching what is the cluster's: stale UDP entries of a Service of our own.

A namespace holds a UDP Service, two servers behind it, and a client on one node. One server is deleted, so that its
address is dead as in life; entries that lead from the client over the Service to that address are then written into the
node's table over SSH. DNS has no part in it: the servers are CoreDNS's program because every cluster has that image on
a node, but nobody has to ask them anything.

Leaving the block removes the namespace and the entries.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.e2e.cluster import Cluster

SERVICE: Final = "echo"
PORT: Final = 5300  # of the Service
TARGET_PORT: Final = 53  # of its pods: CoreDNS's
FIRST_SOURCE_PORT: Final = 41000
LASTS: Final = 3600  # seconds after which the kernel forgets an entry that no packet refreshes
HOSTNAME: Final = "kubernetes.io/hostname"
READY_WITHIN: Final = "--timeout=180s"
RULES: Final = (  # what of these a node has not says nothing
    "for save in iptables-save iptables-nft-save iptables-legacy-save; do $save -t nat; done; "
    "nft list ruleset; cat /proc/net/ip_vs"
)
COREFILE: Final = ".:53 {\n    whoami\n    health :8080\n}\n"


@dataclass(frozen=True)
class Scene:
    """What was made. `client` is an address on `node`, `dead` one that is gone, `serving` the Service's."""

    cluster: Cluster
    namespace: str
    node: str
    vip: str
    client: str
    dead: str
    serving: tuple[str, ...]

    @property
    def service(self) -> str:
        return f"{self.namespace}/{SERVICE}"

    def make_stale(self, count: int) -> None:
        """Write `count` entries to the dead server into the node's table, with source ports from 41000 on."""
        for port in range(FIRST_SOURCE_PORT, FIRST_SOURCE_PORT + count):
            _insert(self.cluster, self.node, self.client, self.vip, self.dead, port)

    def stale(self) -> list[str]:
        """The lines of the node's table that lead from the Service to the dead server."""
        return _entries(self.cluster, self.node, self.vip, self.dead)

    def clean(self) -> None:
        """Remove the Service's entries from the node."""
        _delete_entries(self.cluster, self.node, self.vip)


@contextlib.contextmanager
def seeded(cluster: Cluster, node: str) -> Iterator[Scene]:
    """Make the scene around `node`, and take all of it away afterwards."""
    namespace = f"kdnsctl-e2e-{secrets.token_hex(4)}"
    try:
        hostname = cluster.read("node", node)["metadata"]["labels"][HOSTNAME]  # not always the node's name
        objects = json.dumps(_objects(namespace, hostname, _image(cluster)))
        cluster.kubectl("create", "--validate=false", "-f", "-", stdin=objects).well()
        for name in (SERVICE, "client"):
            cluster.kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", READY_WITHIN).well()
        vip = cluster.read("-n", namespace, "service", SERVICE)["spec"]["clusterIP"]
        (client,) = _pods(cluster, namespace, "client").values()
        dead = _kill_one(cluster, namespace, node, vip, client)
        try:
            yield Scene(cluster, namespace, node, vip, client, dead, tuple(_endpoints(cluster, namespace)))
        finally:
            _delete_entries(cluster, node, vip)
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--ignore-not-found", READY_WITHIN).well()


def _kill_one(cluster: Cluster, namespace: str, node: str, vip: str, client: str) -> str:
    """Delete a server, and return its address when kube-proxy on `node` is done with it.

    Its rules tell that kube-proxy has seen a change. It deletes entries right after it has written them, so an entry
    made in between could be taken along: one is made before, and must be gone in the end. What is made afterwards is no
    business of kube-proxy's until the next change.
    """
    pods = _pods(cluster, namespace, SERVICE)
    knows_both = _eventually(lambda: all(_in_rules(cluster, node, address) for address in pods.values()))
    assert knows_both, f"{node} has no rules for {pods.values()}: does a kube-proxy run on it?"
    pod, dead = min(pods.items())
    assert _eventually(lambda: _made(cluster, node, client, vip, dead)), f"no entry could be made on {node}"

    cluster.kubectl("-n", namespace, "delete", "pod", pod, READY_WITHIN).well()
    cluster.kubectl("-n", namespace, "rollout", "status", f"deployment/{SERVICE}", READY_WITHIN).well()
    replaced = _eventually(lambda: len(serving := _endpoints(cluster, namespace)) == len(pods) and dead not in serving)
    assert replaced, f"{dead} is still an endpoint of {namespace}/{SERVICE}"
    new = _endpoints(cluster, namespace)
    written = _eventually(
        lambda: not _in_rules(cluster, node, dead) and all(_in_rules(cluster, node, each) for each in new)
    )
    cleaned = written and _eventually(lambda: not _entries(cluster, node, vip, dead))
    assert cleaned, f"kube-proxy on {node} did not let go of {dead}: is this node affected already?"
    return dead


def _made(cluster: Cluster, node: str, client: str, vip: str, dead: str) -> bool:
    """Whether an entry is in the table that was written there just now: kube-proxy may still be cleaning."""
    if not _entries(cluster, node, vip, dead):
        _insert(cluster, node, client, vip, dead, FIRST_SOURCE_PORT - 1)
    return bool(_entries(cluster, node, vip, dead))


def _in_rules(cluster: Cluster, node: str, address: str) -> bool:
    """Whether an address is in what kube-proxy programs on a node, in whichever mode it does that."""
    rules = cluster.on_node(node, "sh", "-c", RULES).out
    in_ipvs = f"{int(ipaddress.IPv4Address(address)):08X}:"
    return in_ipvs in rules or re.search(rf"(?<![\d.]){re.escape(address)}(?![\d.])", rules) is not None


def _insert(cluster: Cluster, node: str, client: str, vip: str, dead: str, port: int) -> None:
    flow = ["-s", client, "-d", vip, "--sport", str(port), "--dport", str(PORT)]
    lead = ["--dst-nat", f"{dead}:{TARGET_PORT}", "--timeout", str(LASTS), "--status", "SEEN_REPLY,ASSURED"]
    cluster.on_node(node, "conntrack", "-I", "-p", "udp", *flow, *lead).well()


def _entries(cluster: Cluster, node: str, vip: str, dead: str) -> list[str]:
    chosen = ["-p", "udp", "--orig-dst", vip, "--orig-port-dst", str(PORT), "--reply-src", dead]
    return cluster.on_node(node, "conntrack", "-L", *chosen).well().out.splitlines()


def _delete_entries(cluster: Cluster, node: str, vip: str) -> None:
    """`conntrack -D` ends with 1 when there was nothing to delete."""
    chosen = ["-p", "udp", "--orig-dst", vip, "--orig-port-dst", str(PORT)]
    cluster.on_node(node, "conntrack", "-D", *chosen)
    assert cluster.on_node(node, "conntrack", "-L", *chosen).well().out == ""


def _pods(cluster: Cluster, namespace: str, app: str) -> dict[str, str]:
    """Address by name of the pods that are not going."""
    pods = cluster.read("-n", namespace, "pods", "-l", f"app={app}")["items"]
    return {
        pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
    }


def _endpoints(cluster: Cluster, namespace: str) -> list[str]:
    """The addresses of the Service's ready endpoints."""
    slices = cluster.read("-n", namespace, "endpointslices", "-l", f"kubernetes.io/service-name={SERVICE}")["items"]
    endpoints = [endpoint for each in slices for endpoint in each["endpoints"] or ()]
    return sorted(address for each in endpoints if each["conditions"].get("ready") for address in each["addresses"])


def _image(cluster: Cluster) -> str:
    """CoreDNS's image as a node has it, by digest where its runtime tells one: nothing is pulled."""
    for pod in cluster.read("-n", "kube-system", "pods", "-l", "k8s-app=kube-dns")["items"]:
        for status in pod["status"].get("containerStatuses") or ():
            if "coredns" in status["image"]:
                return str(status["imageID"] if "@sha256:" in status["imageID"] else status["image"])
    raise AssertionError("no CoreDNS pod in kube-system (label k8s-app=kube-dns): its image is what the servers run")


def _objects(namespace: str, hostname: str, image: str) -> dict[str, Any]:
    meta = {"namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {**meta, "name": "answers"},
                "data": {"Corefile": COREFILE},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {**meta, "name": SERVICE},
                "spec": {
                    "selector": {"app": SERVICE},
                    "ports": [{"name": "udp", "protocol": "UDP", "port": PORT, "targetPort": TARGET_PORT}],
                },
            },
            _deployment(namespace, SERVICE, 2, image, {}),
            _deployment(namespace, "client", 1, image, {HOSTNAME: hostname}),
        ],
    }


def _deployment(namespace: str, name: str, replicas: int, image: str, where: dict[str, str]) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod(image, where)},
        },
    }


def _pod(image: str, where: dict[str, str]) -> dict[str, Any]:
    return {
        "nodeSelector": where,
        "terminationGracePeriodSeconds": 1,
        "dnsPolicy": "Default",
        "volumes": [{"name": "answers", "configMap": {"name": "answers"}}],
        "containers": [
            {
                "name": "coredns",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/coredns", "-conf", "/etc/coredns/Corefile"],
                "volumeMounts": [{"name": "answers", "mountPath": "/etc/coredns"}],
                "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1},
            }
        ],
    }


def _eventually(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    """Look until `condition` holds; a cluster gives no event that says kube-proxy is done."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        pause.wait(0.2)
    return True
