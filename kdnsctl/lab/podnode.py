"""What a pod finds on its node: what all kubelets share, the node's pod addresses, what a kubelet does for its pods.

The worker of a pod knows its kubelet only as a `PodNode`. Nothing here starts or reports anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdnsctl.lab import network
from kdnsctl.lab.agent import AgentClient
from kdnsctl.lab.images import Library
from kdnsctl.lab.kubeclient import JSON, KubeClient
from kdnsctl.lab.network import NodeNet
from kdnsctl.lab.nodefaults import Fault
from kdnsctl.lab.podlogs import LogPump


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all kubelets of a lab share."""

    client: KubeClient
    ca: bytes
    token: Callable[[str, str], str]
    library: Library
    library_lock: threading.Lock
    pump: LogPump
    space: Path
    """The lab's tmpfs: container trees and volumes lie here."""
    rootless: bool
    kubelet_version: str


class AddressPool:
    """A node's pod addresses, handed out in turn, so that a dead pod's address stays dead for as long as possible."""

    def __init__(self, net: NodeNet) -> None:
        self._net = net
        self._used: set[int] = set()
        self._last = 1
        self._lock = threading.Lock()

    def take(self) -> str:
        """The next free address. Raises NetworkError when all 249 are taken."""
        with self._lock:
            for step in range(1, 250):
                index = (self._last - 2 + step) % 249 + 2
                if index not in self._used:
                    self._used.add(index)
                    self._last = index
                    return self._net.pod_address(index)
        raise network.NetworkError(f"node {self._net.name} has no free pod address")

    def give_back(self, address: str) -> None:
        with self._lock:
            self._used.discard(int(address.rpartition(".")[2]))


class PodNode(Protocol):
    """A kubelet as the pods on its node see it. Its methods may be called from any thread."""

    @property
    def net(self) -> NodeNet: ...

    @property
    def agent(self) -> AgentClient: ...

    @property
    def shared(self) -> Surroundings: ...

    @property
    def log_root(self) -> Path: ...

    @property
    def addresses(self) -> AddressPool: ...

    @property
    def faults(self) -> Collection[Fault]: ...

    def image_path(self, reference: str) -> Path:
        """The directory with an image's files. Raises UnknownImageError."""

    def netns_fd(self, name: str) -> int:
        """A new handle of a network namespace of the node; the caller closes it."""

    def config_map(self, namespace: str, name: str) -> JSON | None:
        """Raises ApiError."""

    def report_pod(self, namespace: str, name: str, uid: str, status: JSON) -> None:
        """Raises ApiError."""

    def finish_deletion(self, pod: JSON) -> None:
        """Raises ApiError."""
