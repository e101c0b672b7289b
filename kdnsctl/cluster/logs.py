"""A container's log through the API, as bytes, and the truth about how it ended.

What the log says is the business of `kdnsctl.logs`; how many are read at once is the caller's: log requests stand
outside the server's fairness limits (k8s.io/kubernetes pkg/controlplane/apiserver/config.go: long-running).

A log is read with `timestamps=true`, so that every line of it begins with a moment. That is also how a kubelet's error
is told from a log: when it cannot read the file any more, the answer is a 200 whose body is, or ends with, a line of
its own words (`unable to retrieve container logs for containerd://…`, `failed to try resolving symlinks in path …`). A
body that breaks off, on the wire or in the middle of a line, is never passed for a whole one: the API server drops the
error when its connection to the kubelet breaks, and ends the body as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import Query
from kdnsctl.cluster.errors import BadRequestError, NotFoundError, ServerError, printable
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError

GATHERED = 64 << 10  # bytes: each piece has costs of its own; larger ones save 4 % and take half as much memory again
FIRST_LINE = 16 << 10  # bytes; a longer first line without a timestamp is judged by its beginning
TAIL = 4 << 10  # bytes kept of the end
STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d) ")
STAMP_SHAPE = b"0000-00-00T00:00:00"


class LogError(KdnsctlError):
    """A log could not be had, or not whole. `code` says why, in one word."""

    code = "log"


class NoPreviousLogError(LogError):
    """The container has no earlier run whose log is still there. No failure where it never restarted."""

    code = "noPreviousLog"


class NotStartedError(LogError):
    """The container has not started yet: there is no log."""

    code = "notStarted"


class KubeletTextError(LogError):
    """The body is, or ends with, a kubelet's error text instead of the log."""

    code = "kubeletError"


class KubeletUnreachableError(LogError):
    """The API server cannot reach the node's kubelet."""

    code = "kubeletUnreachable"


class CutLogError(LogError):
    """The body ends in the middle of a line: there was more."""

    code = "cutOff"


def needed(namespace: str) -> Permission:
    """What reading logs in a namespace needs."""
    without = "the logs of kube-proxy cannot be read: their nodes are unknown"
    return Permission("get", "pods", subresource="log", namespace=namespace, without=without)


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Which log. `since` asks for lines from that moment on; `limit_bytes` cuts the log after so many bytes."""

    namespace: str
    pod: str
    container: str
    previous: bool = False
    since: dt.datetime | None = None
    limit_bytes: int | None = None

    def __str__(self) -> str:
        before = "previous " if self.previous else ""
        return f"{before}log of {self.container} in {self.namespace}/{self.pod}"


class PodLog:
    """An open log: iterate over its bytes once. `received` counts them; `limited`: `limit_bytes` ended it."""

    def __init__(self, request: LogRequest, chunks: Iterator[bytes], audit_id: str) -> None:
        self.request = request
        self.audit_id = audit_id
        self.received = 0
        self._chunks = chunks

    @property
    def limited(self) -> bool:
        """Whether as much came as was asked for at most, so that there may be more."""
        limit = self.request.limit_bytes
        return limit is not None and self.received >= limit

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of about 64 KiB, not cut at lines.

        Raises KubeletTextError, CutLogError, CutOffError, UnreachableError, or what ended the scope; always after all
        bytes that came before were given.
        """
        tail = b""
        for piece in self._begun():
            yield piece
            tail = (tail + piece)[-TAIL:]
        self._judge_end(tail)

    def _begun(self) -> Iterator[bytes]:
        """The pieces, the first held back until its first line is known to be one of a log."""
        held = b""
        judged = False
        try:
            for piece in self._gathered():
                if judged:
                    yield piece
                    continue
                held += piece
                if b"\n" in held or len(held) >= FIRST_LINE:
                    self._judge(held.partition(b"\n")[0], whole=b"\n" in held)
                    judged = True
                    yield held
                    held = b""
        except KubeletTextError:
            raise
        except KdnsctlError:
            if held:
                yield held
            raise
        if held:
            if not self.limited:
                self._judge(held, whole=False)
            yield held

    def _gathered(self) -> Iterator[bytes]:
        pieces: list[bytes] = []
        size = 0
        try:
            for chunk in self._chunks:
                self.received += len(chunk)
                size += len(chunk)
                pieces.append(chunk)
                if size >= GATHERED:
                    yield b"".join(pieces)
                    pieces, size = [], 0
        except KdnsctlError:
            if pieces:
                yield b"".join(pieces)
            raise
        if pieces:
            yield b"".join(pieces)

    def _judge(self, line: bytes, *, whole: bool) -> None:
        if STAMP.match(line) or (not whole and _begins_like_a_stamp(line)):
            return
        said = printable(line[:500].decode("utf-8", "replace"))
        raise KubeletTextError(
            f"the {self.request} could not be read by the kubelet: {said}",
            hint="the file is gone or being rotated: repeat, or read it on the node",
        )

    def _judge_end(self, tail: bytes) -> None:
        if not tail or self.limited:
            return
        ends = tail.endswith(b"\n")
        start = tail.rstrip(b"\n").rfind(b"\n") + 1
        last = tail[start:].rstrip(b"\n")
        if start or len(tail) < TAIL:  # the beginning of the last line is here
            self._judge(last, whole=ends)
        if not ends:
            raise CutLogError(
                f"the {self.request} ends in the middle of a line, after {self.received} bytes",
                hint="the connection between API server and kubelet broke: repeat",
            )


@contextlib.contextmanager
def open_log(
    connection: Connection,
    request: LogRequest,
    scope: CancelScope,
    *,
    silence: float | None = None,
    retry: RetryPolicy | None = None,
) -> Iterator[PodLog]:
    """Open a log for the length of a `with` block.

    `silence` is how long the server may send nothing, in seconds (None: the request timeout). Raises
    NoPreviousLogError, NotStartedError, KubeletUnreachableError, or what `Connection.stream` raises (NotFoundError: the
    pod is gone).
    """
    since = request.since.astimezone(dt.UTC) if request.since else None
    query: Query = {
        "container": request.container,
        "timestamps": True,
        "previous": True if request.previous else None,
        "sinceTime": since.strftime("%Y-%m-%dT%H:%M:%SZ") if since else None,
        "limitBytes": request.limit_bytes,
    }
    path = f"/api/v1/namespaces/{request.namespace}/pods/{request.pod}/log"
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(
                connection.stream(path, query=query, scope=scope, silence=silence, retry=retry)
            )
        except BadRequestError as error:
            raise _refusal(request, error) from error
        except NotFoundError as error:
            raise LogError(f"the {request} is gone: {error}", code=error.code, hint="was the pod replaced?") from error
        except ServerError as error:
            raise KubeletUnreachableError(
                f"the {request} cannot be had: {error}", hint="is the node's kubelet running and reachable?"
            ) from error
        yield PodLog(request, stream.chunks, stream.audit_id)


def _refusal(request: LogRequest, error: BadRequestError) -> KdnsctlError:
    """The 400s that mean something (recordings/api/log-*; pkg/registry/core/pod/strategy.go and the kubelet's)."""
    said = error.failure.message
    if request.previous and "previous terminated container" in said:
        return NoPreviousLogError(
            f"there is no previous log of {request.container} in {request.namespace}/{request.pod}"
        )
    if "waiting to start" in said or "is not available" in said:
        return NotStartedError(f"the {request} does not exist yet: {said}")
    return error


def _begins_like_a_stamp(line: bytes) -> bool:
    """Whether a line that is cut off could be one with a timestamp."""
    shape = re.sub(rb"\d", b"0", line[: len(STAMP_SHAPE)])
    return STAMP_SHAPE.startswith(shape) if len(line) <= len(STAMP_SHAPE) else shape == STAMP_SHAPE
