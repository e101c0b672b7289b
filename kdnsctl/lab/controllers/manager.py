"""When controllers run: step by step in a test, or in a thread that wakes up for changes.

A controller is level-triggered: it reads the store, makes what is missing, removes what is too much, and returns.
Passes are repeated until none of them writes, so that a step ends in a state that only somebody else can change.
"""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from kdnsctl.lab import kinds
from kdnsctl.lab.changes import Subscription
from kdnsctl.lab.controllers.budgets import next_expiry, reconcile_budgets
from kdnsctl.lab.controllers.collector import collect_orphans, empty_namespaces
from kdnsctl.lab.controllers.daemonsets import reconcile_daemon_sets
from kdnsctl.lab.controllers.deployments import reconcile_deployments
from kdnsctl.lab.controllers.endpointslices import reconcile_endpoint_slices
from kdnsctl.lab.controllers.nodetaints import reconcile_node_taints
from kdnsctl.lab.controllers.replicasets import reconcile_replica_sets
from kdnsctl.lab.controllers.scheduler import schedule
from kdnsctl.lab.controllers.statefulsets import reconcile_stateful_sets
from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import Store

_MOST_PASSES: Final = 200


@dataclass(frozen=True, slots=True)
class Controller:
    """A pass over the store, the kinds whose changes call for one, and when one is due without any change."""

    name: str
    run: Callable[[Store], None]
    looks_at: frozenset[Kind]
    due_at: Callable[[Store], datetime | None] = lambda _: None


def _controller(
    name: str,
    run: Callable[[Store], None],
    *looks_at: Kind,
    due_at: Callable[[Store], datetime | None] = lambda _: None,
) -> Controller:
    return Controller(name, run, frozenset(looks_at), due_at)


CONTROLLERS: Final[tuple[Controller, ...]] = (
    _controller("node-taints", reconcile_node_taints, kinds.NODES),
    _controller(
        "daemonset", reconcile_daemon_sets, kinds.DAEMON_SETS, kinds.NODES, kinds.PODS, kinds.CONTROLLER_REVISIONS
    ),
    _controller("deployment", reconcile_deployments, kinds.DEPLOYMENTS, kinds.REPLICA_SETS),
    _controller("replicaset", reconcile_replica_sets, kinds.REPLICA_SETS, kinds.PODS),
    _controller("statefulset", reconcile_stateful_sets, kinds.STATEFUL_SETS, kinds.PODS),
    _controller("scheduler", schedule, kinds.PODS, kinds.NODES),
    _controller("endpointslice", reconcile_endpoint_slices, kinds.SERVICES, kinds.PODS, kinds.ENDPOINT_SLICES),
    _controller(
        "disruption", reconcile_budgets, kinds.DISRUPTION_BUDGETS, kinds.PODS, kinds.REPLICA_SETS, kinds.DEPLOYMENTS,
        kinds.STATEFUL_SETS, due_at=next_expiry,
    ),
    _controller(
        "garbage-collector", collect_orphans, kinds.DAEMON_SETS, kinds.DEPLOYMENTS, kinds.REPLICA_SETS, kinds.SERVICES,
        kinds.STATEFUL_SETS, kinds.PODS, kinds.CONTROLLER_REVISIONS, kinds.ENDPOINT_SLICES,
    ),
    _controller("namespace", empty_namespaces, *kinds.KINDS),
)  # fmt: skip


class ControllerManager:
    """Runs controllers over one store. Either `step` from the caller's thread, or `start` and `stop`, not both."""

    def __init__(self, store: Store, controllers: Sequence[Controller] = CONTROLLERS) -> None:
        self._store = store
        self._controllers = controllers
        self._paused: set[str] = set()
        self._subscription: Subscription = store.subscribe(since=None)
        self._thread: threading.Thread | None = None
        self._everything_due = True
        self.errors: list[str] = []
        """Tracebacks of passes that failed; a test expects none."""

    def step(self) -> int:
        """Run until nothing is left to do, and return how many writes that took.

        The order of the passes is fixed, so the same store and the same seed give the same result. Raises RuntimeError
        when controllers keep undoing each other's work.
        """
        before = self._store.version
        for _ in range(_MOST_PASSES):
            changed = {change.kind for change in self._subscription.take()}
            due = self._everything_due
            self._everything_due = False
            late = self._late()
            if not changed and not due and not late:
                return self._store.version - before
            for controller in self._controllers:
                if controller.name in self._paused:
                    continue
                if due or changed & controller.looks_at or controller in late:
                    self._pass(controller)
        raise RuntimeError(f"the lab's controllers found no rest in {_MOST_PASSES} passes")

    def _late(self) -> list[Controller]:
        """Controllers that have something to do because time has passed."""
        now = self._store.clock()
        return [controller for controller, due in self._due() if due <= now]

    def _seconds_left(self) -> float | None:
        """Until the first controller is due, by the store's clock; None when none will be."""
        moments = [due for _, due in self._due()]
        return max(0.0, (min(moments) - self._store.clock()).total_seconds()) if moments else None

    def _due(self) -> list[tuple[Controller, datetime]]:
        working = [controller for controller in self._controllers if controller.name not in self._paused]
        return [(controller, due) for controller in working if (due := controller.due_at(self._store))]

    def _pass(self, controller: Controller) -> None:
        # Between reading and writing somebody else may have written; the change that follows calls for another pass.
        with contextlib.suppress(_Overtaken), self._store.lock:
            try:
                controller.run(self._store)
            except Refused as refusal:
                if refusal.code not in (404, 409):
                    raise
                raise _Overtaken from refusal

    def pause(self, name: str) -> None:
        """Let one controller rest, as if its program were down."""
        if name not in {controller.name for controller in self._controllers}:
            raise ValueError(f"there is no controller {name!r}")
        self._paused.add(name)

    def resume(self, name: str) -> None:
        """Let it work again; it catches up at the next step or change."""
        self._paused.discard(name)
        self._everything_due = True
        self._subscription.nudge()

    def start(self) -> None:
        """Work in a thread of its own from now on."""
        self._thread = threading.Thread(target=self._loop, name="lab-controllers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent."""
        self._subscription.close()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _loop(self) -> None:
        while not self._subscription.closed:
            try:
                self.step()
            except Exception:  # noqa: BLE001 - the outermost frame of the thread: kept for who asks, the rest goes on
                self.errors.append(traceback.format_exc())
            self._subscription.wait_for_news(self._seconds_left())


class _Overtaken(Exception):  # noqa: N818 - not an error: another pass follows
    """Somebody else wrote first."""
