"""pods/portforward over a websocket with the subprotocol `v4.channel.k8s.io`.

Port number i of the request gets channel 2i for data and 2i+1 for errors; the first message on each carries the port
in two bytes, low byte first. Source: Kubernetes 1.36, kubelet pkg/cri/streaming/portforward/websocket.go. kubectl's
own port-forward tunnels SPDY and is not served.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
from functools import partial
from typing import Final

from aiohttp import WSMsgType, web

from kdnsctl.lab.api.exchange import Exchange, SpoiledError, Spoiler
from kdnsctl.lab.api.execs import CLOSING, V4, require_websocket
from kdnsctl.lab.api.pods import pod_of, require_node
from kdnsctl.lab.replies import bad_request
from kdnsctl.lab.runtime import PortConnection, RuntimeRefusal

_PIECE: Final = 32768


async def pod_portforward(exchange: Exchange) -> web.StreamResponse:
    """Answer a port-forward. The connection ends when the pod or the client has ended every port."""
    pod = pod_of(exchange)
    require_node(pod)
    phase = pod.get("status", {}).get("phase")
    if phase != "Running":
        raise bad_request(f"unable to forward port because pod is not running. Current status={phase}")
    require_websocket(exchange, (V4,))
    ports = _ports(exchange)
    socket = web.WebSocketResponse(protocols=(V4,), compress=False, max_msg_size=0, timeout=CLOSING)
    exchange.answered(101)
    await socket.prepare(exchange.request)
    for index, port in enumerate(ports):
        number = port.to_bytes(2, "little")
        await socket.send_bytes(bytes([2 * index]) + number)
        await socket.send_bytes(bytes([2 * index + 1]) + number)
    connections: dict[int, PortConnection] = {}
    backend, target = exchange.backend, exchange.target
    try:
        for index, port in enumerate(ports):
            try:
                connect = partial(backend.runtime.portforward, target.namespace, target.name, port)
                connection = await backend.open(connect)
            except RuntimeRefusal as error:
                text = f"error forwarding port {port} to pod {target.name}: {error}"
                await socket.send_bytes(bytes([2 * index + 1]) + text.encode())
                continue
            connections[index] = connection
        await _forward(exchange, socket, connections)
    except SpoiledError:
        await socket.close()
    finally:
        for connection in connections.values():
            _hang_up(connection)
            backend.done(connection)
    await socket.close()
    return socket


def _ports(exchange: Exchange) -> list[int]:
    texts = exchange.request.query.getall("ports", [])
    if not texts:
        raise bad_request('query parameter "port" is required')
    ports = []
    for text in texts:
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
            raise bad_request(f'unable to parse "{text}" as a port')
        ports.append(int(text))
    return ports


async def _forward(exchange: Exchange, socket: web.WebSocketResponse, connections: dict[int, PortConnection]) -> None:
    incoming = asyncio.create_task(_receive(exchange, socket, connections))
    outgoing = [
        asyncio.create_task(_send(exchange, socket, index, connection)) for index, connection in connections.items()
    ]
    finished = asyncio.gather(*outgoing)
    try:
        await asyncio.wait((incoming, finished), return_when=asyncio.FIRST_COMPLETED)
        if finished.done():
            finished.result()
    finally:
        for connection in connections.values():
            _hang_up(connection)
        for task in (incoming, finished):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, SpoiledError, OSError):
                await task


async def _receive(exchange: Exchange, socket: web.WebSocketResponse, connections: dict[int, PortConnection]) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or len(message.data) < 2:
            continue
        index, is_error = divmod(message.data[0], 2)
        if not is_error and index in connections:
            await exchange.backend.blocking(connections[index].sendall, message.data[1:])


async def _send(exchange: Exchange, socket: web.WebSocketResponse, index: int, connection: PortConnection) -> None:
    spoiler = Spoiler(exchange.request, exchange.disturbance)
    while data := await exchange.backend.blocking(connection.recv, _PIECE):
        async for piece in spoiler.pieces(data):
            if piece:
                await socket.send_bytes(bytes([2 * index]) + piece)


def _hang_up(connection: PortConnection) -> None:
    """Wake a thread that reads the connection; closing alone does not do that for a socket."""
    with contextlib.suppress(OSError):
        connection.shutdown(sockets.SHUT_RDWR)
