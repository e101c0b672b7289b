"""Websockets to a pod, which the kubelet of its node serves: what opening, ending and breaking off have in common.

What goes over them is known to `execs` and `portforward`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.answers import Query
from kdnsctl.cluster.errors import NotFoundError, ServerError, UnreachableError
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.cluster.websockets import WebSocket
from kdnsctl.model import KdnsctlError


class PodStreamError(KdnsctlError):
    """A stream to a pod did not do what it was opened for. `code` says why, in one word."""

    code = "podStream"


class StreamCutError(PodStreamError):
    """It ended before its end: what came is not all, and how it went on is not known."""

    code = "truncated"


class StreamLateError(PodStreamError):
    """It had not come to its end in time."""

    code = "deadline"


@dataclass(frozen=True, slots=True)
class PodStream:
    """Which stream of which pod: `subresource` is exec or portforward, `what` names it in messages."""

    namespace: str
    pod: str
    subresource: str
    protocols: Sequence[str]
    query: Query
    what: str

    @property
    def path(self) -> str:
        """Where the API server has it."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}/{self.subresource}"


def needed(namespace: str, subresource: str) -> tuple[Permission, ...]:
    """What opening such streams in a namespace needs.

    A websocket is opened with GET; since 1.35 the server asks for `create` too (kubernetes#134577, feature
    AuthorizePodWebsocketUpgradeCreatePermission).
    """
    return tuple(Permission(verb, "pods", subresource=subresource, namespace=namespace) for verb in ("get", "create"))


@contextlib.contextmanager
def opened(
    connection: Connection,
    stream: PodStream,
    *,
    scope: CancelScope,
    seconds: float | None,
    began: Callable[[], object],
    retry: RetryPolicy | None,
) -> Iterator[WebSocket]:
    """The stream, open for the length of the block, and for `seconds` once the server has agreed, which `began` hears.

    Raises what `Connection.websocket` raises (ServerError too when the kubelet cannot be reached). Within the block a
    connection that breaks is a StreamCutError, one that takes too long a StreamLateError, unless the scope has ended.
    """
    with contextlib.ExitStack() as stack:
        try:
            way = connection.websocket(stream.path, stream.protocols, query=stream.query, scope=scope, retry=retry)
            socket = stack.enter_context(way)
        except NotFoundError as error:
            error.hint = "was the pod replaced? repeat"
            raise
        except ServerError as error:
            error.hint = "is the node's kubelet running, and can the API server reach it?"
            raise
        began()
        limit = stack.enter_context(scope.child(seconds))
        stack.enter_context(limit.closing(socket.shut))
        try:
            yield socket
        except UnreachableError as error:
            scope.check()
            if limit.reason is not None and seconds is not None:
                raise StreamLateError(
                    f"{stream.what} had not ended after {duration(seconds)}; {socket.received} bytes had come"
                ) from error
            raise StreamCutError(f"{stream.what} broke off: {error}") from error
        finally:
            socket.close()
