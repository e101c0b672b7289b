"""cleanup: the locks of nodes (Leases) that ended runs have left, told and deleted; never one that is worked under.

A Lease is ours when its name is the one that the node in its annotation gives. It is left when it has expired by the
API server's clock, or its run is known to be over on this machine; it is kept while its run is known to go on here,
expired or not. What is deleted is what was seen: a Lease that was renewed meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from kdnsctl.access.needs import Needs
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import lock
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.errors import ConflictError, ForbiddenError, NotFoundError
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.evidence import leftovers
from kdnsctl.evidence.leftovers import Fate
from kdnsctl.model import KdnsctlError

LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


def _permission(verb: str, without: str) -> Permission:
    return Permission(verb, "leases", group="coordination.k8s.io", namespace=lock.NAMESPACE, without=without)


NEEDS: Final = Needs(  # of the command, with what it needs for pods
    needed=(*leftovers.NEEDS.needed, _permission("list", "locks that were left are not found")),
    helpful=leftovers.NEEDS.helpful,
    # As for pods: who quarantines or repairs has it; nobody else gets it unasked.
    with_option={
        option: (*permissions, _permission("delete", "locks that were left stay; they have ended all the same"))
        for option, permissions in leftovers.NEEDS.with_option.items()
    },
)
Known = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class LeftLease:
    """A node's lock. `end` is when it ends or ended; None: it was never held. `why` says why it is kept, or failed."""

    namespace: str
    name: str
    uid: str
    version: str
    node: str
    holder: str
    end: datetime | None
    fate: Fate = Fate.FOUND
    why: str = ""

    @property
    def place(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def run(self) -> str:
        """The run that held it."""
        return self.holder.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class FoundLeases:
    """All of our Leases in a namespace. `note` says why they could not be seen."""

    leases: tuple[LeftLease, ...] = ()
    note: str = ""

    @property
    def to_delete(self) -> tuple[LeftLease, ...]:
        """Those that nothing speaks against deleting."""
        return tuple(one for one in self.leases if one.fate is Fate.FOUND)

    @property
    def complete(self) -> bool:
        """Whether all could be seen, and none failed."""
        return not self.note and not any(one.fate is Fate.FAILED for one in self.leases)


def find(
    connection: Connection,
    namespace: str,
    *,
    run: str | None,
    older_than: timedelta | None,
    is_over: Known,
    goes_on: Known,
    scope: CancelScope,
) -> FoundLeases:
    """What there is, and what is to become of it: of one run only, or only what ended that long ago, if that is said.

    `is_over` and `goes_on` tell what is known of a run. Raises as `Connection.request`, but where it may not be listed.
    """
    path = LEASES.format(namespace)
    try:
        reply = connection.request("GET", path, scope=scope)
    except ForbiddenError as error:
        return FoundLeases(note=f"locks of nodes cannot be seen in {namespace} ({error.failure.message or error})")
    listed = decode(reply.body, dict[str, Any], f"GET {path}")
    now = lock.server_time(reply)
    found = [lease for item in listed.get("items") or () if (lease := _ours(item)) is not None]
    judged = []
    for one in sorted(found, key=lambda one: one.node):
        if run is not None and one.run != run:
            continue
        why = _why_kept(one, now, older_than, is_over, goes_on)
        judged.append(replace(one, fate=Fate.KEPT, why=why) if why else one)
    return FoundLeases(tuple(judged))


def _ours(item: Mapping[str, Any]) -> LeftLease | None:
    metadata, spec = item.get("metadata") or {}, item.get("spec") or {}
    node = (metadata.get("annotations") or {}).get(lock.NODE)
    if not isinstance(node, str) or metadata.get("name") != lock.lease_name(node):
        return None
    return LeftLease(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata["name"]),
        uid=str(metadata.get("uid", "")),
        version=str(metadata.get("resourceVersion", "")),
        node=node,
        holder=str(spec.get("holderIdentity") or ""),
        end=lock.end_of(spec),
    )


def _why_kept(one: LeftLease, now: datetime, older_than: timedelta | None, is_over: Known, goes_on: Known) -> str:
    if goes_on(one.run):
        return "its run goes on"
    over = is_over(one.run)
    if one.end is not None and one.end > now and not over:
        return f"it is held by {one.holder or 'somebody'}, until {one.end:%H:%M:%SZ} unless it is renewed"
    if older_than is not None and one.end is not None and now - one.end < older_than:
        return "it ended later than was asked for"
    return ""


def delete(connection: Connection, found: FoundLeases, *, server_dry_run: bool, scope: CancelScope) -> FoundLeases:
    """Delete those that are to be, each as it was seen. Raises only what ended the scope."""
    return replace(
        found,
        leases=tuple(
            _deleted(connection, one, server_dry_run=server_dry_run, scope=scope) if one.fate is Fate.FOUND else one
            for one in found.leases
        ),
    )


def _deleted(connection: Connection, one: LeftLease, *, server_dry_run: bool, scope: CancelScope) -> LeftLease:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": one.uid, "resourceVersion": one.version},
    }
    if server_dry_run:
        body["dryRun"] = ["All"]
    try:
        path = f"{LEASES.format(one.namespace)}/{one.name}"
        connection.request("DELETE", path, body=msgspec.json.encode(body), scope=scope)
    except NotFoundError:
        return replace(one, fate=Fate.GONE)
    except ConflictError:
        return replace(one, fate=Fate.KEPT, why="somebody has taken or renewed it meanwhile")
    except KdnsctlError as error:
        scope.check()
        return replace(one, fate=Fate.FAILED, why=str(error))
    return replace(one, fate=Fate.WOULD_DELETE if server_dry_run else Fate.DELETED)


def to_json(found: FoundLeases) -> list[dict[str, Any]]:
    """The part of the report (docs/schemas/CleanupReport.schema.json)."""
    return [
        {
            "namespace": one.namespace,
            "name": one.name,
            "node": one.node,
            "holder": one.holder,
            "endsAt": one.end.isoformat() if one.end else None,
            "fate": one.fate.value,
            "why": one.why,
        }
        for one in found.leases
    ]
