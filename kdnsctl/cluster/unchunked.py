"""Bodies in HTTP's chunked encoding, decoded many chunks at a time. It knows of no request and keeps no connection.

A kubelet flushes every line of a log, and the API server passes it on, so a log comes in a chunk for each line. Taken
one by one, as http.client and urllib3 do, they cost more than everything that is then done with the log. Here what has
arrived is decoded at once, and given out at once: nothing waits for a chunk to be whole. A body that ends before its
last chunk is an IncompleteRead, as it is there.

The format: RFC 9112, section 7.1. Extensions and trailers are passed over.
"""

from __future__ import annotations

import http.client
import io
import re
from typing import Final, cast

PIECE: Final = 64 << 10  # bytes asked for at once
LONGEST: Final = 16 << 10  # bytes of a chunk's head, or of a line of the trailer
# The end of the chunk before, and the size of this one. Whitespace after the size: old servers pad it.
_HEAD: Final = re.compile(rb"\r\n([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")


class Unchunked(io.BufferedIOBase):
    """The decoded body behind `raw`, which begins with the first chunk. Read once, from one thread."""

    def __init__(self, raw: io.BufferedIOBase) -> None:
        self._raw = raw
        self._held = b"\r\n"  # not decoded yet; as if there had been a chunk before the first
        self._left = 0  # bytes of the chunk that are still to come
        self._in_trailer = False
        self._ended = False

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        """Up to `size` bytes as soon as there are any; b"" at the end of the body.

        Raises IncompleteRead for one that breaks off, HTTPException for what is not chunked, and as `raw` does.
        """
        while not self._ended:
            arrived = self._raw.read1(min(size, PIECE) if size > 0 else PIECE)
            if not arrived:
                raise http.client.IncompleteRead(b"", self._left or None)
            if body := self._decode(arrived):
                return body
        return b""

    def read(self, size: int | None = -1) -> bytes:
        """All that is left, or `size` bytes of it if there are as many."""
        pieces: list[bytes] = []
        wanted = -1 if size is None else size
        while wanted and (piece := self.read1(wanted)):
            pieces.append(piece)
            wanted -= len(piece) if wanted > 0 else 0
        return b"".join(pieces)

    def close(self) -> None:
        self._raw.close()
        super().close()

    def _decode(self, arrived: bytes) -> bytes:
        data = self._held + arrived
        at = min(len(data), self._left)
        pieces = [data[:at]] if at else []
        self._left -= at
        while not self._left and not self._in_trailer and (head := _HEAD.match(data, at)):
            size = int(head[1], 16)
            begin = head.end()
            if not size:
                self._in_trailer = True
                at = begin
                break
            at = min(begin + size, len(data))
            pieces.append(data[begin:at])
            self._left = begin + size - at
        self._held = data[at:]
        if self._in_trailer:
            self._read_trailer()
        elif not self._left:
            self._check_head()
        return b"".join(pieces)

    def _check_head(self) -> None:
        """Raise HTTPException when what is held cannot become the head of a chunk."""
        held = self._held
        if not held.startswith(b"\r\n"[: len(held)]) or b"\n" in held[2:] or len(held) > LONGEST:
            raise http.client.HTTPException(f"no chunk of a chunked body: {held[:40]!r}")

    def _read_trailer(self) -> None:
        while b"\n" in self._held:
            line, _, self._held = self._held.partition(b"\n")
            if line in (b"", b"\r"):
                self._ended = True  # whatever comes now is no part of the body
                return
        if len(self._held) > LONGEST:
            raise http.client.HTTPException("the trailer of a chunked body has no end")


class UnchunkedResponse(http.client.HTTPResponse):
    """A response whose chunked body is read through `Unchunked`; for `HTTPConnection.response_class`."""

    def begin(self) -> None:
        super().begin()
        if self.chunked and self.fp is not None:
            # It decides how http.client reads on, and the header how urllib3 does.
            self.chunked = False
            del self.headers["Transfer-Encoding"]
            self.fp = cast("io.BufferedReader", Unchunked(self.fp))
