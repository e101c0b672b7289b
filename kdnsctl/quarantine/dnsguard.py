"""How far a drain may go with pods that serve DNS: the floor, who counts, and what an autoscaler will do.

At any time at least max(1, half of those that served when the drain began) must serve on nodes that are neither drained
nor affected: kube-proxy does not clean conntrack for a Service without endpoints (kubernetes#139628), so taking the
last one spreads the very fault. Where the floor is not held, the DNS pod stays where it is. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kdnsctl.cluster.objects import EndpointSlice, Node, Pod

AUTOSCALERS: Final = ("dns-autoscaler", "kube-dns-autoscaler", "coredns-autoscaler")
"""ConfigMaps of cluster-proportional-autoscaler in kube-system: Kubernetes' addon, kubespray, and others."""


@dataclass(frozen=True, slots=True)
class DnsPods:
    """The pods behind a DNS Service, by UID, with their nodes: all of them, and those that take queries now.

    `selector` chooses its pods: one that has only just been made, and has no address yet, is in no slice.
    """

    service: str
    nodes: Mapping[str, str]
    serving: frozenset[str]
    selector: Mapping[str, str] = field(default_factory=dict)

    def has(self, pod: Pod) -> bool:
        """Whether a pod serves it, or is about to."""
        identity = pod.metadata
        chosen = bool(self.selector) and self.selector.items() <= identity.labels.items() and not pod.ended
        return identity.uid in self.nodes or (chosen and identity.namespace == self.service.partition("/")[0])

    def serving_on(self, excluded: Collection[str]) -> frozenset[str]:
        """Those that serve on other nodes."""
        return frozenset(uid for uid in self.serving if self.nodes[uid] and self.nodes[uid] not in excluded)


@dataclass(frozen=True, slots=True)
class Floor:
    """How many must serve on nodes that are not `excluded` (drained or affected), whatever happens."""

    service: str
    least: int
    excluded: frozenset[str]

    def shortage(self, now: DnsPods) -> str:
        """Why no DNS pod of an excluded node may go now; empty when one may."""
        safe = len(now.serving_on(self.excluded))
        if safe >= self.least:
            return ""
        return (
            f"{self.service} needs {self.least} serving on nodes neither drained nor affected, and has {safe}: "
            "without them DNS would stand on nothing"
        )


def dns_pods(service: str, slices: Iterable[EndpointSlice], selector: Mapping[str, str] | None = None) -> DnsPods:
    """The pods in a Service's slices. One that is terminating does not count as serving: it is about to stop."""
    nodes: dict[str, str] = {}
    serving: set[str] = set()
    for one in slices:
        for endpoint in one.endpoints or ():
            if endpoint.target_ref is None or not endpoint.target_ref.uid:
                continue
            uid = endpoint.target_ref.uid
            nodes[uid] = endpoint.node_name
            if endpoint.is_serving and not endpoint.conditions.terminating:
                serving.add(uid)
    return DnsPods(service, nodes, frozenset(serving), selector or {})


def floor_of(now: DnsPods, drained: Collection[str], affected: Collection[str]) -> Floor:
    """The floor for a drain that begins now."""
    least = max(1, math.ceil(len(now.serving) / 2))
    return Floor(now.service, least, frozenset({*drained, *affected}))


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many replicas cluster-proportional-autoscaler wants before and after nodes are cordoned."""

    before: int
    after: int


def autoscaler_effect(data: Mapping[str, str], nodes: Sequence[Node], cordoned: Collection[str]) -> Scaling | None:
    """What cordoning does to the number of DNS replicas, from the autoscaler's ConfigMap; None if that says nothing.

    Source: cluster-proportional-autoscaler, pkg/autoscaler/controller. It counts schedulable nodes only, unless
    `includeUnschedulableNodes` is set, which is false when not given: a cordon then takes DNS pods away.
    """
    mode = next((mode for mode in ("linear", "ladder") if mode in data), "")
    try:
        parameters = json.loads(data[mode]) if mode else None
    except ValueError:
        return None
    if not isinstance(parameters, dict):
        return None
    every = bool(parameters.get("includeUnschedulableNodes"))

    def wanted(without: Collection[str]) -> int:
        counted = [
            node for node in nodes if every or (not node.spec.unschedulable and node.metadata.name not in without)
        ]
        cores = sum(_cores(node) for node in counted)
        return (
            _linear(parameters, cores, len(counted)) if mode == "linear" else _ladder(parameters, cores, len(counted))
        )

    return Scaling(wanted(()), wanted(cordoned))


def _linear(parameters: Mapping[str, Any], cores: float, nodes: int) -> int:
    replicas = 1
    for amount, name in ((cores, "coresPerReplica"), (nodes, "nodesPerReplica")):
        if _number(parameters.get(name)) > 0:
            replicas = max(replicas, math.ceil(amount / _number(parameters[name])))
    if parameters.get("preventSinglePointFailure") and nodes > 1:
        replicas = max(replicas, 2)
    highest = _number(parameters.get("max"))
    if highest >= 1:
        replicas = min(replicas, int(highest))
    return max(replicas, int(_number(parameters.get("min"))) or 1)


def _ladder(parameters: Mapping[str, Any], cores: float, nodes: int) -> int:
    steps = ((cores, parameters.get("coresToReplicas")), (nodes, parameters.get("nodesToReplicas")))
    return max(_rung(amount, ladder) for amount, ladder in steps)


def _rung(amount: float, ladder: Any) -> int:
    pairs = [pair for pair in ladder or () if isinstance(pair, list) and len(pair) == 2]
    reached = [int(_number(replicas)) for least, replicas in sorted(pairs) if amount >= _number(least)]
    return reached[-1] if reached else (int(_number(min(pairs)[1])) if pairs else 0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _cores(node: Node) -> float:
    text = str(node.status.capacity.get("cpu", 0))
    try:
        return float(text.removesuffix("m")) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        return 0.0
