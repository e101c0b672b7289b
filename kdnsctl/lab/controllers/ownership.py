"""Who owns what: owner references, the pods of an owner, and pods made from a template. Pure but for creating pods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kdnsctl.lab.history import copied
from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import JSON
from kdnsctl.lab.store import NAME_LETTERS

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


def owner_reference(kind: Kind, owner: Mapping[str, Any]) -> JSON:
    """The reference of something that `owner` controls."""
    metadata = owner["metadata"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def controller_of(obj: Mapping[str, Any]) -> str | None:
    """The UID of the object's controller."""
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return str(owner["uid"])
    return None


def owned_by(owner: Mapping[str, Any], objects: Iterable[JSON]) -> list[JSON]:
    """The objects that `owner` controls."""
    uid = owner["metadata"]["uid"]
    return [obj for obj in objects if controller_of(obj) == uid]


def pod_from(template: Mapping[str, Any], owner_kind: Kind, owner: Mapping[str, Any]) -> JSON:
    """A pod for the owner as its template wants it, not yet stored."""
    made = copied(dict(template))
    metadata = made.get("metadata", {})
    return {
        "metadata": {
            "generateName": owner["metadata"]["name"] + "-",
            "namespace": owner["metadata"]["namespace"],
            "labels": metadata.get("labels", {}),
            **({"annotations": metadata["annotations"]} if metadata.get("annotations") else {}),
            "ownerReferences": [owner_reference(owner_kind, owner)],
        },
        "spec": made["spec"],
    }


def template_hash(template: Any) -> str:
    """A hash of a pod template in the letters of generated names.

    FNV-1a as on a real cluster, but over JSON and not over Go's memory dump, so the values differ from a real one's.
    """
    value = _FNV_OFFSET
    for byte in json.dumps(template, sort_keys=True, separators=(",", ":")).encode():
        value = ((value ^ byte) * _FNV_PRIME) & 0xFFFFFFFF
    return "".join(NAME_LETTERS[ord(digit) % len(NAME_LETTERS)] for digit in str(value))


def is_terminating(obj: Mapping[str, Any]) -> bool:
    """Whether its deletion has begun."""
    return "deletionTimestamp" in obj["metadata"]


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the kubelet reports the pod as ready."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def has_ended(pod: Mapping[str, Any]) -> bool:
    """Whether all its containers ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """A number or a percentage of `total`, as rolling updates give them."""
    if isinstance(value, int):
        return value
    product = int(value.removesuffix("%")) * total
    return -(-product // 100) if round_up else product // 100
