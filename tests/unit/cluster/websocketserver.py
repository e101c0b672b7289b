"""Answers of a scripted server that are websockets: frames are written down in the test, well made or not."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Iterable

from tests.unit.cluster.apiserver import Answer, Exchange

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
STDOUT, STDERR, ERROR = 1, 2, 3
CLOSED = bytes([0x88, 2, 0x03, 0xE8])  # a close frame, 1000

Then = Callable[[Exchange], None]


def frame(payload: bytes, opcode: int = BINARY, *, final: bool = True) -> bytes:
    """A frame as servers send them: not masked."""
    size = len(payload)
    first = bytes([opcode | (0x80 if final else 0)])
    if size < 126:
        return first + bytes([size]) + payload
    if size < 1 << 16:
        return first + b"\x7e" + struct.pack("!H", size) + payload
    return first + b"\x7f" + struct.pack("!Q", size) + payload


def message(channel: int, data: bytes) -> bytes:
    return frame(bytes([channel]) + data)


def success() -> bytes:
    return message(ERROR, b'{"metadata":{},"status":"Success"}')


def exit_code(code: int) -> bytes:
    """The Status of a command that failed, as the kubelet writes it."""
    said = {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
    return message(ERROR, json.dumps(said).encode())


def hang_up(exchange: Exchange) -> None:
    """End the connection without a word."""
    exchange.close_connection = True


def hang(exchange: Exchange) -> None:
    exchange.hang()


def reset(exchange: Exchange) -> None:
    exchange.reset()


def switch(exchange: Exchange, protocol: str, **headers: str) -> None:
    """The head of the answer; `headers` replace those that are right."""
    key = exchange.seen.header("Sec-WebSocket-Key") or ""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": base64.b64encode(digest).decode(),
        "Sec-WebSocket-Protocol": protocol,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    exchange.send_response(101)
    for name, value in fields.items():
        exchange.send_header(name, value)
    exchange.end_headers()


def websocket(frames: Iterable[bytes], *, protocol: str = V5, then: Then = hang_up, **headers: str) -> Answer:
    """Open a websocket, send these bytes, and then do that. What the client sends is kept in `exchange.sent`."""

    def answer(exchange: Exchange) -> None:
        switch(exchange, protocol, **headers)
        for data in frames:
            exchange.wfile.write(data)
        exchange.wfile.flush()
        exchange.close_connection = True
        then(exchange)

    return answer


def received(exchange: Exchange) -> tuple[int, bytes]:
    """Opcode and payload of the next frame from the client, which must be masked; small frames only."""
    first, second = exchange.rfile.read(2)
    assert second & 0x80, "a client masks"
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", exchange.rfile.read(2))
    mask = exchange.rfile.read(4)
    payload = exchange.rfile.read(size)
    return first & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
