from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from kdnsctl.lab.api.execs import V4
from tests.lab.api.client import Client
from tests.lab.api.memory_runtime import MemoryRuntime
from tests.lab.api.websockets import WebSocket

POD = "/api/v1/namespaces/default/pods/web"


@pytest.fixture
def echo(runtime: MemoryRuntime) -> Iterator[None]:
    """Port 10249 of the pod: answers what it is sent, in capitals, until the client stops."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(4096):
                    connection.sendall(data.upper())
                    if data == b"bye":
                        break

    thread = threading.Thread(target=serve)
    thread.start()
    runtime.ports["default", "web", 10249] = listener.getsockname()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.usefixtures("echo")
def test_bytes_go_both_ways_after_the_port_was_announced(client: Client) -> None:
    with WebSocket(client, f"{POD}/portforward?ports=10249", [V4]) as websocket:
        assert websocket.protocol == V4
        number = (10249).to_bytes(2, "little")
        assert websocket.receive() == (0, number)
        assert websocket.receive() == (1, number)
        websocket.send(0, b"hello")
        assert websocket.receive() == (0, b"HELLO")
        websocket.send(0, b"bye")
        assert websocket.receive() == (0, b"BYE")
        assert websocket.receive() is None


@pytest.mark.usefixtures("echo")
def test_a_port_nobody_listens_on_is_told_on_its_error_channel(client: Client) -> None:
    with WebSocket(client, f"{POD}/portforward?ports=10249&ports=1", [V4]) as websocket:
        announced = [websocket.receive() for _ in range(4)]
        assert [message[0] if message else None for message in announced] == [0, 1, 2, 3]
        error = websocket.receive()
        assert error is not None
        assert error[0] == 3
        assert b"error forwarding port 1 to pod web" in error[1]
        assert b"connection refused" in error[1]
        websocket.send(0, b"bye")
        assert websocket.receive() == (0, b"BYE")


@pytest.mark.parametrize(
    ("query", "message"),
    [("", 'query parameter "port" is required'), ("?ports=x", 'unable to parse "x"'), ("?ports=0", "unable to parse")],
)
def test_bad_ports_are_refused(client: Client, query: str, message: str) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Protocol": V4}
    reply = client.get(f"{POD}/portforward{query}", headers)
    assert reply.code == 400
    assert message in reply.json["message"]


def test_without_a_websocket_nothing_is_forwarded(client: Client) -> None:
    reply = client.send("POST", f"{POD}/portforward?ports=1")
    assert (reply.code, reply.json["message"]) == (400, "Upgrade request required")
