"""Captures that were begun and never finished: what the incident's journal knows of them, and the pods they have left.

A capture that was interrupted, or killed, is not gone on with: the node may have healed since, and what is drained must
be judged by what is true now. Its bundle is kept as it is and named, and a new one is made. What is journaled before a
capture begins is `captureBegun`: `run`, `bundle`, `nodes`, and `pods`, the label of the pods that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.journal import Record, read
from kdnsctl.cluster import pods
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError
from kdnsctl.reach.podspec import RUN, SELECTOR

BEGUN: Final = "captureBegun"
DONE: Final = "captured"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A capture without an end. `pods` is the run that its pods are labelled with; empty when it made none."""

    run: str
    bundle: str
    nodes: tuple[str, ...]
    pods: str = ""


def interrupted(journal: Path, nodes: Collection[str]) -> list[Interrupted]:
    """The captures of any of these nodes that were begun and not finished. Their locks are the caller's now."""
    try:
        records = read(journal).records
    except OSError:
        return []
    return list(_without_end(records, nodes))


def _without_end(records: Sequence[Record], nodes: Collection[str]) -> Iterator[Interrupted]:
    begun: list[Interrupted] = []
    for record in records:
        body = record.body
        of = tuple(str(name) for name in body.get("nodes") or ())
        if record.kind == BEGUN:
            begun.append(Interrupted(str(body.get("run")), str(body.get("bundle")), of, str(body.get("pods") or "")))
        elif record.kind == DONE:  # of it, and of what was captured anew since
            begun = [one for one in begun if one.bundle != body.get("bundle") and not set(one.nodes) <= set(of)]
    yield from (one for one in begun if not set(one.nodes).isdisjoint(nodes))


def tidied(
    found: Sequence[Interrupted],
    directory: Path,
    connection: Connection,
    nodes: Collection[str],
    *,
    anew: bool,
    scope: CancelScope,
    note: Callable[[str], object],
) -> None:
    """Delete the pods that these captures have left on `nodes`, and tell what else. `anew`: whether a capture follows.

    Raises what ended `scope`. Whoever holds the locks of the nodes knows that the other run works on them no more.
    """
    for one in found:
        there = directory / one.bundle
        kept = f"what it had is kept in {there}" if there.is_dir() else "it had nothing"
        note(
            f"the capture of run {one.run} was interrupted; {kept}" + ("; the nodes are captured anew" if anew else "")
        )
        if not one.pods:
            continue
        try:
            count = _delete_pods(connection, one, nodes, scope)
        except KdnsctlError as error:
            scope.check()
            note(f"its pods end by themselves, or by kdnsctl cleanup --run {one.pods}; deleting them failed: {error}")
            continue
        if count:
            note(f"{count} pod{'s' if count > 1 else ''} of it still there: deleted")


def _delete_pods(connection: Connection, one: Interrupted, nodes: Collection[str], scope: CancelScope) -> int:
    count = 0
    for pod in pods.find(connection, None, f"{SELECTOR},{RUN}={one.pods}", scope=scope):
        metadata = pod.metadata
        if pod.spec.node_name in nodes and metadata.deletion_timestamp is None:
            count += pods.delete(connection, metadata.namespace, metadata.name, metadata.uid, scope=scope)
    return count
