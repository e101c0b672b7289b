"""The recorded replies of a real API server, as the tests compare with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).parents[2] / "recordings" / "api"
# What the lab leaves out on purpose (docs/lab-api.md).
LEFT_OUT: Final = frozenset({"managedFields"})


def body(name: str) -> Any:
    return without(json.loads((DIRECTORY / f"{name}.json").read_bytes()))


def lines(name: str) -> list[Any]:
    return [without(json.loads(line)) for line in (DIRECTORY / f"{name}.jsonl").read_text().splitlines()]


def code(name: str) -> int:
    """The status code of the recorded reply."""
    return int((DIRECTORY / f"{name}.headers").read_text().split(maxsplit=2)[1])


def headers(name: str) -> dict[str, str]:
    found = {}
    for line in (DIRECTORY / f"{name}.headers").read_text().splitlines()[1:]:
        key, separator, value = line.partition(": ")
        if separator:
            found[key.lower()] = value
    return found


def without(value: Any, keys: frozenset[str] = LEFT_OUT) -> Any:
    """The value with these keys taken out at every depth."""
    if isinstance(value, dict):
        return {key: without(item, keys) for key, item in value.items() if key not in keys}
    if isinstance(value, list):
        return [without(item, keys) for item in value]
    return value


def shape(value: Any, path: str = "") -> Iterator[str]:
    """Every path of keys in the value with the type at its end; lists count by what is in them."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from shape(item, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}[]"
        for item in value:
            yield from shape(item, f"{path}[]")
    else:
        yield f"{path}:{type(value).__name__}"
