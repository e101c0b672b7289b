"""Lists, page by page: memory holds what was asked for and one page of what the server said.

Which fields of an object are kept is decided by the record they are decoded into (`objects`). A list whose continuation
has expired on the way (410; etcd compacts after five minutes) is started again, once: the rest that the server offers
instead could miss objects, and whoever counts nodes must not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import Query, decode
from kdnsctl.cluster.errors import AnswerError, GoneError
from kdnsctl.cluster.objects import Page, PartialObjectMetadata
from kdnsctl.cluster.transport import JSON, Connection

T = TypeVar("T")

PAGE = 500  # objects; kubectl's --chunk-size too
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All of a list, as of one moment: a watch from `resource_version` misses nothing."""

    items: Sequence[T]
    resource_version: str


def list_all(
    connection: Connection,
    path: str,
    type: type[T],  # noqa: A002
    *,
    scope: CancelScope,
    labels: str | None = None,
    fields: str | None = None,
    page: int = PAGE,
) -> Listing[T]:
    """Everything at `path` (`/api/v1/nodes`), narrowed by label and field selectors. Raises as `Connection.get`."""
    query: Query = {"labelSelector": labels, "fieldSelector": fields}
    return _whole(connection, path, type, query, JSON, scope, page)


def list_metadata(
    connection: Connection, path: str, *, scope: CancelScope, labels: str | None = None, page: int = PAGE
) -> Listing[PartialObjectMetadata]:
    """Names, labels and annotations only: a node's are a tenth of the node."""
    accept = f"{METADATA},{JSON};q=0.5"
    return _whole(connection, path, PartialObjectMetadata, {"labelSelector": labels}, accept, scope, page)


def _whole(
    connection: Connection,
    path: str,
    type: type[T],  # noqa: A002
    query: Query,
    accept: str,
    scope: CancelScope,
    page: int,
) -> Listing[T]:
    try:
        return _gathered(_pages(connection, path, type, query, accept, scope, page))
    except GoneError:
        scope.check()
        return _gathered(_pages(connection, path, type, query, accept, scope, page))


def _gathered(pages: Iterator[Page[T]]) -> Listing[T]:
    items: list[T] = []
    version = ""
    for one in pages:
        items.extend(one.items or ())
        version = one.metadata.resource_version
    return Listing(items, version)


def _pages(
    connection: Connection,
    path: str,
    type: type[T],  # noqa: A002
    query: Query,
    accept: str,
    scope: CancelScope,
    page: int,
) -> Iterator[Page[T]]:
    place = ""
    seen: set[str] = set()
    while True:
        asked: Query = {**query, "limit": page, "continue": place or None}
        body = connection.request("GET", path, query=asked, accept=accept, scope=scope).body
        one: Page[T] = decode(body, Page[type], f"GET {path}")  # type: ignore[valid-type]
        yield one
        place = one.metadata.continue_
        if not place:
            return
        if place in seen:
            raise AnswerError(f"the answers to GET {path} go round in a circle: the same page comes again")
        seen.add(place)
