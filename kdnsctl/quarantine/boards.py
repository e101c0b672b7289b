"""Objects as a watch shows them, and waiting for them to become what one waits for.

A `Board` keeps the newest of every object by UID, so an object is gone only when the server says so: by a DELETED event
or by a whole list without it. An error never makes anything gone. Nothing is decided here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.objects import Metadata
from kdnsctl.cluster.watch import Change, Event
from kdnsctl.model import KdnsctlError


class Named(Protocol):
    """An object of the API."""

    @property
    def metadata(self) -> Metadata:
        """Its identity."""


T = TypeVar("T", bound=Named)

Events = Callable[[CancelScope], Iterator[Event[Any]]]  # what to watch, within a scope


class Board(Generic[T]):
    """The objects of one watch, from `open` until `close`. Used from any number of threads."""

    def __init__(self, events: Callable[[CancelScope], Iterator[Event[T]]], scope: CancelScope) -> None:
        self._scope = scope.child()
        self._events = events(self._scope)
        self._changed = threading.Condition()
        self._objects: dict[str, T] = {}
        self._failure: KdnsctlError | None = None

    def open(self) -> Self:
        """Know what there is, and follow it from now on. Raises what listing raises."""
        self._take(next(self._events))
        threading.Thread(target=self._follow, name="board", daemon=True).start()
        return self

    def close(self) -> None:
        """Follow no longer."""
        self._scope.cancel()
        self._scope.release()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, uid: str) -> T | None:
        """The object of that UID; None when there is none."""
        with self._changed:
            return self._objects.get(uid)

    def items(self) -> list[T]:
        """All objects."""
        with self._changed:
            return list(self._objects.values())

    def wait(self, done: Callable[[], bool], scope: CancelScope, seconds: float | None = None) -> bool:
        """Wait until `done`, which is asked after every change; False when that took longer than `seconds`.

        Raises what ended the scope, and why the watch ended if it did.
        """
        clock = scope.clock
        until = None if seconds is None else clock.now() + seconds
        with contextlib.ExitStack() as stack:
            if until is not None:
                stack.callback(clock.call_at(until, self._wake))
            stack.callback(scope.register(self._wake))
            with self._changed:
                while True:
                    scope.check()
                    if done():
                        return True
                    if self._failure is not None:
                        raise self._failure
                    if until is not None and clock.now() >= until:
                        return False
                    self._changed.wait()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _follow(self) -> None:
        try:
            for event in self._events:
                self._take(event)
        except KdnsctlError as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _take(self, event: Event[T]) -> None:
        with self._changed:
            match event.change:
                case Change.LISTED:
                    self._objects = {one.metadata.uid: one for one in event.items}
                case Change.ADDED | Change.MODIFIED:
                    self._objects.update((one.metadata.uid, one) for one in event.items)
                case Change.DELETED:
                    for one in event.items:
                        self._objects.pop(one.metadata.uid, None)
                case Change.BOOKMARK:
                    return
            self._changed.notify_all()
