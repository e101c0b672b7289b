"""Reading what a drain is planned from: the nodes' pods, DaemonSets, disruption budgets and who serves DNS.

The plan itself is made by `drainplan`, from values. Nothing is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import pods as steps
from kdnsctl.cluster.dns import find_dns, list_slices
from kdnsctl.cluster.errors import ForbiddenError, NotFoundError
from kdnsctl.cluster.lists import list_all, list_metadata
from kdnsctl.cluster.objects import ConfigMap, Node, Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.policy import DisruptionBudget
from kdnsctl.cluster.transport import Connection
from kdnsctl.quarantine.dnsguard import AUTOSCALERS, DnsPods, autoscaler_effect, dns_pods
from kdnsctl.quarantine.draining import BUDGETS, PODS
from kdnsctl.quarantine.drainplan import DrainPlan, make_plan
from kdnsctl.quarantine.podfilters import DrainOptions, Known

DAEMON_SETS: Final = "/apis/apps/v1/daemonsets"
NEEDED: Final = (
    Permission("list", "pods", without="what runs on a node is not known, and nothing is drained"),
    Permission("watch", "pods", without="when a pod is gone is noticed later"),
    Permission("list", "daemonsets", group="apps", without="which pods belong to DaemonSets is not known"),
    *steps.NEEDED,
)
HELPFUL: Final = (
    Permission("list", "poddisruptionbudgets", group="policy", without="budgets are not planned for"),
    Permission("watch", "poddisruptionbudgets", group="policy", without="that a budget has room is noticed later"),
    Permission("watch", "endpointslices", group="discovery.k8s.io", without="a replacement is noticed later"),
    Permission("get", "configmaps", namespace="kube-system", without="what an autoscaler of DNS will do is not known"),
)


@dataclass(frozen=True, slots=True)
class Foundation:
    """A plan, and what is to be said about it."""

    plan: DrainPlan
    notes: tuple[str, ...] = ()


def read_plan(
    connection: Connection,
    nodes: Sequence[str],
    options: DrainOptions,
    scope: CancelScope,
    *,
    now: Callable[[], datetime],
    affected: Collection[str] = (),
) -> Foundation:
    """The plan for draining `nodes`, whose names exist. Raises when what it needs to be safe cannot be read.

    Without budgets it is still safe, since the server asks them; that is noted. `affected` are all nodes that are not
    well: DNS must not come to stand on them.
    """
    notes: list[str] = []
    pods = {node: _pods(connection, node, options.pod_selector, scope) for node in nodes}
    sets = list_metadata(connection, DAEMON_SETS, scope=scope).items
    known = Known(frozenset((one.metadata.namespace, one.metadata.name) for one in sets), options, now())
    try:
        budgets = list_all(connection, BUDGETS, DisruptionBudget, scope=scope).items
    except ForbiddenError as error:
        notes.append(f"disruption budgets cannot be read ({error}): which pods must wait is not known beforehand")
        budgets = ()
    dns = read_dns(connection, scope)
    plan = make_plan(pods, known, budgets=budgets, dns=dns, affected=affected)
    return Foundation(plan, (*notes, *_scaling(connection, nodes, scope)))


def read_dns(connection: Connection, scope: CancelScope) -> list[DnsPods]:
    """The pods behind every DNS Service, now."""
    return [
        dns_pods(str(service), list_slices(connection, service, scope=scope), service.selector)
        for service in find_dns(connection, scope=scope)
    ]


def _pods(connection: Connection, node: str, selector: str, scope: CancelScope) -> Sequence[Pod]:
    return list_all(connection, PODS, Pod, fields=f"spec.nodeName={node}", labels=selector or None, scope=scope).items


def _scaling(connection: Connection, nodes: Collection[str], scope: CancelScope) -> list[str]:
    """What an autoscaler of DNS will do when the nodes are cordoned."""
    said: list[str] = []
    every: Sequence[Node] | None = None
    for name in AUTOSCALERS:
        path = f"/api/v1/namespaces/kube-system/configmaps/{name}"
        try:
            data = connection.get(path, ConfigMap, scope=scope).data
            every = every or list_all(connection, "/api/v1/nodes", Node, scope=scope).items
        except NotFoundError:
            continue
        except ForbiddenError as error:
            return [f"what an autoscaler of DNS does about cordoned nodes is not known ({error})"]
        effect = autoscaler_effect(data, every, nodes)
        if effect is None:
            said.append(f"the ConfigMap {name} of an autoscaler of DNS could not be read: what it will do is not known")
        elif effect.after < effect.before:
            said.append(
                f"{name} scales DNS from {effect.before} to {effect.after} replicas when these nodes are cordoned; "
                "includeUnschedulableNodes in its ConfigMap prevents that"
            )
    return said
