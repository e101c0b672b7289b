"""In which form a client wants its objects: whole, as metadata only, or as rows of a Table.

Reads the Accept header and turns stored objects into bodies. Only JSON is spoken; protobuf, CBOR and YAML are answered
with 406, as a server without them would. Shapes are those of `api/nodes.json`, `nodes-partial-metadata.json` and
`table-*.json` of the recordings.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kdnsctl.lab.api.columns import layout_of
from kdnsctl.lab.api.pod_rows import completion
from kdnsctl.lab.kinds import ENDPOINT_SLICES, EVENTS, PODS, SERVICES, Kind
from kdnsctl.lab.paging import Page
from kdnsctl.lab.replies import JSON, Refused

_META: Final = "meta.k8s.io/v1"
# What an empty object of a kind still shows, for bookmarks: recorded for events, for the others what their types say.
_EMPTY: Final[dict[Kind, JSON]] = {
    EVENTS: {
        "involvedObject": {}, "source": {}, "firstTimestamp": None, "lastTimestamp": None, "eventTime": None,
        "reportingComponent": "", "reportingInstance": "",
    },
    PODS: {"spec": {"containers": None}, "status": {}},
    SERVICES: {"spec": {}, "status": {"loadBalancer": {}}},
    ENDPOINT_SLICES: {"addressType": "", "endpoints": None, "ports": None},
}  # fmt: skip


class Form(enum.Enum):
    """What is sent of an object."""

    WHOLE = ""
    METADATA = "PartialObjectMetadata"
    TABLE = "Table"


@dataclass(frozen=True, slots=True)
class Representation:
    """The negotiated form. `include`: what a Table row carries of its object: None, Metadata or Object."""

    form: Form
    include: str = "Metadata"


def negotiate(accept: str, include_object: str | None) -> Representation:
    """The first form in the Accept header that is served. Raises Refused (406) when there is none."""
    for part in (accept or "*/*").split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        if media not in ("application/json", "*/*", "application/*"):
            continue
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        wanted = options.get("as", "")
        if not wanted:
            return Representation(Form.WHOLE)
        if options.get("g") != "meta.k8s.io" or options.get("v") != "v1":
            continue
        if wanted == "Table":
            return Representation(Form.TABLE, include_object or "Metadata")
        if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return Representation(Form.METADATA)
    raise Refused(406, "NotAcceptable", "only the following media types are accepted: application/json", details={})


def object_body(kind: Kind, obj: Mapping[str, Any], wanted: Representation, now: datetime) -> JSON:
    """One object."""
    if wanted.form is Form.TABLE:
        return _table(kind, [obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")}, wanted, now)
    return partial(obj) if wanted.form is Form.METADATA else dict(obj)


def list_body(kind: Kind, page: Page, wanted: Representation, now: datetime) -> JSON:
    """One page of a list. Items of a whole list carry neither kind nor apiVersion, as recorded."""
    metadata: JSON = {"resourceVersion": str(page.version)}
    if page.token:
        metadata["continue"] = page.token
        if page.remaining is not None:
            metadata["remainingItemCount"] = page.remaining
    if wanted.form is Form.TABLE:
        return _table(kind, page.items, metadata, wanted, now)
    if wanted.form is Form.METADATA:
        items = [partial(obj) for obj in page.items]
        return {"kind": "PartialObjectMetadataList", "apiVersion": _META, "metadata": metadata, "items": items}
    items = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in page.items]
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata, "items": items}


def partial(obj: Mapping[str, Any]) -> JSON:
    """An object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": obj["metadata"]}


def _table(
    kind: Kind, objects: Sequence[Mapping[str, Any]], metadata: JSON, wanted: Representation, now: datetime
) -> JSON:
    layout = layout_of(kind)
    rows = []
    for obj in objects:
        row: JSON = {"cells": layout.row(obj, now)}
        if kind is PODS and (ended := completion(obj)) is not None:
            row["conditions"] = ended
        if wanted.include == "Object":
            row["object"] = dict(obj)
        elif wanted.include == "Metadata":
            row["object"] = partial(obj)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": _META,
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in layout.columns],
        "rows": rows,
    }


class EventEncoder:
    """Objects of watch events. Only the first Table of a watch carries the columns, the rest null, as on a server."""

    def __init__(self, kind: Kind, wanted: Representation) -> None:
        self._kind = kind
        self._wanted = wanted
        self._columns_sent = False

    def body(self, obj: Mapping[str, Any], now: datetime) -> JSON:
        body = object_body(self._kind, obj, self._wanted, now)
        if self._wanted.form is Form.TABLE:
            if self._columns_sent:
                body["columnDefinitions"] = None
            self._columns_sent = True
        return body

    def bookmark(self, version: int, *, initial_end: bool) -> JSON:
        """The object of a bookmark: nothing but a version, and whether the initial events are complete."""
        metadata: JSON = {"resourceVersion": str(version)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        if self._wanted.form is Form.WHOLE:
            head = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}
            return head | _EMPTY.get(self._kind, {})
        body = {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": metadata}
        if self._wanted.form is Form.METADATA:
            return body
        row = {"cells": [], "object": body}
        return {"kind": "Table", "apiVersion": _META, "metadata": metadata, "columnDefinitions": None, "rows": [row]}
