"""The client's side of a websocket (RFC 6455) whose messages carry channels, as the API server's streams do.

Each message begins with the number of its channel; what a channel means is known to `execs` and `portforward`. The
connection is made by `transport`, like that of any other request.

What comes in is handed on in pieces as it arrives, and never held as a whole: the far end of an exec is a node, and the
length that it claims for a frame bounds nothing. websocket-client makes the frames that are sent; its own reading keeps
a frame of any length in memory.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import secrets
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Final

from websocket import ABNF

from kdnsctl.cluster.errors import AnswerError, printable
from kdnsctl.cluster.network import shut

PIECE: Final = 64 << 10  # bytes handed on at a time, at most
GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
MAX_CONTROL: Final = 125  # bytes; RFC 6455, section 5.5
NORMAL: Final = struct.pack("!H", 1000)  # RFC 6455, section 7.4.1
NO_WEBSOCKET: Final = "is there a proxy in between that does not let websockets through?"


def new_key() -> str:
    """A nonce for one opening, so that the answer cannot come from a cache."""
    return base64.b64encode(secrets.token_bytes(16)).decode()


def upgrade(key: str, protocols: Sequence[str]) -> dict[str, str]:
    """The headers of a request for a websocket."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": ", ".join(protocols),
    }


def agreed(headers: Mapping[str, str], key: str, protocols: Sequence[str], what: str) -> str:
    """The protocol that the server has chosen. Raises AnswerError when this is no websocket, or not as asked for."""
    digest = hashlib.sha1(f"{key}{GUID}".encode(), usedforsecurity=False).digest()
    if (
        headers.get("Upgrade", "").lower() != "websocket"
        or "upgrade" not in headers.get("Connection", "").lower()
        or headers.get("Sec-WebSocket-Accept", "").strip() != base64.b64encode(digest).decode()
    ):
        raise AnswerError(f"the answer to {what} opens no websocket", hint=NO_WEBSOCKET)
    protocol = headers.get("Sec-WebSocket-Protocol", "").strip()
    if protocol not in protocols:
        said = printable(protocol[:80]) or "none"
        raise AnswerError(f"the answer to {what} speaks another protocol: {said}, not {' or '.join(protocols)}")
    return protocol


class WebSocket:
    """An open websocket, for one thread. `received` counts the bytes of all channels.

    `failed` turns what goes wrong with the connection (None: it ended without saying so), and how many bytes had come,
    into the error to raise.
    """

    def __init__(
        self,
        reader: IO[bytes],
        connected: socket.socket,
        what: str,
        protocol: str,
        audit_id: str,
        failed: Callable[[Exception | None, int], Exception],
    ) -> None:
        self.what = what
        self.protocol = protocol
        self.audit_id = audit_id
        self.received = 0
        self._reader = reader
        self._connected = connected
        self._failed = failed

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Channel and bytes of what comes, in order, until the server closes the websocket. May be left early.

        An empty piece is an empty message. Raises AnswerError for what is no websocket, CutOffError when the connection
        ends without having been closed, UnreachableError when the server falls silent, or what ended the scope. What
        had come before that has been handed on.
        """
        try:
            yield from self._messages()
        except (OSError, ValueError) as error:  # ValueError: read after a close
            raise self._failed(error, self.received) from error

    def send(self, channel: int, data: bytes) -> None:
        """Send one message. Raises like `pieces`."""
        self._send(bytes([channel]) + data, ABNF.OPCODE_BINARY)

    def close(self) -> None:
        """Say that nothing more is wanted; whether the server hears it does not matter."""
        with contextlib.suppress(OSError, ValueError):
            self._connected.sendall(_frame(NORMAL, ABNF.OPCODE_CLOSE))

    def shut(self) -> None:
        """Let whoever reads or sends fail, from any thread."""
        shut(self._connected)

    def be_patient(self, seconds: float) -> None:
        """From now on the server may be silent for so long only."""
        self._connected.settimeout(seconds)

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        channel: int | None = None  # of the message that is coming; None between messages
        while True:
            opcode, final, length = self._head()
            if opcode >= ABNF.OPCODE_CLOSE:
                if self._control(opcode, self._exactly(length)):
                    return
                continue
            if (opcode == ABNF.OPCODE_CONT) == (channel is None):
                raise self._nonsense("a message in the wrong order")
            if channel is None and length:
                channel = self._exactly(1)[0]
                length -= 1
                if not length:
                    yield channel, b""
            while length and channel is not None:
                piece = self._some(min(length, PIECE))
                length -= len(piece)
                yield channel, piece
            if final:
                channel = None
            elif channel is None:
                raise self._nonsense("a message that does not say its channel")

    def _head(self) -> tuple[int, bool, int]:
        first, second = self._exactly(2)
        opcode, final, length = first & 0x0F, bool(first & 0x80), second & 0x7F
        if first & 0x70 or second & 0x80 or opcode not in ABNF.OPCODES:
            raise self._nonsense("a frame that no server sends")
        if opcode >= ABNF.OPCODE_CLOSE and (length > MAX_CONTROL or not final):
            raise self._nonsense("a control frame that is too long")
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return opcode, final, length

    def _control(self, opcode: int, data: bytes) -> bool:
        """Answer a control frame; whether it was the last frame of all."""
        if opcode == ABNF.OPCODE_CLOSE:
            self.close()
            return True
        if opcode == ABNF.OPCODE_PING:
            self._send(data, ABNF.OPCODE_PONG)
        return False

    def _send(self, data: bytes, opcode: int) -> None:
        try:
            self._connected.sendall(_frame(data, opcode))
        except (OSError, ValueError) as error:
            raise self._failed(error, self.received) from error

    def _some(self, at_most: int) -> bytes:
        piece: bytes = self._reader.read1(at_most)  # type: ignore[attr-defined]  # it is buffered
        if not piece:
            raise self._failed(None, self.received)
        self.received += len(piece)
        return piece

    def _exactly(self, length: int) -> bytes:
        data = self._reader.read(length)
        if len(data) < length:
            raise self._failed(None, self.received)
        return data

    def _nonsense(self, which: str) -> AnswerError:
        return AnswerError(f"the answer to {self.what} is no websocket any more: {which}", hint=NO_WEBSOCKET)


def _frame(data: bytes, opcode: int) -> bytes:
    """A whole frame, masked as a client's must be."""
    frame: bytes = ABNF.create_frame(data, opcode).format()
    return frame
