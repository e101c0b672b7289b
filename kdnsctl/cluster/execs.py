"""Running a command in a container through the API server, with its streams apart and the truth about its end.

The protocol is Kubernetes' remote command protocol over a websocket: channel 1 is stdout, 2 stderr, and 3 the Status
that says how the command ended (v4.channel.k8s.io, and v5, which adds a way to close a channel: apimachinery
pkg/util/remotecommand/constants.go). Nothing is sent to the command, and there is no terminal. What the command is
allowed to be is not known here; see `reach`.

An exec that ends without that Status was cut off: that is an error, never success. One that does end with it may still
have lost output on its way (kubernetes#124571, #60140): whoever needs to know has the node write a trailer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.answers import Query, decode
from kdnsctl.cluster.errors import (
    AnswerError,
    ApiError,
    CutOffError,
    NotFoundError,
    ServerError,
    UnreachableError,
    of_status,
)
from kdnsctl.cluster.objects import Status
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.websockets import WebSocket
from kdnsctl.model import KdnsctlError

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT: Final = 1
STDERR: Final = 2
ERROR: Final = 3
MAX_STATUS: Final = 64 << 10  # bytes
LINGER: Final = 2.0  # seconds that a server may take to close after the Status; all that matters has come

Take = Callable[[bytes], object]


class ExecError(KdnsctlError):
    """A command could not be run, or not to its end. `code` says why, in one word."""

    code = "exec"


class ExecCutError(ExecError):
    """The connection ended without the Status: output is missing, and how the command ended is not known."""

    code = "truncated"


class ExecLateError(ExecError):
    """The command had not ended in time."""

    code = "deadline"


def needed(namespace: str) -> tuple[Permission, ...]:
    """What running commands in a namespace needs.

    A websocket is opened with GET; since 1.35 the server asks for `create` too (kubernetes#134577, feature
    AuthorizePodWebsocketUpgradeCreatePermission).
    """
    return tuple(Permission(verb, "pods", subresource="exec", namespace=namespace) for verb in ("get", "create"))


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """Which command, where. `command` is an argument list: there is no shell, unless it names one."""

    namespace: str
    pod: str
    container: str
    command: tuple[str, ...]

    def __str__(self) -> str:
        return f"exec of {self.command[0]} in {self.namespace}/{self.pod}"


@dataclass(frozen=True, slots=True)
class ExecEnd:
    """How a command ended, in its own words. `audit_id` is the server's name for the request in its audit log."""

    exit_code: int
    audit_id: str = ""


def run(
    connection: Connection,
    request: ExecRequest,
    *,
    stdout: Take,
    stderr: Take,
    scope: CancelScope,
    seconds: float | None = None,
    opened: Callable[[], object] = lambda: None,
    retry: RetryPolicy | None = None,
) -> ExecEnd:
    """Run a command to its end; its output goes to `stdout` and `stderr` as it comes, in pieces cut anywhere.

    `opened` is called when the server has agreed to run it; from then on it may take `seconds`. The opening is repeated
    like any GET: the command must be one that may run twice. What runs on the node when we leave is not ended by that.

    Raises ExecCutError, ExecLateError, ServerError (the kubelet cannot be reached, or the runtime
    could not start it), what else `Connection.websocket` raises (ForbiddenError, NotFoundError…), what ended the scope,
    and what `stdout` or `stderr` raise, which is how to end it early.
    """
    query: Query = {"container": request.container, "command": request.command, "stdout": True, "stderr": True}
    path = f"/api/v1/namespaces/{request.namespace}/pods/{request.pod}/exec"
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
            return _follow(socket, request, stdout, stderr)
        except UnreachableError as error:
            scope.check()
            if limit.reason is not None and seconds is not None:
                raise ExecLateError(
                    f"{request} had not ended after {duration(seconds)}, {socket.received} bytes had come"
                ) from error
            if isinstance(error, CutOffError):
                raise ExecCutError(f"{request} broke off: {error}") from error
            raise


def _follow(socket: WebSocket, request: ExecRequest, stdout: Take, stderr: Take) -> ExecEnd:
    status = b""
    try:
        for channel, piece in socket.pieces():
            if channel == STDOUT:
                stdout(piece)
            elif channel == STDERR:
                stderr(piece)
            elif channel == ERROR:
                status += piece
                if len(status) > MAX_STATUS:
                    raise AnswerError(f"the Status of {request} is longer than {MAX_STATUS >> 10} KiB")
                if piece:
                    socket.be_patient(LINGER)
    except UnreachableError:
        if not _is_whole(status):
            raise
    finally:
        socket.close()
    if not status:
        raise ExecCutError(f"{request} ended without its exit code, after {socket.received} bytes: output is missing")
    return _end(status, socket)


def _is_whole(status: bytes) -> bool:
    try:
        return bool(decode(status, Status, "").status)
    except AnswerError:
        return False


def _end(body: bytes, socket: WebSocket) -> ExecEnd:
    """The exit code that a Status tells (k8s.io/kubelet pkg/cri/streaming/remotecommand/exec.go)."""
    status = decode(body, Status, f"{socket.what} (its Status)")
    if status.status == "Success":
        return ExecEnd(0, socket.audit_id)
    if status.reason == "NonZeroExitCode" and status.details is not None:
        for cause in status.details.causes:
            if cause.reason == "ExitCode" and cause.message.isascii() and cause.message.isdecimal():
                return ExecEnd(int(cause.message[:10]), socket.audit_id)
    code = status.code or 500  # what is no refusal of the API server's has none
    raise of_status(socket.what, msgspec.structs.replace(status, code=code), socket.audit_id)


def advice(error: ApiError) -> str:
    """What to do when a pod's streams are refused."""
    if isinstance(error, NotFoundError):
        return "was the pod replaced? repeat"
    return "is the node's kubelet running, and can the API server reach it?"
