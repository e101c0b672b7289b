"""What is still raised in a cluster, or by a journal's account, for commands after which nobody may look again.

The records on nodes and on kube-proxy's DaemonSets are read; what they hold is known to `raised`. A journal of this
machine knows only what was put back from here. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes import proxies
from kdnsctl.changes.executor import to_undo
from kdnsctl.changes.fields import object_of
from kdnsctl.changes.journal import Record
from kdnsctl.changes.raised import Raised, RecordError, from_json, of_daemon_set, of_node, reminder
from kdnsctl.cluster.errors import ApiError, ForbiddenError
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection

NAMESPACE: Final = "kube-system"
LIST_SETS: Final = Permission(
    "list", "daemonsets", group="apps", namespace=NAMESPACE, without="a DaemonSet that is left raised is not seen"
)
HELPFUL: Final = (Permission("list", "nodes", without="a verbosity that is left raised is not seen"), LIST_SETS)


@dataclass(frozen=True, slots=True)
class StillRaised:
    """Nodes and DaemonSets (`kube-system/kube-proxy`) whose verbosity is raised; `notes`: what could not be read."""

    nodes: tuple[tuple[str, Raised], ...] = ()
    daemon_sets: tuple[tuple[str, Raised], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[tuple[str, Raised], ...]:
        """Both, for people: a DaemonSet is told only where no node tells of it."""
        told = {raised.run for _, raised in self.nodes}
        sets = [(f"DaemonSet {name}", raised) for name, raised in self.daemon_sets if raised.run not in told]
        return (*self.nodes, *sets)


def still_raised(nodes: Iterable[Node], connection: Connection, *, scope: CancelScope) -> StillRaised:
    """What is raised on these nodes, and on DaemonSets of kube-system. Raises what ended the scope."""
    found: list[tuple[str, Raised]] = []
    notes: list[str] = []
    for node in sorted(nodes, key=lambda one: one.metadata.name):
        try:
            record = of_node(node)
        except RecordError as error:
            notes.append(str(error))
            continue
        if record is not None:
            found.append((node.metadata.name, record))
    sets: list[tuple[str, Raised]] = []
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"
    try:
        listed = list_all(connection, path, dict[str, Any], scope=scope).items
    except ApiError as error:
        scope.check()
        listed = ()
        notes.append(f"whether a DaemonSet's verbosity is raised is not known: {error}")
    for one in listed:
        metadata = one.get("metadata") or {}
        try:
            template = of_daemon_set(one)
        except RecordError as error:
            notes.append(str(error))
            continue
        if template is not None:
            sets.append((f"{NAMESPACE}/{metadata.get('name')}", template.raised))
    return StillRaised(tuple(found), tuple(sets), tuple(notes))


def reminded(connection: Connection, now: datetime, *, scope: CancelScope) -> list[str]:
    """What to tell of it whoever has just given something back. What may not be looked at is left out."""
    try:
        nodes = list_all(connection, "/api/v1/nodes", Node, scope=scope).items
    except ForbiddenError:
        return []
    return reminder(still_raised(nodes, connection, scope=scope).all, now)


def by_journal(records: Sequence[Record]) -> list[tuple[str, Raised]]:
    """What an incident has raised and not put back, by its journal: who else put it back is not in it."""
    found: list[tuple[str, Raised]] = []
    for taken in to_undo(records):
        if taken.step.verb == proxies.RECORD and taken.step.after is not None:
            try:
                found.append((object_of(taken.step), from_json(taken.step.after)))
            except RecordError:
                continue  # a journal of a version to come
    return found
