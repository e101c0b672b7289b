"""The lab's wires: the hub with its bridge, one network namespace per node, one per pod, and the routes between.

Everything is done with `ip` (iproute2) inside the lab's own namespaces; nothing here can name an interface of the
machine. Addresses are those of the recorded cluster: hub 10.88.0.1, node N 10.88.0.(10+N), its pods 10.244.N.0/24.

A pod's address is a /32 with its node as the gateway, so that every packet between two pods of a node is routed and
the answers pass the node's conntrack whether or not the machine has br_netfilter; a dead pod's address still fails in
ARP on the pod bridge, as in life.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HUB_ADDRESS = "10.88.0.1"
API_PORT = 6443
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/12"
DNS_ADDRESS = "10.96.0.10"
_SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NetworkError(Exception):
    """A wire could not be laid; the text has the command and what it said."""


@dataclass(frozen=True, slots=True)
class NodeNet:
    """A node's place in the lab's network, from its number (1 to 200)."""

    name: str
    number: int

    @property
    def address(self) -> str:
        return f"10.88.0.{10 + self.number}" if self.number <= 200 else ""

    @property
    def pod_range(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def gateway(self) -> str:
        return f"10.244.{self.number}.1"

    def pod_address(self, index: int) -> str:
        """The node's pod address number `index` (2 to 250)."""
        return f"10.244.{self.number}.{index}"


def run(argv: Sequence[str], stdin: str = "") -> str:
    """Run a tool of the machine and return what it printed. Raises NetworkError with its message."""
    environment = {**os.environ, "PATH": _SBIN, "LC_ALL": "C"}
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        detail = (done.stderr or done.stdout).strip()
        raise NetworkError(f"{' '.join(argv)} ended with {done.returncode}: {detail}; input was {stdin!r}")
    return done.stdout


def batch(lines: Sequence[str], netns: str | None = None) -> None:
    """Run several `ip` commands in one process, in network namespace `netns` (None: here). Stops at the first error."""
    where = ["-n", netns] if netns else []
    run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def build_hub(nodes: Sequence[NodeNet]) -> None:
    """Make the hub's bridge and every node's namespace, joined to it, with routes to each other's pods."""
    Path("/run/netns").mkdir(parents=True, exist_ok=True)
    lines = [
        "link set lo up",
        "link add kbr0 type bridge",
        "link set kbr0 address 0a:58:0a:58:00:01 up",
        f"addr add {HUB_ADDRESS}/24 dev kbr0",
    ]
    for node in nodes:
        lines += [
            f"netns add {node.name}",
            f"link add n{node.number} type veth peer name eth0 netns {node.name}",
            f"link set n{node.number} master kbr0 up",
            f"route add {node.pod_range} via {node.address}",
        ]
    # The DNS Service answers in the hub too, by way of the first node, so that `lab shell -- dig` can be tried.
    lines.append(f"route add {SERVICE_RANGE} via {nodes[0].address}")
    batch(lines)
    for node in nodes:
        _build_node(node, nodes)


def _build_node(node: NodeNet, nodes: Sequence[NodeNet]) -> None:
    lines = [
        "link set lo up",
        "link set eth0 up",
        f"addr add {node.address}/24 dev eth0",
        f"route add default via {HUB_ADDRESS}",
        "link add cni0 type bridge",
        # A fixed address: a bridge otherwise takes over the lowest of its ports', and pods keep the old one in ARP.
        f"link set cni0 address 0a:58:0a:f4:{node.number:02x}:01 up",
        f"addr add {node.gateway}/24 dev cni0",
    ]
    lines += [f"route add {other.pod_range} via {other.address}" for other in nodes if other is not node]
    batch(lines, node.name)


def node_sysctls() -> dict[str, str]:
    """Sysctls a node sets in its own network namespace, path below /proc/sys → value."""
    return {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/default/rp_filter": "0",
        "net/ipv4/conf/all/send_redirects": "0",
        "net/ipv4/conf/cni0/send_redirects": "0",
        "net/ipv4/conf/all/route_localnet": "1",
        "net/netfilter/nf_conntrack_acct": "0",
    }


def add_pod(node: NodeNet, netns: str, interface: str, address: str) -> None:
    """Make a pod's network namespace with `address`, plugged into the node's pod bridge as `interface`."""
    run(["ip", "netns", "add", netns])
    batch(
        [
            f"link add {interface} type veth peer name eth0 netns {netns}",
            f"link set {interface} master cni0 up",
        ],
        node.name,
    )
    batch(
        [
            "link set lo up",
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {node.gateway} dev eth0",
            f"route add default via {node.gateway}",
        ],
        netns,
    )


def remove_pod(node: NodeNet, netns: str, interface: str) -> None:
    """Take a pod's wire and namespace away; from now on its address does not answer ARP."""
    batch([f"link delete {interface}"], node.name)
    run(["ip", "netns", "delete", netns])


def dns_targets(saved: str) -> set[str]:
    """Pod addresses that the rules in an iptables-save send new queries to the DNS Service's UDP port to."""
    return set(re.findall(r"kube-system/kube-dns:dns\" .*-j DNAT --to-destination ([0-9.]+):53$", saved, re.MULTILINE))


def netns_path(name: str) -> str:
    """Where `ip netns` keeps the namespace's handle in the lab's own /run."""
    return f"/run/netns/{name}"
