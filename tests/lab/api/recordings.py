"""The recorded replies of a real API server, as the tests compare with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.lab.api.client import Reply

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


def same_headers(reply: Reply, name: str) -> None:
    """Code and headers as recorded, apart from ids, dates, lengths and the version of HTTP."""
    assert reply.code == code(name)
    recorded = headers(name)
    for header in ("content-type", "cache-control", "retry-after", "x-content-type-options"):
        assert reply.headers.get(header) == recorded.get(header), header
    for header in ("audit-id", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid", "date"):
        assert (header in reply.headers) == (header in recorded), header


def columns(table: Any) -> list[dict[str, Any]]:
    """The columns of a Table, without their descriptions, which are the lab's own."""
    return [
        {key: value for key, value in column.items() if key != "description"} for column in table["columnDefinitions"]
    ]
