"""status: which nodes are in quarantine, since when, by whom, how far, what is held, and what somebody else changed.

It reads and judges nothing else, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import msgspec

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes.fields import RECORD, VERBS, FieldVerb, node_path
from kdnsctl.changes.lock import lease_of, needed
from kdnsctl.changes.plan import sentence
from kdnsctl.changes.raised import Raised
from kdnsctl.changes.reminding import LIST_SETS, still_raised
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Node, PartialObjectMetadata
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.find.online import identity_of
from kdnsctl.model import KdnsctlError, Step, UsageError
from kdnsctl.quarantine.guards import dying, named
from kdnsctl.quarantine.holds import AUTO, HELPFUL, holds_for, terminating
from kdnsctl.quarantine.holdsbase import Groups, Hold, Objects, api_groups
from kdnsctl.quarantine.planning import record_of
from kdnsctl.quarantine.record import NodeRecord, RecordError

NEEDS: Final = Needs(
    needed=(Permission("list", "nodes", without="no quarantine is seen"),),
    helpful=(
        *(one for one in HELPFUL if one.verb != "patch"),
        *(one for one in needed() if one.verb == "get"),
        LIST_SETS,
    ),
)


@dataclass(frozen=True, slots=True)
class Drift:
    """A step of a quarantine that is not in force any more: in words, and what is there instead."""

    step: Step
    says: str
    found: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node. `problem` says why its record cannot be read; without that and a `record` it is not in quarantine.

    `holder` is who works on it right now. `held` are the steps in force, `unknown` those that cannot be looked at.
    `holds` are the managers that may remove it, as they are found now.
    """

    name: str
    record: NodeRecord | None
    holder: str = ""
    held: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()
    unknown: tuple[str, ...] = ()
    problem: str = ""
    dying: str = ""
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole answer: the nodes that were named, or all in quarantine.

    `raised` are the nodes of the cluster whose kube-proxy's verbosity is raised, whichever were named, for somebody has
    to put it back; `raised_sets` the DaemonSets. `notes` say what cannot be read of that.
    """

    generated_at: datetime
    cluster: str
    nodes: tuple[NodeStatus, ...]
    raised: tuple[tuple[str, Raised], ...] = ()
    raised_sets: tuple[tuple[str, Raised], ...] = ()
    notes: tuple[str, ...] = ()


def status(
    names: Sequence[str],
    connection: Connection,
    *,
    scope: CancelScope,
    now: datetime,
    selector: str | None = None,
    all_nodes: bool = False,
) -> StatusReport:
    """Look at the nodes named, those with the labels of `selector`, or `all_nodes`; else at those in quarantine.

    Raises UsageError for a node that does not exist, and a selector that chooses none; else as `list_all`.
    """
    everyone = {
        str((node.get("metadata") or {}).get("name")): node
        for node in list_all(connection, "/api/v1/nodes", dict[str, Any], scope=scope).items
    }
    missing = [name for name in names if name not in everyone]
    if missing:
        raise UsageError(f"no node {named(missing)} in {connection.target}; nothing was done")
    if selector is not None:
        chosen = list_all(connection, "/api/v1/nodes", PartialObjectMetadata, labels=selector, scope=scope).items
        names = tuple(node.metadata.name for node in chosen if node.metadata.name in everyone)
        if not names:
            raise UsageError(f"no node has {selector} in {connection.target}; nothing was done")
    elif all_nodes:
        names = tuple(everyone)
    wanted = names or sorted(name for name, node in everyone.items() if _marked(node))
    looking = _Looking(connection, scope)
    found = tuple(_status(name, everyone[name], looking) for name in wanted)
    nodes = (msgspec.convert(one, Node, strict=False) for one in everyone.values())
    raised = still_raised(nodes, connection, scope=scope)
    return StatusReport(now, identity_of(connection.target), found, raised.nodes, raised.daemon_sets, raised.notes)


def _marked(node: Mapping[str, Any]) -> bool:
    """Whether anything of a quarantine is on a node: the record, or our taint without one."""
    taints = (node.get("spec") or {}).get("taints") or []
    annotations = (node.get("metadata") or {}).get("annotations") or {}
    return RECORD in annotations or any(taint.get("key") == RECORD for taint in taints)


@dataclass(slots=True)
class _Looking:
    """What is read once, for all nodes."""

    connection: Connection
    scope: CancelScope
    objects: Objects = field(init=False)
    _groups: Groups | None = None

    def __post_init__(self) -> None:
        self.objects = Objects(self.connection, self.scope)

    @property
    def groups(self) -> Groups:
        """The API groups; none where they cannot be read: what is on the nodes is shown all the same."""
        if self._groups is None:
            try:
                self._groups = api_groups(self.connection, scope=self.scope)
            except KdnsctlError:
                self.scope.check()
                self._groups = {}
        return self._groups


def _status(name: str, raw: Mapping[str, Any], looking: _Looking) -> NodeStatus:
    node = msgspec.convert(raw, Node, strict=False)
    try:
        record = record_of(node)
    except RecordError as error:
        return NodeStatus(name, None, problem=str(error), dying=dying(node))
    if record is None:
        problem = f"it has the taint {RECORD}, and no record of a quarantine" if _marked(raw) else ""
        return NodeStatus(name, None, problem=problem, dying=dying(node))
    held: list[str] = []
    drift: list[Drift] = []
    unknown: list[str] = []
    for step in record.steps:
        verb, says = VERBS[step.verb], sentence(step)
        found = raw if step.args["path"] == node_path(name) else looking.objects.get(step.args["path"]).found
        if found is None or not isinstance(verb, FieldVerb):
            unknown.append(says)
            continue
        value = verb.read(found, step.args)
        if verb.same(value, step.after):
            held.append(says)
        else:
            drift.append(Drift(step, says, "absent" if value is None else msgspec.json.encode(value).decode()[:200]))
    holds = tuple(holds_for(node, (AUTO,), looking.groups, record.incident, looking.objects))
    return NodeStatus(
        name,
        record,
        _holder(name, looking.connection, looking.scope),
        tuple(held),
        tuple(drift),
        tuple(unknown),
        dying=dying(node) or terminating(holds),
        holds=holds,
    )


def _holder(name: str, connection: Connection, scope: CancelScope) -> str:
    """Who holds the node's lock now; empty when nobody does, or it cannot be known."""
    try:
        return lease_of(connection, name, scope=scope)
    except KdnsctlError:
        scope.check()
        return ""
