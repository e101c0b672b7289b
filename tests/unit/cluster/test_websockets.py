from __future__ import annotations

import io
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cluster.errors import AnswerError
from kdnsctl.cluster.websockets import PIECE, WebSocket
from tests.unit.cluster.websocketserver import BINARY, CLOSED, PING, PONG, TEXT, frame, message


class EndedError(Exception):
    """What `failed` was asked for."""


def failed(_error: Exception | None, received: int) -> Exception:
    return EndedError(received)


def reading(data: bytes) -> tuple[WebSocket, socket.socket]:
    """A websocket that reads these bytes, and the other end of what it sends."""
    ours, theirs = socket.socketpair()
    return WebSocket(io.BufferedReader(io.BytesIO(data)), ours, "GET /x", "v5", "", failed), theirs


@pytest.fixture
def pair() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


def pieces(data: bytes, made: list[socket.socket]) -> list[tuple[int, bytes]]:
    websocket, theirs = reading(data)
    made += [theirs, websocket._connected]
    return list(websocket.pieces())


def joined(pieces: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Pieces of one channel in a row, as one."""
    result: list[tuple[int, bytes]] = []
    for channel, data in pieces:
        if result and result[-1][0] == channel:
            result[-1] = (channel, result[-1][1] + data)
        else:
            result.append((channel, data))
    return result


messages = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(messages, st.data())
def test_messages_arrive_as_sent_however_they_are_fragmented(
    sent: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    wire = b""
    for channel, content in sent:
        payload = bytes([channel]) + content
        cuts = sorted(data.draw(st.lists(st.integers(1, len(payload)), max_size=4)))
        parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            opcode = data.draw(st.sampled_from([BINARY, TEXT])) if number == 0 else 0
            wire += frame(part, opcode, final=number == len(parts) - 1)
            if data.draw(st.booleans()):
                wire += frame(b"hello", data.draw(st.sampled_from([PING, PONG])))
    made: list[socket.socket] = []
    try:
        got = pieces(wire + CLOSED, made)
    finally:
        for one in made:
            one.close()
    assert joined(got) == joined(sent)


@given(messages.filter(bool), st.data())
def test_no_cut_passes_for_the_end(sent: list[tuple[int, bytes]], data: st.DataObject) -> None:
    wire = b"".join(message(channel, content) for channel, content in sent) + CLOSED
    websocket, theirs = reading(wire[: data.draw(st.integers(0, len(wire) - 1))])
    try:
        with pytest.raises(EndedError):
            list(websocket.pieces())
    finally:
        theirs.close()
        websocket._connected.close()


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 65_534, 65_535, 65_536, 3 * PIECE + 5])
def test_every_form_of_a_length_is_read(pair: list[socket.socket], size: int) -> None:
    got = pieces(message(1, b"x" * size) + CLOSED, pair)
    assert joined(got) == [(1, b"x" * size)]
    assert all(len(data) <= PIECE for _, data in got)


@pytest.mark.parametrize(
    "wire",
    [
        b"\xc2\x01\x01",  # a reserved bit: an extension nobody asked for
        b"\x82\x81mask\x01",  # masked
        b"\x83\x01\x01",  # an opcode that does not exist
        b"\x09\x00",  # a ping in parts
        b"\x89\x7e\x00\x7e",  # a ping that is too long
        frame(b"\x01a", 0),  # goes on with what was not begun
        frame(b"\x01a", BINARY, final=False) + frame(b"\x01b"),  # begins before the other ended
        frame(b"", BINARY, final=False),
    ],
    ids=["reserved", "masked", "opcode", "cut ping", "long ping", "continuation", "interleaved", "no channel"],
)
def test_what_no_server_sends_is_an_answer_error(pair: list[socket.socket], wire: bytes) -> None:
    with pytest.raises(AnswerError):
        pieces(wire + CLOSED, pair)


def test_an_empty_message_says_nothing(pair: list[socket.socket]) -> None:
    assert pieces(frame(b"") + message(2, b"") + CLOSED, pair) == [(2, b"")]


def test_a_close_is_answered(pair: list[socket.socket]) -> None:
    websocket, theirs = reading(CLOSED)
    pair += [theirs, websocket._connected]
    assert list(websocket.pieces()) == []
    answer = theirs.recv(100)
    assert (answer[0], answer[1] & 0x80) == (0x88, 0x80)
