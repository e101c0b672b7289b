"""Making and removing pods for an owner, with the events a real controller writes about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdnsctl.lab.controllers import events
from kdnsctl.lab.kinds import PODS, Kind
from kdnsctl.lab.replies import JSON, Refused
from kdnsctl.lab.store import DeleteOptions, Store


def create_pod(store: Store, kind: Kind, owner: Mapping[str, Any], pod: JSON, *, source: str) -> None:
    """Create a pod. A refusal (Pod Security, for example) is an event, and the next change brings another try."""
    try:
        made = store.create(PODS, pod)
    except Refused as refusal:
        message = f"Error creating: {refusal.message}"
        events.record(store, kind, owner, "FailedCreate", message, source=source, warning=True)
        return
    message = f"Created pod: {made['metadata']['name']}"
    events.record(store, kind, owner, "SuccessfulCreate", message, source=source)


def delete_pod(store: Store, kind: Kind, owner: Mapping[str, Any], pod: Mapping[str, Any], *, source: str) -> None:
    """Ask for a pod's graceful deletion."""
    metadata = pod["metadata"]
    store.delete(PODS, metadata["name"], metadata["namespace"], DeleteOptions(uid=metadata["uid"]))
    message = f"Deleted pod: {metadata['name']}"
    events.record(store, kind, owner, "SuccessfulDelete", message, source=source)
