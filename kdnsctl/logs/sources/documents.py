"""Inputs that are one JSON document, such as a log store's reply: taken apart into JSON lines while they are read.

What a document may hold is known to `envelopes`; this module decides whether an input is one, and bounds what is read
whole. Everything else goes through as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdnsctl.logs.envelopes import split_document
from kdnsctl.logs.sources.opening import ByteSource, Code, SourceError

CHUNK = 256 * 1024
LARGEST_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a JSON document that is read whole; a larger one has to be given as JSON lines."""


def chunks(source: ByteSource) -> Iterator[bytes]:
    """The input's bytes, a document's as JSON lines.

    Raises SourceError after every byte that could be had: the source's own, or `tooLarge` for a document that was not
    read as one. What is no document, or a cut-off one, may still have lines that can be read as they are.
    """
    first = source.read(CHUNK)
    if not _may_be_document(first):
        while first:
            yield first
            first = source.read(CHUNK)
        return
    parts, size = [first], len(first)
    failed: SourceError | None = None
    try:
        while size <= LARGEST_DOCUMENT and (data := source.read(CHUNK)):
            parts.append(data)
            size += len(data)
    except SourceError as error:
        failed = error
    whole = b"".join(parts)
    parts.clear()
    lines = split_document(whole) if failed is None and size <= LARGEST_DOCUMENT else None
    if lines is not None:
        for line in lines:
            yield line + b"\n"
        return
    yield whole
    if failed is not None:
        raise failed
    while data := source.read(CHUNK):
        yield data
    if size > LARGEST_DOCUMENT:
        limit = f"{LARGEST_DOCUMENT // 1024 // 1024} MiB"
        message = f"a JSON document of more than {limit}, read line by line; give JSON lines (jq -c '.[]')"
        raise SourceError(Code.TOO_LARGE, message)


def _may_be_document(beginning: bytes) -> bool:
    """Whether the input begins like a JSON document that is not JSON lines."""
    text = beginning.lstrip()
    if text[:1] == b"[":
        return text[1:2] in (b"", b"{", b"\n", b"\r", b" ", b"]")
    if text[:1] != b"{":
        return False
    line = text.partition(b"\n")[0].rstrip()
    if line == b"{":
        return True
    return any(line.startswith(b'{"' + key + b'":') for key in (b"events", b"results", b"status", b"took", b"hits"))
