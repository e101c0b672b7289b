"""Reading everything that a walk finds, for the tests of this folder."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from kdnsctl.logs.sources.opening import ByteSource, SourceError
from kdnsctl.logs.sources.walking import LogStream, Unreadable, walk


@dataclass(frozen=True, slots=True)
class Log:
    """A LogStream that was read to its end."""

    name: str
    path: str
    modified: datetime | None
    explicit: bool
    text: bytes
    code: str = ""  # of the error that the text ended in
    message: str = ""


def read_walk(*paths: str | Path, stdin: BinaryIO | None = None) -> list[Log | Unreadable]:
    """Everything that `paths` stand for, in order, each stream read when it is met."""
    return [item if isinstance(item, Unreadable) else read_log(item) for item in walk([*map(str, paths)], stdin)]


def read_log(stream: LogStream) -> Log:
    text, code, message = b"", "", ""
    try:
        with stream.open() as source:
            for piece in pieces(source):
                text += piece
    except SourceError as error:
        code, message = error.code, str(error)
    return Log(stream.name, stream.path, stream.modified, stream.explicit, text, code, message)


def pieces(source: ByteSource) -> Iterable[bytes]:
    while piece := source.read(1 << 18):
        yield piece


def texts(items: Iterable[Log | Unreadable]) -> dict[str, bytes]:
    """What was read, by name. Fails when something was not read, or not to its end, or when two have one name."""
    read: dict[str, bytes] = {}
    for item in items:
        assert isinstance(item, Log), item
        assert not item.code, item
        assert item.name not in read
        read[item.name] = item.text
    return read


def problems(items: Iterable[Log | Unreadable]) -> dict[str, str]:
    """The codes of what was not read, or not to its end, by name."""
    return {item.name: item.code for item in items if item.code}


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text)


def link(at: Path, target: str | Path) -> None:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)
