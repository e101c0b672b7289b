"""Applying the three kinds of patch a Kubernetes API server accepts: JSON patch, merge patch, strategic merge patch.

Pure functions from a document and a patch to a new document; neither is changed. Server-side apply is not offered.
Sources: RFC 6902 and RFC 7386 for the first two; the third lives in `strategic`.
"""

from __future__ import annotations

import copy
from typing import Any

from kdnsctl.lab.replies import JSON, bad_request, rejected_patch

_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result: JSON = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(document: JSON, operations: Any) -> JSON:
    """RFC 6902. Raises Refused: 400 when it is no patch at all, 422 (as recorded) when it does not apply."""
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result: Any = copy.deepcopy(document)
    for operation in operations:
        try:
            result = _apply(result, operation)
        except (KeyError, IndexError, TypeError, ValueError) as cause:
            raise rejected_patch() from cause
    if not isinstance(result, dict):
        raise rejected_patch()
    return result


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise ValueError(f"not a JSON pointer: {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(part: str, length: int) -> int:
    if not part.isdigit() or (len(part) > 1 and part[0] == "0"):
        raise ValueError(f"not an index: {part!r}")
    if int(part) >= length:
        raise IndexError(part)
    return int(part)


def _get(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = document[_index(part, len(document))] if isinstance(document, list) else document[part]
    return document


def _apply(document: Any, operation: JSON) -> Any:
    verb, parts = operation.get("op"), _pointer(operation.get("path"))
    if verb not in _OPERATIONS:
        raise ValueError(f"unknown operation {verb!r}")
    if verb == "test":
        # Absent and null are the same to the library a real server uses (evanphx/json-patch), for `test` only.
        try:
            found = _get(document, parts)
        except (KeyError, IndexError):
            found = None
        if not _equal(found, operation.get("value")):
            raise ValueError(f"testing {operation.get('path')} failed")
        return document
    if verb == "remove":
        return _remove(document, parts)
    if verb in ("add", "replace"):
        value = copy.deepcopy(operation["value"])
        if verb == "replace":
            _get(document, parts)
            return _set(document, parts, value, insert=False)
        return _set(document, parts, value, insert=True)
    source = _pointer(operation.get("from"))
    value = copy.deepcopy(_get(document, source))
    if verb == "move":
        if parts[: len(source)] == source and parts != source:
            raise ValueError("cannot move into itself")
        document = _remove(document, source)
    return _set(document, parts, value, insert=True)


def _equal(one: Any, other: Any) -> bool:
    # True == 1 in Python, not in JSON.
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def _remove(document: Any, parts: list[str]) -> Any:
    if not parts:
        raise ValueError("the whole document cannot be removed")
    parent = _get(document, parts[:-1])
    if isinstance(parent, list):
        del parent[_index(parts[-1], len(parent))]
    else:
        del parent[parts[-1]]
    return document


def _set(document: Any, parts: list[str], value: Any, *, insert: bool) -> Any:
    if not parts:
        return value
    parent = _get(document, parts[:-1])
    if isinstance(parent, dict):
        parent[parts[-1]] = value
    elif isinstance(parent, list) and insert:
        position = len(parent) if parts[-1] == "-" else _index(parts[-1], len(parent) + 1)
        parent.insert(position, value)
    elif isinstance(parent, list):
        parent[_index(parts[-1], len(parent))] = value
    else:
        raise TypeError(f"nothing can be set below a {type(parent).__name__}")
    return document
