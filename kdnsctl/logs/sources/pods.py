"""One node's kube-proxy log through the API: the current container's, the previous one's, or the kubelet's file.

A log is counted while it streams by, so memory does not grow with it. Whatever goes wrong on the way becomes a `Reason`
beside what had been counted until then: a part of a log can show a failure, never health. What that means for the node
is judged in `find`.

All of a log is read, also when only a window of it is judged: where the log begins says whether the window is covered,
and a failure before the window matters in it until kube-proxy starts again. The previous container comes second: one
that restarts meanwhile is then read twice, which shows, and not left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import NotFoundError
from kdnsctl.cluster.kubeproxy import CONTAINER, PodPlace
from kdnsctl.cluster.logs import LogError, LogRequest, NoPreviousLogError, open_log
from kdnsctl.cluster.permission import Permission
from kdnsctl.cluster.transport import Connection
from kdnsctl.logs.framing import Line
from kdnsctl.logs.klog import TextClock
from kdnsctl.logs.scan import Decided, Scanner
from kdnsctl.logs.sinks import StreamKey
from kdnsctl.logs.sources.repeats import MarkedTally
from kdnsctl.logs.tally import Tally
from kdnsctl.logs.times import from_datetime
from kdnsctl.model import KdnsctlError, Reason

KUBELET_FILE: Final = "kube-proxy.log"  # in the node's /var/log, where GKE and kOps have kube-proxy write
FOR_BOTH: Final = (  # then the previous log is no better off
    "forbidden",
    "unauthorized",
    "credential",
    "tooManyRequests",
    "podGone",
    "unreachable",
    "kubeletUnreachable",
)
KUBELET_LOGS: Final = Permission(  # near root: only when asked for
    "get", "nodes", subresource="proxy", without="where a pod's log is empty, the kubelet's file cannot be read"
)


@dataclass(slots=True)
class PodReading:
    """What there is of one node's log; `before` has the failures and starts that lie before the window.

    `records`: a line of it was klog's; `size` counts the bytes that were read.

    `problems` say what is missing, by these codes besides those of the errors in `cluster`: `podGone`, `noFile` (the
    kubelet has no such file), `cutRecord`, and `deadline` or `cancelled` when the scope ended.
    """

    tally: MarkedTally
    before: Tally = field(default_factory=Tally)
    size: int = 0
    records: bool = False
    problems: list[Reason] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def read_pod(
    connection: Connection,
    node: str,
    place: PodPlace,
    scope: CancelScope,
    *,
    since: int | None,
    now: datetime,
    kubelet_logs: bool = False,
    decided: Decided | None = None,
) -> PodReading:
    """Read the log of the kube-proxy at `place`, on `node`. Raises nothing that the cluster could cause.

    `since` (microseconds, UTC) begins the window, None: all there is. `now` dates year-less lines of the kubelet's
    file, which is only read when `kubelet_logs` is set and the pod's log is empty. `decided` may be shared with other
    calls; see `Scanner`.
    """
    clock = TextClock(from_datetime(now), None)
    known = {} if decided is None else decided
    reading = _container(connection, place, scope, since, clock, known, previous=False)
    if reading.tally.before is not None:
        reading.before.merge(reading.tally.before)
    begins = reading.tally.first
    reaches = since is not None and begins is not None and begins <= since
    hopeless = any(problem.code in FOR_BOTH for problem in reading.problems) or scope.cancelled.is_set()
    if place.restarts and not reaches and not hopeless:
        before = _container(connection, place, scope, since, clock, known, previous=True)
        again = before.tally.first is not None and before.tally.first == begins
        if not again:  # else it has restarted just now, and this is what has just been read
            _add(reading, before)
    if kubelet_logs and not reading.size and not reading.problems:
        _add(reading, _kubelet_file(connection, node, scope, since, clock, known))
    return reading


def _add(reading: PodReading, more: PodReading) -> None:
    if more.size or more.problems:
        reading.tally.merge(more.tally)
        reading.size += more.size
        if more.tally.before is not None:
            reading.before.merge(more.tally.before)
        reading.records = reading.records or more.records
        reading.problems += more.problems
        reading.sources += more.sources


def _container(
    connection: Connection,
    place: PodPlace,
    scope: CancelScope,
    since: int | None,
    clock: TextClock,
    known: Decided,
    *,
    previous: bool,
) -> PodReading:
    source = f"pod/{place.namespace}/{place.pod}/{place.container}{'/previous' if previous else ''}"
    request = LogRequest(place.namespace, place.pod, place.container, previous=previous)
    reading = _empty(source, since, ours=place.container == CONTAINER)
    try:
        with open_log(connection, request, scope) as log:
            _scan(log, reading, clock, known)
    except NoPreviousLogError:
        pass
    except KdnsctlError as error:
        reading.problems.append(_reason(error, scope))
    return _settled(reading)


def _kubelet_file(
    connection: Connection, node: str, scope: CancelScope, since: int | None, clock: TextClock, known: Decided
) -> PodReading:
    path = f"/api/v1/nodes/{node}/proxy/logs/{KUBELET_FILE}"
    reading = _empty(f"node/{node}/var/log/{KUBELET_FILE}", since, ours=True)
    try:
        with connection.stream(path, scope=scope) as stream:
            _scan(stream.chunks, reading, clock, known)
    except NotFoundError as error:
        reading.problems.append(Reason("noFile", f"the pod's log is empty, and the kubelet has no file: {error}"))
    except KdnsctlError as error:
        reading.problems.append(_reason(error, scope))
    return _settled(reading)


class _Everything:
    """All lines of the input are one container's, whatever they name."""

    def __init__(self, tally: MarkedTally) -> None:
        self._tally = tally

    def stream(self, key: StreamKey, line: Line | None) -> MarkedTally:  # noqa: ARG002 - the protocol's
        return self._tally


def _scan(chunks: Iterable[bytes], reading: PodReading, clock: TextClock, known: Decided) -> None:
    """Count what comes; also what came before an error, which is the caller's."""
    # The ends of syncs then have no marks. Nobody asks for them: the API does not give the same log twice.
    scanner = Scanner(_Everything(reading.tally), clock, known, at_once=True)
    try:
        for chunk in chunks:
            reading.size += len(chunk)
            scanner.feed(chunk)
    finally:
        scanner.finish()
        reading.records = reading.records or scanner.klog_records


def _empty(source: str, since: int | None, *, ours: bool) -> PodReading:
    tally = MarkedTally(since=since)
    tally.ours = ours
    return PodReading(tally, sources=[source] if source else [])


def _settled(reading: PodReading) -> PodReading:
    reading.tally.settle()
    if not reading.problems:  # else it is known why a record ends too early
        reading.problems += [Reason("cutRecord", why) for why in reading.tally.cuts]
    reading.tally.cuts.clear()
    return reading


def _reason(error: KdnsctlError, scope: CancelScope) -> Reason:
    """Why, without the exception: its frames would keep what was being read."""
    if scope.reason is not None:
        return Reason(scope.reason.code, scope.reason.message)
    if isinstance(error, LogError) and error.code == NotFoundError.code:
        return Reason("podGone", f"{error}; if it was replaced, its log is gone with it")
    return Reason(error.code, str(error))
