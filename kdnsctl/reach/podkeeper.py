"""The pods that one run has made, until each of them is deleted: whatever happens meanwhile.

A pod is written down here before the server is asked to make it, so that one whose answer never came is deleted too.
Deleting has a time of its own: the run's may be over, which is often why. What cannot be deleted is named, ends by
itself at its deadline, and is found by `kdnsctl cleanup`. Against kill -9 nothing here can help; the deadline does.
"""

from __future__ import annotations

import datetime as dt
import getpass
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from kdnsctl import fleet
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import pods
from kdnsctl.cluster.errors import ApiError, ForbiddenError, ServerError, TooManyRequestsError, UnauthorizedError
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, SilentReporter
from kdnsctl.reach.ownpod import PodRefusedError, PodShell, refusal, wait_until_running
from kdnsctl.reach.podspec import Image, PodOrder, PodRung, manifest

ENDING: Final = 15.0  # seconds for deleting
AT_ONCE: Final = 16
SLACK: Final = 60.0  # seconds that a pod may outlive its run: its deadline is for when nobody deletes it
UNBOUNDED: Final = 600.0  # seconds, for a run without a deadline


def new_run(now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)) -> str:
    """A name for one run of a command that no other has, and that can be a label's value."""
    return f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def operator() -> str:
    """Who this is, for others: user@host of this machine, as it would say itself."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this uid
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class PodSettings:
    """How pods are made. `operator` is who makes them, for whoever finds one; `run` is what cleanup finds them by."""

    namespace: str = "kube-system"
    image: str | None = None
    privileged: bool = False
    run: str = field(default_factory=new_run)
    operator: str = field(default_factory=operator)
    lifetime: float | None = None  # seconds; None: a little longer than the run may take


@dataclass(slots=True)
class _Made:
    """A pod that is there, or may be: `uid` is empty until the server has said that it made it."""

    order: PodOrder
    uid: str = ""


class PodKeeper:
    """Makes pods and deletes them again. Used from any number of threads."""

    def __init__(self, connection: Connection, settings: PodSettings) -> None:
        self.settings = settings
        self._connection = connection
        self._lock = threading.Lock()
        self._made: dict[str, _Made] = {}
        self._refused: dict[PodRung, PodRefusedError] = {}
        self._closed = False
        self._said: tuple[str, ...] | None = None  # of the first `close`: the next has nothing to add

    def order(self, rung: PodRung, node: str, node_uid: str, image: Image, scope: CancelScope) -> PodOrder:
        """What is asked for, under a name that nobody else has."""
        left = scope.remaining()
        return PodOrder(
            rung=rung,
            name=f"kdnsctl-{self.settings.run}-{secrets.token_hex(4)}",
            namespace=self.settings.namespace,
            node=node,
            node_uid=node_uid,
            image=image,
            run=self.settings.run,
            operator=self.settings.operator,
            lifetime=self.settings.lifetime or (UNBOUNDED if left is None else left) + SLACK,
        )

    def open(self, order: PodOrder, scope: CancelScope) -> PodShell:
        """Make the pod and wait until it runs; `end` ends it. Raises PodRefusedError, PodNotStartedError, and as
        `Connection.request`; then nothing is left of it that `close` does not know.
        """
        self._write_down(order, scope)
        try:
            uid = self._create(order, scope)
            wait_until_running(self._connection, order, uid, scope=scope)
        except BaseException:
            self.end(order.name)
            raise
        return PodShell(self._connection, order)

    def end(self, name: str) -> None:
        """Delete a pod, if it was made. What fails is tried again by `close`."""
        with self._lock:
            made = self._made.get(name)
        if made is not None:
            with CancelScope(ENDING) as limit:
                self._delete(made, limit)

    def close(self) -> tuple[str, ...]:
        """Make no more pods, and delete those that are left. Returns what could not be deleted, in words."""
        if self._said is not None:
            return self._said
        with self._lock:
            self._closed = True
            left = dict(self._made)

        def work(name: str, limit: CancelScope) -> bool:
            return self._delete(left[name], limit, last=True)

        with CancelScope(ENDING) as whole:
            fleet.run(left, work, parallel=AT_ONCE, deadline=None, reporter=SilentReporter(), scope=whole)
        with self._lock:
            self._said = tuple(self._left(made) for made in self._made.values())
        return self._said

    def _write_down(self, order: PodOrder, scope: CancelScope) -> None:
        scope.check()
        with self._lock:
            if self._closed:
                raise KdnsctlError("the run is over: no pod is made any more", code="deadline")
            known = self._refused.get(order.rung)
            if known is not None:
                raise PodRefusedError(str(known), hint=known.hint)
            self._made[order.name] = _Made(order)

    def _create(self, order: PodOrder, scope: CancelScope) -> str:
        try:
            made = pods.create(self._connection, order.namespace, manifest(order), scope=scope)
        except ServerError:
            raise  # it may have been made nevertheless
        except ApiError as error:
            with self._lock:
                self._made.pop(order.name, None)
            if isinstance(error, UnauthorizedError | TooManyRequestsError):
                raise
            refused = refusal(order, error)
            if isinstance(error, ForbiddenError):  # which holds for every node
                with self._lock:
                    self._refused[order.rung] = refused
            raise refused from error
        with self._lock:
            self._made[order.name].uid = made.metadata.uid
        return made.metadata.uid

    def _delete(self, made: _Made, scope: CancelScope, *, last: bool = False) -> bool:
        """True when nothing is left of it. One that may still be being made is forgotten only when asked `last`."""
        order = made.order
        try:
            there = pods.delete(self._connection, order.namespace, order.name, made.uid, scope=scope)
        except KdnsctlError:
            return False
        if there or made.uid or last:
            with self._lock:
                self._made.pop(order.name, None)
        return True

    def _left(self, made: _Made) -> str:
        order = made.order
        return (
            f"the pod {order.namespace}/{order.name} on {order.node} may be left: it ends by itself, and "
            f"`kdnsctl cleanup --run {order.run}` deletes it"
        )
