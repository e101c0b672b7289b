"""Events on nodes: for whoever looks at a node with `kubectl describe`. They are told once; nothing depends on them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.objects import Node
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError

NAMESPACE: Final = "default"  # where events of objects without a namespace are kept; k8s.io/client-go tools/record
HELPFUL: Final = (Permission("create", "events", namespace=NAMESPACE, without="nodes get no Event of what was done"),)


def emit(connection: Connection, node: Node, reason: str, message: str, now: datetime, *, scope: CancelScope) -> str:
    """Tell of something on a node. Returns why it could not be told; empty when it was. Raises what ended the scope."""
    time = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    name = node.metadata.name
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{secrets.token_hex(8)}", "namespace": NAMESPACE},
        # `kubectl describe node` looks for both spellings of the uid: the kubelet uses the name.
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name},
        "reason": reason,
        "message": message[:1000],
        "type": "Normal",
        "source": {"component": "kdnsctl"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
    try:
        path = f"/api/v1/namespaces/{NAMESPACE}/events"
        connection.request("POST", path, body=msgspec.json.encode(event), scope=scope)
    except KdnsctlError as error:
        scope.check()
        return f"no Event was written on {name}: {error}"
    return ""
