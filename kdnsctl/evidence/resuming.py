"""What a bundle has already, node by node, so that going on with it reads no node twice that was finished. Pure.

A node is finished when the journal says so, its capture has what it is judged by (Services and EndpointSlices), and
all that is asked for now was read. Its tables stay where they are, judged by their own capture. Whatever is not
finished is read anew, all of it: tables and endpoints of different times do not go together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kdnsctl.changes.journal import Record
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.model import Reason

JUDGED_BY: Final = frozenset({"services", "endpointslices"})
INTERRUPTED: Final = Reason("interrupted", "the process that collected it ended before it was finished")


@dataclass(frozen=True, slots=True)
class Gap:
    """An item that is missing, or not whole; "": the node as a whole."""

    item: str
    reason: Reason

    def to_json(self) -> dict[str, str]:
        """As reports and the journal have it."""
        return {"item": self.item, "code": self.reason.code, "message": self.reason.message}


@dataclass(frozen=True, slots=True)
class Had:
    """What an earlier capture has of a node. `status` "" when it was not finished; `items` are those asked for then."""

    capture: int
    status: str = ""
    via: str = ""
    whole: int = 0
    missing: tuple[Gap, ...] = ()
    items: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Earlier:
    """A bundle as it stands: its nodes, with what counts of each, and the items that its `last` capture asked for.

    `judged` are the captures that have all of the cluster that nodes are judged by.
    """

    nodes: Mapping[str, Had] = field(default_factory=dict)
    items: tuple[str, ...] = ()
    judged: frozenset[int] = frozenset()
    last: int = 1

    def finished(self, node: str, items: Iterable[str]) -> bool:
        """Whether nothing of the node has to be read again."""
        had = self.nodes.get(node)
        return (
            had is not None and had.status == "complete" and had.capture in self.judged and had.items.issuperset(items)
        )

    def kept(self, reading: Collection[str]) -> dict[str, int]:
        """Which capture counts for each of the bundle's nodes that are not among those to be read."""
        return {node: had.capture for node, had in self.nodes.items() if node not in reading}


def node_record(node: str, status: str, via: str, whole: int, missing: Iterable[Gap], items: Iterable[str]) -> Any:
    """What the journal says of a node that was finished."""
    return {
        "node": node,
        "status": status,
        "via": via,
        "whole": whole,
        "missing": [gap.to_json() for gap in missing],
        "items": list(items),
    }


def earlier(records: Iterable[Record]) -> Earlier:
    """What a journal says. Records that are not as this program writes them say nothing."""
    last = 0
    scope: dict[str, int] = {}
    items: tuple[str, ...] = ()
    had: dict[tuple[str, int], Had] = {}
    whole: dict[tuple[str, int], int] = {}
    lists: dict[int, set[str]] = {}
    for record in records:
        said, capture = record.body, record.body.get("capture")
        if not isinstance(capture, int):
            continue
        if record.kind in ("begun", "resumed", "finished"):
            last = max(last, capture)
            scope = _scope(said, capture) or scope
            items = _words(said.get("items")) or items
        elif record.kind == "node":
            had[str(said.get("node")), capture] = _had(said, capture)
        elif record.kind == "artefact" and said.get("complete") is True:
            node = str(said.get("node"))
            whole[node, capture] = whole.get((node, capture), 0) + 1
            if node == CLUSTER:
                lists.setdefault(capture, set()).add(str(said.get("item")))
    nodes = {
        node: had.get((node, capture))
        or Had(capture, whole=whole.get((node, capture), 0), missing=(Gap("", INTERRUPTED),))
        for node, capture in scope.items()
    }
    judged = frozenset(capture for capture, found in lists.items() if found >= JUDGED_BY)
    return Earlier(nodes, items, judged, max(last, 1))


def _scope(said: Mapping[str, Any], capture: int) -> dict[str, int]:
    """Which capture counts for each node that a capture is about."""
    kept = said.get("kept")
    kept = kept if isinstance(kept, dict) else {}
    return {node: kept.get(node, capture) for node in _words(said.get("nodes"))}


def _had(said: Mapping[str, Any], capture: int) -> Had:
    whole = said.get("whole")
    missing = said.get("missing")
    return Had(
        capture,
        str(said.get("status")),
        str(said.get("via")),
        whole if isinstance(whole, int) else 0,
        tuple(
            Gap(str(one.get("item")), Reason(str(one.get("code")), str(one.get("message"))))
            for one in (missing if isinstance(missing, list) else ())
            if isinstance(one, dict)
        ),
        frozenset(_words(said.get("items"))),
    )


def _words(said: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in said) if isinstance(said, (list, dict)) else ()
