"""Making and deleting single pods, and looking for them by label. What such a pod is, and what it is for, its caller
knows.

A pod is deleted by its UID, so that never another one of the same name is hit. `dry_run` has the server do all that it
would do, admission included, and then forget it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import Query, decode
from kdnsctl.cluster.errors import ConflictError, NotFoundError
from kdnsctl.cluster.lists import list_all
from kdnsctl.cluster.objects import Pod
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection

DRY_RUN = "All"


def needed(namespace: str) -> tuple[Permission, ...]:
    """What making a pod in a namespace, waiting for it and deleting it needs."""
    return tuple(Permission(verb, "pods", namespace=namespace) for verb in ("create", "delete", "list", "watch"))


def path_of(namespace: str | None, name: str = "") -> str:
    """Where the API has a pod, or without a name all pods of a namespace; of all namespaces without either."""
    where = "/api/v1/pods" if namespace is None else f"/api/v1/namespaces/{namespace}/pods"
    return f"{where}/{name}" if name else where


def create(
    connection: Connection, namespace: str, manifest: Mapping[str, Any], *, scope: CancelScope, dry_run: bool = False
) -> Pod:
    """Make a pod. Raises as `Connection.request`; after an UnreachableError it may be there or not."""
    path = path_of(namespace)
    query: Query = {"dryRun": DRY_RUN if dry_run else None}
    reply = connection.request("POST", path, query=query, body=msgspec.json.encode(manifest), scope=scope)
    return decode(reply.body, Pod, f"POST {path}")


def delete(
    connection: Connection, namespace: str, name: str, uid: str, *, scope: CancelScope, dry_run: bool = False
) -> bool:
    """Have a pod deleted; False when it is not there any more, or another one has its name now.

    `uid` empty: whichever has the name, for names that nobody else can have. The pod goes when its grace period is
    over. Raises as `Connection.request`.
    """
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if uid:
        options["preconditions"] = {"uid": uid}
    query: Query = {"dryRun": DRY_RUN if dry_run else None}
    try:
        connection.request(
            "DELETE", path_of(namespace, name), query=query, body=msgspec.json.encode(options), scope=scope
        )
    except (NotFoundError, ConflictError):
        return False
    return True


def find(connection: Connection, namespace: str | None, labels: str, *, scope: CancelScope) -> Sequence[Pod]:
    """The pods with these labels, of all namespaces or one. Raises as `list_all`."""
    return list_all(connection, path_of(namespace), Pod, labels=labels, scope=scope).items
