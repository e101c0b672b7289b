"""EndpointSlices as they were when a node was read: those that were listed, and what changed of them until then. Pure.

It is to a bundle what `bracket` is to live nodes: in doubt an endpoint counts as serving. So one that went only after a
node's reading had begun, or came at any time of the capture, is not dead for that node; one that went before is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from kdnsctl.cluster.objects import EndpointSlice, Object
from kdnsctl.cluster.watch import Change

Name = tuple[str, str]


class _Line(Object, frozen=True):
    type: str = ""
    time: datetime | None = None
    object: EndpointSlice | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """One change at a time, by the clock of whoever collected. LISTED without a slice: what follows is all there is."""

    at: datetime
    change: str
    slice: EndpointSlice | None


def changes_of(content: bytes) -> list[Changed]:
    """What a bundle says of changes, in order. Lines that tell no time, or are none of ours, tell nothing."""
    found: list[Changed] = []
    for line in content.splitlines():
        try:
            said = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue  # the last line of a capture that was killed
        if said.time is not None and said.time.tzinfo is not None:
            found.append(Changed(said.time, said.type, said.object))
    return found


def slices_at(
    listed: Iterable[EndpointSlice], changes: Iterable[Changed], began: datetime | None
) -> list[EndpointSlice]:
    """The slices that are true for a reading that `began` then; None: when is not known, and all of them may be.

    A slice that changed afterwards is there as it was and as it became.
    """
    changes = list(changes)
    now: dict[Name, EndpointSlice] = {(one.metadata.namespace, one.metadata.name): one for one in listed}
    later: list[EndpointSlice] = []
    for change in changes:
        if began is None or change.at > began:
            later += [change.slice] if change.slice is not None and change.change != Change.DELETED else []
        else:
            _apply(change, now)
    return [*now.values(), *later]


def _apply(change: Changed, now: dict[Name, EndpointSlice]) -> None:
    one = change.slice
    if one is None:
        if change.change == Change.LISTED:
            now.clear()
        return
    name = (one.metadata.namespace, one.metadata.name)
    if change.change == Change.DELETED:
        now.pop(name, None)
    else:
        now[name] = one
