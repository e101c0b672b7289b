"""Getting one pod off its node: ask, understand the no, wait for the right thing, ask again; then wait for its end.

Before each attempt the pod is read again, and its UID and node are compared: kubectl evicts whatever has the name by
then (kubernetes#138229). The UID goes with the request, too; alone it would not do, as a server uses up a disruption
before it looks at it. What is sent is the caller's `send`, so that it can be journaled.

An answer is one of: done; a budget (wait for the budget, as its watch shows it); overload (Retry-After, or a growing
pause); a namespace that is being deleted; two budgets, which never heals; anything else ends this pod.
"""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnreachableError,
)
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.policy import DisruptionBudget
from kdnsctl.cluster.retries import NO_RETRIES, RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError
from kdnsctl.quarantine.boards import Board
from kdnsctl.quarantine.budgets import has_room, selecting
from kdnsctl.quarantine.podfilters import DrainOptions, long_gone, name_of

TWO_BUDGETS: Final = "more than one PodDisruptionBudget"  # in the message of the 500; it has no reason
NAMESPACE_TERMINATING: Final = "NamespaceTerminating"
AT_ONCE: Final = 16  # requests that change something, in flight at the same time
FAILURES: Final = 10  # answers in a row that say nothing about the pod, before it is given up
BUDGET_PAUSE: Final = RetryPolicy(first=5.0, longest=30.0)  # when the watch shows nothing; kubectl's is 5 s
FAILURE_PAUSE: Final = RetryPolicy(first=0.5, longest=15.0)
NAMESPACE_PAUSE: Final = 5.0
STUCK: Final = timedelta(seconds=30)  # after its end was due, a pod is called stuck

Send = Callable[[Pod, DrainOptions, CancelScope], None]
"""Asks the server once to remove the pod, by its UID. Raises ApiError or UnreachableError."""


class Ending(enum.StrEnum):
    """What became of a pod."""

    GONE = "gone"
    MOVED = "moved"  # another pod has its name now, or there was none any more: nothing was done
    SKIPPED = "skipped"  # still terminating, and not waited for, as asked
    KEPT = "kept"  # it serves DNS and is needed where it is


class TwoBudgetsError(KdnsctlError):
    """The pod falls under several budgets, for which the server has no eviction."""

    code = "twoBudgets"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What evictions need beside the pod. `budgets` None: they cannot be read, and are asked for again by the clock.

    `boards` has the pods of each node, `now` is the time of day, `note` is told what the operator should know, from any
    thread.
    """

    connection: Connection
    boards: dict[str, Board[Pod]]
    budgets: Board[DisruptionBudget] | None
    send: Send
    now: Callable[[], datetime]
    note: Callable[[str], None]
    dice: random.Random = field(default_factory=random.Random)
    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))


def remove(
    pod: Pod,
    options: DrainOptions,
    around: Surroundings,
    scope: CancelScope,
    may: Callable[[], None] = lambda: None,
) -> Ending:
    """Get the pod off its node. Raises KdnsctlError when it cannot be, or what ended the scope.

    `may` is called before each attempt, and raises KdnsctlError when there must be none: much may have changed while a
    budget was waited for.
    """
    if not _ask(pod, options, around, scope, may):
        return Ending.MOVED
    return _wait(pod, options, around, scope)


@dataclass(slots=True)
class _Asking:
    """What has been answered so far."""

    failures: int = 0
    refusals: int = 0
    said: str = ""


def _ask(pod: Pod, options: DrainOptions, around: Surroundings, scope: CancelScope, may: Callable[[], None]) -> bool:
    """Until the server has begun to remove it; False when it is not there (any more)."""
    state = _Asking()
    while True:
        scope.check()
        versions = _versions(pod, around)
        try:
            found = _look(pod, around, scope)
            if found is None:
                return False
            if found.metadata.deletion_timestamp is not None and options.grace_period is None:
                return True
            with around.slots:
                scope.check()
                may()
                around.send(found, options, scope)
        except NotFoundError:
            return False
        except (ApiError, UnreachableError) as error:
            scope.check()
            _understand(pod, error, versions, state, around, scope)
        else:
            return True


def _understand(
    pod: Pod, error: ApiError | UnreachableError, versions: Mapping[str, str], state: _Asking, around: Surroundings,
    scope: CancelScope,
) -> None:  # fmt: skip
    """Wait for what may change the server's mind. Raises when nothing will, or nothing has for too long."""
    if isinstance(error, TooManyRequestsError) and error.budget:
        _await_budget(pod, error, versions, state, around, scope)
    elif isinstance(error, TooManyRequestsError):
        state.refusals += 1
        _again(pod, error, state.refusals, around, scope)
    elif isinstance(error, ForbiddenError) and _is_terminating_namespace(error):
        around.note(f"{name_of(pod)}: {error.failure.message}; trying again in {NAMESPACE_PAUSE:g}s")
        scope.pause(NAMESPACE_PAUSE)
        scope.check()
    elif isinstance(error, ServerError) and TWO_BUDGETS in error.failure.message:
        raise TwoBudgetsError(_two_budgets(pod, around)) from error
    elif isinstance(error, ConflictError | ServerError | UnreachableError):
        state.failures += 1
        if state.failures > FAILURES:
            raise error
        _again(pod, error, state.failures, around, scope)
    else:
        raise error


def _look(pod: Pod, around: Surroundings, scope: CancelScope) -> Pod | None:
    """The pod as it is now; None when it is gone, another has its name, or it is elsewhere."""
    path = pod_path(pod)
    reply = around.connection.request("GET", path, scope=scope, retry=NO_RETRIES)
    found = decode(reply.body, Pod, f"GET {path}")
    same = found.metadata.uid == pod.metadata.uid and found.spec.node_name == pod.spec.node_name
    return found if same else None


def _again(pod: Pod, error: ApiError | UnreachableError, count: int, around: Surroundings, scope: CancelScope) -> None:
    seconds = FAILURE_PAUSE.wait(min(count, 10), error, around.dice)
    around.note(f"{name_of(pod)}: {error}; trying again in {seconds:.1f}s")
    scope.pause(seconds)
    scope.check()


def _await_budget(
    pod: Pod, error: TooManyRequestsError, before: Mapping[str, str], state: _Asking, around: Surroundings,
    scope: CancelScope,
) -> None:  # fmt: skip
    """Wait until a budget has changed and has room, or for a growing while. Says once why."""
    state.refusals += 1
    if error.hint != state.said:
        around.note(f"{name_of(pod)} waits: {error.hint}")
        state.said = error.hint
    asked = error.failure.retry_after
    seconds = BUDGET_PAUSE.wait(min(state.refusals, 4), error, around.dice) if asked is None else asked
    board = around.budgets
    if board is None:
        scope.pause(seconds)
        scope.check()
        return

    def has_opened() -> bool:
        now = selecting(pod, board.items())
        return all(one.metadata.resource_version != before.get(one.metadata.uid) for one in now) and all(
            has_room(pod, one) for one in now
        )

    try:
        board.wait(has_opened, scope, seconds)
    except KdnsctlError:
        scope.check()
        scope.pause(seconds)  # the watch is lost, the pod is not
        scope.check()


def _versions(pod: Pod, around: Surroundings) -> dict[str, str]:
    """The versions of the pod's budgets, so that the state that led to a no is not taken for news."""
    if around.budgets is None:
        return {}
    return {one.metadata.uid: one.metadata.resource_version for one in selecting(pod, around.budgets.items())}


def _two_budgets(pod: Pod, around: Surroundings) -> str:
    names = [str(one) for one in selecting(pod, around.budgets.items())] if around.budgets else []
    which = f" ({', '.join(names)})" if names else ""
    return f"{name_of(pod)} is under more than one budget{which}: the server cannot evict it; change one of them"


def _is_terminating_namespace(error: ForbiddenError) -> bool:
    return any(cause.reason == NAMESPACE_TERMINATING for cause in error.failure.details.causes)


def _wait(pod: Pod, options: DrainOptions, around: Surroundings, scope: CancelScope) -> Ending:
    """Until the pod is gone. Only the server's word counts: no error does."""
    board, uid = around.boards[pod.spec.node_name], pod.metadata.uid
    told = False
    while True:
        now = board.get(uid)
        if now is None:
            return Ending.GONE
        if long_gone(now, options, around.now()):
            around.note(
                f'pod "{pod.metadata.name}" has DeletionTimestamp older than {options.skip_wait:g} seconds, skipping'
            )
            return Ending.SKIPPED
        end = now.metadata.deletion_timestamp
        if end is not None and around.now() > end + STUCK and not told:
            around.note(f"{name_of(pod)} is stuck: it should have ended {end:%H:%M:%SZ}{_held_by(now)}")
            told = True
        board.wait(_changes(board, uid, now), scope, _until(end, options, around.now(), told=told))


def _changes(board: Board[Pod], uid: str, known: Pod) -> Callable[[], bool]:
    return lambda: board.get(uid) is not known


def _until(end: datetime | None, options: DrainOptions, now: datetime, *, told: bool) -> float | None:
    """Seconds until there is something new to say of a pod that does not change."""
    if end is None:
        return None
    moments = [] if told else [end + STUCK]
    if options.skip_wait:
        moments.append(end + timedelta(seconds=options.skip_wait))
    left = [(moment - now).total_seconds() for moment in moments]
    return max(0.0, min(left)) + 0.1 if left else None


def _held_by(pod: Pod) -> str:
    return f"; finalizers: {', '.join(pod.metadata.finalizers)}" if pod.metadata.finalizers else ""


def pod_path(pod: Pod) -> str:
    """Where a pod is in the API."""
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
