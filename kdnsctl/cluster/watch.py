"""A list, and then every change to it, for as long as it is wanted: list + watch, resumed whatever breaks.

It delivers events and keeps no copy of the objects. After an interruption it resumes from the last resourceVersion
seen, bookmarks included; when that is too old (410, as an HTTP status or as an ERROR event inside a 200:
recordings/api/ watch-expired) it lists again and says so with a LISTED event, which replaces everything before. Where
watching is not allowed or not possible, it polls the list and delivers a LISTED event whenever that has changed.

    for event in watch(connection, "/apis/discovery.k8s.io/v1/endpointslices", EndpointSlice, scope=scope): ...
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import Query, decode
from kdnsctl.cluster.errors import (
    AnswerError,
    ApiError,
    ForbiddenError,
    GoneError,
    NotAllowedError,
    ServerError,
    TooManyRequestsError,
    UnreachableError,
    of_status,
)
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Metadata, Object, Status
from kdnsctl.cluster.retries import NO_RETRIES, RetryPolicy
from kdnsctl.cluster.transport import Connection

T = TypeVar("T")

PERIOD = 300  # seconds after which the server is asked to end a watch, and it is begun anew
SILENCE = 90.0  # seconds: bookmarks come every minute (k8s.io/apiserver cacher); a watch silent for longer is dead
MAX_LINE = 16 << 20  # bytes of one event; etcd holds no object larger than 1.5 MiB
SHORT = 1.0  # seconds: a watch that ends sooner and brought nothing is a failure, lest we ask in a circle
BACKOFF = RetryPolicy(attempts=2, first=0.5, longest=30.0)


class Change(enum.StrEnum):
    """What an event says. The names are the API's, but for LISTED."""

    LISTED = "LISTED"  # everything that there is: replaces what was known
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"  # nothing changed up to this resourceVersion


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """One change: `items` are all objects after LISTED, else the one object concerned (none for a bookmark)."""

    change: Change
    items: tuple[T, ...]
    resource_version: str


class _Versioned(Object, frozen=True):
    metadata: Metadata = Metadata()


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw = msgspec.Raw(b"{}")


def watch(
    connection: Connection,
    path: str,
    type: type[T],  # noqa: A002
    *,
    scope: CancelScope,
    labels: str | None = None,
    fields: str | None = None,
    poll: float = 10.0,
    note: Callable[[str], None] = lambda _: None,
    backoff: RetryPolicy = BACKOFF,
    silence: float = SILENCE,
) -> Iterator[Event[T]]:
    """Events until the caller stops asking, or `scope` ends (which raises what ended it). The first is LISTED.

    The first list has to succeed: its error is raised. Later failures are noted and repeated, with growing pauses, for
    as long as the scope lasts; but when the list may not be read any more, that is raised. `poll` is the pause between
    two lists where watching is refused, in seconds.
    """
    query: Query = {"labelSelector": labels, "fieldSelector": fields}
    pauses = _Pauses(path, scope, backoff, note)

    def listed() -> Event[T]:
        listing = list_all(connection, path, type, labels=labels, fields=fields, scope=scope)
        return Event(Change.LISTED, tuple(listing.items), listing.resource_version)

    known = listed()
    yield known
    version = known.resource_version
    polling = False
    while True:
        try:
            if polling or not version:
                if polling:
                    _pause(scope, poll)
                now = listed()
                if now.resource_version != known.resource_version:
                    yield now
                known, version = now, now.resource_version
            if polling:
                pauses.over()
                continue
            begun = scope.clock.now()
            for event in _one_watch(connection, path, type, query, version, scope, silence):
                version = event.resource_version or version
                pauses.over()
                yield event
            pauses.after_end(scope.clock.now() - begun)
        except GoneError as error:
            version = ""
            pauses.next(str(error), error, said=False)
        except (ForbiddenError, NotAllowedError) as error:
            if polling or not version:
                raise
            note(f"{path} cannot be watched ({error}); it is listed every {poll:g}s instead")
            polling = True
        except (UnreachableError, ServerError, TooManyRequestsError, AnswerError) as error:
            pauses.next(str(error), error)


class _Pauses:
    """The growing pauses between attempts that bring nothing. The first after success is short."""

    def __init__(self, path: str, scope: CancelScope, policy: RetryPolicy, note: Callable[[str], None]) -> None:
        self._path = path
        self._scope = scope
        self._policy = policy
        self._note = note
        self._failures = 0
        self._dice = random.Random()  # noqa: S311 - spreads retries, guards nothing

    def over(self) -> None:
        """Something came: the next pause is short again."""
        self._failures = 0

    def after_end(self, lasted: float) -> None:
        """The server ended a watch, which it does from time to time; `lasted` in seconds."""
        if lasted < SHORT:
            self.next("the server ended it at once", None)

    def next(self, why: str, error: Exception | None, *, said: bool = True) -> None:
        """Wait, having said why. Raises what ended the scope."""
        self._scope.check()
        self._failures += 1
        kind = error if isinstance(error, ApiError | UnreachableError) else UnreachableError(why)
        pause = self._policy.wait(min(self._failures, 10), kind, self._dice)
        if said:
            self._note(f"the watch on {self._path} was interrupted ({why}); resuming in {pause:.1f}s")
        _pause(self._scope, pause)


def _one_watch(
    connection: Connection,
    path: str,
    type: type[T],  # noqa: A002
    query: Query,
    version: str,
    scope: CancelScope,
    silence: float,
) -> Iterator[Event[T]]:
    """The events of one request. Ends when the server ends it; raises GoneError when `version` is too old."""
    asked: Query = {
        **query,
        "watch": True,
        "allowWatchBookmarks": True,
        "resourceVersion": version,
        "timeoutSeconds": PERIOD,
    }
    what = f"GET {path}?watch"
    with connection.stream(
        path, query=asked, accept="application/json", scope=scope, silence=silence, retry=NO_RETRIES
    ) as stream:
        for text in _lines(stream.chunks, what):
            line: _Line = decode(text, _Line, what)
            if line.type == "ERROR":
                raise of_status(what, decode(bytes(line.object), Status, what), stream.audit_id)
            if line.type not in _CHANGES:
                continue  # one that a later version brings
            at = decode(bytes(line.object), _Versioned, what).metadata.resource_version
            change = Change(line.type)
            items = () if change is Change.BOOKMARK else (decode(bytes(line.object), type, what),)
            yield Event(change, items, at)


_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


def _lines(chunks: Iterator[bytes], what: str) -> Iterator[bytes]:
    """Complete lines. A rest without its end of line is dropped: the event will come again."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE:
            raise AnswerError(f"an event in {what} is larger than {MAX_LINE >> 20} MiB")
        yield from (line for line in whole if line.strip())


def _pause(scope: CancelScope, seconds: float) -> None:
    scope.cancelled.wait(scope.remaining(seconds))
    scope.check()
