"""One request being answered: who asks, for what, and how bytes get out, spoiled by a fault where one is in force.

Everything a handler needs is here, so that handlers are plain functions of an `Exchange`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import msgspec
from aiohttp import web

from kdnsctl.lab.api.access import Identity, Policy
from kdnsctl.lab.api.faults import Disturb, Faults
from kdnsctl.lab.api.journal import Entry, Journal
from kdnsctl.lab.api.requests import Target
from kdnsctl.lab.replies import Refused
from kdnsctl.lab.runtime import PodRuntime
from kdnsctl.lab.store import Store

_T = TypeVar("_T")
_FLOW_SCHEMA: Final = uuid.UUID("6b2f5a52-92b4-4e5e-9a3b-0f0c4f9d3b10")


class Closable(Protocol):
    """What can be open while the server stops."""

    def close(self) -> None: ...


_S = TypeVar("_S", bound=Closable)


def _discard(opening: Future[_S]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


@dataclass(slots=True)
class Backend:
    """What all requests share. `bookmark_seconds`: how often a quiet watch gets a bookmark."""

    store: Store
    runtime: PodRuntime
    policy: Policy
    faults: Faults
    journal: Journal
    address: str
    bookmark_seconds: float = 60.0
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=2048, thread_name_prefix="lab-api")
    )
    _open: set[Closable] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def blocking(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a blocking call of the runtime in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, function, *arguments)

    async def open(self, function: Callable[[], _S]) -> _S:
        """Open a stream of the runtime in a thread; stopping the server closes it, and so must the caller by `done`."""
        opening = self.threads.submit(function)
        try:
            stream = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            # The client hung up meanwhile, but the thread cannot be stopped: what it opens nobody would close.
            opening.add_done_callback(_discard)
            raise
        with self._lock:
            self._open.add(stream)
        return stream

    def done(self, stream: Closable) -> None:
        """Close a stream and forget it."""
        with self._lock:
            self._open.discard(stream)
        stream.close()

    def close(self) -> None:
        """End every open stream, so that no thread stays blocked in one."""
        with self._lock:
            streams = list(self._open)
            self._open.clear()
        for stream in streams:
            stream.close()
        self.threads.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True)
class Exchange:
    """A request and what is known about it once it has been let in."""

    backend: Backend
    request: web.Request
    target: Target
    identity: Identity
    entry: Entry
    disturbance: Disturb | None = None

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query

    def headers(self, *, fair: bool = True) -> dict[str, str]:
        """The headers of every answer. `fair`: the request passes Priority and Fairness; log and exec do not."""
        return common_headers(self.entry.audit_id, self.identity if fair else None)

    async def json(self, code: int, body: Any, *, extra: Mapping[str, str] | None = None, fair: bool = True) -> (
        web.StreamResponse
    ):  # fmt: skip
        """Answer with a JSON body."""
        data = msgspec.json.encode(body)
        headers = self.headers(fair=fair) | {"Content-Type": "application/json"} | dict(extra or {})
        if self.disturbance is None:
            response = web.Response(status=code, body=data, headers=headers)
            self.answered(code)
            return response
        stream = await self.stream(code, headers)
        await stream.send(data)
        return await stream.end()

    async def stream(self, code: int, headers: Mapping[str, str]) -> OutStream:
        """Begin an answer of unknown length."""
        response = web.StreamResponse(status=code, headers=dict(headers))
        if self.request.version >= (1, 1):
            response.enable_chunked_encoding()
        self.answered(code)
        await response.prepare(self.request)
        return OutStream(self, response)

    def answered(self, code: int) -> None:
        self.entry.code = code
        self.backend.journal.changed()


class SpoiledError(Exception):
    """A fault ended the answer; the connection is already as the fault wants it."""

    def __init__(self, response: web.StreamResponse | None = None) -> None:
        super().__init__("a fault on demand ended the answer")
        self.response = response


class OutStream:
    """The body of a streamed answer."""

    def __init__(self, exchange: Exchange, response: web.StreamResponse) -> None:
        self._exchange = exchange
        self._response = response
        self._spoiler = Spoiler(exchange.request, exchange.disturbance)

    async def send(self, data: bytes) -> None:
        """Raises SpoiledError when a fault cut the answer off."""
        try:
            async for piece in self._spoiler.pieces(data):
                await self._response.write(piece)
        except SpoiledError as spoiled:
            if not self._spoiler.resets:
                await self._response.write_eof()
            raise SpoiledError(self._response) from spoiled

    async def end(self) -> web.StreamResponse:
        await self._response.write_eof()
        return self._response


class Spoiler:
    """Carries out a `Disturb` on the bytes that pass."""

    def __init__(self, request: web.Request, disturbance: Disturb | None) -> None:
        self._request = request
        self._disturbance = disturbance
        self._left = disturbance.after_bytes if disturbance is not None else None

    @property
    def resets(self) -> bool:
        """Whether the connection is reset at the limit, rather than ended in good order."""
        return self._disturbance is not None and self._disturbance.reset

    async def pieces(self, data: bytes) -> AsyncIterator[bytes]:
        """The pieces of `data` that may go out; raises SpoiledError once the limit is reached."""
        if self._disturbance is None:
            yield data
            return
        for start in range(0, len(data), self._disturbance.piece):
            piece = data[start : start + self._disturbance.piece]
            if self._disturbance.delay:
                await asyncio.sleep(self._disturbance.delay)
            if self._left is None:
                yield piece
                continue
            if self._left > 0:
                yield piece[: self._left]
            self._left -= len(piece)
            if self._left < 0:
                self._spoil()

    def _spoil(self) -> None:
        if self.resets:
            reset(self._request)
        raise SpoiledError


def reset(request: web.Request) -> None:
    """End the connection with a TCP reset instead of a farewell."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def common_headers(audit_id: str, identity: Identity | None) -> dict[str, str]:
    """The headers of an answer; without an identity those of Priority and Fairness are left out."""
    headers = {"Audit-Id": audit_id, "Cache-Control": "no-cache, private"}
    if identity is not None:
        # Administrators are exempt on a real cluster, others share a level: two pairs of names.
        level = "exempt" if "system:masters" in identity.groups else "global-default"
        headers["X-Kubernetes-Pf-Flowschema-Uid"] = str(uuid.uuid5(_FLOW_SCHEMA, level))
        headers["X-Kubernetes-Pf-Prioritylevel-Uid"] = str(uuid.uuid5(_FLOW_SCHEMA, level + "-level"))
    return headers


def status_headers(refusal: Refused) -> dict[str, str]:
    """Headers that go with a refusal: when to come back, and nosniff for a 403 (recorded)."""
    headers = {"Content-Type": "application/json"}
    if refusal.retry_after:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.code == 403 and "forbidden: User" in refusal.message:
        headers["X-Content-Type-Options"] = "nosniff"
    return headers
