"""The members of a tar archive, one after the other, from a stream that is read once.

Nothing is ever extracted and no path of an archive is used as a path: names are only shown and compared. The standard
library's reader is not used to walk the archive because it takes a cut-off archive for a complete one, keeps every
header, and reads extended headers of any length into memory; it decodes the 512-byte headers. Formats: POSIX.1-1988
(ustar), POSIX.1-2001 (pax), GNU and old tar. Archives joined with `cat` are read to the end of the last.

What a member is good for is decided in `walking`.
"""

from __future__ import annotations

import enum
import posixpath
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from kdnsctl.logs.sources.opening import BLOCK, ByteSource, Code, SourceError

_UNIT: Final = 512  # tar is made of blocks of this size
HEADER_SIZE: Final = _UNIT
EXTENDED_LIMIT: Final = 1024 * 1024  # bytes of one extended header; a path takes at most 4 KiB of it
_ENCODING: Final = ("utf-8", "surrogateescape")


class Kind(enum.Enum):
    """What a member is. All but FILE have no content that can be read here."""

    FILE = "file"
    DIRECTORY = "directory"
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"
    SPARSE = "sparse file"
    SPECIAL = "FIFO or device"
    UNKNOWN = "member of an unknown type"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive. `name` and `target` are as the archive says: any text of any length, up to 1 MiB.

    `target` is what a link points to. `content` is valid until the next member is asked for; it ends in a SourceError
    when the archive ends within it.
    """

    name: str
    kind: Kind
    modified: datetime | None
    target: str
    content: ByteSource


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with `head` (HEADER_SIZE bytes, fewer if it is shorter) is a tar archive.

    Old tar has no magic number: there the check sum tells. A cut or damaged header is known by its magic number.
    """
    if head[257:262] == b"ustar" and b"\0" in head[:156]:
        return True
    try:
        _header(head)
    except tarfile.HeaderError:
        return False
    return True


def members(archive: ByteSource) -> Iterator[Member]:
    """Every entry of `archive`, with what extended headers say of it.

    Raises SourceError after the last entry that can be had: cutOff when there is no end mark, damaged when something
    else than an entry follows, and whatever `archive` itself raises.
    """
    reader = _Reader(archive)
    everywhere: dict[str, str] = {}  # pax: holds for all members that follow
    here: dict[str, str] = {}  # pax or GNU: holds for the next member
    while (block := reader.block()) is not None:
        try:
            header = _header(block)
        except tarfile.HeaderError as error:
            message = f"the tar archive is damaged at byte {reader.position - _UNIT}: {error}"
            raise SourceError(Code.DAMAGED, message) from error
        if header.type in _EXTENSIONS:
            content = reader.short_content(header.size)
            match header.type:
                case tarfile.XGLTYPE:
                    everywhere |= _pax_records(content)
                case tarfile.XHDTYPE | tarfile.SOLARIS_XHDTYPE:
                    here |= _pax_records(content)
                case tarfile.GNUTYPE_LONGNAME:
                    here |= {"path": _text(content)} if content else {}
                case _:
                    here |= {"linkpath": _text(content)} if content else {}
            continue
        said = everywhere | here
        here = {}
        kind = _kind(header, said)
        if header.type == tarfile.GNUTYPE_SPARSE:
            reader.skip_sparse_map(block)
        size = _size(header, said) if kind in (Kind.FILE, Kind.SPARSE, Kind.UNKNOWN) else 0
        yield Member(
            name=said.get("path", header.name),
            kind=kind,
            modified=_modified(header, said),
            target=said.get("linkpath", header.linkname),
            content=reader.begin(size),
        )
        reader.finish()


_EXTENSIONS: Final = (
    tarfile.XGLTYPE,
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_KINDS: Final[Mapping[bytes, Kind]] = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.LNKTYPE: Kind.HARD_LINK,
    tarfile.SYMTYPE: Kind.SYMBOLIC_LINK,
    tarfile.CHRTYPE: Kind.SPECIAL,
    tarfile.BLKTYPE: Kind.SPECIAL,
    tarfile.FIFOTYPE: Kind.SPECIAL,
    tarfile.GNUTYPE_SPARSE: Kind.SPARSE,
    b"V": Kind.DIRECTORY,  # GNU: the archive's label; as little to read as a directory
}


class _Reader:
    """Blocks, and the content between them, of one archive. One content is open at a time, its unread rest skipped."""

    def __init__(self, archive: ByteSource) -> None:
        self._archive = archive
        self._left = 0  # of the open content
        self._padding = 0  # behind it
        self._ended = False  # by an end mark: at least one block of zeros
        self.position = 0

    def block(self) -> bytes | None:
        """The next block that is not all zeros; None when the archive has properly ended."""
        while True:
            block = self._exactly(_UNIT)
            if not block and self._ended:
                return None
            if len(block) < _UNIT:
                raise self._cut_off("within a header" if block else "without an end mark")
            if block.strip(b"\0"):
                self._ended = False
                return block
            self._ended = True

    def begin(self, size: int) -> ByteSource:
        self._left = size
        self._padding = -size % _UNIT
        return _Content(self, self.position + size)

    def read(self, size: int) -> bytes:
        """Of the open content; raises where the archive ends within it."""
        if not self._left:
            return b""
        piece = self._archive.read(min(size, self._left))
        if not piece:
            raise self._cut_off(f"{self._left} bytes before the end of a member")
        self._left -= len(piece)
        self.position += len(piece)
        return piece

    def finish(self) -> None:
        while self.read(BLOCK):
            pass
        if len(self._exactly(self._padding)) < self._padding:
            raise self._cut_off("behind a member")
        self._padding = 0

    def short_content(self, size: int) -> bytes:
        """The content of an extended header, b"" when it is longer than any that means well."""
        if not 0 <= size <= EXTENDED_LIMIT:
            self.begin(max(size, 0))
            self.finish()
            return b""
        self.begin(size)
        content = bytearray()
        while piece := self.read(size):
            content += piece
        self.finish()
        return bytes(content)

    def skip_sparse_map(self, header: bytes) -> None:
        """GNU's sparse headers go on in further blocks while a flag says so (offset 482, then 504)."""
        more = header[482]
        while more:
            block = self._exactly(_UNIT)
            if len(block) < _UNIT:
                raise self._cut_off("within a header")
            more = block[504]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self._archive.read(size - len(data))):
            data += piece
        self.position += len(data)
        return data

    def _cut_off(self, where: str) -> SourceError:
        return SourceError(Code.CUT_OFF, f"the tar archive ends too early, {where}, after {self.position} bytes")


class _Content:
    """The content of one member, as long as it is that member's turn."""

    __slots__ = ("_end", "_reader")

    def __init__(self, reader: _Reader, end: int) -> None:
        self._reader = reader
        self._end = end

    def read(self, size: int, /) -> bytes:
        if self._reader.position > self._end:
            return b""
        return self._reader.read(size)


def _header(block: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo.frombuf(block, *_ENCODING)
    if header.size < 0:
        raise tarfile.HeaderError("negative size")
    return header


def _kind(header: tarfile.TarInfo, said: Mapping[str, str]) -> Kind:
    if _SPARSE in said:
        return Kind.SPARSE
    return _KINDS.get(header.type, Kind.UNKNOWN)


def _size(header: tarfile.TarInfo, said: Mapping[str, str]) -> int:
    size = said.get("size", "")
    return int(size) if size.isascii() and size.isdigit() and len(size) < 20 else header.size


def _modified(header: tarfile.TarInfo, said: Mapping[str, str]) -> datetime | None:
    """Zero is what archivers write when they leave the time out."""
    try:
        seconds = float(said.get("mtime", header.mtime))
    except (ValueError, OverflowError):
        return None
    return moment(seconds) if seconds else None


def moment(seconds: float) -> datetime | None:
    """A time stamp of a file, UTC; None for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


_PAX_KEYS: Final = (b"path", b"linkpath", b"size", b"mtime")
_SPARSE: Final = "GNU.sparse"  # stands for any of GNU's keys of that beginning


def _pax_records(content: bytes) -> dict[str, str]:
    """LENGTH, a space, KEY=VALUE and a newline; LENGTH counts all of it (POSIX.1-2001, pax, Extended Header).

    Only what is of use here is kept, as a stranger's archive could go on with global headers forever. Stops at the
    first that is malformed: what it would have said is missing then, which at worst makes the next header unreadable.
    """
    records: dict[str, str] = {}
    position = 0
    while position < len(content):
        digits = content[position : position + 8].partition(b" ")[0]
        if not digits.isdigit():
            break
        record = content[position : position + int(digits)]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n") or len(record) != int(digits):
            break
        if key in _PAX_KEYS:
            records[_text(key)] = _text(value)
        elif key.startswith(b"GNU.sparse."):
            records[_SPARSE] = ""
        position += len(record)
    return records


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(*_ENCODING)


class Links:
    """The links of an archive, until its end tells whether what they point to was in it.

    A link whose target is a member adds nothing: the target counts as itself. At most about MEMORY bytes are spent on
    the names of an archive, which could have millions; when that is not enough, links are not followed up.
    """

    MEMORY: Final = 8 * 1024 * 1024

    def __init__(self) -> None:
        self._present: set[int] = set()  # hashes of names
        self._waiting: list[tuple[str, tuple[int, ...]]] = []
        self._left = self.MEMORY

    def present(self, name: str) -> None:
        """A directory or file of that name is in the archive, and so are the directories above it."""
        path = _normal(name)
        while path and hash(path) not in self._present and self._take(_PER_HASH):
            self._present.add(hash(path))
            path = posixpath.dirname(path)

    def wait(self, member: Member) -> None:
        """Remember a link until `dangling` is asked for."""
        name = member.name[:_NAME_KEPT]
        targets = tuple(hash(path) for path in _targets(member))
        if self._present.isdisjoint(targets) and self._take(sys.getsizeof(name) + _PER_HASH * (2 + len(targets))):
            self._waiting.append((name, targets))

    @property
    def overflowed(self) -> bool:
        """Whether there were too many names to tell."""
        return self._left < 0

    def dangling(self) -> Iterator[str]:
        """The names of the links that point to nothing in the archive; none when there were too many to tell."""
        if not self.overflowed:
            yield from (name for name, targets in self._waiting if self._present.isdisjoint(targets))

    def _take(self, memory: int) -> bool:
        if self._left >= 0:
            self._left -= memory
        return self._left >= 0


_PER_HASH: Final = 80  # bytes: an int, and its place in a set
_NAME_KEPT: Final = 1024
_DEPTH: Final = 32


def _targets(link: Member) -> Iterator[str]:
    """Where the target may be in the archive. /var/log/pods/… of a node may be node7/var/log/pods/… in a bundle."""
    if link.kind is Kind.HARD_LINK:  # named from the root of the archive
        yield _normal(link.target)
    elif link.target.startswith("/"):
        above = _normal(link.name)
        for _ in range(_DEPTH):
            above = posixpath.dirname(above)
            yield _normal(posixpath.join(above, link.target.lstrip("/")))
            if not above:
                break
    else:
        yield _normal(posixpath.join(posixpath.dirname(_normal(link.name)), link.target))


def _normal(name: str) -> str:
    """A name from the root of the archive, without `.`, `..` and slashes that change nothing."""
    return posixpath.normpath("/" + name).lstrip("/")
