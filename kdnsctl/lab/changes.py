"""What the store tells its watchers: changes, subscriptions to them, and how a selector sees a change.

Nothing here knows of HTTP or of bookmarks; the API's watch and the controllers both read subscriptions.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.selectors import Predicate


class ChangeType(enum.Enum):
    """The types of watch events that concern an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Change:
    """One write. `obj` is the object after it (for DELETED: its last state, with the version of the deletion).

    `before` is the object before it, None for ADDED. Both are shared with the store: never change them.
    """

    type: ChangeType
    version: int
    kind: Kind
    obj: JSON
    before: JSON | None = None


def seen_through(change: Change, namespace: str, matches: Predicate) -> Change | None:
    """The change as a watch with a namespace ("": all) and selectors sees it, None when it does not.

    An object that starts to match appears as ADDED, one that stops to match as DELETED with its last matching state.
    """
    if namespace and change.obj["metadata"].get("namespace") != namespace:
        return None
    now = change.type is not ChangeType.DELETED and matches(change.obj)
    then = change.before is not None and matches(change.before)
    if now and then:
        return change if change.type is ChangeType.MODIFIED else replace(change, type=ChangeType.MODIFIED)
    if now:
        return change if change.type is ChangeType.ADDED else replace(change, type=ChangeType.ADDED, before=None)
    if not then or change.before is None:
        return None
    if change.type is ChangeType.DELETED:
        return change
    metadata = {**change.before["metadata"], "resourceVersion": str(change.version)}
    return replace(change, type=ChangeType.DELETED, obj={**change.before, "metadata": metadata})


class Subscription:
    """Changes as they happen, to be taken by one thread. `wake` is called after each, from the writer's thread."""

    def __init__(
        self,
        kinds: frozenset[Kind],
        backlog: Iterable[Change],
        forget: Callable[[Subscription], None],
        wake: Callable[[], None] | None = None,
    ) -> None:
        self._kinds = kinds
        self._changes: deque[Change] = deque(backlog)
        self._condition = threading.Condition()
        self._closed = False
        self._nudged = False
        self._forget = forget
        self._wake = wake

    def push(self, change: Change) -> None:
        """Called by the store, under its lock, in the order of the writes."""
        if self._kinds and change.kind not in self._kinds:
            return
        with self._condition:
            self._changes.append(change)
            self._condition.notify_all()
        if self._wake is not None:
            self._wake()

    def take(self) -> list[Change]:
        """What happened since the last call, without waiting."""
        with self._condition:
            changes = list(self._changes)
            self._changes.clear()
            return changes

    def wait(self, timeout: float | None = None) -> list[Change]:
        """As `take`, but waits for at least one change. Empty after `timeout` seconds or `close`."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._changes) or self._closed, timeout)
            changes = list(self._changes)
            self._changes.clear()
            return changes

    def wait_for_news(self, timeout: float | None = None) -> None:
        """Wait for a change without taking it, for a `nudge`, for `close`, or for `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: bool(self._changes) or self._closed or self._nudged, timeout)
            self._nudged = False

    def nudge(self) -> None:
        """Let go whoever waits for news, although there are none."""
        with self._condition:
            self._nudged = True
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the subscription and let a waiting thread go. Idempotent, from any thread."""
        self._forget(self)
        with self._condition:
            self._closed = True
            self._condition.notify_all()
