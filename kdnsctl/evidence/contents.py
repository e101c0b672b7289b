"""What is in a bundle, file by file and read once, whether the bundle is a directory or an archive.

A bundle can come from anybody. Nothing of an archive is written to disk, no path in it is used as a path, links and
devices are told and never followed or opened, and everything is streamed: a bomb is only a long stream, and an
`Allowance` ends it. Whether what is in it is right is for `verify` to say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kdnsctl.evidence.artefacts import checked_path
from kdnsctl.logs.sources.archives import HEADER_SIZE, Kind, is_tar, members
from kdnsctl.logs.sources.opening import ByteSource, SourceError, decompressed, from_file, unreadable
from kdnsctl.model import UsageError

LIMIT: Final = 64 * 1024**3  # bytes that are read of one bundle, unless the caller says otherwise
MOST_FILES: Final = 1_000_000

_MARKS: Final = ("manifest.json", "journal.jsonl", "SHA256SUMS")
_TOP: Final = (*_MARKS, "cluster", "nodes")


@dataclass(frozen=True, slots=True)
class File:
    """One file. `content` is as stored, maybe compressed, and valid until the next is asked for.

    `refused` says why the member is nothing that a bundle has, "" when it is: then `path` is one inside the bundle.
    """

    path: str
    content: ByteSource
    refused: str = ""


@dataclass(slots=True)
class Allowance:
    """How many bytes may still be read, packed ones and what is packed in them."""

    left: int = LIMIT

    def take(self, size: int) -> None:
        """Raises SourceError when that was too much."""
        self.left -= size
        if self.left < 0:
            raise SourceError("tooLarge", "the bundle is larger than it may be")


def files(location: Path, allowance: Allowance) -> Iterator[File]:
    """Every file of the bundle at `location`, those that tell about the others first in a directory.

    Raises UsageError when there is nothing that could be a bundle; SourceError when it ends too early, is damaged,
    cannot be read, or has more bytes than are allowed.
    """
    if location.is_dir():
        yield from _of_directory(location, allowance)
    elif location.is_file():
        yield from _of_archive(location, allowance)
    else:
        raise UsageError(f"there is no bundle {location}")


def _of_directory(directory: Path, allowance: Allowance) -> Iterator[File]:
    found = [
        (Path(folder) / name).relative_to(directory).as_posix()
        for folder, folders, names in os.walk(directory)
        for name in (*names, *(one for one in folders if (Path(folder) / one).is_symlink()))
    ]
    for path in sorted(found, key=lambda path: (path not in _MARKS, path)):
        place = directory / path
        try:
            # Without waiting for a FIFO's other end, and not through a link that appeared just now.
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            yield File(path, _Nothing(), refused="it is a link" if place.is_symlink() else str(unreadable(error)))
            continue
        with open(descriptor, "rb", buffering=0) as raw:  # noqa: PTH123 - of a descriptor, not of a path
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                yield _file(path, _Metered(from_file(raw), allowance))
            else:
                yield File(path, _Nothing(), refused="it is no file")


def _of_archive(archive: Path, allowance: Allowance) -> Iterator[File]:
    with archive.open("rb", buffering=0) as raw:
        source = decompressed(from_file(raw))
        if not is_tar(source.peek(HEADER_SIZE)):
            raise UsageError(f"{archive} is neither a directory nor a tar archive: no bundle")
        for number, member in enumerate(members(_Metered(source, allowance)), 1):
            if number > MOST_FILES:
                raise SourceError("tooLarge", f"the archive has more than {MOST_FILES} members")
            if member.kind is Kind.FILE:
                yield _file(_inside(member.name), member.content)
            elif member.kind is not Kind.DIRECTORY:
                yield File(member.name, _Nothing(), refused=f"it is a {member.kind.value}")


def _inside(name: str) -> str:
    """The path of a member in the bundle, which may be packed as `./…` or, as tar packs a directory, as `NAME/…`."""
    parts = name.removeprefix("./").split("/")
    return "/".join(parts[1:] if len(parts) > 1 and parts[0] not in _TOP and parts[1] in _TOP else parts)


def _file(path: str, content: ByteSource) -> File:
    try:
        return File(checked_path(path), content)
    except ValueError as error:
        return File(path, _Nothing(), refused=f"its name is {error}")


class _Metered:
    """A source whose bytes are counted against an allowance."""

    def __init__(self, source: ByteSource, allowance: Allowance) -> None:
        self._source = source
        self._allowance = allowance

    def read(self, size: int, /) -> bytes:
        block = self._source.read(size)
        self._allowance.take(len(block))
        return block


class _Nothing:
    def read(self, _size: int, /) -> bytes:
        return b""
