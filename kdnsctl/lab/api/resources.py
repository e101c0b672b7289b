"""Reading and writing stored objects over HTTP: get, list, create, update, patch, delete, deletecollection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
from aiohttp import web

from kdnsctl.lab import replies
from kdnsctl.lab.api.exchange import Exchange
from kdnsctl.lab.api.protobuf import MEDIA_TYPE, decode
from kdnsctl.lab.api.representation import list_body, negotiate, object_body
from kdnsctl.lab.api.requests import flag, is_dry_run, number
from kdnsctl.lab.customkinds import is_custom
from kdnsctl.lab.kinds import PODS, SERVICE_ACCOUNTS, SERVICES, Kind
from kdnsctl.lab.patches import json_patch, merge_patch
from kdnsctl.lab.replies import JSON, FieldFault, Refused, bad_request
from kdnsctl.lab.selectors import Predicate, object_filter
from kdnsctl.lab.shapes import check_types
from kdnsctl.lab.store import DeleteOptions
from kdnsctl.lab.strategic import strategic_merge

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
DELETE_OPTIONS: Final = {
    "gracePeriodSeconds": int, "propagationPolicy": str, "orphanDependents": bool, "dryRun": [str],
    "preconditions": {"uid": str, "resourceVersion": str},
}  # fmt: skip
# What a deletion at once answers with: the object for these kinds, a Status for the others.
_RETURNED_WHEN_DELETED: Final = (PODS, SERVICES, SERVICE_ACCOUNTS)


async def get(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Answer with one object, in the form the client asks for."""
    store = exchange.backend.store
    wanted = negotiate(exchange.request.headers.get("Accept", ""), exchange.query.get("includeObject"))
    obj = store.get(kind, exchange.target.name, exchange.target.namespace)
    return await exchange.json(200, object_body(kind, obj, wanted, store.clock()))


async def list_objects(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Answer with a page of objects."""
    store, query = exchange.backend.store, exchange.query
    check_list_options(query)
    wanted = negotiate(exchange.request.headers.get("Accept", ""), query.get("includeObject"))
    limit, token = number(query, "limit") or 0, query.get("continue", "")
    page = store.page(
        kind,
        exchange.target.namespace,
        selection(exchange, kind),
        limit=max(limit, 0),
        token=token,
        at_version=_exact_version(exchange, limit, token),
    )
    return await exchange.json(200, list_body(kind, page, wanted, store.clock()))


def selection(exchange: Exchange, kind: Kind) -> Predicate:
    """Both selectors of the request, and its name when a single object is watched."""
    fields = exchange.query.get("fieldSelector", "")
    if exchange.target.name:
        fields = ",".join(part for part in (fields, f"metadata.name={exchange.target.name}") if part)
    return object_filter(kind, exchange.query.get("labelSelector", ""), fields)


def check_list_options(query: Mapping[str, str]) -> None:
    """Raises Refused (422) for options that do not go together."""
    match, faults = query.get("resourceVersionMatch", ""), []
    initial = flag(query, "sendInitialEvents")
    if "sendInitialEvents" in query and not flag(query, "watch"):
        message = "Forbidden: sendInitialEvents is forbidden for list"
        faults.append(FieldFault("sendInitialEvents", message, "FieldValueForbidden"))
    if initial and match != "NotOlderThan":
        message = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        faults.append(FieldFault("resourceVersionMatch", message, "FieldValueForbidden"))
    if match and not initial and not query.get("resourceVersion"):
        message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        faults.append(FieldFault("resourceVersionMatch", message, "FieldValueForbidden"))
    if match and query.get("continue"):
        message = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
        faults.append(FieldFault("resourceVersionMatch", message, "FieldValueForbidden"))
    if match not in ("", "Exact", "NotOlderThan"):
        message = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        faults.append(FieldFault("resourceVersionMatch", message, "FieldValueNotSupported"))
    if faults:
        raise replies.invalid("ListOptions", "", faults, group="meta.k8s.io")


def _exact_version(exchange: Exchange, limit: int, token: str) -> int | None:
    """The version the list must have, None for the newest. A version not older than asked for is always the newest."""
    asked = parse_version(exchange.query.get("resourceVersion", ""))
    if not asked:
        return None
    if token:
        raise bad_request("specifying resource version is not allowed when using continue")
    match = exchange.query.get("resourceVersionMatch", "")
    if match == "Exact" or (limit and not match):
        return asked
    if asked > exchange.backend.store.version:
        raise replies.future_version(asked, exchange.backend.store.version)
    return None


def parse_version(text: str) -> int:
    """A resourceVersion, 0 when there is none. Raises Refused (400)."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()):
        fault = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f"resourceVersion: {fault}")
    return int(text)


async def read_body(exchange: Exchange) -> Any:
    """The request's body as JSON, noted in the journal. Raises Refused (400, 415)."""
    media = exchange.request.content_type
    if media == MEDIA_TYPE:
        body = decode(await exchange.request.read())
        exchange.entry.body = body
        return body
    if exchange.request.method != "PATCH" and media not in ("application/json", "application/octet-stream"):
        message = "the body of the request was in an unknown format - accepted media types include: application/json"
        raise Refused(415, "UnsupportedMediaType", message, details={})
    data = await exchange.request.read()
    if not data:
        return {}
    try:
        content = msgspec.json.decode(data)
    except msgspec.DecodeError as cause:
        raise bad_request(f"couldn't get version/kind; json parse error: {cause}") from cause
    exchange.entry.body = content
    return content


def _expect_object(kind: Kind, body: Any, target_namespace: str) -> JSON:
    if not isinstance(body, dict):
        raise bad_request("the body of the request is not an object")
    given = (body.get("apiVersion") or kind.api_version, body.get("kind") or kind.kind)
    if given != (kind.api_version, kind.kind):
        message = f"the API version in the data ({given[0]}) does not match the expected API version"
        if given[0] == kind.api_version:
            message = f'{given[1]} in version "{kind.version}" cannot be handled as a {kind.kind}'
        else:
            message += f" ({kind.api_version})"
        raise bad_request(message)
    metadata = body.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("the metadata of the object is not an object")
    if kind.namespaced and metadata.setdefault("namespace", target_namespace) != target_namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    return body


def _dry_run(exchange: Exchange, what: str) -> bool:
    return is_dry_run(exchange.request.query.getall("dryRun", []), what)


async def create(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Store the object in the body."""
    dry_run = _dry_run(exchange, "CreateOptions")
    wanted = negotiate(exchange.request.headers.get("Accept", ""), exchange.query.get("includeObject"))
    body = _expect_object(kind, await read_body(exchange), exchange.target.namespace)
    store = exchange.backend.store
    obj = store.create(kind, body, dry_run=dry_run)
    return await exchange.json(201, object_body(kind, obj, wanted, store.clock()))


async def update(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Replace an object, or its status, by the body."""
    dry_run = _dry_run(exchange, "UpdateOptions")
    wanted = negotiate(exchange.request.headers.get("Accept", ""), exchange.query.get("includeObject"))
    body = _expect_object(kind, await read_body(exchange), exchange.target.namespace)
    named = body["metadata"].get("name", "")
    if named != exchange.target.name:
        message = f"the name of the object ({named}) does not match the name on the URL ({exchange.target.name})"
        raise bad_request(message)
    store = exchange.backend.store
    obj = store.update(kind, body, subresource=exchange.target.subresource or None, dry_run=dry_run)
    return await exchange.json(200, object_body(kind, obj, wanted, store.clock()))


async def patch(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Patch an object, or its status, in the way that the Content-Type names."""
    dry_run = _dry_run(exchange, "PatchOptions")
    wanted = negotiate(exchange.request.headers.get("Accept", ""), exchange.query.get("includeObject"))
    edit = _edit(kind, exchange.request.content_type, await read_body(exchange))
    store, target = exchange.backend.store, exchange.target
    obj = store.change(
        kind, target.name, target.namespace, edit, subresource=target.subresource or None, dry_run=dry_run
    )
    return await exchange.json(200, object_body(kind, obj, wanted, store.clock()))


def _edit(kind: Kind, media: str, body: Any) -> Callable[[JSON], JSON]:
    if media == JSON_PATCH:
        return lambda obj: json_patch(obj, body)
    if media == MERGE_PATCH:
        if not isinstance(body, dict):
            raise bad_request("error decoding patch: a merge patch is a JSON object")
        return lambda obj: dict(merge_patch(obj, body))
    if media == STRATEGIC_PATCH and not is_custom(kind):
        return lambda obj: strategic_merge(kind.kind, obj, body)
    accepted = f"{JSON_PATCH}, {MERGE_PATCH}" + ("" if is_custom(kind) else f", {STRATEGIC_PATCH}")
    message = f"the body of the request was in an unknown format - accepted media types include: {accepted}"
    raise Refused(415, "UnsupportedMediaType", message, details={})


async def delete(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Delete an object, or begin to."""
    options = await _delete_options(exchange)
    target = exchange.target
    deleted = exchange.backend.store.delete(kind, target.name, target.namespace, options)
    if not deleted.gone or kind in _RETURNED_WHEN_DELETED:
        return await exchange.json(200, deleted.obj)
    details: JSON = {"name": target.name}
    if kind.group:
        details["group"] = kind.group
    details |= {"kind": kind.plural, "uid": deleted.obj["metadata"]["uid"]}
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return await exchange.json(200, body)


async def delete_collection(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Delete everything the selectors choose."""
    options = await _delete_options(exchange)
    store = exchange.backend.store
    page = store.page(kind, exchange.target.namespace, selection(exchange, kind))
    for obj in page.items:
        try:
            store.delete(kind, obj["metadata"]["name"], obj["metadata"].get("namespace", ""), options)
        except Refused as refusal:
            if refusal.code != 404:
                raise
    wanted = negotiate(exchange.request.headers.get("Accept", ""), exchange.query.get("includeObject"))
    return await exchange.json(200, list_body(kind, replace(page, token="", remaining=None), wanted, store.clock()))


async def _delete_options(exchange: Exchange) -> DeleteOptions:
    body = await read_body(exchange)
    if not isinstance(body, dict):
        raise bad_request("the body of a deletion is a DeleteOptions object")
    check_types("DeleteOptions", body, DELETE_OPTIONS)
    return delete_options_from(body, exchange.query, exchange.request.query.getall("dryRun", []))


def delete_options_from(body: JSON, query: Mapping[str, str], dry_runs: list[str]) -> DeleteOptions:
    """The options of a deletion, from a checked body and from the query. Raises Refused (422)."""
    grace = body.get("gracePeriodSeconds", number(query, "gracePeriodSeconds"))
    policy = body.get("propagationPolicy") or query.get("propagationPolicy") or "Background"
    if policy not in ("Background", "Foreground", "Orphan"):
        supported = '"Background", "Foreground", "Orphan"'
        message = f'Unsupported value: "{policy}": supported values: {supported}'
        fault = FieldFault("propagationPolicy", message, "FieldValueNotSupported")
        raise replies.invalid("DeleteOptions", "", [fault], group="meta.k8s.io")
    preconditions = body.get("preconditions") or {}
    return DeleteOptions(
        grace_seconds=grace,
        uid=preconditions.get("uid"),
        version=preconditions.get("resourceVersion"),
        orphan=policy == "Orphan" or bool(body.get("orphanDependents")),
        dry_run=is_dry_run([*dry_runs, *(body.get("dryRun") or [])], "DeleteOptions"),
    )
