from __future__ import annotations

import os
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import (
    AnswerError,
    ApiError,
    ForbiddenError,
    NotFoundError,
    ServerError,
    TlsError,
    UnauthorizedError,
)
from kdnsctl.cluster.execs import ExecEnd, ExecRequest, needed, run
from kdnsctl.cluster.podstreams import StreamCutError, StreamLateError
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import CancelledError, KdnsctlError
from tests.unit.cluster.apiserver import Answer, Exchange, Server, reply, status
from tests.unit.cluster.conftest import Connect
from tests.unit.cluster.tunnel import Tunnel
from tests.unit.cluster.websocketserver import (
    BINARY,
    CLOSED,
    PING,
    PONG,
    STDERR,
    STDOUT,
    V4,
    V5,
    exit_code,
    frame,
    hang,
    hang_up,
    message,
    received,
    reset,
    success,
    switch,
    websocket,
)

PATH = "/api/v1/namespaces/kube-system/pods/kube-proxy-x/exec"
REQUEST = ExecRequest("kube-system", "kube-proxy-x", "kube-proxy", ("cat", "/proc/net/nf_conntrack"))


class Ran:
    """One exec, with what came of it."""

    def __init__(self) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.opened = threading.Event()

    def go(self, connection: Connection, scope: CancelScope, seconds: float | None = None) -> ExecEnd:
        return run(
            connection,
            REQUEST,
            stdout=self.stdout.extend,
            stderr=self.stderr.extend,
            scope=scope,
            seconds=seconds,
            opened=self.opened.set,
        )


@pytest.fixture
def ran() -> Ran:
    return Ran()


def scripted(api: Server, connect_to: Connect, *answers: Answer) -> Connection:
    api.on(PATH, *answers)
    return connect_to(api)


@pytest.mark.parametrize("protocol", [V5, V4])
def test_streams_come_apart_and_the_exit_code_from_the_status(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran, protocol: str
) -> None:
    frames = [message(STDOUT, b""), message(STDOUT, b"out 1\n"), message(STDERR, b"err\n"), message(STDOUT, b"out 2\n")]
    connection = scripted(api, connect_to, websocket([*frames, exit_code(3), CLOSED], protocol=protocol))
    assert ran.go(connection, scope).exit_code == 3
    assert (bytes(ran.stdout), bytes(ran.stderr)) == (b"out 1\nout 2\n", b"err\n")


def test_the_request_names_command_and_container_and_offers_both_protocols(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    ran.go(scripted(api, connect_to, websocket([success(), CLOSED])), scope)
    (seen,) = api.requests
    assert seen.method == "GET"
    assert seen.query == {
        "container": ["kube-proxy"],
        "command": ["cat", "/proc/net/nf_conntrack"],
        "stdout": ["true"],
        "stderr": ["true"],
    }
    assert seen.header("Sec-WebSocket-Protocol") == f"{V5}, {V4}"


def test_the_upgrade_carries_credentials_impersonation_and_user_agent(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    api.on(PATH, websocket([success(), CLOSED]))
    connection = connect_to(api, as_user="jane", as_groups=("ops", "dns"), as_uid="7", incident="inc-1")
    ran.go(connection, scope)
    (seen,) = api.requests
    assert seen.header("Authorization") == "Bearer t0ken"
    assert seen.header("Impersonate-User") == "jane"
    assert seen.headers_named("Impersonate-Group") == ["ops", "dns"]
    assert seen.header("Impersonate-Uid") == "7"
    assert "incident inc-1" in (seen.header("User-Agent") or "")


def test_an_address_given_by_the_operator_is_used_and_the_name_still_checked(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    def look_up(_host: str, _port: int) -> list[str]:
        raise OSError("no DNS here")

    api.on(PATH, websocket([success(), CLOSED]))
    there = {"look_up": look_up, "resolve": {"api.cluster.test": "127.0.0.1", "other.test": "127.0.0.1"}}
    assert ran.go(connect_to(f"https://api.cluster.test:{api.port}", **there), scope).exit_code == 0
    with pytest.raises(TlsError):
        ran.go(connect_to(f"https://other.test:{api.port}", **there), scope)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (401, "Unauthorized", UnauthorizedError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (500, "InternalError", ServerError),
    ],
)
def test_a_refusal_before_the_upgrade_is_the_error_of_any_other_request(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran, code: int, reason: str, kind: type[ApiError]
) -> None:
    said = f"pods/exec is refused {'x' * 40_000}"  # longer than one read
    with pytest.raises(kind) as caught:
        ran.go(scripted(api, connect_to, status(code, reason, said)), scope)
    assert caught.value.failure.message == said
    assert caught.value.reason == reason
    assert caught.value.hint
    assert not ran.opened.is_set()


def test_a_credential_that_has_ended_is_renewed_once(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran, tmp_path_factory: pytest.TempPathFactory
) -> None:
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("old")

    def refuse(exchange: Exchange) -> None:
        token.write_text("new")
        status(401, "Unauthorized", "Unauthorized")(exchange)

    api.on(PATH, refuse, websocket([success(), CLOSED]))
    assert ran.go(connect_to(api, token_file=str(token)), scope).exit_code == 0
    assert [seen.header("Authorization") for seen in api.requests] == ["Bearer old", "Bearer new"]


def test_an_overloaded_server_is_asked_again(api: Server, connect_to: Connect, scope: CancelScope, ran: Ran) -> None:
    busy = status(429, "TooManyRequests", "later", headers=[("Retry-After", "0")])
    assert ran.go(scripted(api, connect_to, busy, websocket([success(), CLOSED])), scope).exit_code == 0


def test_a_redirect_is_not_followed(api: Server, connect_to: Connect, scope: CancelScope, ran: Ran) -> None:
    api.on("/elsewhere", websocket([success(), CLOSED]))
    moved = reply(b"", status=302, headers=[("Location", f"{api.url}/elsewhere")])
    with pytest.raises(ApiError, match="HTTP 302"):
        ran.go(scripted(api, connect_to, moved), scope)
    assert [seen.path for seen in api.requests] == [PATH]


def _nothing(exchange: Exchange) -> None:
    reply({"kind": "Table"})(exchange)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (websocket([success()], protocol="channel.k8s.io"), "another protocol: channel.k8s.io"),
        (websocket([success()], protocol=""), "another protocol: none"),
        (websocket([success()], Sec_WebSocket_Accept="bm90IGl0"), "opens no websocket"),
        (websocket([success()], Upgrade="SPDY/3.1"), "opens no websocket"),
        (_nothing, "HTTP 200"),
    ],
    ids=["other protocol", "no protocol", "wrong proof", "other upgrade", "no upgrade"],
)
def test_what_is_no_websocket_of_ours_is_an_error(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran, answer: Answer, says: str
) -> None:
    with pytest.raises(KdnsctlError, match=says):
        ran.go(scripted(api, connect_to, answer), scope)
    assert not ran.opened.is_set()


@pytest.mark.parametrize(
    ("frames", "then"),
    [
        ([message(STDOUT, b"part"), CLOSED], hang_up),  # closed, and no Status
        ([message(STDOUT, b"part")], hang_up),  # not even closed
        ([message(STDOUT, b"part")], reset),
        ([frame(b"\x01part and more")[:-9]], hang_up),  # in the middle of a frame
        ([message(STDOUT, b"part"), b"\x82"], hang_up),  # in the middle of a head
        ([message(STDOUT, b"part"), success()[:-3]], hang_up),  # in the middle of the Status
    ],
    ids=["closed", "hung up", "reset", "in a frame", "in a head", "in the status"],
)
def test_an_end_without_a_status_is_never_success(
    api: Server,
    connect_to: Connect,
    scope: CancelScope,
    ran: Ran,
    frames: list[bytes],
    then: Callable[[Exchange], None],
) -> None:
    with pytest.raises(StreamCutError) as caught:
        ran.go(scripted(api, connect_to, websocket(frames, then=then)), scope)
    assert caught.value.code == "truncated"
    assert ran.opened.is_set()
    if then is not reset:  # a reset may overtake what was sent before
        assert bytes(ran.stdout) == b"part"


def test_a_status_counts_although_the_connection_then_breaks(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    assert ran.go(scripted(api, connect_to, websocket([message(STDOUT, b"x"), success()])), scope).exit_code == 0


def test_a_status_in_two_messages_is_one(api: Server, connect_to: Connect, scope: CancelScope, ran: Ran) -> None:
    whole = exit_code(137)[4:]  # without its head (0x82, 0x7e, length)
    frames = [frame(whole[:50]), frame(whole[:1] + whole[50:]), CLOSED]
    assert ran.go(scripted(api, connect_to, websocket(frames)), scope).exit_code == 137


def test_what_the_runtime_could_not_start_is_a_server_error(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    said = b'{"status":"Failure","reason":"InternalError","message":"exec: \\"cat\\": not found \\u001b[2J","code":500}'
    with pytest.raises(ServerError, match="not found") as caught:
        ran.go(scripted(api, connect_to, websocket([message(3, said), CLOSED])), scope)
    assert "\x1b" not in str(caught.value)


def test_a_status_that_is_none_is_an_answer_error(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    with pytest.raises(AnswerError):
        ran.go(scripted(api, connect_to, websocket([message(3, b"<html>"), CLOSED])), scope)


def test_an_endless_status_is_not_gathered(api: Server, connect_to: Connect, scope: CancelScope, ran: Ran) -> None:
    with pytest.raises(AnswerError, match="longer than"):
        ran.go(scripted(api, connect_to, websocket([message(3, b"x" * 60_000)] * 2, then=hang)), scope)


def test_every_byte_arrives_as_it_is(api: Server, connect_to: Connect, scope: CancelScope, ran: Ran) -> None:
    data = bytes(range(256)) * 1024 + b"\xff\xfe\xc3\x28\x00" + os.urandom(100_000)
    frames = [message(STDOUT, data[start : start + 32_768]) for start in range(0, len(data), 32_768)]
    ran.go(scripted(api, connect_to, websocket([*frames, success(), CLOSED])), scope)
    assert bytes(ran.stdout) == data


def test_a_ping_is_answered_in_the_middle_of_a_message(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    answered: list[tuple[int, bytes]] = []

    def answer(exchange: Exchange) -> None:
        switch(exchange, V5)
        exchange.wfile.write(frame(b"\x01to", BINARY, final=False) + frame(b"still there?", PING))
        exchange.wfile.flush()
        answered.append(received(exchange))
        exchange.wfile.write(frame(b"gether", 0) + success() + CLOSED)
        exchange.wfile.flush()
        exchange.close_connection = True

    ran.go(scripted(api, connect_to, answer), scope)
    assert answered == [(PONG, b"still there?")]
    assert bytes(ran.stdout) == b"together"


def _many(total: int, piece: bytes) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        switch(exchange, V5)
        for _ in range(total // len(piece)):
            exchange.wfile.write(message(STDOUT, piece))
        exchange.wfile.write(success() + CLOSED)
        exchange.wfile.flush()
        exchange.close_connection = True

    return answer


def _one_frame(total: int, piece: bytes) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        switch(exchange, V5)
        exchange.wfile.write(b"\x82\x7f" + (total + 1).to_bytes(8, "big") + b"\x01")
        for _ in range(total // len(piece)):
            exchange.wfile.write(piece)
        exchange.wfile.write(success() + CLOSED)
        exchange.wfile.flush()
        exchange.close_connection = True

    return answer


@pytest.mark.parametrize("form", [_many, _one_frame])
def test_64_megabytes_stream_through_little_memory(
    api: Server, connect_to: Connect, scope: CancelScope, form: Callable[[int, bytes], Answer]
) -> None:
    total, piece = 64 << 20, b"\xa5" * 32_768
    connection = scripted(api, connect_to, form(total, piece))
    came = 0

    def count(data: bytes) -> None:
        nonlocal came
        came += len(data)

    tracemalloc.start()
    try:
        end = run(connection, REQUEST, stdout=count, stderr=count, scope=scope)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (end.exit_code, came) == (0, total)
    assert peak < 4 << 20


def test_a_flood_on_stderr_does_not_hide_the_output(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    frames = [message(STDERR, b"!" * 30_000), message(STDOUT, b"x")] * 100
    ran.go(scripted(api, connect_to, websocket([*frames, success(), CLOSED])), scope)
    assert (len(ran.stdout), len(ran.stderr)) == (100, 3_000_000)


def test_a_server_that_falls_silent_is_left_when_the_time_is_up(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    connection = scripted(api, connect_to, websocket([message(STDOUT, b"part")], then=hang))
    with pytest.raises(StreamLateError) as caught:
        ran.go(connection, scope, seconds=1)
    assert caught.value.code == "deadline"
    assert bytes(ran.stdout) == b"part"


def test_the_end_of_the_scope_ends_it_and_says_why(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    connection = scripted(api, connect_to, websocket([message(STDOUT, b"part")], then=hang))
    with pytest.raises(KdnsctlError, match=r"not finished within 0\.2s"), scope.child(0.2) as limit:
        ran.go(connection, limit, seconds=50)


def test_ctrl_c_ends_it_at_once(api: Server, connect_to: Connect, scope: CancelScope, ran: Ran) -> None:
    connection = scripted(api, connect_to, websocket([message(STDOUT, b"part")], then=hang))
    whole = scope.child()

    def interrupt() -> None:
        ran.opened.wait(30)
        whole.cancel()

    operator = threading.Thread(target=interrupt, daemon=True)
    operator.start()
    with pytest.raises(CancelledError):
        ran.go(connection, whole, seconds=50)
    operator.join()


def test_a_server_that_does_not_even_answer_is_left_after_the_request_timeout(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran
) -> None:
    api.on(PATH, lambda exchange: exchange.hang())
    with pytest.raises(KdnsctlError, match=r"did not answer GET .*/exec within 0.2s"):
        ran.go(connect_to(api, request_timeout=0.2), scope)
    assert not ran.opened.is_set()


def test_the_status_is_enough_when_the_server_does_not_close(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdnsctl.cluster.execs.LINGER", 0.05)
    connection = scripted(api, connect_to, websocket([message(STDOUT, b"all"), success()], then=hang))
    assert ran.go(connection, scope, seconds=50).exit_code == 0


def test_what_the_sink_raises_ends_it(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    connection = scripted(api, connect_to, websocket([message(STDOUT, b"x")], then=hang))
    with pytest.raises(OSError, match="No space left"):
        run(connection, REQUEST, stdout=full, stderr=full, scope=scope)


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_the_way_goes_through_the_proxy_of_any_other_request(
    api: Server, connect_to: Connect, scope: CancelScope, ran: Ran, kind: str
) -> None:
    api.on(PATH, websocket([message(STDOUT, b"out"), exit_code(3), CLOSED]))
    tunnel = Tunnel(kind, api.port)
    try:
        proxy = {"proxy-url": f"{kind}://localhost:{tunnel.port}"}
        connection = connect_to(f"https://api.cluster.test:{api.port}", cluster_entry=proxy)
        assert ran.go(connection, scope).exit_code == 3
    finally:
        tunnel.close()
    assert tunnel.asked
    assert bytes(ran.stdout) == b"out"


def test_both_verbs_are_declared() -> None:
    assert [str(permission) for permission in needed("kube-system")] == [
        "get pods/exec in kube-system",
        "create pods/exec in kube-system",
    ]
