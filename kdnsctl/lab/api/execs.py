"""pods/exec over a websocket: channels v4 and v5 of Kubernetes' remote command protocol.

Each binary message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 the final Status, 4 terminal size, and in
v5 255, which closes the channel named by the next byte. Sources: Kubernetes 1.36, apimachinery
pkg/util/remotecommand/constants.go and apiserver pkg/util/proxy/websocket.go. SPDY is not spoken.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from aiohttp import WSMsgType, web

from kdnsctl.lab.api.exchange import Exchange, SpoiledError, Spoiler
from kdnsctl.lab.api.pods import container_of, pod_of, require_node
from kdnsctl.lab.api.requests import flag
from kdnsctl.lab.replies import JSON, Refused, bad_request
from kdnsctl.lab.runtime import ExecSession, Output, RuntimeRefusal

CLOSING: Final = 60.0
"""Seconds for the client to read what is still on its way before the connection is dropped; aiohttp's own 10 cut off
tens of megabytes on a busy machine."""

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255


async def pod_exec(exchange: Exchange) -> web.StreamResponse:
    """Answer an exec: refusals before the upgrade are ordinary answers, later ones go on the error channel."""
    query = exchange.request.query
    stdin, stdout, stderr, tty = (flag(query, name) for name in ("stdin", "stdout", "stderr", "tty"))
    command = query.getall("command", [])
    if not (stdin or stdout or stderr):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if not command:
        raise bad_request("you must specify at least 1 command to execute")
    pod = pod_of(exchange)
    container = container_of(pod, query.get("container", ""))
    require_node(pod)
    phase = pod.get("status", {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        raise bad_request(f"cannot exec into a container in a completed pod; current phase is {phase}")
    require_websocket(exchange, (V5, V4))
    socket = web.WebSocketResponse(protocols=(V5, V4), compress=False, max_msg_size=0, timeout=CLOSING)
    exchange.answered(101)
    await socket.prepare(exchange.request)
    backend = exchange.backend
    # An empty message says that the streams are there, as a real server does.
    await socket.send_bytes(bytes([_STDOUT if stdout else _STDERR if stderr else _ERROR]))

    def start() -> ExecSession:
        target = exchange.target
        return backend.runtime.exec(
            target.namespace, target.name, container, command, stdin=stdin, stdout=stdout, stderr=stderr and not tty,
            tty=tty,
        )  # fmt: skip

    try:
        session = await backend.open(start)
    except RuntimeRefusal as error:
        await _tell(socket, _internal(f"error executing command in container: {error}"))
        await socket.close()
        return socket
    incoming = asyncio.create_task(_receive(exchange, socket, session))
    outgoing = asyncio.create_task(_send(exchange, socket, session, command))
    try:
        # The client's hanging up ends the session; the command's end ends the connection.
        await asyncio.wait((incoming, outgoing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        backend.done(session)
        for task in (incoming, outgoing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, SpoiledError, ConnectionError):
                await task
    # Nobody receives any more: only so does this wait until the client has read everything and says goodbye, too.
    # Closed beside a receiver, aiohttp drops the connection at once, and a slow reader loses what is on its way.
    await socket.close()
    return socket


def require_websocket(exchange: Exchange, supported: Sequence[str]) -> None:
    """Raises Refused: 400 unless the client asks for a websocket (SPDY ends here), 403 when it offers no protocol
    that is spoken.
    """
    headers = exchange.request.headers
    if headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")
    offered = [item.strip() for item in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if not set(offered) & set(supported):
        message = f"requested protocol(s) are not supported: {offered}; supports {list(supported)}"
        raise Refused(403, "Forbidden", message, details={})


async def _receive(exchange: Exchange, socket: web.WebSocketResponse, session: ExecSession) -> None:
    reads = True
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _STDIN and reads and data:
            try:
                await exchange.backend.blocking(session.write, data)
            except BrokenPipeError:
                # The command stopped reading; its output and its end still matter.
                reads = False
        elif channel == _RESIZE:
            size = json.loads(data)
            session.resize(int(size.get("Width", 0)), int(size.get("Height", 0)))
        elif channel == _CLOSE and data[:1] == bytes([_STDIN]):
            await exchange.backend.blocking(session.close_stdin)


async def _send(
    exchange: Exchange, socket: web.WebSocketResponse, session: ExecSession, command: Sequence[str]
) -> None:
    spoiler = Spoiler(exchange.request, exchange.disturbance)
    while (chunk := await exchange.backend.blocking(session.read)) is not None:
        channel = bytes([_STDOUT if chunk.source is Output.STDOUT else _STDERR])
        async for piece in spoiler.pieces(chunk.data):
            if piece:
                await socket.send_bytes(channel + piece)
    code = await exchange.backend.blocking(session.exit_code)
    await _tell(socket, _exit_status(code, command))


async def _tell(socket: web.WebSocketResponse, status: JSON) -> None:
    await socket.send_bytes(bytes([_ERROR]) + msgspec.json.encode(status))


def _exit_status(code: int, command: Sequence[str]) -> JSON:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    shown = f"error executing command [{' '.join(command)}], exit code {code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {shown}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _internal(why: str) -> dict[str, Any]:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {why}",
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    }
