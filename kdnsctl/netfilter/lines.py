"""Lines of a dump that comes in blocks cut anywhere. Memory stays bounded by the longest line that is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Line(NamedTuple):
    """One line without its end. `whole` is False for a last line that nothing ends, and for one that was too long."""

    text: bytes
    whole: bool = True


def lines_of(chunks: Iterable[bytes], longest: int) -> Iterator[Line]:
    """Part blocks into lines; what a line has beyond `longest` bytes is dropped. A CR before the end goes too."""
    rest = b""
    skipping = False
    for chunk in chunks:
        head, newline, tail = chunk.partition(b"\n")
        if not newline:
            if not skipping:
                rest += chunk
                if len(rest) > longest:
                    yield Line(rest[:longest], whole=False)
                    rest, skipping = b"", True
            continue
        if skipping:
            skipping = False
        else:
            yield _line(rest + head, longest)
        rest = b""
        *complete, rest = tail.split(b"\n")
        for line in complete:
            yield _line(line, longest)
        if len(rest) > longest:
            yield Line(rest[:longest], whole=False)
            rest, skipping = b"", True
    if rest:
        yield Line(rest, whole=False)


def _line(text: bytes, longest: int) -> Line:
    if len(text) > longest:
        return Line(text[:longest], whole=False)
    return Line(text[:-1] if text.endswith(b"\r") else text)


def shown(text: bytes | str, most: int = 200) -> str:
    """A piece of a dump for a message: printable, and at most `most` characters."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    clean = "".join(character if character.isprintable() else "?" for character in decoded[: most + 1])
    return clean if len(clean) <= most else clean[: most - 1] + "…"
