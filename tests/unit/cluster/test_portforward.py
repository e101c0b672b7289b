from __future__ import annotations

import threading

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import ForbiddenError, NotFoundError, ServerError
from kdnsctl.cluster.podstreams import StreamCutError, StreamLateError
from kdnsctl.cluster.portforward import ForwardEnd, ForwardError, ForwardRequest, get, needed
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import CancelledError
from tests.unit.cluster.apiserver import Answer, Exchange, Server, status
from tests.unit.cluster.conftest import Connect
from tests.unit.cluster.websocketserver import (
    BINARY,
    CLOSED,
    V4,
    Then,
    frame,
    hang,
    hang_up,
    message,
    received,
    reset,
    switch,
)

PATH = "/api/v1/namespaces/kube-system/pods/kube-proxy-x/portforward"
REQUEST = ForwardRequest("kube-system", "kube-proxy-x", 10249, "/proxyMode")
PORT = message(0, b"\x09\x28") + message(1, b"\x09\x28")  # 10249, low byte first
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\niptables"


class Got:
    """One GET, with what came of it."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.opened = threading.Event()

    def go(self, connection: Connection, scope: CancelScope, seconds: float | None = None) -> ForwardEnd:
        return get(connection, REQUEST, take=self.body.extend, scope=scope, seconds=seconds, opened=self.opened.set)


@pytest.fixture
def got() -> Got:
    return Got()


def forwarding(*frames: bytes, begin: bytes = PORT, then: Then = hang_up) -> Answer:
    """Connect, read the request, and answer with these bytes."""

    def answer(exchange: Exchange) -> None:
        switch(exchange, V4)
        exchange.wfile.write(begin)
        exchange.wfile.flush()
        received(exchange)  # what is unread when the connection is closed would reset it
        exchange.wfile.write(b"".join(frames))
        exchange.wfile.flush()
        exchange.close_connection = True
        then(exchange)

    return answer


def test_the_endpoint_is_asked_for_the_path_and_its_body_comes_back(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got
) -> None:
    asked: list[tuple[int, bytes]] = []

    def answer(exchange: Exchange) -> None:
        switch(exchange, V4)
        exchange.wfile.write(PORT)
        exchange.wfile.flush()
        asked.append(received(exchange))
        exchange.wfile.write(message(0, WHOLE) + CLOSED)
        exchange.wfile.flush()
        exchange.close_connection = True

    api.on(PATH, answer)
    end = got.go(connect_to(api), scope)
    assert (end.status, end.bounded, end.content_type, bytes(got.body)) == (200, True, "text/plain", b"iptables")
    ((opcode, sent),) = asked
    assert (opcode, sent[:1]) == (BINARY, b"\x00")
    assert sent[1:].split(b"\r\n")[:2] == [b"GET /proxyMode HTTP/1.1", b"Host: localhost:10249"]
    assert sent.endswith(b"\r\n\r\n")
    assert api.requests[0].query == {"ports": ["10249"]}
    assert api.requests[0].header("Sec-WebSocket-Protocol") == V4


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_pieces_may_be_cut_anywhere(api: Server, connect_to: Connect, scope: CancelScope, got: Got, size: int) -> None:
    frames = [message(0, b"\x09"), message(1, b""), message(0, b"\x28"), message(1, b"\x09\x28")]
    frames += [message(0, WHOLE[start : start + size]) for start in range(0, len(WHOLE), size)]
    api.on(PATH, forwarding(*frames, CLOSED, begin=b""))
    assert got.go(connect_to(api), scope).status == 200
    assert bytes(got.body) == b"iptables"


def test_a_chunked_answer_is_whole_with_its_last_chunk(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got
) -> None:
    head = b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n"
    api.on(PATH, forwarding(message(0, head + b"5\r\nhello\r\n"), message(0, b"0\r\n\r\n"), then=hang))
    end = got.go(connect_to(api), scope)  # nothing more is waited for
    assert (end.status, end.bounded, bytes(got.body)) == (503, True, b"hello")


def test_an_answer_that_does_not_say_where_it_ends_is_not_bounded(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got
) -> None:
    whole, cut = b"HTTP/1.0 200 OK\r\n\r\nhello", WHOLE[:20]
    api.on(PATH, forwarding(message(0, whole), CLOSED), forwarding(message(0, cut), CLOSED))
    assert got.go(connect_to(api), scope).bounded is False
    assert bytes(got.body) == b"hello"
    assert got.go(connect_to(api), scope).bounded is False


@pytest.mark.parametrize(
    ("frames", "then"),
    [
        ([message(0, WHOLE[:-1]), CLOSED], hang_up),
        ([message(0, WHOLE[:-1])], hang_up),
        ([CLOSED], hang_up),
        ([], reset),
        ([message(0, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello"), CLOSED], hang_up),
        ([message(0, b"SSH-2.0-OpenSSH_9.2\r\n"), CLOSED], hang_up),
    ],
    ids=["body", "body, hung up", "nothing", "reset", "chunk", "no HTTP"],
)
def test_an_answer_that_is_cut_off_is_an_error(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got, frames: list[bytes], then: Then
) -> None:
    api.on(PATH, forwarding(*frames, then=then))
    with pytest.raises(StreamCutError) as caught:
        got.go(connect_to(api), scope)
    assert caught.value.code == "truncated"


def test_what_the_kubelet_could_not_connect_to_is_said(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got
) -> None:
    said = b"error forwarding port 10249 to pod 7: dial tcp4 127.0.0.1:10249: connect: connection refused\x1b[2J"
    api.on(PATH, forwarding(message(1, said), CLOSED))
    with pytest.raises(ForwardError, match="connection refused") as caught:
        got.go(connect_to(api), scope)
    assert caught.value.code == "portForward"
    assert "\x1b" not in str(caught.value)


def test_a_silent_endpoint_is_left_when_the_time_is_up(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got
) -> None:
    api.on(PATH, forwarding(message(0, WHOLE[:-3]), then=hang))
    with pytest.raises(StreamLateError, match="had not ended after"):
        got.go(connect_to(api), scope, seconds=1)


def test_a_process_that_is_stopped_does_not_answer_and_is_said_not_to(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got
) -> None:
    api.on(PATH, forwarding(then=hang))
    with pytest.raises(StreamLateError, match=r"did not answer within .*: kube-proxy may be stopped"):
        got.go(connect_to(api), scope, seconds=0.2)


def test_ctrl_c_ends_it_at_once(api: Server, connect_to: Connect, scope: CancelScope, got: Got) -> None:
    api.on(PATH, forwarding(then=hang))
    whole = scope.child()

    def interrupt() -> None:
        got.opened.wait(30)
        whole.cancel()

    operator = threading.Thread(target=interrupt, daemon=True)
    operator.start()
    with pytest.raises(CancelledError):
        got.go(connect_to(api), whole, seconds=50)
    operator.join()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [(403, "Forbidden", ForbiddenError), (404, "NotFound", NotFoundError), (500, "InternalError", ServerError)],
)
def test_refusals_are_those_of_any_request(
    api: Server, connect_to: Connect, scope: CancelScope, got: Got, code: int, reason: str, kind: type[Exception]
) -> None:
    api.on(PATH, status(code, reason, "no"))
    with pytest.raises(kind):
        got.go(connect_to(api), scope)
    assert not got.opened.is_set()


def test_what_takes_the_body_may_end_it(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    def enough(_: bytes) -> None:
        raise RuntimeError("enough")

    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"
    api.on(
        PATH, forwarding(message(0, endless), frame(b"\x00" + b"x" * 60_000), frame(b"\x00" + b"x" * 60_000), then=hang)
    )
    with pytest.raises(RuntimeError, match="enough"):
        get(connect_to(api), REQUEST, take=enough, scope=scope)


def test_both_verbs_are_declared() -> None:
    assert [str(permission) for permission in needed("kube-system")] == [
        "get pods/portforward in kube-system",
        "create pods/portforward in kube-system",
    ]
