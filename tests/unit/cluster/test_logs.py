from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import BadRequestError, CutOffError, ForbiddenError, UnreachableError
from kdnsctl.cluster.logs import (
    GATHERED,
    CutLogError,
    KubeletTextError,
    KubeletUnreachableError,
    LogError,
    LogRequest,
    NoPreviousLogError,
    NotStartedError,
    PodLog,
    needed,
    open_log,
)
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.model import KdnsctlError
from tests.unit.cluster import apiserver
from tests.unit.cluster.apiserver import Server, chunks, recorded, reply, status
from tests.unit.cluster.conftest import Connect

PATH = "/api/v1/namespaces/kube-system/pods/kube-proxy-x/log"
REQUEST = LogRequest("kube-system", "kube-proxy-x", "kube-proxy")
PREVIOUS = LogRequest("kube-system", "kube-proxy-x", "kube-proxy", previous=True)
LINE = b"2026-11-23T03:04:20.462747104Z I1123 03:04:20.461345       1 server.go:1] hello\n"
RESOLVING = b'failed to try resolving symlinks in path "/var/log/pods/x/0.log": lstat /var/log/pods/x: no such file'
RETRIEVING = b"unable to retrieve container logs for containerd://e788ff6eb312b2594610893b7264098144"


def read(connect_to: Connect, api: Server, scope: CancelScope, request: LogRequest = REQUEST) -> bytes:
    with open_log(connect_to(api), request, scope, retry=NO_RETRIES) as log:
        return b"".join(log)


def got_before(connect_to: Connect, api: Server, scope: CancelScope, kind: type[KdnsctlError]) -> tuple[bytes, str]:
    received: list[bytes] = []
    with pytest.raises(kind) as caught, open_log(connect_to(api), REQUEST, scope, retry=NO_RETRIES) as log:
        received.extend(log)
    return b"".join(received), str(caught.value)


def test_a_log_is_asked_for_with_all_its_options(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(PATH, chunks(LINE, LINE))
    since = dt.datetime(2026, 11, 23, 5, 0, 0, 900_000, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    request = LogRequest("kube-system", "kube-proxy-x", "kube-proxy", previous=True, since=since, limit_bytes=1 << 20)
    assert read(connect_to, api, scope, request) == LINE * 2
    assert api.requests[0].query == {
        "container": ["kube-proxy"],
        "timestamps": ["true"],
        "previous": ["true"],
        "sinceTime": ["2026-11-23T03:00:00Z"],
        "limitBytes": [str(1 << 20)],
    }
    assert api.requests[0].header("Accept-Encoding") in (None, "identity")


def test_small_chunks_are_gathered(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    count = 2 * GATHERED // len(LINE) + 2  # two pieces, and what is left
    api.on(PATH, chunks(*[LINE] * count))
    with open_log(connect_to(api), REQUEST, scope) as log:
        pieces = list(log)
    assert b"".join(pieces) == LINE * count
    assert len(pieces) <= 3  # a read can bring more than what is missing
    assert all(len(piece) >= GATHERED for piece in pieces[:-1])
    assert log.received == len(LINE) * count


def test_what_reading_needs_is_declared() -> None:
    assert str(needed("kube-system")) == "get pods/log in kube-system"


def test_an_empty_log_is_a_log(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(PATH, recorded("log-empty-window"))
    with open_log(connect_to(api), REQUEST, scope) as log:
        assert list(log) == []
    assert (log.received, len(log.audit_id)) == (0, 36)


@pytest.mark.parametrize("limit", [200, 113, 105])
def test_a_log_may_be_limited_anywhere(api: Server, connect_to: Connect, scope: CancelScope, limit: int) -> None:
    body = (apiserver.API / "log-limit-bytes.txt").read_bytes()[:limit]
    api.on(PATH, chunks(body))
    request = LogRequest("kube-system", "kube-proxy-x", "kube-proxy", limit_bytes=limit)
    with open_log(connect_to(api), request, scope) as log:
        assert b"".join(log) == body
        assert log.limited


@pytest.mark.parametrize(
    ("recording", "request_", "kind", "said"),
    [
        (
            "log-previous-missing",
            PREVIOUS,
            NoPreviousLogError,
            "there is no previous log of kube-proxy in kube-system/",
        ),
        ("log-bad-container", REQUEST, BadRequestError, "container nope is not valid for pod kube-proxy-l7sqf"),
        ("log-pod-missing", REQUEST, LogError, 'is gone: pods "nope" not found'),
        ("forbidden-pod-log", REQUEST, ForbiddenError, 'cannot get resource "pods/log"'),
    ],
)
def test_recorded_refusals(
    api: Server,
    connect_to: Connect,
    scope: CancelScope,
    recording: str,
    request_: LogRequest,
    kind: type[KdnsctlError],
    said: str,
) -> None:
    api.on(PATH, recorded(recording))
    with pytest.raises(kind) as caught:
        read(connect_to, api, scope, request_)
    assert said in str(caught.value)


def test_refusals_that_tell_of_the_node(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    waiting = 'container "kube-proxy" in pod "kube-proxy-x" is waiting to start: ContainerCreating'
    api.on(PATH, status(400, "BadRequest", waiting))
    with pytest.raises(NotStartedError, match="is waiting to start: ContainerCreating"):
        read(connect_to, api, scope)
    refused = 'Get "https://10.0.0.5:10250/containerLogs/x": dial tcp 10.0.0.5:10250: connect: connection refused'
    api.on(PATH, status(500, "InternalError", refused))
    with pytest.raises(KubeletUnreachableError, match="connection refused") as caught:
        read(connect_to, api, scope)
    assert caught.value.code == "kubeletUnreachable"


@pytest.mark.parametrize(
    "text", [RESOLVING, RETRIEVING, RETRIEVING + b"\n", b"failed to create fsnotify watcher\x1b[2J"]
)
def test_a_kubelets_words_are_no_log(api: Server, connect_to: Connect, scope: CancelScope, text: bytes) -> None:
    api.on(PATH, chunks(text))
    received, said = got_before(connect_to, api, scope, KubeletTextError)
    assert received == b""
    assert text[:30].decode() in said
    assert said.isprintable()


def test_a_kubelets_words_after_a_log_are_found_too(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(PATH, chunks(LINE, LINE + RETRIEVING))
    received, said = got_before(connect_to, api, scope, KubeletTextError)
    assert received == LINE * 2 + RETRIEVING
    assert "could not be read by the kubelet: unable to retrieve" in said


def test_a_log_that_ends_in_the_middle_of_a_line_was_cut(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(PATH, chunks(LINE, LINE[:40]))
    received, said = got_before(connect_to, api, scope, CutLogError)
    assert received == LINE + LINE[:40]
    assert "in the middle of a line" in said


@pytest.mark.parametrize("cut", [LINE[:5], LINE[:19], LINE[:21], LINE[:31]])
def test_a_cut_in_the_first_timestamp_is_a_cut_and_no_kubelets_word(
    api: Server, connect_to: Connect, scope: CancelScope, cut: bytes
) -> None:
    api.on(PATH, chunks(cut))
    assert got_before(connect_to, api, scope, CutLogError)[0] == cut


def test_what_came_before_a_broken_connection_is_given(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(PATH, chunks(LINE, LINE, ended=False))
    assert got_before(connect_to, api, scope, CutOffError)[0] == LINE * 2
    api.on(PATH, chunks(LINE[:50], ended=False))
    assert got_before(connect_to, api, scope, CutOffError)[0] == LINE[:50]


def test_what_came_before_a_silence_is_given(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on(PATH, apiserver.chunks_then_hang(LINE))
    received: list[bytes] = []
    with pytest.raises(UnreachableError), open_log(connect_to(api), REQUEST, scope, silence=1) as log:
        received.extend(log)
    assert b"".join(received) == LINE


def test_a_very_long_first_line(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    long = LINE[:-1] + b"x" * 40_000 + b"\n"
    api.on(PATH, chunks(*[long[at : at + 1000] for at in range(0, len(long), 1000)]))
    assert read(connect_to, api, scope) == long
    api.on(PATH, chunks(b"x" * 40_000))
    assert got_before(connect_to, api, scope, KubeletTextError)[0] == b""


@given(st.lists(st.binary(max_size=200), max_size=30), st.integers(1, 400))
def test_lines_of_any_length_and_chunks_of_any_size(written: list[bytes], size: int) -> None:
    body = b"".join(LINE[:31] + text.replace(b"\n", b"") + b"\n" for text in written)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert b"".join(PodLog(REQUEST, iter(pieces), "")) == body


def test_offsets_other_than_utc_are_timestamps_too(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    body = b"2026-11-23T05:04:20+02:00 I1123 03:04:20.461345       1 server.go:1] hello\n"
    api.on(PATH, reply(body, content_type="text/plain"))
    assert read(connect_to, api, scope) == body
