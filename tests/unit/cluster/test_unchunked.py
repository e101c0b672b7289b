"""Chunked bodies: whatever the chunks, and however they arrive, the same bytes come out, and a cut one never passes."""

from __future__ import annotations

import http.client
import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cluster.unchunked import LONGEST, Unchunked


class Arriving(io.BufferedIOBase):
    """Gives out one piece for each read, as a socket does; `asked` counts the reads."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(pieces)
        self.asked = 0

    def read1(self, size: int = -1) -> bytes:
        self.asked += 1
        if not self._pieces:
            return b""
        piece = self._pieces[0][:size]
        self._pieces[0] = self._pieces[0][size:]
        if not self._pieces[0]:
            del self._pieces[0]
        return piece


def encoded(chunks: Sequence[bytes], size: str = "{:x}", extension: str = "", trailer: bytes = b"") -> bytes:
    body = b"".join(f"{size.format(len(chunk))}{extension}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return body + b"0\r\n" + trailer + b"\r\n"


def split(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in at})
    return [piece for begin, end in zip([0, *places], [*places, len(data)], strict=True) if (piece := data[begin:end])]


def read(pieces: Sequence[bytes], size: int = 65536) -> bytes:
    body = Unchunked(Arriving(pieces))
    found = []
    while piece := body.read1(size):
        assert len(piece) <= size
        found.append(piece)
    assert body.read1(size) == b""
    return b"".join(found)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    at=st.lists(st.integers(0, 10_000), max_size=12),
    size=st.sampled_from([1, 2, 7, 65536]),
    extension=st.sampled_from(["", ";a", "; name=value", "  "]),
    trailer=st.sampled_from([b"", b"Digest: x\r\n", b"A: b\r\nC: d\r\n"]),
    form=st.sampled_from(["{:x}", "{:X}", "{:06x}"]),
)
def test_any_chunks_that_arrive_in_any_pieces_are_the_same_body(
    chunks: list[bytes], at: list[int], size: int, extension: str, trailer: bytes, form: str
) -> None:
    assert read(split(encoded(chunks, form, extension, trailer), at), size) == b"".join(chunks)


def test_a_body_that_breaks_off_at_any_byte_is_an_error_after_all_that_came() -> None:
    chunks = [b"first\n", b"0\r\n\r\n", b"x" * 300]
    whole = encoded(chunks)
    begins = [whole.index(chunk) for chunk in chunks]
    for end in range(len(whole)):
        found: list[bytes] = []
        with pytest.raises(http.client.IncompleteRead):
            drain(Unchunked(Arriving([whole[:end]])), found)
        came = (chunk[: max(0, end - begin)] for chunk, begin in zip(chunks, begins, strict=True))
        assert b"".join(found) == b"".join(came)


def drain(body: Unchunked, found: list[bytes]) -> None:
    while piece := body.read1(65536):
        found.append(piece)


def test_nothing_waits_for_more_than_has_arrived() -> None:
    raw = Arriving([b"5\r\nhe", b"llo\r\n3\r\nyou\r\n", b"0\r\n\r\n"])
    body = Unchunked(raw)
    assert (body.read1(100), raw.asked) == (b"he", 1)
    assert (body.read1(100), raw.asked) == (b"lloyou", 2)
    assert (body.read1(100), raw.asked) == (b"", 3)
    assert (body.read1(100), raw.asked) == (b"", 3)  # what follows is the next answer's


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"-1\r\nx",
        b"0x5\r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\nhello!0\r\n\r\n",
        b"5\r\nhello\r\r0\r\n",
        b"1" * 16 + b"\r\n",
        b"5;" + b"a" * LONGEST,
        b"0\r\n" + b"a" * (LONGEST + 1),
    ],
)
def test_what_is_not_chunked_is_an_error_and_not_a_body(data: bytes) -> None:
    with pytest.raises(http.client.HTTPException) as raised:
        read([data])
    assert not isinstance(raised.value, http.client.IncompleteRead)


def test_read_gives_all_or_as_much_as_asked_for() -> None:
    pieces = split(encoded([b"abc", b"defgh", b"i"]), range(0, 40, 3))
    assert Unchunked(Arriving(pieces)).read() == b"abcdefghi"
    body = Unchunked(Arriving(pieces))
    assert [body.read(4), body.read(4), body.read(4), body.read(4)] == [b"abcd", b"efgh", b"i", b""]
