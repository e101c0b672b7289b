"""A GET of an HTTP endpoint inside a pod, through the API server's port-forward.

It is for programs that listen on the loopback address of the pod's network, which for kube-proxy is the node's: the
kubelet connects to `localhost` in there, so no permission but `pods/portforward` is needed. One port, one request, one
answer; nothing listens on this machine.

The protocol (v4.channel.k8s.io, kubelet pkg/cri/streaming/portforward/websocket.go): channel 0 is data, 1 the text of
an error; the first message of each is the port's number in two bytes. Either side's closing ends all.
"""

from __future__ import annotations

import contextlib
import http.client
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.errors import NotFoundError, ServerError, UnreachableError, printable
from kdnsctl.cluster.execs import advice
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.websockets import WebSocket
from kdnsctl.model import KdnsctlError

PROTOCOLS: Final = ("v4.channel.k8s.io",)
DATA: Final = 0
ERROR: Final = 1
PORT_NUMBER: Final = 2  # bytes that begin each channel
MAX_ERROR: Final = 4 << 10  # bytes
CHUNK: Final = 64 << 10


class ForwardError(KdnsctlError):
    """The endpoint gave no answer, or not a whole one. `code` says why, in one word."""

    code = "portForward"


class ForwardCutError(ForwardError):
    """The answer ended before its end."""

    code = "truncated"


class ForwardLateError(ForwardError):
    """The answer was not there in time."""

    code = "deadline"


def needed(namespace: str) -> tuple[Permission, ...]:
    """What forwarding ports of pods in a namespace needs; why both verbs, see `execs.needed`."""
    return tuple(Permission(verb, "pods", subresource="portforward", namespace=namespace) for verb in ("get", "create"))


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """Which endpoint of which pod."""

    namespace: str
    pod: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"port {self.port} of {self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class ForwardEnd:
    """The endpoint's answer, of which the body was handed on. `bounded`: it said where it ends, so it is all there."""

    status: int
    bounded: bool
    content_type: str = ""
    audit_id: str = ""


def get(
    connection: Connection,
    request: ForwardRequest,
    *,
    take: Callable[[bytes], object],
    scope: CancelScope,
    seconds: float | None = None,
    opened: Callable[[], object] = lambda: None,
    retry: RetryPolicy | None = None,
) -> ForwardEnd:
    """Ask the endpoint, and hand its answer's body to `take` in pieces, whatever the status. Nothing is followed.

    `opened` is called when the API server has agreed; from then on it may take `seconds`. Raises ForwardError and its
    kinds, what `Connection.websocket` raises, what ended the scope, and what `take` raises: that ends it early.
    """
    path = f"/api/v1/namespaces/{request.namespace}/pods/{request.pod}/portforward"
    query = {"ports": request.port}
    with contextlib.ExitStack() as stack:
        try:
            socket = stack.enter_context(connection.websocket(path, PROTOCOLS, query=query, scope=scope, retry=retry))
        except (NotFoundError, ServerError) as error:
            error.hint = advice(error)
            raise
        opened()
        limit = stack.enter_context(scope.child(seconds))
        stack.enter_context(limit.closing(socket.shut))
        try:
            return _ask(socket, request, take)
        except UnreachableError as error:
            scope.check()
            if limit.reason is not None and seconds is not None:
                raise ForwardLateError(f"{request} had not answered after {duration(seconds)}") from error
            raise ForwardCutError(f"{request} broke off: {error}") from error
        except http.client.HTTPException as error:
            raise ForwardCutError(
                f"{request} did not answer in HTTP, or not to the end: {type(error).__name__}",
                hint="is it kube-proxy that listens there?",
            ) from error
        finally:
            socket.close()


def _ask(socket: WebSocket, request: ForwardRequest, take: Callable[[bytes], object]) -> ForwardEnd:
    socket.send(
        DATA, f"GET {request.path} HTTP/1.1\r\nHost: localhost:{request.port}\r\nConnection: close\r\n\r\n".encode()
    )
    response = http.client.HTTPResponse(_Wire(socket, request))  # type: ignore[arg-type]  # it only makes a file of it
    with contextlib.closing(response):
        response.begin()
        expected, chunked = response.length, response.chunked
        received = 0
        while piece := response.read(CHUNK):
            received += len(piece)
            take(piece)
        if expected is not None and received < expected:
            raise ForwardCutError(f"{request} broke off: {received} of {expected} bytes came")
        kind = printable(response.headers.get("Content-Type", "")[:100])
        return ForwardEnd(response.status, bool(chunked) or expected is not None, kind, socket.audit_id)


class _Wire:
    """The data channel as http.client wants it: something that a file can be made of."""

    def __init__(self, socket: WebSocket, request: ForwardRequest) -> None:
        self._data = _data(socket, request)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self._data), CHUNK)


class _Raw(io.RawIOBase):
    """A raw stream of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def _data(socket: WebSocket, request: ForwardRequest) -> Iterator[bytes]:
    """What comes on the data channel. Raises ForwardError when the kubelet says that it could not connect."""
    said = b""
    skip = {DATA: PORT_NUMBER, ERROR: PORT_NUMBER}
    for channel, piece in socket.pieces():
        if channel not in skip:
            continue
        rest = piece[skip[channel] :]
        skip[channel] -= len(piece) - len(rest)
        if channel == DATA and rest:
            yield rest
        elif channel == ERROR and len(said) < MAX_ERROR:
            said += rest
            if said:
                break  # nothing follows but the end, and that only when the kubelet has closed
    if said:
        why = printable(said[:MAX_ERROR].decode("utf-8", "replace"))
        raise ForwardError(
            f"{request} cannot be reached: {why}", hint="does kube-proxy listen there, and is it running?"
        )
