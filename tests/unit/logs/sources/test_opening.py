"""What comes out of an input: all of its text, or all that can be had and then the reason."""

import bz2
import codecs
import gzip
import io
import lzma
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kdnsctl.logs.sources.opening import BLOCK, STEP, WINDOW_LIMIT, ByteSource, SourceError, open_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def zstd_compress(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd_compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
ONE_CALL: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.decompressobj(31).decompress(data),
    "zstd": lambda data: zstd.ZstdDecompressor().decompress(data),
    "xz": lambda data: lzma.LZMADecompressor().decompress(data),
    "bzip2": lambda data: bz2.BZ2Decompressor().decompress(data),
}
LINES = b"".join(b"I0606 16:49:%02d.%06d       1 proxier.go:%d] Syncing\n" % (n % 60, n, n * 7) for n in range(20_000))


@cache
def packed_lines(name: str) -> bytes:
    return COMPRESS[name](LINES)


formats = pytest.mark.parametrize("name", COMPRESS)
# Runs of one byte and arbitrary bytes: what compresses well and what does not.
texts = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.builds(lambda byte, n: byte * n, st.binary(min_size=1, max_size=3), st.integers(1, 3000)),
    )
).map(b"".join)


def contents(source: ByteSource, size: int = BLOCK) -> tuple[bytes, SourceError | None]:
    """Everything that `source` delivers, and the error it ends in. Reading on must end the same way."""
    delivered = bytearray()
    ends: list[SourceError | None] = []
    while len(ends) < 2:
        try:
            data = source.read(size)
        except SourceError as error:
            ends.append(error)
            continue
        if not data:
            ends.append(None)
        assert len(data) <= size
        delivered += data
    assert str(ends[0]) == str(ends[1]), "an error must not look like an end when the source is read again"
    return bytes(delivered), ends[0]


def opened(data: bytes, size: int = BLOCK) -> tuple[bytes, SourceError | None]:
    return contents(open_bytes(io.BytesIO(data)), size)


def error_code(error: SourceError | None) -> str | None:
    return None if error is None else error.code


@formats
@pytest.mark.parametrize("size", [1000, 4096, 1 << 20])
def test_compressed_text_comes_out_whole(name: str, size: int) -> None:
    assert opened(packed_lines(name), size) == (LINES, None)


@formats
@settings(deadline=None)
@given(text=texts, size=st.integers(1, 5000))
def test_any_text_survives_any_compression_and_any_size_of_read(name: str, text: bytes, size: int) -> None:
    assert opened(COMPRESS[name](b"x" + text), size) == (b"x" + text, None)


@pytest.mark.parametrize("text", [b"", b"\n", b"F", b"I0606 no newline at the end", LINES, b"\xff\x00\x80" * 999])
def test_plain_input_is_passed_on_as_it_is(text: bytes) -> None:
    assert opened(text) == (text, None)


def test_plain_input_is_read_with_the_size_asked_for_and_not_copied() -> None:
    asked: list[tuple[int, bytes]] = []

    class Raw(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            asked.append((size, b"x" * size))
            return asked[-1][1]

    source = open_bytes(Raw())  # type: ignore[arg-type]  # a raw stream, not a buffered one
    source.read(BLOCK)  # what was looked at
    data = source.read(BLOCK)
    assert asked[-1][0] == BLOCK
    assert data is asked[-1][1]


@formats
def test_members_one_behind_the_other_are_one_text(name: str) -> None:
    compress = COMPRESS[name]
    assert opened(compress(b"first\n") + compress(b"") + packed_lines(name) + compress(b"last\n")) == (
        b"first\n" + LINES + b"last\n",
        None,
    )


@formats
def test_zeros_between_and_behind_members_are_padding(name: str) -> None:
    compress = COMPRESS[name]
    assert opened(compress(b"one") + bytes(8) + compress(b"two") + bytes(1 << 18)) == (b"onetwo", None)


@formats
def test_something_else_behind_the_compressed_data_is_damage(name: str) -> None:
    delivered, error = opened(COMPRESS[name](b"the text\n") + b"and then a plain line\n")
    assert delivered == b"the text\n"
    assert error_code(error) == "damaged"
    assert "after 9 uncompressed bytes" in str(error)


def test_a_skippable_zstd_frame_holds_no_text() -> None:
    skippable = b"\x53\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    assert opened(skippable + zstd_compress(b"one") + skippable + zstd_compress(b"two")) == (b"onetwo", None)


@formats
@settings(deadline=None)
@given(text=texts, at=st.floats(0, 1))
@example(text=bytes(STEP + 1), at=0.9)
@example(text=bytes(BLOCK), at=0.9)
@example(text=bytes(BLOCK + 1), at=0.9)
def test_a_cut_anywhere_delivers_the_beginning_and_says_that_it_was_cut(name: str, text: bytes, at: float) -> None:
    whole = COMPRESS[name](text)
    check_cut(name, text, whole, 1 + int(at * (len(whole) - 1)))


@formats
def test_a_cut_anywhere_in_a_long_text(name: str) -> None:
    whole = packed_lines(name)
    for part in (3, 2, 1):
        check_cut(name, LINES, whole, len(whole) - len(whole) // 4 * part)
    for last in range(12):
        check_cut(name, LINES, whole, len(whole) - last)


def check_cut(name: str, text: bytes, whole: bytes, length: int) -> None:
    cut = whole[:length]
    delivered, error = opened(cut)
    assert text.startswith(delivered)
    if len(cut) == len(whole):
        assert (delivered, error) == (text, None)
    else:
        assert error_code(error) == "cutOff"
        if len(cut) > 10:  # else the end may come before the format is told
            assert f"after {len(delivered)} uncompressed bytes" in str(error)
            assert delivered == ONE_CALL[name](cut), "bytes that could be had are missing"


@formats
def test_a_cut_to_the_first_bytes_is_not_taken_for_text(name: str) -> None:
    whole = packed_lines(name)
    assert {(data, error_code(error)) for data, error in (opened(whole[:n]) for n in range(1, 11))} == {(b"", "cutOff")}


@formats
def test_a_cut_within_a_later_member_is_told(name: str) -> None:
    first, second = COMPRESS[name](b"first\n"), COMPRESS[name](b"second\n")
    for length in range(1, len(second)):
        delivered, error = opened(first + second[:length])
        assert b"first\nsecond\n".startswith(delivered)
        assert delivered.startswith(b"first\n")
        assert error_code(error) == "cutOff"


@formats
@settings(deadline=None)
@given(text=texts, at=st.floats(0, 1), flip=st.integers(1, 255))
def test_a_damaged_byte_never_passes_unnoticed(name: str, text: bytes, at: float, flip: int) -> None:
    data = bytearray(COMPRESS[name](text))
    data[int(at * (len(data) - 1))] ^= flip
    delivered, error = opened(bytes(data))
    if error is None:
        # A part that carries no text (gzip's time stamp), or the very first bytes: then it is no longer that format.
        assert delivered in (text, bytes(data))
    else:
        assert error.code in ("damaged", "cutOff", "tooLarge")


@pytest.mark.parametrize("lines", [1, 100, 20_000])
def test_gzip_delivers_every_byte_before_the_damage(lines: int) -> None:
    text = LINES[: lines * 50]
    compressor = zlib.compressobj(wbits=31)
    before = compressor.compress(text) + compressor.flush(zlib.Z_FULL_FLUSH)
    impossible_block = b"\x07"  # deflate block type 3 does not exist
    delivered, error = opened(before + impossible_block + before)
    assert delivered == text
    assert error_code(error) == "damaged"


def byte_by_byte(data: bytes) -> bytes:
    """What zlib makes of damaged data when one byte comes after the other, so that the failing call loses little."""
    decoder = zlib.decompressobj(31)
    text = b""
    try:
        for byte in data:
            text += decoder.decompress(bytes([byte]))
    except zlib.error:
        pass
    return text


def test_gzip_delivers_every_byte_before_the_damage_wherever_it_is() -> None:
    two_letters = b"".join(b"%d" % (n * n % 7 % 2) for n in range(900)) + LINES[:300]  # several symbols to a byte
    whole = gzip.compress(two_letters, mtime=0)
    for position in range(10, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        delivered, error = opened(bytes(damaged))
        assert delivered == byte_by_byte(bytes(damaged))
        assert error is not None


@pytest.mark.parametrize("name", ["zstd", "xz", "bzip2"])
def test_the_other_formats_lose_at_most_one_step_before_the_damage(name: str) -> None:
    first = packed_lines(name)
    second = bytearray(first)
    second[len(second) // 2] ^= 0x55
    delivered, error = opened(first + bytes(second))
    assert len(delivered) >= len(LINES) - STEP
    assert delivered[: len(LINES)] == LINES[: len(delivered)]
    assert error_code(error) in ("damaged", "cutOff")


def test_a_wrong_check_sum_is_told_after_the_text() -> None:
    data = bytearray(gzip.compress(LINES))
    data[-8] ^= 1
    delivered, error = opened(bytes(data))
    assert delivered == LINES
    assert error_code(error) == "damaged"


def xz_asking_for_4_gib() -> bytes:
    """The dictionary size of an xz block is one byte of its header (The .xz File Format §3.1, §5.3.1)."""
    data = bytearray(lzma.compress(b"text"))
    header_size = (data[12] + 1) * 4
    data[12 + 4] = 40
    data[12 + header_size - 4 : 12 + header_size] = zlib.crc32(data[12 : 12 + header_size - 4]).to_bytes(4, "little")
    return bytes(data)


def zstd_asking_for_256_mib() -> bytes:
    """The window of a zstd frame is one byte of its header when no content size replaces it (RFC 8878 §3.1.1.1)."""
    compressor = zstd.ZstdCompressor()
    data = bytearray(compressor.compress(b"text") + compressor.flush())
    assert data[4] & 0x20 == 0
    data[5] = (28 - 10) << 3
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "command"), [(xz_asking_for_4_gib(), "xz -d"), (zstd_asking_for_256_mib(), "zstd -d")], ids=["xz", "zstd"]
)
def test_an_input_that_wants_too_much_memory_is_refused(data: bytes, command: str) -> None:
    delivered, error = opened(data)
    assert delivered == b""
    assert error is not None
    assert error.code == "tooLarge"
    assert f"{WINDOW_LIMIT >> 20} MiB" in str(error)
    assert command in error.hint


@pytest.mark.parametrize("name", ["plain", *COMPRESS])
def test_a_bomb_is_only_a_long_stream(name: str) -> None:
    size = 48 << 20
    data = COMPRESS.get(name, bytes)(bytes(size))
    raw = io.BytesIO(data)
    source = open_bytes(raw)
    delivered = 0
    tracemalloc.start()
    try:
        while piece := source.read(1 << 20):
            delivered += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert delivered == size
    assert peak < 4 << 20


def test_without_the_zstd_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    for package in ("compression", "backports"):
        if package in sys.modules:
            monkeypatch.delattr(sys.modules[package], "zstd", raising=False)
    delivered, error = opened(zstd.compress(b"text"))
    assert delivered == b""
    assert error is not None
    assert error.code == "unreadable"
    assert "zstd -d" in error.hint


class Dripping(io.RawIOBase):
    """A pipe whose writer writes byte by byte."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        assert size > 0
        return self._data.read(1)


@pytest.mark.parametrize("name", ["plain", *COMPRESS])
def test_it_does_not_matter_in_what_pieces_the_input_arrives(name: str) -> None:
    compress = COMPRESS.get(name, bytes)
    data = compress(codecs.BOM_UTF16_LE + "first\n".encode("utf-16-le")) + compress("second\n".encode("utf-16-le"))
    assert contents(open_bytes(Dripping(data))) == (b"first\nsecond\n", None)  # type: ignore[arg-type]


# Encodings


def test_a_utf_8_byte_order_mark_is_dropped_once() -> None:
    assert opened(codecs.BOM_UTF8 * 2 + b"I0606") == (codecs.BOM_UTF8 + b"I0606", None)
    assert opened(gzip.compress(codecs.BOM_UTF8 + b"I0606")) == (b"I0606", None)
    assert opened(codecs.BOM_UTF8) == (b"", None)


@settings(deadline=None)
@given(text=st.text(st.characters(codec="utf-8")), big=st.booleans(), size=st.integers(1, 9), packed=st.booleans())
def test_utf_16_with_a_byte_order_mark_becomes_utf_8(text: str, *, big: bool, size: int, packed: bool) -> None:
    data = codecs.BOM_UTF16_BE + text.encode("utf-16-be") if big else codecs.BOM_UTF16_LE + text.encode("utf-16-le")
    assert opened(gzip.compress(data) if packed else data, size) == (text.encode(), None)


def test_long_utf_16_is_read_in_blocks() -> None:
    text = "Failed to delete stale endpoint connections – \U0001f4a5\r\n" * 20_000
    assert opened(codecs.BOM_UTF16_LE + text.encode("utf-16-le")) == (text.encode(), None)


@pytest.mark.parametrize("rest", [b"\0", b"\x3d\xd8", b"\x3d\xd8\xa5"], ids=["half unit", "half pair", "three of four"])
def test_utf_16_that_ends_within_a_character_was_cut_off(rest: bytes) -> None:
    delivered, error = opened(codecs.BOM_UTF16_LE + "ab\n".encode("utf-16-le") + rest)
    assert delivered == b"ab\n"
    assert error_code(error) == "cutOff"


def test_a_lone_surrogate_is_replaced_and_the_rest_read() -> None:
    assert opened(codecs.BOM_UTF16_LE + b"a\0" + b"\x00\xdc" + b"b\0") == ("a\N{REPLACEMENT CHARACTER}b".encode(), None)


# The operating system's errors


class Failing(io.RawIOBase):
    """Gives its bytes in small reads, then an I/O error, as a broken disk or network file system does."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        data = self._data.read(min(size, 700))
        if not data:
            raise OSError(5, "Input/output error")
        return data


@pytest.mark.parametrize("name", ["plain", *COMPRESS])
def test_an_io_error_comes_after_what_could_be_read(name: str) -> None:
    data = LINES if name == "plain" else packed_lines(name)
    whole, _ = opened(data[:5000])
    delivered, error = contents(open_bytes(Failing(data[:5000])))  # type: ignore[arg-type]
    assert delivered == whole
    assert error_code(error) == "unreadable"
    assert "Input/output error" in str(error)


def test_an_io_error_at_once_is_told_when_it_is_read() -> None:
    delivered, error = contents(open_bytes(Failing(b"")))  # type: ignore[arg-type]
    assert delivered == b""
    assert error_code(error) == "unreadable"
