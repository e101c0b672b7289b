"""From the PATHs of a command line to log streams, every one accounted for.

Files, directories, globs, tar archives, pipes and `-` become LogStreams, each file once however often it is named or
linked to; what cannot be read becomes an Unreadable. Nothing is judged: what is in a stream, and which node it is from,
is for others to tell. Nothing of an archive is ever written to disk.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from kdnsctl.logs.sources.archives import HEADER_SIZE, Kind, Links, Member, is_tar, members, moment
from kdnsctl.logs.sources.opening import (
    ByteSource,
    Code,
    Peekable,
    SourceError,
    decoded,
    decompressed,
    from_file,
    open_bytes,
    unreadable,
)
from kdnsctl.logs.sources.trees import Directory, Found, Pipe, Refused, below, named, order_key
from kdnsctl.model import UsageError


@dataclass(frozen=True, slots=True)
class LogStream:
    """One log.

    `name` is for people: the path, "ARCHIVE!MEMBER" or "<stdin>", shortened, and with everything made visible that a
    terminal would act on; it may still contain markup. `path` is for naming rules: "/"-separated, without compression
    suffix, and for a member with the archive's path (without its suffixes) before it; "" for stdin and /dev/fd pipes.
    `modified` is UTC, None for pipes and where an archive has none. `explicit`: named on the command line itself, not
    found by walking a directory or an archive or by a glob.

    `open()` gives the log's text from its beginning and raises SourceError (`unreadable`) when it cannot. A file can be
    opened at any time and again. What comes once (a pipe, stdin, a member of an archive) must be opened before the next
    item is asked for, and only once: RuntimeError otherwise. `size` is the bytes on disk of a file that can be opened
    again, also by another process (such a LogStream can be pickled); None for what comes once.
    """

    name: str
    path: str
    modified: datetime | None
    explicit: bool
    open: Callable[[], AbstractContextManager[ByteSource]]
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that was named or found and that is not, or not wholly, among the streams; `message` says why.

    `code` is a value of opening.Code; the rest is as in LogStream. An archive that breaks off has one for itself, after
    the members that could be had.
    """

    name: str
    path: str
    code: str
    message: str
    explicit: bool


def walk(
    paths: Sequence[str], stdin: BinaryIO | None, kept: Mapping[str, BinaryIO] | None = None
) -> Iterator[LogStream | Unreadable]:
    """All logs that `paths` stand for; `-` is `stdin`. A pipe whose path is in `kept` is read from there instead.

    Files and directories come first, in their natural order wherever they were named, rotated files of a log oldest
    first; then pipes and stdin as they were named. Members of an archive come in the archive's order.

    Raises UsageError at once, before anything is read: a path or glob that stands for nothing, an empty directory,
    `-` named twice.
    """
    if paths.count("-") > 1:
        raise UsageError("stdin ('-') is named twice; it can be read once")
    if "-" in paths and stdin is None:
        raise UsageError("stdin ('-') is named, but there is none")
    places: list[Found | Directory | Refused] = []
    pipes: list[Pipe | BinaryIO] = []
    for path in paths:
        if path == "-" and stdin is not None:
            pipes.append(stdin)
            continue
        for place in named(path):
            if isinstance(place, Pipe):
                pipes.append(place)
            else:
                places.append(place)
    places.sort(key=lambda place: order_key(place.path))
    return _everything(places, pipes, kept or {})


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a LogStream or an Unreadable says of where it comes from."""

    name: str
    path: str
    modified: datetime | None
    explicit: bool

    def unreadable(self, code: str, message: str) -> Unreadable:
        return Unreadable(self.name, self.path, code, message, self.explicit)


_Identity = tuple[int, int] | str  # device and inode; the path of what has none or could not be asked for it


def _everything(
    places: Sequence[Found | Directory | Refused], pipes: Sequence[Pipe | BinaryIO], kept: Mapping[str, BinaryIO]
) -> Iterator[LogStream | Unreadable]:
    roots = tuple(os.path.realpath(place.path) for place in places if isinstance(place, Directory))
    explicit = {_identity(place.status) for place in places if isinstance(place, Found) and place.explicit}
    seen: set[_Identity] = set()
    for place in places:
        for item in below(place, roots) if isinstance(place, Directory) else (place,):
            identity = _identity(item.status) if isinstance(item, Found) else str(Path(item.path).absolute())
            if identity in seen:
                continue
            seen.add(identity)
            if isinstance(item, Found):
                yield from _file(item, explicit=identity in explicit)
            else:
                origin = _Origin(_shown(item.path), _logical(item.path), None, item.explicit)
                yield origin.unreadable(item.code, item.message)
    for pipe in pipes:
        yield from _named_pipe(pipe, seen, kept) if isinstance(pipe, Pipe) else _stdin(pipe, seen)


def _identity(status: os.stat_result) -> _Identity:
    return (status.st_dev, status.st_ino)


def _file(found: Found, *, explicit: bool) -> Iterator[LogStream | Unreadable]:
    origin = _Origin(_shown(found.path), _logical(found.path), moment(found.status.st_mtime), explicit)
    try:
        with _regular_file(found.path) as raw:
            content = decompressed(from_file(raw))
            if is_tar(content.peek(HEADER_SIZE)):
                yield from _archive(content, origin, depth=1)
                return
            stream = _stream(content, origin, partial(_open_again, found.path), size=found.status.st_size)
    except SourceError as error:
        stream = origin.unreadable(error.code, str(error))
    yield stream


def _stream(
    content: Peekable,
    origin: _Origin,
    opened: Callable[[], AbstractContextManager[ByteSource]],
    *,
    size: int | None = None,
) -> LogStream | Unreadable:
    """A LogStream, unless the first bytes say already that it will not be read."""
    head = content.peek(HEADER_SIZE)
    for magics, message in _OTHER_FORMATS:
        if head.startswith(magics):
            return origin.unreadable(Code.UNSUPPORTED, message)
    if not head and content.error is not None and content.error.code == Code.UNREADABLE:
        return origin.unreadable(content.error.code, str(content.error))
    return LogStream(origin.name, origin.path, origin.modified, origin.explicit, opened, size)


_OTHER_FORMATS: Final = (
    ((b"PK\x03\x04", b"PK\x05\x06"), "a zip archive, which is not read: unpack it and name the directory"),
    ((b"7z\xbc\xaf\x27\x1c",), "a 7z archive, which is not read: unpack it and name the directory"),
    ((b"Rar!\x1a\x07",), "a rar archive, which is not read: unpack it and name the directory"),
    ((b"\x04\x22\x4d\x18",), "compressed with lz4, which is not read: unpack it with `lz4 -d` and name the result"),
    ((b"LPKSHHRH",), "a binary journal: export it with `journalctl --file FILE -o short-iso-precise`"),
)


def _regular_file(path: str) -> BinaryIO:
    """Open without buffer and without waiting, as what was a file when it was found may be a FIFO by now."""
    try:
        raw = open(path, "rb", buffering=0, opener=_opener)  # noqa: SIM115  # Path.open has no opener
    except OSError as error:
        raise unreadable(error) from error
    if not stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        raw.close()
        raise SourceError(Code.UNREADABLE, "is no longer a regular file")
    return raw


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


@contextmanager
def _open_again(path: str) -> Iterator[ByteSource]:
    with _regular_file(path) as raw:
        yield open_bytes(raw)


def _named_pipe(pipe: Pipe, seen: set[_Identity], kept: Mapping[str, BinaryIO]) -> Iterator[LogStream | Unreadable]:
    if _identity(pipe.status) in seen:
        return
    seen.add(_identity(pipe.status))
    path = "" if pipe.path.startswith(("/dev/", "/proc/")) else _logical(pipe.path)  # /dev/fd/63 says nothing
    origin = _Origin(_shown(pipe.path), path, None, explicit=True)
    if pipe.path in kept:
        yield from _once(decompressed(from_file(kept[pipe.path])), origin, depth=0)
        return
    try:
        raw = Path(pipe.path).open("rb", buffering=0)  # noqa: SIM115  # waits for the writer
    except OSError as error:
        refusal = unreadable(error)
        yield origin.unreadable(refusal.code, str(refusal))
        return
    with raw:
        yield from _once(decompressed(from_file(raw)), origin, depth=0)


def _stdin(stdin: BinaryIO, seen: set[_Identity]) -> Iterator[LogStream | Unreadable]:
    try:
        descriptor = stdin.fileno()
    except OSError:
        pass  # io.UnsupportedOperation: no real file behind it
    else:
        if _identity(os.fstat(descriptor)) in seen:  # `< FILE`, and FILE was named as well
            return
        # Another process may have left a shared pipe non-blocking: then "nothing yet" would look like the end.
        os.set_blocking(descriptor, True)
    yield from _once(decompressed(from_file(stdin)), _Origin("<stdin>", "", None, explicit=True), depth=0)


class _Turn:
    """A source that can be read once, and only before the walk goes on."""

    def __init__(self, source: ByteSource) -> None:
        self._source: ByteSource | None = source

    @contextmanager
    def open(self) -> Iterator[ByteSource]:
        if self._source is None:
            raise RuntimeError("this log can be read once, before the next one is asked for")
        source, self._source = self._source, None
        yield source

    def end(self) -> None:
        self._source = None


def _once(content: Peekable, origin: _Origin, depth: int) -> Iterator[LogStream | Unreadable]:
    """A stream that is there now: a pipe, or a member `depth` archives deep."""
    if not is_tar(content.peek(HEADER_SIZE)):
        turn = _Turn(decoded(content))
        yield _stream(content, origin, turn.open)
        turn.end()
    elif depth < _DEPTH_LIMIT:
        yield from _archive(content, origin, depth + 1)
    else:
        message = "an archive in an archive in an archive: unpack the outer one and name what comes out"
        yield origin.unreadable(Code.UNSUPPORTED, message)


_DEPTH_LIMIT: Final = 2


def _archive(content: ByteSource, origin: _Origin, depth: int) -> Iterator[LogStream | Unreadable]:
    links = Links()
    empty = True
    inside = _ARCHIVE_SUFFIX.sub("", origin.path)
    try:
        for member in members(content):
            here = _Origin(
                f"{origin.name}!{_shown(member.name)}", _joined(inside, member.name), member.modified, explicit=False
            )
            match member.kind:
                case Kind.FILE:
                    links.present(member.name)
                    empty = False
                    yield from _once(decompressed(member.content), here, depth)
                case Kind.DIRECTORY:
                    links.present(member.name)
                case Kind.HARD_LINK | Kind.SYMBOLIC_LINK:
                    links.wait(member)
                case _:
                    empty = False
                    yield here.unreadable(*_unread_member(member))
    except SourceError as error:
        yield origin.unreadable(error.code, f"{error}; members from there on are missing")
        return
    for name in links.dangling():
        empty = False
        yield Unreadable(
            f"{origin.name}!{_shown(name)}",
            _joined(inside, name),
            Code.DANGLING_LINK,
            "a link to something that is not in the archive",
            explicit=False,
        )
    if links.overflowed:
        message = "has too many members and links to tell whether all that is linked to is in it"
        yield origin.unreadable(Code.TOO_LARGE, message)
    elif empty:
        yield origin.unreadable(Code.UNREADABLE, "an archive without files")


def _unread_member(member: Member) -> tuple[str, str]:
    if member.kind is Kind.SPECIAL:
        return Code.NOT_A_FILE, f"a {member.kind.value}: not read"
    return Code.UNSUPPORTED, f"a {member.kind.value}: unpack the archive and name the file"


# Names

_COMPRESSION_SUFFIX: Final = re.compile(r"\.(?:gz|zst|zstd|xz|bz2)$", re.IGNORECASE)
_ARCHIVE_SUFFIX: Final = re.compile(r"\.(?:tar|tgz|tzst|txz|tbz2?)$", re.IGNORECASE)  # compression is gone already
_SHOWN_LIMIT: Final = 400  # characters of a name; a path on Linux has up to 4096, in an archive any number
_PATH_LIMIT: Final = 4096


def _shown(name: str) -> str:
    """A name for people: control, formatting and undecodable characters as escapes, the middle of a long one left out.

    Bytes that were not UTF-8 come as surrogates (PEP 383) and are shown as the bytes they were.
    """
    if len(name) > _SHOWN_LIMIT:
        name = f"{name[: _SHOWN_LIMIT // 2]}…{name[-_SHOWN_LIMIT // 2 :]}"
    if name.isprintable():
        return name
    return "".join(character if character.isprintable() else _escaped(character) for character in name)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _logical(path: str) -> str:
    """A path as naming rules read it: no empty and no `.` names, no compression suffix, safe to show."""
    names = [name for name in path.replace(os.sep, "/").split("/") if name not in ("", ".")]
    text = "/".join(names)[-_PATH_LIMIT:]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else _escaped(character) for character in text)
    return _COMPRESSION_SUFFIX.sub("", "/" * path.startswith("/") + text)


def _joined(above: str, name: str) -> str:
    """The logical path of a member. `..` in its name leads nowhere."""
    kept = "/".join(part for part in name.split("/") if part != "..").lstrip("/")
    return _logical(f"{above}/{kept}" if above else kept)
