"""What a pod of kdnsctl's own looks like, for each of three rungs. Pure: manifests out, nothing is asked or made.

Such a pod is where the node is and nowhere else: in the node's network (no CNI), by name of the node (no scheduler, and
no taint keeps it off), without DNS, without a token, and with an image that is on the node. It asks for no resources
and has no priority: it displaces nobody. It ends by itself, whatever becomes of us: its deadline is the kubelet's to
keep, and its own command ends too. It belongs to the node: when that goes, so does the pod.

`privileged` is set on one rung only, which the operator has to allow.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kdnsctl.model import Privilege, Toolset

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGER: Final = "kdnsctl"
RUN: Final = "kdnsctl.io/run"
OPERATOR: Final = "kdnsctl.io/operator"
PURPOSE: Final = "kdnsctl.io/purpose"
SELECTOR: Final = f"{MANAGED_BY}={MANAGER}"
CONTAINER: Final = "node"
GRACE: Final = 1  # seconds to end in: with 0 the API would forget the pod before the kubelet has ended it
ENTER_HOST: Final = ("nsenter", "-t", "1", "-m", "--")
"""Before a command that runs the node's own programs: in the mount namespace of its first process (util-linux)."""


class PodRung(enum.StrEnum):
    """How much a pod may do, least first. The values are what reports call the rungs."""

    PLAIN = "pod"  # uid 0 without any capability: /proc/net/nf_conntrack is 0440, and asks for no more
    NET_ADMIN = "pod-netadmin"  # NET_ADMIN for netlink (nft, iptables-nft, conntrack), NET_RAW for iptables-legacy
    PRIVILEGED = "pod-privileged"  # into the node's mount namespace, for its own programs


@dataclass(frozen=True, slots=True)
class Image:
    """What a pod runs, and which programs are in it. `pull`: it may be fetched if it is not on the node."""

    reference: str
    toolsets: tuple[Toolset, ...]
    pull: bool = False


@dataclass(frozen=True, slots=True)
class PodOrder:
    """A pod to be made: which rung, where, with what. `lifetime` is in seconds, after which the kubelet ends it.

    `node_uid` is that of the Node, "" where it cannot be known; then nobody owns the pod.
    """

    rung: PodRung
    name: str
    namespace: str
    node: str
    node_uid: str
    image: Image
    run: str
    operator: str
    lifetime: float


_MAY: Final[Mapping[PodRung, frozenset[Privilege]]] = {
    PodRung.PLAIN: frozenset({Privilege.NONE, Privilege.ROOT}),
    PodRung.NET_ADMIN: frozenset(Privilege),
    PodRung.PRIVILEGED: frozenset(Privilege),
}


def may(rung: PodRung, privilege: Privilege) -> bool:
    """Whether what runs in such a pod has what a fact needs."""
    return privilege in _MAY[rung]


def manifest(order: PodOrder) -> dict[str, Any]:
    """The pod as it is sent to the API."""
    seconds = max(1, math.ceil(order.lifetime))
    metadata: dict[str, Any] = {
        "name": order.name,
        "namespace": order.namespace,
        "labels": {MANAGED_BY: MANAGER, RUN: order.run},
        "annotations": {OPERATOR: order.operator, PURPOSE: "reads the state of its node, and ends by itself"},
    }
    if order.node_uid:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": order.node, "uid": order.node_uid}]
    spec: dict[str, Any] = {
        "nodeName": order.node,
        "hostNetwork": True,
        "dnsPolicy": "Default",  # the node's own resolv.conf; nothing here asks it
        "restartPolicy": "Never",
        "activeDeadlineSeconds": seconds,
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {
                "name": CONTAINER,
                "image": order.image.reference,
                "imagePullPolicy": "IfNotPresent" if order.image.pull else "Never",
                "command": ["sleep", str(seconds)],
                "securityContext": _security(order.rung),
                "resources": {
                    "requests": {"cpu": "0", "memory": "0"},
                    "limits": {"cpu": "1", "memory": "256Mi"},
                },
            }
        ],
    }
    if order.rung is PodRung.PRIVILEGED:
        spec["hostPID"] = True
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _security(rung: PodRung) -> dict[str, Any]:
    if rung is PodRung.PRIVILEGED:
        return {"privileged": True, "runAsUser": 0}
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if rung is PodRung.NET_ADMIN:
        capabilities["add"] = ["NET_ADMIN", "NET_RAW"]
    return {
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "runAsUser": 0,
        # Not with NET_ADMIN: iptables-wrapper, which is iptables in kube-proxy's image, sets links when it first runs.
        "readOnlyRootFilesystem": rung is PodRung.PLAIN,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": capabilities,
    }
