"""The bytes of one input: decompressed, in UTF-8, and honest about where they end too early.

What an input is compressed with is told by its first bytes, never by its name: gzip, zstd, xz and bzip2, each of
several members or frames, or nothing. After that a byte order mark decides: UTF-8's is dropped, UTF-16 (what
PowerShell's `>` writes) becomes UTF-8. This module neither names inputs nor looks into archives (see `walking`), and
it does not look for lines.

Every input may be hostile. All of it is streamed in blocks, so a decompression bomb is only a long stream. Formats
whose decoder needs a window are held to WINDOW_LIMIT bytes (RFC 8878 §3.1.1.1.2 for zstd; the dictionary size of xz):
an input that asks for more is refused with `tooLarge`.

Damage: gzip gives everything up to the input byte in which decoding fails. The decoders of zstd, xz and bzip2 drop
what the failing call had decoded, so up to STEP bytes before that place are lost. A changed byte may be noticed only
later, by a check sum: text shortly before the place that is named can be wrong. An input that is merely cut off loses
nothing.
"""

from __future__ import annotations

import bz2
import codecs
import enum
import lzma
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from kdnsctl.model import KdnsctlError

BLOCK: Final = 256 * 1024  # decompressed bytes per piece
INPUT_BLOCK: Final = 64 * 1024  # compressed bytes per read
STEP: Final = 8 * 1024  # what zstd, xz and bzip2 may decode in one call
WINDOW_LIMIT: Final = 128 * 1024 * 1024
_PEEK: Final = 4096


class Code(enum.StrEnum):
    """Why something could not be read, or not to its end. The last three are only said of whole files and members."""

    UNREADABLE = "unreadable"  # permission, I/O
    CUT_OFF = "cutOff"  # ends too early; what came before was delivered
    DAMAGED = "damaged"  # not what it claims to be from some place on; what came before was delivered
    TOO_LARGE = "tooLarge"  # would need more memory than is given to one input
    UNSUPPORTED = "unsupported"  # a format that is not read: zip, archives inside archives inside archives
    NOT_A_FILE = "notAFile"  # a FIFO, socket, device or foreign directory that is never opened
    DANGLING_LINK = "danglingLink"  # a link to nothing


class SourceError(KdnsctlError):
    """An input ended in an error, after every byte that could be had. `code` is a value of `Code`."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ByteSource(Protocol):
    """A stream of bytes that is read once, from its beginning."""

    def read(self, size: int, /) -> bytes:
        """At least one and at most `size` (≥ 1) bytes; b"" at the end.

        Raises SourceError after every obtainable byte was returned, and again on each further call.
        """


def open_bytes(raw: BinaryIO) -> ByteSource:
    """The text of `raw`: decompressed, in UTF-8, without a byte order mark. `raw` stays the caller's to close.

    Reads of plain input go to `raw` with the size asked for and are passed on without a copy, so give it unbuffered.
    """
    return decoded(decompressed(from_file(raw)))


def from_file(raw: BinaryIO) -> ByteSource:
    """`raw` as it is; only its errors become SourceErrors."""
    return _File(raw)


def decompressed(source: ByteSource) -> Peekable:
    """What `source` holds, unpacked when its first bytes are those of a known format.

    An input that ends within such first bytes (a gzip file cut to one byte) cannot be told from text by them; it is
    called cut off.
    """
    packed = Peekable(source)
    head = packed.peek(_LONGEST_MAGIC)
    for format_ in _FORMATS:
        if format_.starts(head):
            return Peekable(_Pieces(_unpack(format_, packed)))
    for format_ in _FORMATS:
        if head and format_.may_start(head):
            return Peekable(_Pieces(_never_began(format_)))
    return packed


def decoded(source: Peekable) -> ByteSource:
    """`source` in UTF-8: a UTF-8 byte order mark dropped, UTF-16 with a byte order mark transcoded."""
    head = source.peek(len(codecs.BOM_UTF8))
    if head == codecs.BOM_UTF8:
        source.read(len(codecs.BOM_UTF8))
        return source
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if head.startswith(mark):
            source.read(len(mark))
            return _Pieces(_transcode(source, encoding))
    return source


class Peekable:
    """A ByteSource whose first bytes can be looked at before they are read."""

    __slots__ = ("_ended", "_error", "_head", "_source")

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._head = b""
        self._ended = False  # a terminal would have to be told twice
        self._error: SourceError | None = None

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only when the source ends, or ends in an error, before. Never raises."""
        while len(self._head) < size and not self._ended and self._error is None:
            try:
                piece = self._source.read(_PEEK)
            except SourceError as error:
                self._error = error
            else:
                self._ended = not piece
                self._head += piece
        return self._head[:size]

    @property
    def error(self) -> SourceError | None:
        """The error that `peek` met, if it met one."""
        return self._error

    def read(self, size: int, /) -> bytes:
        if self._head:
            piece, self._head = self._head[:size], self._head[size:]
            return piece
        if self._error is not None:
            raise self._error
        return b"" if self._ended else self._source.read(size)


class _File:
    """A file object as a ByteSource."""

    __slots__ = ("_read",)

    def __init__(self, raw: BinaryIO) -> None:
        # read1 of a buffered pipe gives what has arrived; read would wait until `size` bytes have.
        self._read: Callable[[int], bytes] = getattr(raw, "read1", raw.read)

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except OSError as error:
            raise unreadable(error) from error


def unreadable(error: OSError) -> SourceError:
    """The SourceError for what the operating system refused."""
    return SourceError(Code.UNREADABLE, f"cannot be read: {error.strerror or error}")


class _Pieces:
    """A ByteSource over an iterator of non-empty pieces that may end in a SourceError."""

    __slots__ = ("_at", "_error", "_piece", "_pieces")

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0
        self._error: SourceError | None = None

    def read(self, size: int, /) -> bytes:
        if self._at == len(self._piece):
            if self._error is not None:
                raise self._error
            self._at = 0
            self._piece = b""
            try:
                self._piece = next(self._pieces, b"")
            except SourceError as error:
                self._error = error
                raise
        if self._at == 0 and len(self._piece) <= size:
            self._at = len(self._piece)
            return self._piece
        piece = self._piece[self._at : self._at + size]
        self._at += len(piece)
        return piece


def _transcode(source: ByteSource, encoding: str) -> Iterator[bytes]:
    """UTF-16 to UTF-8. A lone surrogate becomes U+FFFD; half a character at the end is a cut-off input."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    delivered = 0
    while data := source.read(BLOCK):
        if text := decoder.decode(data):
            piece = text.encode()
            delivered += len(piece)
            yield piece
    if decoder.getstate()[0]:
        raise SourceError(Code.CUT_OFF, f"the UTF-16 text ends within a character, after {delivered} bytes of UTF-8")


# Decompression. A decoder is a generator: it is handed the first bytes of a member and a way to get more, yields what
# it decodes, raises _CutOffError or _DamagedError where that ends, and returns the bytes behind the member.

_Pull = Callable[[], bytes]
_Decoder = Generator[bytes, None, bytes]


class _CutOffError(Exception):
    pass


class _DamagedError(Exception):
    pass


class _TooLargeError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Format:
    name: str
    magics: tuple[bytes, ...]
    decode: Callable[[bytes, _Pull], _Decoder]

    def starts(self, data: bytes) -> bool:
        return data.startswith(self.magics)

    def may_start(self, data: bytes) -> bool:
        return any(magic.startswith(data) for magic in self.magics)


def _unpack(format_: _Format, source: ByteSource) -> Iterator[bytes]:
    """All members of a compressed stream. Zero bytes between and behind them are padding, anything else is damage."""
    delivered = 0

    def pull() -> bytes:
        return source.read(INPUT_BLOCK)

    def all_members() -> Iterator[bytes]:
        data = pull()
        while data:
            while len(data) < _LONGEST_MAGIC and (more := pull()):
                data += more
            if not format_.starts(data):
                if format_.may_start(data):
                    raise _CutOffError
                raise _DamagedError("what follows is something else")
            data = yield from format_.decode(data, pull)
            while not (data := data.lstrip(b"\0")) and (more := pull()):
                data = more

    try:
        for piece in all_members():
            delivered += len(piece)
            yield piece
    except _CutOffError:
        message = f"the {format_.name} data ends too early, after {delivered} uncompressed bytes"
        raise SourceError(Code.CUT_OFF, message) from None
    except _DamagedError as damage:
        message = f"the {format_.name} data is damaged after {delivered} uncompressed bytes: {damage}"
        raise SourceError(Code.DAMAGED, message) from damage.__cause__
    except _TooLargeError as refusal:
        message = f"the {format_.name} data needs more memory than the {WINDOW_LIMIT >> 20} MiB given to one input"
        hint = f"unpack it first and name the unpacked file: {_UNPACK_COMMAND[format_.name]}"
        raise SourceError(Code.TOO_LARGE, message, hint=hint) from refusal.__cause__


def _never_began(format_: _Format) -> Iterator[bytes]:
    yield from ()
    raise SourceError(Code.CUT_OFF, f"ends within what looks like the first bytes of {format_.name} data")


def _gzip(data: bytes, pull: _Pull) -> _Decoder:
    decoder = zlib.decompressobj(wbits=31)  # 31: a gzip header and trailer, with the check sum verified
    full = False
    while not decoder.eof:
        if not data and not full and not (data := pull()):
            raise _CutOffError
        # zlib drops what it has decoded when the same call finds damage. A copy (40 KB) lets that part be had again.
        before = decoder.copy()
        try:
            piece = decoder.decompress(data, BLOCK)
        except zlib.error as error:
            if piece := _before_damage(before, data):
                yield piece
            raise _DamagedError(str(error)) from error
        full = len(piece) == BLOCK  # then the decoder may hold more, even if it has taken all the input
        data = decoder.unconsumed_tail
        if piece:
            yield piece
    return decoder.unused_data


def _before_damage(decoder: zlib._Decompress, data: bytes) -> bytes:
    """What `decoder` makes of `data` up to the byte in which it fails: less than BLOCK, as it failed within that."""
    rescued = bytearray()
    step = len(data)
    while step:
        attempt = decoder.copy()
        try:
            rescued += attempt.decompress(data[:step])
        except zlib.error:
            step //= 2
        else:
            decoder = attempt
            data = data[step:]
            step = len(data) // 2 or len(data)
    return bytes(rescued)


class _StepDecoder(Protocol):
    """What the decoders of bz2, lzma and zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def _bzip2(data: bytes, pull: _Pull) -> _Decoder:
    return _stepwise(bz2.BZ2Decompressor(), OSError, data, pull)


def _xz(data: bytes, pull: _Pull) -> _Decoder:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_LIMIT)
    return _stepwise(decoder, lzma.LZMAError, data, pull)


def _stepwise(decoder: _StepDecoder, failure: type[Exception], data: bytes, pull: _Pull) -> _Decoder:
    """Decode in small steps, as each would be lost with the damage it meets, and hand them on in large pieces."""
    steps: list[bytes] = []
    full = False  # then the decoder may hold more; needs_input does not tell, it only knows of input
    problem: Exception | None = None
    while not decoder.eof:
        if decoder.needs_input and not full and not data and not (data := pull()):
            problem = _CutOffError()
            break
        try:
            steps.append(decoder.decompress(data, STEP))
            full = len(steps[-1]) == STEP
        except failure as error:
            problem = _TooLargeError() if str(error).endswith(_WINDOW_REFUSED) else _DamagedError(str(error))
            problem.__cause__ = error
            break
        data = b""
        if (decoder.needs_input and not full) or len(steps) * STEP >= BLOCK:
            if piece := b"".join(steps):
                yield piece
            steps.clear()
    if piece := b"".join(steps):
        yield piece
    if problem is not None:
        raise problem
    return decoder.unused_data


def _zstd(data: bytes, pull: _Pull) -> _Decoder:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415  # compiled code that only zstd input needs
        else:
            from backports import zstd  # noqa: PLC0415
    except ImportError as error:
        hint = f"unpack it first and name the unpacked file: {_UNPACK_COMMAND['zstd']}"
        message = "compressed with zstd, which this Python cannot read: the package backports.zstd is not installed"
        raise SourceError(Code.UNREADABLE, message, hint=hint) from error
    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: WINDOW_LIMIT.bit_length() - 1}
    return _stepwise(zstd.ZstdDecompressor(options=window), zstd.ZstdError, data, pull)


# Python has no class for a window that is refused, only the texts of liblzma's and libzstd's error.
_WINDOW_REFUSED: Final = ("limit exceeded", "too much memory for decoding")
_SKIPPABLE_TAIL: Final = b"\x2a\x4d\x18"  # RFC 8878 §3.1.2: 0x184D2A50 to 0x184D2A5F, little-endian
_BZIP2_CONTENTS: Final = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # the first block, or the end of an empty file

_FORMATS: Final = (
    _Format("gzip", (b"\x1f\x8b\x08",), _gzip),
    _Format("zstd", (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + low]) + _SKIPPABLE_TAIL for low in range(16))), _zstd),
    _Format("xz", (b"\xfd7zXZ\0",), _xz),
    _Format(
        "bzip2", tuple(b"BZh%d" % level + content for level in range(1, 10) for content in _BZIP2_CONTENTS), _bzip2
    ),
)
_LONGEST_MAGIC: Final = max(len(magic) for format_ in _FORMATS for magic in format_.magics)
_UNPACK_COMMAND: Final = {"gzip": "gzip -d", "zstd": "zstd -d --long=31", "xz": "xz -d", "bzip2": "bzip2 -d"}
