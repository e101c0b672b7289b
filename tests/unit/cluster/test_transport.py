from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.errors import (
    AnswerError,
    ApiError,
    ConflictError,
    CutOffError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnreachableError,
)
from kdnsctl.cluster.objects import Node, Page, Version
from kdnsctl.cluster.retries import NO_RETRIES, Retry, RetryPolicy
from kdnsctl.model import CancelledError, KdnsctlError
from tests.unit.cluster import apiserver
from tests.unit.cluster.apiserver import Exchange, Server, recorded, reply, status
from tests.unit.cluster.conftest import Connect


def test_an_object_is_decoded_and_the_servers_name_for_the_request_kept(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/version", recorded("version"))
    connection = connect_to(api)
    assert connection.get("/version", Version, scope=scope).git_version == "v1.36.2"
    sent = connection.request("GET", "/version", scope=scope)
    assert (sent.status, len(sent.audit_id), sent.content_type) == (200, 36, "application/json")


def test_every_request_says_who_asks_with_what_and_as_whom(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/version", recorded("version"))
    connection = connect_to(
        api, as_user="jane@example", as_groups=("ops", "oncall"), as_uid="u-1", incident="dns-2026-11-23"
    )
    connection.get("/version", Version, scope=scope)
    with connection.stream("/version", scope=scope) as stream:
        b"".join(stream.chunks)
    assert len(api.requests) == 2
    for request in api.requests:
        assert request.header("Authorization") == "Bearer t0ken"
        assert request.header("Impersonate-User") == "jane@example"
        assert request.headers_named("Impersonate-Group") == ["ops", "oncall"]
        assert request.header("Impersonate-Uid") == "u-1"
        agent = request.header("User-Agent") or ""
        assert agent.startswith("kdnsctl/")
        assert agent.endswith("; incident dns-2026-11-23)")


def test_a_body_is_sent_with_its_type(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/api/v1/nodes/n", reply({}))
    connection = connect_to(api)
    patch = b'[{"op":"test","path":"/metadata/uid","value":"x"}]'
    connection.request(
        "PATCH",
        "/api/v1/nodes/n",
        body=patch,
        content_type="application/json-patch+json",
        query={"dryRun": "All", "fieldManager": None, "force": True},
        scope=scope,
    )
    sent = api.requests[0]
    assert (sent.method, sent.body) == ("PATCH", patch)
    assert sent.header("Content-Type") == "application/json-patch+json"
    assert sent.query == {"dryRun": ["All"], "force": ["true"]}


@pytest.mark.parametrize(
    ("recording", "kind", "said"),
    [
        ("missing-node", NotFoundError, 'nodes "nope" not found (HTTP 404, POST /x)'),
        ("forbidden-list-nodes", ForbiddenError, 'User "nobody@example" cannot list resource "nodes"'),
        ("psa-denied", ForbiddenError, 'violates PodSecurity "baseline:latest"'),
        ("evict-wrong-uid", ConflictError, "the UID in the precondition"),
        ("lease-update-conflict", ConflictError, "the object has been modified"),
        ("nodes-expired-continue", GoneError, "The provided continue parameter is too old"),
        ("log-bad-option", InvalidError, "sinceSeconds: Invalid value: 0"),
        ("patch-json-test-conflict", InvalidError, "the server rejected our request"),
        ("evict-two-pdbs", ServerError, "more than one PodDisruptionBudget"),
        ("log-bad-container", ApiError, "container nope is not valid for pod"),
    ],
)
def test_refusals_of_a_real_server_become_typed_errors(
    api: Server, connect_to: Connect, scope: CancelScope, recording: str, kind: type[ApiError], said: str
) -> None:
    api.on("/x", recorded(recording))
    with pytest.raises(kind) as caught:
        connect_to(api).request("POST", "/x", body=b"{}", scope=scope)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(caught.value.failure.audit_id) == 36
    assert len(api.requests) == 1  # none of these heals by being repeated


@pytest.mark.parametrize(
    ("recording", "retry_after", "hint"),
    [
        ("evict-pdb-blocked", None, "The disruption budget web needs 4 healthy pods and has 3 currently"),
        ("evict-pdb-not-observed", 10, "The disruption budget web is still being processed by the server."),
    ],
)
def test_a_disruption_budget_is_an_answer_and_not_repeated(
    api: Server, connect_to: Connect, scope: CancelScope, recording: str, retry_after: float | None, hint: str
) -> None:
    api.on("/evict", recorded(recording))
    with pytest.raises(TooManyRequestsError) as caught:
        connect_to(api).request("POST", "/evict", body=b"{}", scope=scope)
    assert caught.value.budget
    assert caught.value.failure.retry_after == retry_after
    assert caught.value.hint == hint
    assert len(api.requests) == 1


@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (503, "ServiceUnavailable")])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_overloaded_server_is_asked_again_when_it_says(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str], code: int, reason: str, method: str
) -> None:
    busy = status(code, reason, "too much to do", headers=[("Retry-After", "0")])
    api.on("/x", busy, busy, reply({"ok": True}))
    assert connect_to(api).request(method, "/x", scope=scope).body == b'{"ok": true}'
    assert len(api.requests) == 3
    assert [note.partition(";")[0] for note in notes] == [f"too much to do (HTTP {code}, {method} /x)"] * 2
    assert notes[1].endswith("(3 of 4)")


def test_retries_are_bounded_and_reported(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/x", status(504, "Timeout", "later"))
    connection = connect_to(api)
    reported: list[Retry] = []
    connection._on_retry = reported.append
    with pytest.raises(ServerError):
        connection.request("GET", "/x", scope=scope)
    assert [retry.attempt for retry in reported] == [2, 3, 4]
    assert all(0.0005 <= retry.wait <= 0.01 for retry in reported)
    assert len(api.requests) == 4
    with pytest.raises(ServerError):
        connection.request("POST", "/x", body=b"{}", scope=scope)  # it may have been done
    assert len(api.requests) == 5


def test_a_wait_that_is_longer_than_the_time_left_is_not_begun(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/x", status(429, "TooManyRequests", "later", headers=[("Retry-After", "3600")]))
    with pytest.raises(TooManyRequestsError) as caught:
        connect_to(api).request("GET", "/x", scope=scope)
    assert caught.value.failure.retry_after == 3600
    assert not caught.value.budget


def test_ctrl_c_ends_the_waiting_between_attempts(api: Server, connect_to: Connect) -> None:
    api.on("/x", status(503, "ServiceUnavailable", "later", headers=[("Retry-After", "20")]))
    with CancelScope(60) as scope:
        connection = connect_to(api)
        connection._on_retry = lambda _: scope.cancel(INTERRUPTED)
        with pytest.raises(CancelledError):
            connection.request("GET", "/x", scope=scope)


def test_a_read_that_was_cut_off_is_repeated_and_a_change_is_not(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/x", apiserver.reset, reply({}))
    connection = connect_to(api)
    assert connection.request("GET", "/x", scope=scope).status == 200
    api.on("/x", apiserver.reset)
    with pytest.raises(CutOffError, match="closed the connection without an answer to POST /x; whether it was done"):
        connection.request("POST", "/x", body=b"{}", scope=scope)
    assert len(api.requests) == 3


def test_a_server_that_never_answers_is_given_up_within_the_request_timeout(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/x", apiserver.hang)
    connection = connect_to(api, request_timeout=0.2)
    with pytest.raises(UnreachableError, match=r"localhost:\d+ did not answer GET /x within 0.2s"):
        connection.request("GET", "/x", scope=scope)


def test_a_body_that_does_not_end_is_given_up_within_the_request_timeout(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/x", apiserver.chunks_then_hang(b'{"items": ['))
    connection = connect_to(api, request_timeout=2, retry=NO_RETRIES)  # enough for what comes before the silence
    with pytest.raises(UnreachableError, match="fell silent after 11 bytes of the answer to GET /x"):
        connection.request("GET", "/x", scope=scope)


def test_the_end_of_the_callers_scope_wins_over_the_request_timeout(api: Server, connect_to: Connect) -> None:
    api.on("/x", apiserver.hang)
    with CancelScope(0.2) as scope, pytest.raises(KdnsctlError) as caught:
        connect_to(api).request("GET", "/x", scope=scope)
    assert (caught.value.code, str(caught.value)) == ("deadline", "not finished within 0.2s")


def test_cancelling_wakes_a_thread_that_waits_for_an_answer(api: Server, connect_to: Connect) -> None:
    arrived = threading.Event()

    def hang(exchange: Exchange) -> None:
        arrived.set()
        exchange.hang()

    api.on("/x", hang)
    connection = connect_to(api, request_timeout=None)
    with CancelScope(60) as scope:
        errors: list[KdnsctlError] = []

        def ask() -> None:
            try:
                connection.request("GET", "/x", scope=scope)
            except KdnsctlError as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert arrived.wait(30)
        scope.cancel(INTERRUPTED)
        thread.join(30)
        assert not thread.is_alive()
    assert isinstance(errors[0], CancelledError)


def test_cancelling_wakes_a_thread_in_the_tls_handshake(connect_to: Connect, silent_port: int) -> None:
    connection = connect_to(f"https://localhost:{silent_port}", request_timeout=None)
    with CancelScope(0.2) as scope, pytest.raises(KdnsctlError) as caught:
        connection.request("GET", "/x", scope=scope)
    assert caught.value.code == "deadline"


def test_connections_are_kept_and_a_broken_body_is_never_taken_for_the_next_answer(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/x", reply({"n": 1}), reply({"n": 2}))
    api.on("/long", apiserver.chunks(b"a" * 100_000, b"b" * 100_000))
    connection = connect_to(api)
    connection.request("GET", "/x", scope=scope)
    with connection.stream("/long", scope=scope) as stream:
        assert next(iter(stream.chunks))
    assert connection.request("GET", "/x", scope=scope).body == b'{"n": 2}'
    peers = [request.peer for request in api.requests]
    assert peers[0] == peers[1] != peers[2]


def test_an_answer_that_is_no_kubernetes_is_shown(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/version", reply(b"<html>\n<title>Please sign in</title>\x1b[2J", content_type="text/html"))
    with pytest.raises(AnswerError) as caught:
        connect_to(api).get("/version", Version, scope=scope)
    assert "it begins: '<html> <title>Please sign in</title>" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    api.on("/version", reply(b"<h1>502</h1>\nbad\x1b[2Jgateway", status=500, content_type="text/html"))
    with pytest.raises(ServerError, match=r"^<h1>502</h1> bad \[2Jgateway \(HTTP 500, GET /version\)$"):
        connect_to(api).get("/version", Version, scope=scope)


def test_a_body_without_bounds_is_not_read(
    api: Server, connect_to: Connect, scope: CancelScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnsctl.cluster.transport.MAX_BODY", 1 << 20)
    api.on("/x", apiserver.chunks(*[b"a" * 65536] * 20))
    with pytest.raises(AnswerError, match="larger than 1 MiB"):
        connect_to(api).request("GET", "/x", scope=scope)


def test_large_answers_come_compressed(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    body = {"items": [{"metadata": {"name": f"n{number}"}} for number in range(9000)]}
    api.on("/x", reply(body))
    connection = connect_to(api)
    assert len(connection.get("/x", Page[Node], scope=scope).items or ()) == 9000
    api.on("/x", reply(b"no gzip at all", headers=[("Content-Encoding", "gzip")]))
    with pytest.raises(AnswerError, match="cannot be decompressed"):
        connection.request("GET", "/x", scope=scope)


def test_warnings_of_the_server_are_told_once(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str]
) -> None:
    warnings = [("Warning", '299 - "v1 is \\"old\\""'), ("Warning", '299 - "beware\x1b[2J"')]
    api.on("/x", reply({}, headers=warnings))
    connection = connect_to(api)
    for _ in range(3):
        connection.request("GET", "/x", scope=scope)
    assert connection.warnings == ('v1 is "old"', "beware [2J")
    assert notes == ['the API server warns: v1 is "old"', "the API server warns: beware [2J"]


def test_a_stream_outlives_the_request_timeout_but_not_its_scope(api: Server, connect_to: Connect) -> None:
    go_on = threading.Event()

    def slow(exchange: Exchange) -> None:
        def pieces() -> Any:
            yield b"first\n"
            go_on.wait(30)
            yield b"second\n"

        exchange.send_chunks(pieces(), ended=False)
        exchange.hang()

    api.on("/log", slow)
    connection = connect_to(api, request_timeout=2)  # enough for the opening
    with CancelScope(60) as scope, connection.stream("/log", scope=scope, silence=30) as stream:
        assert next(stream.chunks) == b"first\n"
        with CancelScope(2.2) as longer:
            longer.cancelled.wait()  # longer than the request timeout
        go_on.set()
        assert next(stream.chunks) == b"second\n"
        scope.cancel(INTERRUPTED)
        with pytest.raises(CancelledError):
            next(stream.chunks)


def test_a_stream_that_falls_silent_is_an_error(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/log", apiserver.chunks_then_hang(b"first\n"))
    connection = connect_to(api)
    with connection.stream("/log", scope=scope, silence=1) as stream:
        assert next(stream.chunks) == b"first\n"
        with pytest.raises(UnreachableError, match="fell silent after 6 bytes of the answer to GET /log"):
            next(stream.chunks)


@pytest.mark.parametrize("cut", [apiserver.chunks(b"some\n", ended=False), apiserver.chunks_then_reset(b"some\n")])
def test_a_stream_that_breaks_off_is_an_error(
    api: Server, connect_to: Connect, scope: CancelScope, cut: apiserver.Answer
) -> None:
    api.on("/log", cut)
    connection = connect_to(api)
    with pytest.raises(CutOffError), connection.stream("/log", scope=scope, retry=NO_RETRIES) as stream:
        list(stream.chunks)


def test_opening_a_stream_is_retried(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/log", apiserver.reset, status(502, "", "no kubelet"), apiserver.chunks(b"x"))
    with connect_to(api).stream("/log", scope=scope) as stream:
        assert list(stream.chunks) == [b"x"]
    assert len(api.requests) == 3


def test_a_token_file_is_read_again_when_the_server_refuses_what_it_held(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    connection = connect_to(api, token_file=str(file))
    file.write_text("new\n")

    def check(exchange: Exchange) -> None:
        right = exchange.seen.header("Authorization") == "Bearer new"
        (reply({}) if right else status(401, "Unauthorized", "Unauthorized"))(exchange)

    api.on("/x", check)
    assert connection.request("GET", "/x", scope=scope).status == 200
    assert [request.header("Authorization") for request in api.requests] == ["Bearer old", "Bearer new"]
    file.write_text("wrong")
    connection.request("GET", "/x", scope=scope)  # a token that works is not read again at once


def test_a_credential_that_is_refused_is_one_clear_line(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/x", status(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(UnauthorizedError, match=r"^Unauthorized \(HTTP 401, GET /x\)$") as caught:
        connect_to(api).request("GET", "/x", scope=scope)
    assert caught.value.hint.startswith("the server does not accept the token of user u in ")
    assert len(api.requests) == 1


def test_retry_waits_grow_and_are_jittered() -> None:
    import random

    policy = RetryPolicy(attempts=10, first=1.0, longest=8.0)
    dice = random.Random(1)
    waits = [policy.wait(failures, UnreachableError("x"), dice) for failures in range(1, 7)]
    for wait, most in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert most / 2 <= wait <= most
