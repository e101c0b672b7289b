"""What a hold is, and what a manager of nodes is looked for in: the node, the API groups, the manager's own objects.

No manager is known here, and nothing is changed. What cannot be read is told apart from what is not there: only of the
second it may be concluded that there is nothing to hold.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from kdnsctl.access.review import review
from kdnsctl.cancel import CancelScope
from kdnsctl.changes.fields import node_path
from kdnsctl.cluster.errors import NotFoundError
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.policy import LabelSelector
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Step

JSON = Mapping[str, Any]
ANNOTATE: Final = "object.annotate"
LABEL: Final = "object.label"


class Held(enum.StrEnum):
    """What can be said of one manager and one node."""

    HELD = "held"
    NOT_FROM_HERE = "cannotBeHeldFromHere"
    TERMINATING = "alreadyTerminating"


@dataclass(frozen=True, slots=True)
class Hold:
    """One manager. `steps` hold the node; none are left when it is held already, by whomever.

    Where steps cannot do it, or not all, `run` is what somebody with access can run, and `back` what takes that back.
    `why` explains the verdict, `risk` says what it does not protect from.
    """

    manager: str
    verdict: Held
    steps: tuple[Step, ...] = ()
    run: str = ""
    back: str = ""
    risk: str = ""
    why: str = ""

    @property
    def in_force(self) -> bool:
        """Whether it is held now: every step finds what it would set."""
        return self.verdict is Held.HELD and all(step.before == step.after for step in self.steps)


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as it was read; None when there is none, or `unknown` says why that is not known."""

    found: JSON | None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of a kind; `unknown` says why they could not be read."""

    items: Sequence[JSON] = ()
    unknown: str = ""


@dataclass(slots=True)
class Objects:
    """Reads managers' objects, each once, however many nodes ask for it. Raises only what ended the scope."""

    connection: Connection
    scope: CancelScope
    _seen: dict[str, Seen] = field(default_factory=dict)
    _listed: dict[str, Listed] = field(default_factory=dict)
    _may: dict[Permission, bool] = field(default_factory=dict)

    def get(self, path: str) -> Seen:
        """The object at a path."""
        if path not in self._seen:
            self._seen[path] = self._get(path)
        return self._seen[path]

    def _get(self, path: str) -> Seen:
        try:
            return Seen(self.connection.get(path, dict[str, Any], scope=self.scope))
        except NotFoundError:
            return Seen(None)
        except KdnsctlError as error:
            self.scope.check()
            return Seen(None, str(error))

    def items(self, path: str) -> Listed:
        """The objects of a list."""
        if path not in self._listed:
            self._listed[path] = self._items(path)
        return self._listed[path]

    def _items(self, path: str) -> Listed:
        try:
            return Listed(list_all(self.connection, path, dict[str, Any], scope=self.scope).items)
        except NotFoundError:
            return Listed()
        except KdnsctlError as error:
            self.scope.check()
            return Listed(unknown=str(error))

    def may(self, permission: Permission) -> bool:
        """Whether something is not refused for sure. A review that fails refuses nothing."""
        if permission not in self._may:
            answers = review(self.connection, (permission,), scope=self.scope)
            self.scope.check()
            self._may[permission] = answers[0].allowed is not False
        return self._may[permission]


Groups = Mapping[str, Sequence[str]]  # an API group's versions, the preferred one first


def api_groups(connection: Connection, *, scope: CancelScope) -> Groups:
    """The API groups that the cluster serves. Raises as `Connection.get`."""
    found = connection.get("/apis", dict[str, Any], scope=scope)
    groups: dict[str, Sequence[str]] = {}
    for group in found.get("groups") or ():
        first = str((group.get("preferredVersion") or {}).get("version", ""))
        versions = [str(one.get("version", "")) for one in group.get("versions") or ()]
        groups[str(group.get("name", ""))] = list(dict.fromkeys([first, *versions] if first else versions))
    return groups


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a manager is looked for in. `said`: whether the operator named this manager."""

    node: Node
    groups: Groups
    objects: Objects
    incident: str
    said: bool

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.metadata.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The node's labels."""
        return self.node.metadata.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        """The node's annotations."""
        return self.node.metadata.annotations

    def listed(self, group: str, plural: str, namespace: str = "") -> Listed:
        """The objects of a kind in the group's preferred version; none where the group is not served."""
        versions = self.groups.get(group) or ()
        place = f"/namespaces/{namespace}" if namespace else ""
        return self.objects.items(f"/apis/{group}/{versions[0]}{place}/{plural}") if versions else Listed()

    def on_node(self, verb: str, key: str, value: str) -> Step:
        """The step that sets a label or an annotation of the node."""
        entries = self.annotations if verb == ANNOTATE else self.labels
        return Step(verb, {"path": node_path(self.name), "key": key}, self.node.metadata.uid, entries.get(key), value)

    def condition(self, kind: str) -> bool:
        """Whether a condition of the node is True."""
        return any((one.type, one.status) == (kind, "True") for one in self.node.status.conditions)


Manager = Callable[[Surroundings], Hold | None]


_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def is_name(text: str) -> bool:
    """Whether a text can name an object. What a node's annotations say may be anything, and be copied into a shell."""
    return bool(_NAME.fullmatch(text))


def annotation(path: str, found: JSON, key: str, value: str) -> Step:
    """The step that sets an annotation of a manager's object."""
    uid = str((found.get("metadata") or {}).get("uid", ""))
    return Step(ANNOTATE, {"path": path, "key": key}, uid, annotations_of(found).get(key), value)


def annotations_of(found: JSON) -> Mapping[str, str]:
    """An object's annotations."""
    entries: Mapping[str, str] = (found.get("metadata") or {}).get("annotations") or {}
    return entries


def condition_of(found: JSON, kind: str) -> JSON:
    """A condition in an object's status; empty when it has none of that type."""
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; one that cannot be read is taken to."""
    try:
        return msgspec.convert(selector or {}, LabelSelector).matches(labels)
    except msgspec.ValidationError:
        return True


def whose(machine: JSON, node: Node) -> str:
    """Why a Machine is not this node's; empty when it is, as far as it tells.

    A management cluster can have Machines of several clusters whose nodes have the same names, so the provider's id
    counts as well, where both have one.
    """
    reference = (machine.get("status") or {}).get("nodeRef") or {}
    name, uid = reference.get("name"), reference.get("uid")
    if not name:
        return "it has no node yet, or none any more"
    if name != node.metadata.name:
        return f"it is that of node {name}"
    identity = (machine.get("spec") or {}).get("providerID")
    if uid and uid != node.metadata.uid:
        return "it is that of another node of the same name"
    if identity and node.spec.provider_id and identity != node.spec.provider_id:
        return f"it is another instance, {identity}"
    return ""
