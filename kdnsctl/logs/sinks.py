"""Where the scan puts what it finds: one sink for each stream of an input. Types only; `tally` is what counts. Pure."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from kdnsctl.logs.framing import Line
from kdnsctl.logs.signatures import Known

StreamKey = tuple[str, str, str]
"""Node, pod, container, as far as the lines themselves name them: ("", "", "") when they do not."""


class StreamSink(Protocol):
    """Takes what is found in one stream."""

    def hit(self, known: Known, time: int | None, payload: bytes) -> None:
        """One record of the catalogue: when (microseconds, UTC) and its text without layers, block lines included."""

    def seen(self, time: int, file: str) -> None:
        """There is a record at this time, printed by this Go source file ("" when it is not klog's)."""

    def cut(self, why: str) -> None:
        """Something of this stream was too long, or ended too early, to be read whole."""


@runtime_checkable
class TextSink(Protocol):
    """What a StreamSink also is when it wants to know of lines that are no records."""

    def text(self, line: bytes) -> None:
        """One of the stream's lines that hold no record of klog's; not all of them are told."""


@runtime_checkable
class CountSink(Protocol):
    """What a StreamSink also is when it takes many records of one message at once."""

    def hits(self, known: Known, count: int, first: int, last: int, payload: bytes) -> bool:
        """So many records between two moments, and one of them; False: each has to be told, nothing was counted."""


class Sink(Protocol):
    """Gives out one StreamSink for each stream."""

    def stream(self, key: StreamKey, line: Line | None) -> StreamSink:
        """The sink of the stream; `line` is a line of it when the stream is named by its lines."""


class Nowhere:
    """Takes what belongs to streams beyond the limit, and drops it."""

    def hit(self, known: Known, time: int | None, payload: bytes) -> None:
        pass

    def seen(self, time: int, file: str) -> None:
        pass

    def cut(self, why: str) -> None:
        pass
