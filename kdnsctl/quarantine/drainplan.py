"""The plan of a drain: for every pod of every node what is to become of it, in which order, and what budgets will say.

Pure: nodes, pods, budgets, DNS endpoints and options in, a plan out. Pods that serve DNS come last, whatever their
node, and options that hurt do not apply to them: --force, --grace-period 0 and --disable-eviction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.policy import DisruptionBudget
from kdnsctl.quarantine.budgets import Prospect, prospects
from kdnsctl.quarantine.dnsguard import DnsPods, Floor, floor_of
from kdnsctl.quarantine.podfilters import Decision, DrainOptions, Fate, Known, decide, name_of, refusal

DNS_UNMANAGED: Final = "serves DNS and has no controller that would replace it; --force does not apply to DNS pods"


@dataclass(frozen=True, slots=True)
class PodPlan:
    """A pod that is to go: how budgets will probably answer, and the DNS Service it serves, if it does."""

    pod: Pod
    prospect: Prospect
    warnings: tuple[str, ...] = ()
    service: str = ""

    @property
    def name(self) -> str:
        """Namespace and name."""
        return name_of(self.pod)


@dataclass(frozen=True, slots=True)
class NodeDrain:
    """What is planned for a node. With a `refusal` nothing of it goes. `kept` are DNS pods that may not be touched."""

    node: str
    goes: tuple[PodPlan, ...] = ()
    stays: tuple[Decision, ...] = ()
    kept: tuple[Decision, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """Everything a drain is going to do, as values. `floors` hold for DNS from now to the end."""

    nodes: tuple[NodeDrain, ...]
    options: DrainOptions
    floors: tuple[Floor, ...] = ()

    @property
    def pods(self) -> tuple[PodPlan, ...]:
        """The pods that go first: those that do not serve DNS."""
        return tuple(one for node in self.nodes for one in node.goes if not one.service)

    @property
    def dns(self) -> tuple[PodPlan, ...]:
        """The pods that go last, one at a time."""
        return tuple(one for node in self.nodes for one in node.goes if one.service)

    @property
    def dns_options(self) -> DrainOptions:
        """What of the options holds for DNS pods."""
        grace = self.options.grace_period or None
        return replace(self.options, force=False, disable_eviction=False, grace_period=grace, skip_wait=None)


def make_plan(
    pods: Mapping[str, Sequence[Pod]],
    known: Known,
    *,
    budgets: Sequence[DisruptionBudget] = (),
    dns: Sequence[DnsPods] = (),
    affected: Collection[str] = (),
) -> DrainPlan:
    """The plan for draining the nodes that `pods` has the pods of, by name. `affected` nodes take no DNS."""
    nodes = [_node(node, its_pods, known, dns) for node, its_pods in pods.items()]
    plan = DrainPlan(tuple(nodes), known.options, tuple(floor_of(one, pods.keys(), affected) for one in dns))
    return _with_prospects(plan, budgets)


def _node(node: str, pods: Iterable[Pod], known: Known, dns: Sequence[DnsPods]) -> NodeDrain:
    goes: list[PodPlan] = []
    stays: list[Decision] = []
    kept: list[Decision] = []
    decisions = decide(pods, known)
    for decision in decisions:
        service = _service(decision.pod, dns)
        if decision.fate is Fate.STAYS:
            stays.append(decision)
        elif decision.fate is Fate.GOES and service and not _is_replaced(decision.pod, known):
            kept.append(replace(decision, fate=Fate.STAYS, why=DNS_UNMANAGED))
        elif decision.fate is Fate.GOES:
            goes.append(PodPlan(decision.pod, prospects([decision.pod], ())[0], decision.warnings, service))
    return NodeDrain(node, tuple(goes), tuple(stays), tuple(kept), refusal(decisions))


def _service(pod: Pod, dns: Sequence[DnsPods]) -> str:
    return next((one.service for one in dns if one.has(pod)), "")


def _is_replaced(pod: Pod, known: Known) -> bool:
    """Whether somebody makes a new pod when this one goes, or it serves nobody any more."""
    owner = pod.metadata.controller
    if owner is None or (owner.kind == "DaemonSet" and (pod.metadata.namespace, owner.name) not in known.daemon_sets):
        return pod.ended
    return True


def _with_prospects(plan: DrainPlan, budgets: Sequence[DisruptionBudget]) -> DrainPlan:
    """Budgets are used up in the order of the evictions: DNS last. Nodes that refuse use nothing up."""
    ordered = [one for one in (*plan.pods, *plan.dns) if not _refused(plan, one)]
    chances = prospects((one.pod for one in ordered), budgets)
    by_uid = {one.pod.metadata.uid: chance for one, chance in zip(ordered, chances, strict=True)}
    nodes = tuple(
        replace(
            node,
            goes=tuple(replace(one, prospect=by_uid.get(one.pod.metadata.uid, one.prospect)) for one in node.goes),
        )
        for node in plan.nodes
    )
    return replace(plan, nodes=nodes)


def _refused(plan: DrainPlan, one: PodPlan) -> bool:
    return any(node.refusal and one in node.goes for node in plan.nodes)
