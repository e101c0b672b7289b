"""Watches: what changed, as one JSON document per line, for as long as the client listens.

Initial events, bookmarks and the ERROR event for a version that is too old are as recorded in `api/watch-*`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from aiohttp import web

from kdnsctl.lab.api.exchange import Exchange, OutStream
from kdnsctl.lab.api.representation import EventEncoder, negotiate
from kdnsctl.lab.api.requests import flag, number
from kdnsctl.lab.api.resources import check_list_options, parse_version, selection
from kdnsctl.lab.changes import Subscription, seen_through
from kdnsctl.lab.kinds import Kind
from kdnsctl.lab.replies import JSON, Refused

_LONGEST: Final = 30 * 60.0
"""Seconds a watch lasts when the client names no limit; a real server ends it after 30 to 60 minutes."""


async def watch(exchange: Exchange, kind: Kind) -> web.StreamResponse:
    """Answer a watch. Refusals before the first event are ordinary answers; an expired version is an event."""
    query = exchange.query
    check_list_options(query)
    wanted = negotiate(exchange.request.headers.get("Accept", ""), query.get("includeObject"))
    since = parse_version(query.get("resourceVersion", ""))
    lifetime = float(number(query, "timeoutSeconds") or 0) or _LONGEST
    matches = selection(exchange, kind)
    encoder = EventEncoder(kind, wanted)
    store, namespace = exchange.backend.store, exchange.target.namespace
    initial: Sequence[JSON] = ()
    expired: Refused | None = None
    subscription: Subscription | None = None
    news, wake = _waker()
    with store.lock:
        try:
            if since == 0 or flag(query, "sendInitialEvents"):
                page = store.page(kind, namespace, matches)
                initial, since = page.items, page.version
            subscription = store.subscribe([kind], since=since, wake=wake)
        except Refused as refusal:
            expired = refusal
    try:
        stream = await exchange.stream(200, exchange.headers() | {"Content-Type": "application/json"})
        if expired is not None:
            await _send(stream, "ERROR", expired.status())
            return await stream.end()
        for obj in initial:
            await _send(stream, "ADDED", encoder.body(obj, store.clock()))
        bookmarks = flag(query, "allowWatchBookmarks")
        if bookmarks and flag(query, "sendInitialEvents"):
            await _send(stream, "BOOKMARK", encoder.bookmark(since, initial_end=True))
        deadline = asyncio.get_running_loop().time() + lifetime
        while subscription is not None:
            news.clear()
            with store.lock:
                # Read together: every change up to this version is in the list.
                changes, version = subscription.take(), store.version
            for change in changes:
                seen = seen_through(change, namespace, matches)
                if seen is not None:
                    await _send(stream, seen.type.value, encoder.body(seen.obj, store.clock()))
            left = deadline - asyncio.get_running_loop().time()
            quiet = exchange.backend.bookmark_seconds if bookmarks else left
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), max(min(left, quiet), 0))
                continue
            if bookmarks:
                await _send(stream, "BOOKMARK", encoder.bookmark(version, initial_end=False))
            if deadline <= asyncio.get_running_loop().time():
                break
        return await stream.end()
    finally:
        if subscription is not None:
            subscription.close()


def _waker() -> tuple[asyncio.Event, Callable[[], None]]:
    """An event of this loop, and a function that sets it from any thread."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def wake() -> None:
        # The server may have stopped since; a writer to the store must not fail for that.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    return event, wake


async def _send(stream: OutStream, type_: str, obj: JSON) -> None:
    await stream.send(msgspec.json.encode({"type": type_, "object": obj}) + b"\n")
