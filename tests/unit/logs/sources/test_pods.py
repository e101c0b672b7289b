"""One node's log through the API: what is asked for, from when on there is a log, and what is missing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.kubeproxy import PodPlace
from kdnsctl.logs.sources.pods import PodReading, read_pod
from kdnsctl.logs.times import from_datetime
from tests.unit.cluster.apiserver import Answer, Exchange, Server, chunks, chunks_then_reset, recorded, reply, status
from tests.unit.cluster.conftest import Connect
from tests.unit.find.clusters import FORBIDDEN, container_log, log_path
from tests.unit.find.composing import NOON, failure, healthy, klog, minutes, said, start, sync

LOG = log_path("proxy-a")
FILE = "/api/v1/nodes/a/proxy/logs/kube-proxy.log"
NOW = minutes(600)
UNREACHABLE = status(500, "InternalError", 'Get "https://10.0.0.1:10250/containerLogs/": dial tcp: i/o timeout')


def read(
    api: Server,
    connect_to: Connect,
    scope: CancelScope,
    *,
    since: datetime | None = None,
    restarts: int = 0,
    container: str = "kube-proxy",
    **options: Any,
) -> PodReading:
    place = PodPlace("kube-system", "proxy-a", "uid", container, "kube-proxy:v1.27.3", restarts, running=True)
    window = None if since is None else from_datetime(since)
    return read_pod(connect_to(api), "a", place, scope, since=window, now=NOW, **options)


def codes(reading: PodReading) -> list[str]:
    return [problem.code for problem in reading.problems]


def asked(api: Server) -> list[set[str]]:
    """What each request for the log had besides the container and timestamps."""
    plain = {"container", "timestamps"}
    return [set(request.query) - plain for request in api.requests if request.path == LOG]


def test_without_a_window_all_of_the_log_is_read_once(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    log = start() + failure(minutes(1)) + sync(minutes(60))
    api.on(LOG, container_log(log))
    reading = read(api, connect_to, scope)
    assert asked(api) == [set()]
    assert (reading.problems, reading.size, reading.records) == ([], len(log), True)
    assert (reading.tally.first, reading.tally.last) == (from_datetime(NOON), from_datetime(minutes(60)))
    assert reading.tally.counts["CT_DEL_ENDPOINT"].count == 1
    assert reading.sources == ["pod/kube-system/proxy-a/kube-proxy"]


def test_of_a_window_what_failed_before_it_is_kept_apart(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(LOG, container_log(start() + failure(minutes(1)) + failure(minutes(40))))
    reading = read(api, connect_to, scope, since=minutes(30))
    assert asked(api) == [set()]
    assert reading.tally.counts["CT_DEL_ENDPOINT"].count == 1
    assert reading.before.counts["CT_DEL_ENDPOINT"].count == 1
    assert reading.tally.first == from_datetime(NOON)


def test_the_previous_container_is_read_when_it_has_restarted(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on(LOG, container_log(healthy(), start(minutes(-60)) + failure(minutes(-10))))
    reading = read(api, connect_to, scope, restarts=1)
    assert asked(api) == [set(), {"previous"}]
    assert reading.tally.first == from_datetime(minutes(-60))
    assert reading.tally.start_count == 2
    assert reading.tally.counts["CT_DEL_ENDPOINT"].count == 1
    assert reading.sources == ["pod/kube-system/proxy-a/kube-proxy", "pod/kube-system/proxy-a/kube-proxy/previous"]


def test_a_current_log_that_reaches_back_to_the_window_is_enough(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on(LOG, container_log(healthy(), healthy()))
    read(api, connect_to, scope, restarts=1, since=minutes(10))
    assert asked(api) == [set()]


def test_that_there_is_no_previous_log_is_no_problem(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(LOG, container_log(healthy()))
    reading = read(api, connect_to, scope, restarts=1)
    assert (reading.problems, reading.sources) == ([], ["pod/kube-system/proxy-a/kube-proxy"])


def test_a_container_that_restarts_while_it_is_read_is_counted_once(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    log = start() + failure(minutes(1))
    api.on(LOG, container_log(log, log))
    assert read(api, connect_to, scope, restarts=1).tally.counts["CT_DEL_ENDPOINT"].count == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (recorded("forbidden-pod-log"), "forbidden"),
        (recorded("log-pod-missing"), "podGone"),
        (UNREACHABLE, "kubeletUnreachable"),
        (status(400, "BadRequest", 'container "kube-proxy" in pod "x" is waiting to start'), "notStarted"),
        (chunks(b"unable to retrieve container logs for containerd://e788ff6eb312b259461"), "kubeletError"),
        (chunks(b'failed to try resolving symlinks in path "/var/log/pods/x": no such file\n'), "kubeletError"),
    ],
    ids=["forbidden", "gone", "unreachable", "waiting", "text-without-newline", "text-line"],
)
def test_a_log_that_cannot_be_had_is_a_problem_with_its_reason(
    api: Server, connect_to: Connect, scope: CancelScope, answer: Answer, code: str
) -> None:
    api.on(LOG, answer)
    reading = read(api, connect_to, scope)
    assert (codes(reading), reading.tally.counts) == ([code], {})
    before = len(api.requests)
    again = read(api, connect_to, scope, restarts=1)
    both = [{"previous"}] if code in {"notStarted", "kubeletError"} else []  # of the others no log is to be had
    assert asked(api)[before:] == [set(), *both]
    assert codes(again) == [code, *([code] if both else [])]
    assert "proxy-a" in reading.problems[0].message


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (chunks_then_reset((start() + failure(minutes(1))).encode()), "cutOff"),
        (chunks((start() + failure(minutes(1))).encode(), ended=False), "cutOff"),
        (chunks((start() + failure(minutes(1)) + sync(minutes(2))[:-20]).encode()), "cutOff"),
        (chunks((start() + failure(minutes(1))).encode(), b"unable to retrieve container logs\n"), "kubeletError"),
    ],
    ids=["reset", "no-last-chunk", "half-a-line", "kubelets-text"],
)
def test_what_came_before_the_end_of_a_broken_log_counts(
    api: Server, connect_to: Connect, scope: CancelScope, answer: Answer, code: str
) -> None:
    api.on(LOG, answer)
    reading = read(api, connect_to, scope)
    assert codes(reading) == [code]
    assert reading.tally.counts["CT_DEL_ENDPOINT"].count == 1


def test_a_previous_log_that_cannot_be_read_is_a_problem_beside_the_current_one(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on(LOG, container_log(start() + failure(minutes(1))), FORBIDDEN)
    reading = read(api, connect_to, scope, restarts=2)
    assert codes(reading) == ["forbidden"]
    assert reading.tally.counts["CT_DEL_ENDPOINT"].count == 1


def test_when_the_scope_ends_the_reason_is_the_scopes_and_nothing_more_is_asked(
    api: Server, connect_to: Connect
) -> None:
    with CancelScope(60) as scope:

        def interrupted(exchange: Exchange) -> None:
            exchange.send_chunks([(start() + failure(minutes(1))).encode()], ended=False)
            scope.cancel()
            exchange.hang()

        api.on(LOG, interrupted)
        reading = read(api, connect_to, scope, restarts=1)
    assert [(problem.code, problem.message) for problem in reading.problems] == [
        (INTERRUPTED.code, INTERRUPTED.message)
    ]
    assert len(asked(api)) == 1


def test_a_record_that_ends_too_early_is_a_problem(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    block = said(minutes(1), '"Failed to delete endpoint connections" err=<', "cleanup.go:99", "E")
    api.on(LOG, container_log(start() + block))
    assert codes(read(api, connect_to, scope)) == ["cutRecord"]


def test_the_kubelets_file_is_read_only_when_asked_for(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(LOG, recorded("log-empty-window"))
    api.on(FILE, reply(klog(minutes(1), "x").encode(), content_type="text/plain"))
    reading = read(api, connect_to, scope)
    assert (reading.size, reading.problems) == (0, [])
    assert [request.path for request in api.requests] == [LOG]


def test_the_kubelets_file_stands_in_for_an_empty_log(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    file = "".join(line.partition(" ")[2] for line in (start() + failure(minutes(1))).splitlines(keepends=True))
    api.on(LOG, recorded("log-empty-window"))
    api.on(FILE, reply(file.encode(), content_type="text/plain"))
    reading = read(api, connect_to, scope, kubelet_logs=True)
    assert reading.tally.counts["CT_DEL_ENDPOINT"].count == 1
    assert (reading.tally.first, reading.tally.ours) == (from_datetime(NOON), True)
    assert reading.sources[1:] == ["node/a/var/log/kube-proxy.log"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [(FORBIDDEN, "forbidden"), (status(404, "NotFound", "404 page not found"), "noFile")],
)
def test_a_kubelets_file_that_cannot_be_had_is_a_problem(
    api: Server, connect_to: Connect, scope: CancelScope, answer: Answer, code: str
) -> None:
    api.on(LOG, recorded("log-empty-window"))
    api.on(FILE, answer)
    assert codes(read(api, connect_to, scope, kubelet_logs=True)) == [code]


def test_a_log_that_exists_is_read_though_the_kubelets_file_was_allowed(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on(LOG, container_log(healthy()))
    read(api, connect_to, scope, kubelet_logs=True)
    assert {request.path for request in api.requests} == {LOG}


@pytest.mark.parametrize(("container", "ours"), [("kube-proxy", True), ("sdn", False)])
def test_the_containers_name_says_whose_log_it_is(
    api: Server, connect_to: Connect, scope: CancelScope, container: str, ours: bool
) -> None:
    api.on(LOG, chunks(b"2026-03-12T12:01:00.000000000Z I0312 12:01:00.000000       1 other.go:1] hello\n"))
    assert read(api, connect_to, scope, container=container).tally.ours is ours


def test_a_missing_previous_log_as_the_server_says_it(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(LOG, container_log(healthy()), recorded("log-previous-missing"))
    assert read(api, connect_to, scope, restarts=1).problems == []
