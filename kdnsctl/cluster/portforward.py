"""One HTTP request to an endpoint inside a pod, through the API server's port-forward: a GET, or a PUT of a few bytes.

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
from kdnsctl.cluster import podstreams
from kdnsctl.cluster.errors import printable
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.podstreams import PodStream, PodStreamError, StreamCutError, StreamLateError
from kdnsctl.cluster.retries import NO_RETRIES, RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.websockets import WebSocket

PROTOCOLS: Final = ("v4.channel.k8s.io",)
DATA: Final = 0
ERROR: Final = 1
PORT_NUMBER: Final = 2  # bytes that begin each channel
MAX_ERROR: Final = 4 << 10  # bytes
MAX_ANSWER: Final = 4 << 10  # bytes of the answer to a PUT that are kept
CHUNK: Final = 64 << 10


class ForwardError(PodStreamError):
    """The kubelet could not connect to the port."""

    code = "portForward"


def needed(namespace: str) -> tuple[Permission, ...]:
    """What forwarding ports of pods in a namespace needs."""
    return podstreams.needed(namespace, "portforward")


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

    `opened` is called when the API server has agreed; from then on it may take `seconds`. Raises ForwardError, what
    `podstreams.opened` raises, and what `take` raises, which is how to end it early.
    """
    return _exchange(connection, request, "GET", b"", take, scope, seconds, opened, retry)


def put(
    connection: Connection, request: ForwardRequest, body: bytes, *, scope: CancelScope, seconds: float
) -> tuple[ForwardEnd, bytes]:
    """PUT a body, once: the end, and how the answer begins. Raises as `get`; then it may have been taken or not."""
    answer = bytearray()

    def take(piece: bytes) -> None:
        answer.extend(piece[: MAX_ANSWER - len(answer)])

    end = _exchange(connection, request, "PUT", body, take, scope, seconds, lambda: None, NO_RETRIES)
    return end, bytes(answer)


def _exchange(
    connection: Connection,
    request: ForwardRequest,
    method: str,
    body: bytes,
    take: Callable[[bytes], object],
    scope: CancelScope,
    seconds: float | None,
    opened: Callable[[], object],
    retry: RetryPolicy | None,
) -> ForwardEnd:
    stream = PodStream(request.namespace, request.pod, "portforward", PROTOCOLS, {"ports": request.port}, str(request))
    silent = True

    def answers() -> None:
        nonlocal silent
        silent = False

    try:
        with podstreams.opened(connection, stream, scope=scope, seconds=seconds, began=opened, retry=retry) as socket:
            try:
                return _ask(socket, request, method, body, take, answers)
            except http.client.HTTPException as error:
                raise StreamCutError(
                    f"{request} did not answer in HTTP, or not to the end: {type(error).__name__}",
                    hint="is it kube-proxy that listens there?",
                ) from error
    except StreamLateError as error:
        if not silent or seconds is None:
            raise
        # A process that is stopped does not even refuse: the kernel accepts for it.
        raise StreamLateError(
            f"{request} did not answer within {duration(seconds)}: kube-proxy may be stopped, or stuck"
        ) from error


def _ask(
    socket: WebSocket,
    request: ForwardRequest,
    method: str,
    body: bytes,
    take: Callable[[bytes], object],
    answers: Callable[[], object],
) -> ForwardEnd:
    head = f"{method} {request.path} HTTP/1.1\r\nHost: localhost:{request.port}\r\nConnection: close\r\n"
    head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n" if body else ""
    socket.send(DATA, f"{head}\r\n".encode() + body)
    response = http.client.HTTPResponse(_Wire(socket, request))  # type: ignore[arg-type]  # it only makes a file of it
    with contextlib.closing(response):
        response.begin()
        answers()
        expected, chunked = response.length, response.chunked
        received = 0
        while piece := response.read(CHUNK):
            received += len(piece)
            take(piece)
        if expected is not None and received < expected:
            raise StreamCutError(f"{request} broke off: {received} of {expected} bytes came")
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
