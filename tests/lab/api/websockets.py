"""A websocket client for the tests, with blocking calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import websocket

from tests.lab.api.client import Client


class WebSocket:
    """One connection to a path of the API, as the user of a `Client`."""

    def __init__(self, client: Client, path: str, protocols: Sequence[str]) -> None:
        host, port = client.address
        self._socket = websocket.create_connection(
            f"wss://{host}:{port}{path}",
            sslopt={"context": client.context},
            subprotocols=list(protocols),
            header=[] if client.authorization is None else [f"Authorization: {client.authorization}"],
            timeout=60,
            skip_utf8_validation=True,
        )

    @property
    def protocol(self) -> str | None:
        return self._socket.getsubprotocol()

    def receive(self) -> tuple[int, bytes] | None:
        """Channel and data of the next message, None once the server has closed."""
        opcode, data = self._socket.recv_data()
        if opcode == websocket.ABNF.OPCODE_BINARY:
            assert isinstance(data, bytes)
            return data[0], data[1:]
        return None

    def receive_all(self) -> dict[int, bytes]:
        """Everything until the server closes, by channel."""
        found: dict[int, list[bytes]] = {}
        while (message := self.receive()) is not None:
            found.setdefault(message[0], []).append(message[1])
        return {channel: b"".join(pieces) for channel, pieces in found.items()}

    def receive_opcode(self) -> int:
        """What the next frame is. A close is not answered."""
        frame = self._socket.recv_frame()  # type: ignore[no-untyped-call]  # the package leaves this one untyped, too
        return int(frame.opcode)

    def send_close(self) -> None:
        self._socket.send_close()

    def send(self, channel: int, data: bytes) -> None:
        self._socket.send_binary(bytes([channel]) + data)

    def close(self) -> None:
        """Hang up without a farewell, as a client does that is killed."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]  # the package leaves this one method untyped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
