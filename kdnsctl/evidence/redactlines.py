"""A file of a bundle as lines, or as one, within bounds: whatever it holds, it does not fill the memory. Pure.

Bytes that are no UTF-8 pass through as they are. What the lines mean is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from kdnsctl.evidence.renaming import GONE
from kdnsctl.logs.sources.opening import Code, SourceError

MOST_WHOLE: Final = 256 << 20  # bytes of a list of objects or of rules as JSON: as `analyze` reads them
LONGEST: Final = 1 << 20  # bytes of a line; what is longer is cut

Pieces = Iterable[bytes]


def lines_of(pieces: Pieces) -> Iterator[str]:
    """Lines with their ends; the rest of one that is too long is left out, and says so."""
    rest = b""
    cut = False
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield ("" if cut else text_of(line)) + "\n"
            cut = False
        if len(rest) > LONGEST:
            if not cut:
                yield text_of(rest[:LONGEST].rpartition(b" ")[0]) + f" {GONE}"
            rest, cut = b"", True
    if rest and not cut:
        yield text_of(rest)


def whole(pieces: Pieces) -> bytes:
    """All of a file that is gone through as one. Raises SourceError for one that is larger than any of its kind."""
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MOST_WHOLE:
            raise SourceError(Code.TOO_LARGE, f"it is longer than {MOST_WHOLE} bytes")
        found.append(piece)
    return b"".join(found)


def text_of(raw: bytes) -> str:
    """Text from bytes, whatever they are."""
    return raw.decode("utf-8", "surrogateescape")


def bytes_of(text: str) -> bytes:
    """The bytes that `text_of` was given."""
    return text.encode("utf-8", "surrogateescape")
