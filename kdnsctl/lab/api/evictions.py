"""POST pods/NAME/eviction: the request's forms and their checks; what is allowed is `lab.eviction`'s."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from kdnsctl.lab.api.exchange import Exchange
from kdnsctl.lab.api.requests import is_dry_run
from kdnsctl.lab.api.resources import DELETE_OPTIONS, delete_options_from, read_body
from kdnsctl.lab.eviction import evict
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.replies import JSON, FieldFault, Refused, bad_request, invalid
from kdnsctl.lab.shapes import METADATA, check_types

_SHAPE: Final = {"metadata": METADATA, "deleteOptions": DELETE_OPTIONS}
_VERSIONS: Final = ("policy/v1", "policy/v1beta1")


async def pod_eviction(exchange: Exchange) -> web.StreamResponse:
    """Evict the pod of the path. Success is a Status, `api/evict-ok.json`, also for a dry run."""
    target, store = exchange.target, exchange.backend.store
    body = await read_body(exchange)
    store.refuse_in_terminating(PODS, {"namespace": target.namespace, "name": target.name})
    eviction = _eviction(body)
    metadata = eviction.get("metadata") or {}
    if metadata.get("namespace", target.namespace) != target.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if metadata.get("name") != target.name:
        raise bad_request("name in URL does not match name in Eviction object")
    in_query = exchange.request.query.getall("dryRun", [])
    options = delete_options_from(eviction.get("deleteOptions") or {}, {}, in_query)
    in_body = (eviction.get("deleteOptions") or {}).get("dryRun") or []
    if in_query and in_body and is_dry_run(in_query, "CreateOptions") != is_dry_run(in_body, "DeleteOptions"):
        raise _different_dry_runs(in_body)
    evict(store, target.name, target.namespace, options)
    success: JSON = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return await exchange.json(201, success)


def _eviction(body: Any) -> JSON:
    if not isinstance(body, dict):
        raise bad_request("the body of the request is not an object")
    if body.get("kind", "Eviction") != "Eviction" or body.get("apiVersion", _VERSIONS[0]) not in _VERSIONS:
        raise bad_request(f"not an Eviction: {body.get('apiVersion', '')} {body.get('kind', '')}".rstrip())
    check_types("Eviction", body, _SHAPE)
    return body


def _different_dry_runs(values: list[str]) -> Refused:
    message = f"Invalid value: {values}: Non-empty dry-run options in request and deletion options must match"
    fault = FieldFault("DeleteOptions.dryRun", message)
    return invalid("DeleteOptions", "", [fault], group="policy")
