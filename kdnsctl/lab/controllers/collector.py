"""Garbage collection: what lost its owner goes, and a namespace that is being deleted is emptied first.

Always in the background: the foreground policy, which deletes dependents first, is treated as background.
"""

from __future__ import annotations

from kdnsctl.lab.controllers.ownership import is_terminating
from kdnsctl.lab.kinds import KINDS, NAMESPACES
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.store import DeleteOptions, Store


def collect_orphans(store: Store) -> None:
    """Delete every object all of whose owners are gone."""
    living = {obj["metadata"]["uid"] for kind in KINDS for obj in store.page(kind).items}
    for kind in KINDS:
        for obj in store.page(kind).items:
            metadata = obj["metadata"]
            owners = metadata.get("ownerReferences") or []
            if not owners or is_terminating(obj) or any(owner["uid"] in living for owner in owners):
                continue
            _delete(store, obj["kind"], metadata)


def _delete(store: Store, kind_name: str, metadata: dict[str, str]) -> None:
    kind = next(kind for kind in KINDS if kind.kind == kind_name)
    try:
        store.delete(kind, metadata["name"], metadata.get("namespace", ""), DeleteOptions(uid=metadata["uid"]))
    except Refused as refusal:
        if refusal.code not in (404, 409):
            raise


def empty_namespaces(store: Store) -> None:
    """Delete what is left in namespaces that are being deleted, then let the empty ones go."""
    for namespace in store.page(NAMESPACES).items:
        if not is_terminating(namespace):
            continue
        name = namespace["metadata"]["name"]
        content = [obj for kind in KINDS if kind.namespaced for obj in store.page(kind, name).items]
        for obj in content:
            if not is_terminating(obj):
                _delete(store, obj["kind"], obj["metadata"])
        if not content:
            store.change(NAMESPACES, name, "", lambda current: current | {"spec": {"finalizers": []}})
