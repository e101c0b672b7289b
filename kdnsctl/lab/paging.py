"""Pages of a list: the continue token, and cutting a sorted list at it. Which snapshot to cut is the store's choice."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kdnsctl.lab.replies import JSON, bad_request

_FORMAT: Final = "meta.k8s.io/v1"
INCONSISTENT: Final = -1
"""The version in a token that gives up consistency, as handed out with a 410."""


@dataclass(frozen=True, slots=True)
class Page:
    """One reply to a list request. `token` is "" on the last page.

    `remaining` is only known without selectors, as on a real server. Items are shared with the store.
    """

    items: Sequence[JSON]
    version: int
    token: str = ""
    remaining: int | None = None


def encode_token(version: int, start: str) -> str:
    """The token of a page that goes on behind the key `start`; recorded in `api/nodes-page.json`."""
    body = json.dumps({"v": _FORMAT, "rv": version, "start": start + "\0"}, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def decode_token(token: str) -> tuple[int, str]:
    """Version and the key to go on behind. Raises Refused (400) when it is no token of ours."""
    try:
        body = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        format_, version, start = body["v"], int(body["rv"]), str(body["start"])
    except (binascii.Error, ValueError, KeyError, TypeError) as cause:
        raise bad_request(f"continue key is not valid: {cause}") from cause
    if format_ != _FORMAT:
        raise bad_request(f"continue key is not valid: unknown version {format_!r}")
    return version, start.removesuffix("\0").removeprefix("/")


def sort_key(obj: JSON) -> str:
    """The order of lists, and the key in tokens: namespace and name, as the keys of a real server's database."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def cut(objects: Sequence[JSON], version: int, *, limit: int, after: str, count_rest: bool) -> Page:
    """The page of at most `limit` (0: all) of the sorted `objects` behind the key `after` ("": from the start)."""
    rest = [obj for obj in objects if not after or sort_key(obj) > after]
    if not limit or len(rest) <= limit:
        return Page(rest, version)
    items = rest[:limit]
    token = encode_token(version, "/" + sort_key(items[-1]))
    return Page(items, version, token, len(rest) - limit if count_rest else None)
