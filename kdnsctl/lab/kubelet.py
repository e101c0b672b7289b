"""The kubelet stand-in of one node: pods bound to the node become processes, and their state goes to the API.

It watches the pods of its node, gives each a worker (`podworker`), registers the node and reports it ready. It starts
nothing itself and reads no logs.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from kdnsctl.lab import network
from kdnsctl.lab.agent import AgentClient
from kdnsctl.lab.kubeclient import JSON, MERGE_PATCH, ApiError, Informer
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.nodefaults import Fault
from kdnsctl.lab.nodestatus import node_labels, node_status
from kdnsctl.lab.podnode import AddressPool, Surroundings
from kdnsctl.lab.podworker import PodWorker

_HEARTBEAT_SECONDS = 10.0


class Kubelet:
    """One node's kubelet. `start` returns at once; everything happens in threads."""

    def __init__(self, net: NodeNet, agent: AgentClient, log_root: Path, shared: Surroundings) -> None:
        self.net = net
        self.agent = agent
        self.shared = shared
        self.log_root = log_root
        self.addresses = AddressPool(net)
        self.faults: set[Fault] = set()
        self._workers: dict[str, PodWorker] = {}
        self._lock = threading.Lock()
        selector = f"spec.nodeName={net.name}"
        self._informer = Informer(shared.client, "/api/v1/pods", self._on_pod, selector)
        self.registered = threading.Event()

    @property
    def name(self) -> str:
        return self.net.name

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"kubelet-{self.name}", daemon=True).start()

    def _run(self) -> None:
        self._register()
        self.registered.set()
        self._informer.start()
        beat = threading.Event()
        while True:
            beat.wait(_HEARTBEAT_SECONDS)
            try:
                self._report_node()
            except ApiError:
                continue  # an API that is away for a moment; the next beat tells it

    def _register(self) -> None:
        body: JSON = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": node_labels(self.name),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {"podCIDR": self.net.pod_range, "podCIDRs": [self.net.pod_range]},
        }
        try:
            self.shared.client.create("/api/v1/nodes", body)
        except ApiError as error:
            if error.code != 409:
                raise
        self._report_node()

    def _report_node(self) -> None:
        path = f"/api/v1/nodes/{self.name}"
        present = self.shared.client.get(path)
        status = node_status(self.net, self.shared.kubelet_version, present.get("status") or {})
        self.shared.client.patch(f"{path}/status", {"status": status}, MERGE_PATCH)

    def _on_pod(self, key: str, pod: JSON | None) -> None:
        """A pod of this node is new, changed or gone. Workers are known by UID: a name may come back."""
        with self._lock:
            for uid, worker in list(self._workers.items()):
                if worker.key == key and (pod is None or pod["metadata"]["uid"] != uid):
                    worker.vanish()
            if pod is None:
                return
            uid = pod["metadata"]["uid"]
            known = self._workers.get(uid)
            if known is not None:
                known.update(pod)
            elif (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
                worker = PodWorker(pod, self, self._on_worker_end)
                self._workers[uid] = worker
                worker.start()
            elif pod["metadata"].get("deletionTimestamp"):
                self.finish_deletion(pod)

    def _on_worker_end(self, worker: PodWorker) -> None:
        with self._lock:
            self._workers.pop(worker.uid, None)

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod, by name; the newest when a predecessor is still ending."""
        with self._lock:
            found = [each for each in self._workers.values() if each.key == f"{namespace}/{name}"]
        return found[-1] if found else None

    def workers(self) -> list[PodWorker]:
        with self._lock:
            return list(self._workers.values())

    def finish_deletion(self, pod: JSON) -> None:
        """Tell the API that nothing of the pod runs any more; it removes the object."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": metadata["uid"]},
        }
        try:
            self.shared.client.delete(path, options)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def report_pod(self, namespace: str, name: str, uid: str, status: JSON) -> None:
        """Write a pod's status, if it is still the same pod. A pod that is gone needs none."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        try:
            self.shared.client.patch(path, {"metadata": {"uid": uid}, "status": status}, MERGE_PATCH)
        except ApiError as error:
            if error.code not in (404, 409, 422):
                raise

    def config_map(self, namespace: str, name: str) -> JSON | None:
        try:
            return self.shared.client.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def prepare_network(self) -> None:
        """The chains a kubelet makes on every node (pkg/kubelet/kubelet_network_linux.go), before any kube-proxy."""
        network.run(
            ["ip", "netns", "exec", self.name, "iptables-restore", "--noflush"],
            "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n"
            "*filter\n:KUBE-FIREWALL - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n"
            "-A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n"
            "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 "
            '-m comment --comment "block incoming localnet connections" '
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\nCOMMIT\n"
            "*nat\n:KUBE-KUBELET-CANARY - [0:0]\nCOMMIT\n",
        )

    def apply_fault(self, fault: Fault, *, active: bool) -> None:
        """Inject or lift a fault in this node's kube-proxy, now and for later containers."""
        if active:
            self.faults.add(fault)
        else:
            self.faults.discard(fault)
        for worker in self.workers():
            worker.refresh_fault(fault, active=active)

    def image_path(self, reference: str) -> Path:
        with self.shared.library_lock:
            return self.shared.library.path(reference)

    def netns_fd(self, name: str) -> int:
        """A new handle of a network namespace of this node; the caller closes it."""
        return os.open(network.netns_path(name), os.O_RDONLY | os.O_CLOEXEC)
