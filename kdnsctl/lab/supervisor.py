"""The lab's main process: builds the nodes, runs the API, the controllers and the kubelets, and says when DNS answers.

It is the parent of every node and lives in the hub's namespaces. Order matters in one place: nodes are forked while
there is one thread, everything that has threads comes after. When it ends, for whatever reason, the lab ends.
"""

# ruff: noqa: T201 - standard error is the lab's log
from __future__ import annotations

import gc
import os
import secrets
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from kdnsctl.lab import clients, dns, kubeproxy, network, nodeinit, sshd, workloads
from kdnsctl.lab.agent import AgentClient
from kdnsctl.lab.api.access import MASTERS, Identity, Policy, Rule
from kdnsctl.lab.api.server import ApiServer
from kdnsctl.lab.clientboard import ClientBoard, watch_clients
from kdnsctl.lab.controllers.manager import ControllerManager
from kdnsctl.lab.controlserver import ControlServer
from kdnsctl.lab.images import Library
from kdnsctl.lab.kubeclient import Access, KubeClient
from kdnsctl.lab.kubelet import Kubelet
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.newstore import new_store
from kdnsctl.lab.podlogs import LogPump
from kdnsctl.lab.podnode import Surroundings
from kdnsctl.lab.podruntime import KubeletRuntime
from kdnsctl.lab.podstatus import is_ready
from kdnsctl.lab.spacedir import LabDir
from kdnsctl.lab.sshserver import SshServer
from kdnsctl.lab.store import Store

BUILTINS = {"kube-proxy": kubeproxy.main, "coredns": dns.main, "dns-client": clients.main}
_READ = ("get", "list", "watch")


class Tokens:
    """Bearer tokens of service accounts: made on demand, known to the API's policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._issued: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def issue(self, namespace: str, account: str) -> str:
        with self._lock:
            known = self._issued.get((namespace, account))
            if known is None:
                known = self._issued[namespace, account] = secrets.token_urlsafe(32)
                groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
                self._policy.tokens[known] = Identity(f"system:serviceaccount:{namespace}:{account}", groups)
            return known


def _policy() -> Policy:
    policy = Policy()
    for account in ("kube-proxy", "coredns"):
        user = f"system:serviceaccount:kube-system:{account}"
        policy.grant_user(
            user,
            Rule(_READ, ("",), ("services", "endpoints", "nodes", "pods", "namespaces")),
            Rule(_READ, ("discovery.k8s.io",), ("endpointslices",)),
        )
    return policy


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(where: LabDir, options: dict[str, Any], ready: int, listener: int) -> int:
    """Build the lab and keep it. Writes `ready` or `error …` to the descriptor `ready`; returns when a node dies."""
    os.environ["PATH"] = sshd.NODE_PATH
    os.environ["TMPDIR"] = tempfile.tempdir = str(where.space)
    rootless = bool(options["rootless"])
    nodes = [NodeNet(f"knode{number}", number) for number in range(1, int(options["nodes"]) + 1)]
    network.build_hub(nodes)
    for net in nodes:
        nodeinit.prepare_files(where, net, rootless=rootless)
    dns.warm_up()
    gc.freeze()  # what is loaded now is shared by all nodes' processes, as long as nobody collects it
    booted: dict[str, nodeinit.BootedNode] = {}
    for net in nodes:
        channels = [each.channel.fileno() for each in booted.values()]
        booted[net.name] = nodeinit.boot(where, net, BUILTINS, (listener, ready, *channels), rootless=rootless)
    gc.unfreeze()
    over = threading.Event()

    def node_gone(name: str) -> None:
        _say(f"node {name} ended; the lab ends with it")
        over.set()

    agents = {name: AgentClient(name, node.channel, node_gone) for name, node in booted.items()}
    for agent in agents.values():
        agent.start_listening()
    runtime_kubelets: dict[str, Kubelet] = {}
    runtime = KubeletRuntime(runtime_kubelets)
    store, policy = new_store(), _policy()
    api = _start_api(store, runtime, policy, listener)
    admin = secrets.token_urlsafe(32)
    policy.tokens[admin] = Identity("system:node-lab", (MASTERS, "system:nodes"))
    operator = secrets.token_urlsafe(32)
    policy.tokens[operator] = Identity("kdnsctl-lab", (MASTERS,))
    where.ca_file.write_bytes(api.authority.pem)
    where.token_file.touch(mode=0o600)
    where.token_file.write_text(operator, encoding="ascii")
    access = Access(f"https://{network.HUB_ADDRESS}:{network.API_PORT}", str(where.ca_file), admin)
    client = KubeClient(access, "kubelet/lab")
    ControllerManager(store).start()
    images = where.space / "images"
    images.mkdir()
    shared = Surroundings(
        client, api.authority.pem, Tokens(policy).issue, Library(images), threading.Lock(), LogPump(), where.space,
        rootless, str(options["version"]),
    )  # fmt: skip
    for net in nodes:
        kubelet = Kubelet(net, agents[net.name], where.node_log(net.name), shared)
        kubelet.prepare_network()
        runtime_kubelets[net.name] = kubelet
        kubelet.start()
    kube_proxy = workloads.kube_proxy(str(options["version"]), int(options["verbosity"]), as_json=bool(options["json"]))
    _create_objects(client, kube_proxy)
    servers = _start_sshd(where, nodes, agents, rootless=rootless) if options["ssh"] else {}
    board = ClientBoard()
    watch_clients(board, list(runtime_kubelets.values()), runtime)
    pids = {name: node.pid for name, node in booted.items()}
    ControlServer(where, api.url, runtime_kubelets, pids, board, servers).start()
    where.kubeconfig.touch(mode=0o600)
    where.kubeconfig.write_text(api.kubeconfig(name=where.context), encoding="utf-8")
    names = [net.name for net in nodes]
    threading.Thread(target=_announce, args=(board, client, names, ready), name="announce", daemon=True).start()
    over.wait()
    return 1


def _announce(board: ClientBoard, client: KubeClient, nodes: list[str], ready: int) -> None:
    """Say ready once every client on every node had an answer, over rules that lead to every CoreDNS pod.

    The clients' results are the occasions to look; `up` has the patience, and ends the lab when it has run out.
    """
    path = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns"
    for _ in board.follow():
        readings = board.readings()
        if len(readings) < 2 * len(nodes) or not all(each["last_answered"] for each in readings):
            continue
        pods = client.get(path)["items"]
        addresses = {each["status"].get("podIP", "") for each in pods if is_ready(each)}
        saved = (network.run(["ip", "netns", "exec", name, "iptables-save", "-t", "nat"]) for name in nodes)
        if len(addresses) == workloads.COREDNS_REPLICAS and all(
            network.dns_targets(each) == addresses for each in saved
        ):
            break
    os.write(ready, b"ready\n")
    os.close(ready)


def _start_api(store: Store, runtime: KubeletRuntime, policy: Policy, listener: int) -> ApiServer:
    """The API on the machine's loopback (the inherited socket), on the hub's address, and on the hub's own loopback.

    The last one has the port of the first, so that one kubeconfig is right on both sides.
    """
    outside = socket.socket(fileno=listener)
    outside.setblocking(False)
    port = int(outside.getsockname()[1])
    inside = socket.create_server((network.HUB_ADDRESS, network.API_PORT), backlog=512)
    own = socket.create_server(("127.0.0.1", port), backlog=512)
    names = ("127.0.0.1", "localhost", network.HUB_ADDRESS, "10.96.0.1", "kubernetes.default.svc")
    api = ApiServer(store, runtime, (outside, inside, own), names=names, policy=policy)
    api.start()
    return api


def _create_objects(client: KubeClient, kube_proxy: dict[str, Any]) -> None:
    for name in workloads.namespaces():
        client.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    service, endpoint_slice = workloads.kubernetes_service()
    client.create("/api/v1/namespaces/default/services", service)
    client.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoint_slice)
    client.create("/api/v1/namespaces/kube-system/services", workloads.kube_dns())
    client.create("/api/v1/namespaces/kube-system/configmaps", workloads.kube_proxy_config())
    apps = "/apis/apps/v1/namespaces"
    client.create(f"{apps}/kube-system/daemonsets", kube_proxy)
    client.create(f"{apps}/kube-system/deployments", workloads.coredns())
    client.create(f"{apps}/kdnsctl-lab/daemonsets", workloads.dns_clients())


def _start_sshd(
    where: LabDir, nodes: list[NodeNet], agents: dict[str, AgentClient], *, rootless: bool
) -> dict[str, SshServer]:
    if not Path(sshd.SSHD).exists():
        _say(f"{sshd.SSHD} is missing: the nodes have no SSH (Debian package openssh-server)")
        return {}
    sshd.write_files(where, nodes)
    servers = {net.name: SshServer(where, net, agents[net.name], _say, rootless=rootless) for net in nodes}
    for server in servers.values():
        server.start()
    return servers
