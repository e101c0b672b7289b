"""pods/log: the options checked as a real server checks them, then the kubelet's bytes passed on as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast

from aiohttp import web

from kdnsctl.lab.api.durations import parse_time
from kdnsctl.lab.api.exchange import Exchange
from kdnsctl.lab.api.pods import container_of, pod_of, refusal_of
from kdnsctl.lab.api.requests import flag, number
from kdnsctl.lab.replies import FieldFault, bad_request, invalid
from kdnsctl.lab.runtime import LogStream, RuntimeRefusal

_END: Final = b""


async def pod_log(exchange: Exchange) -> web.StreamResponse:
    """Answer with a container's log. Headers go out at once, so that a follower knows it is connected."""
    options = _options(exchange)
    pod = pod_of(exchange)
    container = container_of(pod, exchange.query.get("container", ""))
    headers = exchange.headers(fair=False) | {"Content-Type": "text/plain"}
    if not pod["spec"].get("nodeName"):
        # Nobody can have written anything: a real server answers 200 with nothing.
        return await (await exchange.stream(200, headers)).end()
    backend, name = exchange.backend, exchange.target.name

    def ask() -> LogStream:
        return backend.runtime.logs(exchange.target.namespace, name, container, **options)

    try:
        log = await backend.open(ask)
    except RuntimeRefusal as error:
        raise refusal_of(error, name, container) from error
    try:
        stream = await exchange.stream(200, headers)
        read = cast("Callable[..., bytes]", next)
        while chunk := await backend.blocking(read, log, _END):
            await stream.send(chunk)
        return await stream.end()
    finally:
        backend.done(log)


def _options(exchange: Exchange) -> dict[str, Any]:
    """The keyword arguments for the runtime. Raises Refused (400, 422)."""
    query, name = exchange.query, exchange.target.name
    tail, limit = number(query, "tailLines"), number(query, "limitBytes")
    seconds, moment = number(query, "sinceSeconds"), _moment(query)
    faults = []
    if tail is not None and tail < 0:
        faults.append(_too_small("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        faults.append(_too_small("limitBytes", limit, "must be greater than 0"))
    if seconds is not None and moment is not None:
        message = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        faults.append(FieldFault("", message, "FieldValueForbidden"))
    elif seconds is not None and seconds < 1:
        faults.append(_too_small("sinceSeconds", seconds, "must be greater than 0"))
    if faults:
        raise invalid("PodLogOptions", name, faults)
    return {
        "previous": flag(query, "previous"),
        "follow": flag(query, "follow"),
        "tail_lines": tail,
        "since_time": moment,
        "since_seconds": seconds,
        "limit_bytes": limit,
        "timestamps": flag(query, "timestamps"),
    }


def _too_small(field: str, value: int, rule: str) -> FieldFault:
    return FieldFault(field, f"Invalid value: {value}: {rule}")


def _moment(query: Mapping[str, str]) -> datetime | None:
    text = query.get("sinceTime")
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError as cause:
        raise bad_request(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse it') from cause
