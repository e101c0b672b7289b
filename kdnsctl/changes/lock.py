"""One operator at a time on a node: a Lease for each, renewed while a command works, gone or expired afterwards.

The Lease `kdnsctl-<first 16 hex digits of the name's SHA-256>` is held for 60 s and renewed every 20 s. Whether one has
expired is measured by the API server's clock. A Lease whose run is known to be over is not waited for. Where Leases are
forbidden there is none, and `Locks.notes` says what stands in for it: the node's record, where the work writes one by a
patch with a test on its resourceVersion, or nothing. What is done under a lock, and what becomes of work whose lock is
lost, is the caller's: it works in `Locks.scope`, which ends then.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.changes.incidents import Actor
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.errors import ConflictError, ForbiddenError, NotFoundError
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection, Reply
from kdnsctl.model import KdnsctlError, Reason, RefusedError

NAMESPACE: Final = "kube-system"
LASTS: Final = 60  # seconds
RENEWED: Final = 20  # seconds
ATTEMPTS: Final = 5
CLOCKS_DIFFER: Final = timedelta(seconds=5)
NODE: Final = "kdnsctl.io/node"  # annotation: whose lock it is, for people
WITHOUT: Final = (
    "the record on the node is the lock instead: it keeps other incidents off, not another run in the same one"
)
UNPROTECTED: Final = "nothing keeps another operator off it meanwhile"  # for work that writes no such record
Waiter = Callable[[threading.Event, float], bool]


def needed(namespace: str = NAMESPACE, instead: str = WITHOUT) -> tuple[Permission, ...]:
    """What locking takes; `instead` is what there is without it."""
    return tuple(
        Permission(verb, "leases", group="coordination.k8s.io", namespace=namespace, without=instead)
        for verb in ("get", "create", "update", "delete")
    )


class LockedError(RefusedError):
    """Somebody else works on the node."""

    code = "locked"


def lease_name(node: str) -> str:
    """The name of a node's Lease. A node's own name may be longer than a Lease's prefix leaves room for."""
    return f"kdnsctl-{hashlib.sha256(node.encode()).hexdigest()[:16]}"


def lease_of(connection: Connection, node: str, *, scope: CancelScope, namespace: str = NAMESPACE) -> str:
    """Who holds the lock of a node now; empty when nobody does. Raises as `Connection.get`, but for a missing Lease."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{lease_name(node)}"
    try:
        reply = connection.request("GET", path, scope=scope)
    except NotFoundError:
        return ""
    spec = decode(reply.body, dict[str, Any], f"GET {path}").get("spec") or {}
    until = end_of(spec)
    return str(spec.get("holderIdentity") or "") if until and until > server_time(reply) else ""


def end_of(spec: Mapping[str, Any]) -> datetime | None:
    """When a Lease with this spec ends; None for one that was never renewed, or not in a way that can be read."""
    try:
        renewed = datetime.fromisoformat(spec.get("renewTime") or "")
        return renewed + timedelta(seconds=float(spec.get("leaseDurationSeconds", LASTS)))
    except (TypeError, ValueError):
        return None


@dataclass(slots=True)
class Locks:
    """Locks that are held: the scope in which to work. `without` are nodes without one, as Leases are forbidden.

    `left` are nodes whose Lease could not be given back: it is there until it expires.
    """

    scope: CancelScope
    left: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextlib.contextmanager
def locked(
    connection: Connection,
    nodes: Sequence[str],
    actor: Actor,
    *,
    scope: CancelScope,
    namespace: str = NAMESPACE,
    note: Callable[[str], None] = lambda _: None,
    wait: Waiter = threading.Event.wait,
    is_over: Callable[[str], bool] = lambda _: False,
    instead: str = WITHOUT,
) -> Iterator[Locks]:
    """Hold the locks of `nodes` for the length of the block, all or none; where Leases are forbidden, say `instead`.

    Raises LockedError, naming who holds one. `wait` waits between renewals; tests have their own. `is_over` tells of a
    run, by its name, whether it has ended for sure: what it holds is taken over at once.
    """
    leases = _Leases(connection, actor, namespace, is_over)
    stop = threading.Event()
    taken: list[str] = []
    with scope.child() as inner, contextlib.ExitStack() as stack:
        held, fence = Locks(inner), _Fence(inner)
        stack.callback(_give_back, leases, taken, held)
        stack.callback(fence.lift)
        for node in sorted(nodes):
            taken.append(node)  # before: an answer may get lost, or Ctrl-C come, when it is ours already
            asked = inner.clock.now()
            try:
                leases.acquire(node, inner)
                fence.put_off(node, asked)
            except ForbiddenError as error:
                taken.remove(node)
                held.without.append(node)
                held.notes.append(f"no Lease for {node}: {instead}; see that nobody else works on it ({error})")
            except LockedError:
                taken.remove(node)
                raise
        if held.notes:
            note(held.notes[0] + (f"; the same for {len(held.notes) - 1} more" if len(held.notes) > 1 else ""))
        if taken:
            renewer = threading.Thread(
                target=_renew, args=(leases, tuple(taken), fence, inner, stop, note, wait), name="locks", daemon=True
            )
            renewer.start()
            stack.callback(renewer.join, 1.0)
            stack.callback(stop.set)
        yield held


class _Fence:
    """Ends the work when a lock was not renewed for as long as it lasts: by then it may be somebody else's.

    An API server that cannot be reached, or that keeps a request waiting, would otherwise let two work on a node.
    """

    def __init__(self, scope: CancelScope) -> None:
        self._scope = scope
        self._revoke: dict[str, Callable[[], None]] = {}

    def put_off(self, node: str, asked: float) -> None:
        """The lock of `node` was renewed; `asked` is when that was asked for, by the scope's clock."""
        revoke = self._scope.clock.call_at(asked + LASTS, lambda: self._end(node))
        self._revoke.pop(node, lambda: None)()
        self._revoke[node] = revoke

    def lift(self) -> None:
        """The work is over."""
        for revoke in self._revoke.values():
            revoke()

    def _end(self, node: str) -> None:
        said = (
            f"the lock of {node} could not be renewed for {LASTS} s, so the work on it was ended: it may be another's"
        )
        self._scope.cancel(Reason("lockLost", said))


def _renew(
    leases: _Leases,
    nodes: Sequence[str],
    fence: _Fence,
    scope: CancelScope,
    stop: threading.Event,
    note: Callable[[str], None],
    wait: Waiter,
) -> None:
    """Renew until stopped. A lock that is another's ends the work; one that could not be renewed is tried again."""
    while not wait(stop, RENEWED) and not stop.is_set():
        for node in nodes:
            asked = scope.clock.now()
            try:
                if leases.renew(node, scope):
                    fence.put_off(node, asked)
            except (LockedError, NotFoundError) as error:
                scope.cancel(Reason("lockLost", f"the lock of {node} was lost, so the work on it was ended: {error}"))
                return
            except KdnsctlError as error:
                if stop.is_set() or scope.reason is not None:
                    return
                note(f"the lock of {node} could not be renewed, trying again: {error}")


def _give_back(leases: _Leases, nodes: Sequence[str], held: Locks) -> None:
    held.left.extend(nodes)
    with CancelScope(10, clock=held.scope.clock) as last:  # also when the work was interrupted
        for node in nodes:
            try:
                leases.give_back(node, last)
            except NotFoundError:
                held.left.remove(node)
            except KdnsctlError:
                continue  # it expires by itself
            else:
                held.left.remove(node)


class _Leases:
    """The Leases of one run."""

    def __init__(self, connection: Connection, actor: Actor, namespace: str, is_over: Callable[[str], bool]) -> None:
        self._connection = connection
        self._actor = actor
        self._is_over = is_over
        self._ahead = timedelta()  # of the server's clock
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    def acquire(self, node: str, scope: CancelScope) -> None:
        for _ in range(ATTEMPTS):
            try:
                reply = self._connection.request("GET", self._of(node), scope=scope)
            except NotFoundError:
                if self._begun(node, "POST", self._path, None, scope):
                    return
                continue  # somebody was faster: look who
            lease = decode(reply.body, dict[str, Any], f"GET {self._of(node)}")
            self._refuse_if_held(node, lease, server_time(reply))
            if self._begun(node, "PUT", self._of(node), lease, scope):
                return
        raise LockedError(f"the lock of {node} changes all the time: others want it too; nothing was changed")

    def _begun(self, node: str, method: str, path: str, lease: dict[str, Any] | None, scope: CancelScope) -> bool:
        """Write the Lease as ours; False when somebody else did meanwhile."""
        try:
            reply = self._write(method, path, self._lease(node, lease), scope)
        except ConflictError:
            return False
        ahead = server_time(reply) - datetime.now(UTC)  # to the second
        if abs(ahead - self._ahead) > CLOCKS_DIFFER:  # what was written is of our clock; others go by the server's
            self._ahead = ahead
            self.renew(node, scope)
        return True

    def renew(self, node: str, scope: CancelScope) -> bool:
        """Whether it was renewed; not when somebody changed it meanwhile, which is seen at the next time."""
        reply = self._connection.request("GET", self._of(node), scope=scope)
        lease = decode(reply.body, dict[str, Any], f"GET {self._of(node)}")
        if (lease.get("spec") or {}).get("holderIdentity") != str(self._actor):
            raise LockedError(f"{self._holder(lease)} holds it now")
        try:
            self._write("PUT", self._of(node), self._lease(node, lease), scope)
        except ConflictError:
            return False
        return True

    def give_back(self, node: str, scope: CancelScope) -> None:
        reply = self._connection.request("GET", self._of(node), scope=scope)
        lease = decode(reply.body, dict[str, Any], f"GET {self._of(node)}")
        if (lease.get("spec") or {}).get("holderIdentity") != str(self._actor):
            return
        metadata = lease["metadata"]
        same = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": same}
        self._write("DELETE", self._of(node), body, scope)

    def _refuse_if_held(self, node: str, lease: dict[str, Any], now: datetime) -> None:
        spec = lease.get("spec") or {}
        holder, until = spec.get("holderIdentity"), end_of(spec)
        if not holder or holder == str(self._actor) or until is None:
            return
        if until > now and not self._is_over(str(holder).rpartition("/")[2]):
            left = max(1, round((until - now).total_seconds()))
            raise LockedError(
                f"{node} is being worked on by {self._holder(lease)}; nothing was changed",
                hint=f"the lock ends in {left} s unless it is renewed; ask them, or wait and run this again",
            )

    def _holder(self, lease: dict[str, Any]) -> str:
        spec = lease.get("spec") or {}
        return f"{spec.get('holderIdentity') or 'nobody'} since {spec.get('acquireTime') or 'an unknown time'}"

    def _lease(self, node: str, found: dict[str, Any] | None = None) -> dict[str, Any]:
        """The Lease as it is to be; `found` as it is."""
        now = (datetime.now(UTC) + self._ahead).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (found or {}).get("spec") or {}
        mine = old.get("holderIdentity") == str(self._actor)
        metadata = (found or {}).get("metadata") or {"name": lease_name(node), "annotations": {NODE: node}}
        spec = {
            "holderIdentity": str(self._actor),
            "leaseDurationSeconds": LASTS,
            "acquireTime": old["acquireTime"] if mine and "acquireTime" in old else now,
            "renewTime": now,
            "leaseTransitions": old.get("leaseTransitions", 0) + (0 if mine or not found else 1),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    def _of(self, node: str) -> str:
        return f"{self._path}/{lease_name(node)}"

    def _write(self, method: str, path: str, body: dict[str, Any], scope: CancelScope) -> Reply:
        return self._connection.request(method, path, body=msgspec.json.encode(body), scope=scope)


def server_time(reply: Reply) -> datetime:
    """The server's time; ours where it does not say."""
    try:
        return parsedate_to_datetime(reply.date)
    except (TypeError, ValueError):
        return datetime.now(UTC)
