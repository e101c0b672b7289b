"""Logs in tar archives: every member told, whatever it is called, wherever the archive ends."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdnsctl.logs.sources.archives import EXTENDED_LIMIT, Links
from kdnsctl.logs.sources.walking import LogStream, Unreadable, walk
from tests.unit.logs.sources.reading import Log, problems, read_log, read_walk, texts

POD = "kube-system_kube-proxy-x7k2p_0f3a/kube-proxy"
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
formats = pytest.mark.parametrize("format_", FORMATS.values(), ids=FORMATS)


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    target: str = ""
    mtime: float = 0


def entry(member: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.name)
    info.size = len(member.data)
    info.type = member.type
    info.linkname = member.target
    info.mtime = member.mtime
    return info


def tar(entries: Iterable[Entry], format_: int = tarfile.PAX_FORMAT) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=format_, encoding="utf-8", errors="surrogateescape") as writer:
        for member in entries:
            writer.addfile(entry(member), io.BytesIO(member.data))
    return archive.getvalue()


def header(member: Entry) -> bytes:
    return entry(member).tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")


END = bytes(1024)


def read(archive: bytes) -> list[Log | Unreadable]:
    """What comes of an archive that is piped in; its members are named `<stdin>!MEMBER`."""
    return read_walk("-", stdin=io.BytesIO(archive))


def names(items: Iterable[Log | Unreadable]) -> list[str]:
    return [item.name.removeprefix("<stdin>!") for item in items]


# What is found, and how it is named


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gzip", "bzip2", "xz"]
)
@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tbz2", ".tar.zst", ""])
def test_an_archive_of_any_compression_gives_its_members(
    tmp_path: Path, compress: Callable[[bytes], bytes], suffix: str
) -> None:
    members = [
        Entry("var/log/pods", type=tarfile.DIRTYPE),
        Entry(f"var/log/pods/{POD}/0.log.20240606-164946.gz", gzip.compress(b"old\n"), mtime=1717692586),
        Entry(f"var/log/pods/{POD}/0.log", b"new\n"),
    ]
    archive = tmp_path / f"node7{suffix}"
    archive.write_bytes(compress(tar(members)))
    assert read_walk(archive) == [
        Log(
            name=f"{archive}!var/log/pods/{POD}/0.log.20240606-164946.gz",
            path=f"{tmp_path}/node7/var/log/pods/{POD}/0.log.20240606-164946",
            modified=datetime(2024, 6, 6, 16, 49, 46, tzinfo=UTC),
            explicit=False,
            text=b"old\n",
        ),
        Log(f"{archive}!var/log/pods/{POD}/0.log", f"{tmp_path}/node7/var/log/pods/{POD}/0.log", None, False, b"new\n"),
    ]


@settings(deadline=None)
@given(
    members=st.dictionaries(
        st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=300), st.binary(max_size=2000), min_size=1
    ),
    format_=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_members_of_any_size_and_name(members: dict[str, bytes], format_: int) -> None:
    # The text stands first so that what follows in it cannot be taken for another format.
    archive = tar([Entry(f"d/{name}", b"x" + data) for name, data in members.items()], format_)
    assert [item.text for item in read(archive) if isinstance(item, Log)] == [b"x" + data for data in members.values()]
    assert [item.path for item in read(archive)] == [f"d/{name}" for name in members]


@formats
def test_long_names(format_: int) -> None:
    longest = {tarfile.USTAR_FORMAT: 190}.get(format_, 64 * 1024)
    name = "d" * (longest // 2) + "/" + "n" * (longest // 2 - 1)
    (log,) = read(tar([Entry(name, b"text")], format_))
    assert isinstance(log, Log)
    assert log.text == b"text"
    assert len(log.name) < 500
    assert log.path == name[-4096:]


def test_old_tar_without_a_magic_number() -> None:
    old = bytearray(header(Entry("x.log", b"text")))
    old[257:265] = bytes(8)
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    assert texts(read(bytes(old) + b"text".ljust(512, b"\0") + END)) == {"<stdin>!x.log": b"text"}


def test_archives_joined_with_cat_are_all_read() -> None:
    archive = tar([Entry("a.log", b"a")]) + tar([Entry("b.log", b"b")]) + bytes(50 * 512) + tar([Entry("c.log", b"c")])
    assert list(texts(read(archive)).values()) == [b"a", b"b", b"c"]


def test_an_archive_in_an_archive_is_read_and_no_deeper() -> None:
    inner = gzip.compress(tar([Entry("var/log/kube-proxy.log", b"inner\n")]))
    middle = lzma.compress(tar([Entry("node7.tar.gz", inner), Entry("beside.log", b"beside\n")]))
    assert texts(read(tar([Entry("node7.tgz", inner)]))) == {"<stdin>!node7.tgz!var/log/kube-proxy.log": b"inner\n"}
    assert [item.path for item in read(tar([Entry("node7.tgz", inner)]))] == ["node7/var/log/kube-proxy.log"]

    refused, beside = read(tar([Entry("all.tar.xz", middle)]))
    assert isinstance(refused, Unreadable)
    assert (refused.name, refused.code) == ("<stdin>!all.tar.xz!node7.tar.gz", "unsupported")
    assert "unpack the outer one" in refused.message
    assert isinstance(beside, Log)
    assert beside.text == b"beside\n"


def test_members_in_a_format_that_is_not_read(tmp_path: Path) -> None:
    archive = tar([Entry("bundle.zip", b"PK\x03\x04..."), Entry("x.log", b"x")])
    assert problems(read(archive)) == {"<stdin>!bundle.zip": "unsupported"}
    assert list(tmp_path.iterdir()) == []


def test_an_archive_without_files_is_told() -> None:
    (item,) = read(tar([Entry("logs", type=tarfile.DIRTYPE)]))
    assert isinstance(item, Unreadable)
    assert (item.name, item.message) == ("<stdin>", "an archive without files")


@pytest.mark.parametrize("mtime", [0, -(10**13), 10**13, 10**400, "nan", "inf", "yesterday"])
def test_times_that_cannot_be(mtime: float | str) -> None:
    archive = (
        header(Entry("pax", type=tarfile.XHDTYPE, data=bytes(40))) + f"40 mtime={mtime}".ljust(39).encode() + b"\n"
    )
    archive = archive.ljust(1024, b"\0") + header(Entry("x.log", b"x")) + b"x".ljust(512, b"\0") + END
    (log,) = read(archive)
    assert isinstance(log, Log)
    assert log.text == b"x"
    assert log.modified is None


def test_what_a_global_pax_header_says_holds_for_all() -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", pax_headers={"mtime": "1717692586.5", "comment": "x"}) as writer:
        for name in ("a.log", "b.log"):
            writer.addfile(tarfile.TarInfo(name))
    assert {item.modified for item in read(archive.getvalue()) if isinstance(item, Log)} == {
        datetime(2024, 6, 6, 16, 49, 46, 500_000, tzinfo=UTC)
    }


# Hostile names


HOSTILE = [
    "../../../etc/cron.d/x",
    "/etc/passwd",
    "a\nb\r\n.log",
    "\x1b]0;title\x07\x1b[2J.log",
    "[red]x[/red].log",
    "\u202egol.exe",
    "-rf",
    "a\x7f\x9bb",
    os.fsdecode(b"\xff\xfe"),
    "C:\\x.log",
    "x!y.log",
]


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_hostile_names_are_only_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: int) -> None:
    monkeypatch.chdir(tmp_path)
    found = read(tar([Entry(name, b"text") for name in HOSTILE], format_))
    assert set(texts(found).values()) == {b"text"}
    assert names(found)[:5] == [
        "../../../etc/cron.d/x",
        "/etc/passwd",
        "a\\nb\\r\\n.log",
        "\\x1b]0;title\\x07\\x1b[2J.log",
        "[red]x[/red].log",
    ]
    for item in found:
        assert item.name.isprintable()
        assert item.path.isprintable()
        assert ".." not in item.path.split("/")
        assert not item.path.startswith("/")
    assert list(tmp_path.iterdir()) == []


# What is no regular file


def test_a_link_to_a_member_adds_nothing() -> None:
    archive = [
        Entry("var/log/containers/absolute.log", type=tarfile.SYMTYPE, target=f"/var/log/pods/{POD}/0.log"),
        Entry("var/log/containers/relative.log", type=tarfile.SYMTYPE, target=f"../pods/{POD}/0.log"),
        Entry("./current", type=tarfile.SYMTYPE, target="var/log"),
        Entry(f"var/log/pods/{POD}/0.log", b"new\n"),
        Entry("hard.log", type=tarfile.LNKTYPE, target=f"var/log/pods/{POD}/0.log"),
    ]
    expected = {f"<stdin>!var/log/pods/{POD}/0.log": b"new\n"}
    assert texts(read(tar(archive))) == expected
    in_a_bundle = [
        Entry(f"node7/{member.name}", member.data, member.type, member.target)
        for member in archive
        if member.type != tarfile.LNKTYPE
    ]
    assert texts(read(tar(in_a_bundle))) == {f"<stdin>!node7/var/log/pods/{POD}/0.log": b"new\n"}


def test_a_link_to_nothing_in_the_archive_is_told_and_never_followed() -> None:
    archive = [
        Entry("passwd", type=tarfile.SYMTYPE, target="/etc/passwd"),
        Entry("up", type=tarfile.SYMTYPE, target="../../../../etc/hostname"),
        Entry("hard", type=tarfile.LNKTYPE, target="/etc/passwd"),
        Entry("itself", type=tarfile.SYMTYPE, target="itself"),
        Entry("deep/" * 50 + "x", type=tarfile.SYMTYPE, target="/nowhere"),
        Entry("x.log", b"x"),
    ]
    found = read(tar(archive))
    assert [item.text for item in found if isinstance(item, Log)] == [b"x"]
    assert set(problems(found).values()) == {"danglingLink"}
    assert sorted(names(found)) == sorted(member.name for member in archive)


def test_only_links_to_nothing() -> None:
    found = read(tar([Entry("x", type=tarfile.SYMTYPE, target="y")]))
    assert problems(found) == {"<stdin>!x": "danglingLink"}


def test_links_are_not_followed_up_when_that_would_take_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Links, "MEMORY", 4000)
    archive = [Entry(f"link{n}", type=tarfile.SYMTYPE, target=f"/log{n}") for n in range(50)]
    archive += [Entry(f"log{n}", b"x") for n in range(50)]
    found = read(tar(archive))
    assert sum(isinstance(item, Log) for item in found) == 50
    assert problems(found) == {"<stdin>": "tooLarge"}


def test_devices_and_pipes_are_told() -> None:
    kinds = {"fifo": tarfile.FIFOTYPE, "zero": tarfile.CHRTYPE, "sda": tarfile.BLKTYPE}
    found = read(tar([*(Entry(name, type=kind) for name, kind in kinds.items()), Entry("x.log", b"x")]))
    assert problems(found) == dict.fromkeys([f"<stdin>!{name}" for name in kinds], "notAFile")
    assert [item.text for item in found if isinstance(item, Log)] == [b"x"]


def test_a_type_that_nobody_knows_is_told_and_its_content_skipped() -> None:
    archive = header(Entry("odd", b"?" * 700, type=b"Q")) + bytes(1024) + header(Entry("x.log", b"x")) + b"x".ljust(512)
    found = read(archive + END)
    assert problems(found) == {"<stdin>!odd": "unsupported"}
    assert [item.text for item in found if isinstance(item, Log)] == [b"x"]


def sparse_gnu() -> bytes:
    """GNU's sparse member with a map that goes on in two more blocks (tar(5): isextended at 482, then at 504)."""
    first = bytearray(header(Entry("sparse.log", b"data", type=tarfile.GNUTYPE_SPARSE)))
    first[257:265] = b"ustar  \0"
    first[345:] = bytes(512 - 345)  # the places of ustar's prefix hold the map
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = b"%06o\0 " % sum(first)
    return bytes(first) + bytes(504) + b"\1" + bytes(7) + bytes(512) + b"data".ljust(512, b"\0")


def sparse_pax() -> bytes:
    record = b"26 GNU.sparse.major=1\n".replace(b"26", b"22")
    pax = header(Entry("pax", record, type=tarfile.XHDTYPE)) + record.ljust(512, b"\0")
    return pax + header(Entry("sparse.log", b"data")) + b"data".ljust(512, b"\0")


@pytest.mark.parametrize("sparse", [sparse_gnu(), sparse_pax()], ids=["gnu", "pax"])
def test_sparse_members_are_told_and_skipped(sparse: bytes) -> None:
    found = read(sparse + tar([Entry("x.log", b"x")]))
    assert problems(found) == {"<stdin>!sparse.log": "unsupported"}
    assert [item.text for item in found if isinstance(item, Log)] == [b"x"]


def test_a_volume_label_is_nothing_to_read() -> None:
    assert texts(read(header(Entry("label", type=b"V")) + tar([Entry("x.log", b"x")]))) == {"<stdin>!x.log": b"x"}


# Cut off and damaged


MEMBERS = [
    Entry("a.log", b"a" * 700),
    Entry("d", type=tarfile.DIRTYPE),
    Entry("n" * 200, b"long name"),
    Entry("b.log.gz", gzip.compress(b"b" * 900)),
]


@formats
def test_a_cut_anywhere_gives_what_came_before_and_tells_the_cut(format_: int) -> None:
    whole = tar([member for member in MEMBERS if format_ != tarfile.USTAR_FORMAT or len(member.name) < 100], format_)
    expected = read(whole)
    end = whole.rstrip(b"\0")
    end_of_members = -(-len(end) // 512) * 512
    for length in range(512, end_of_members + 512, 37):
        found = read(whole[:length])
        assert problems(found[-1:]) == {"<stdin>": "cutOff"}
        assert isinstance(found[-1], Unreadable)
        assert "members from there on are missing" in found[-1].message
        logs = found[:-1]
        assert names(logs) == names(expected)[: len(logs)]
        for got, want in zip(logs, expected, strict=False):
            assert isinstance(got, Log)
            assert isinstance(want, Log)
            assert want.text.startswith(got.text)
            assert got.text == want.text or got.code == "cutOff"
        assert all(not item.code for item in logs[:-1])
    assert texts(read(whole[: end_of_members + 512])) == texts(expected), "one block of zeros is an end"


def test_a_member_that_is_cut_off_delivers_its_beginning() -> None:
    log, told = read(tar([Entry("x.log", b"0123456789" * 100)])[: 512 + 600])
    assert isinstance(log, Log)
    assert log.text == (b"0123456789" * 100)[:600]
    assert log.code == "cutOff"
    assert "400 bytes before the end of a member" in log.message
    assert told.code == "cutOff"


@settings(deadline=None)
@given(at=st.floats(0.05, 0.98))
def test_a_compressed_archive_cut_anywhere_tells_the_cut(at: float) -> None:
    logs = {f"{n}.log": b"".join(b"%d %d\n" % (n, n * line * line) for line in range(200)) for n in range(9)}
    whole = gzip.compress(tar([Entry(name, text) for name, text in logs.items()]))
    found = read(whole[: int(at * len(whole))])
    assert problems(found[-1:]) == {"<stdin>": "cutOff"}
    for item in found[:-1]:
        assert isinstance(item, Log)
        assert logs[item.name.removeprefix("<stdin>!")].startswith(item.text)
    assert all(not item.code for item in found[:-2])


def test_damage_behind_the_last_member_is_told() -> None:
    whole = bytearray(gzip.compress(tar([Entry("x.log", b"x" * 999)])))
    whole[-8] ^= 1  # the check sum
    log, told = read(bytes(whole))
    assert isinstance(log, Log)
    assert (log.text, log.code) == (b"x" * 999, "")
    assert (told.name, told.code) == ("<stdin>", "damaged")


@pytest.mark.parametrize("rubbish", [b"no header" * 60, b"\x80" * 512, b"ustar" * 110])
def test_something_else_than_a_header_is_damage(rubbish: bytes) -> None:
    log, told = read(tar([Entry("x.log", b"x")])[:1024] + rubbish + END)
    assert isinstance(log, Log)
    assert log.text == b"x"
    assert (told.name, told.code) == ("<stdin>", "damaged")
    assert isinstance(told, Unreadable)
    assert "at byte 1024" in told.message


def with_check_sum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def test_sizes_that_cannot_be() -> None:
    negative = bytearray(header(Entry("x.log")))
    negative[124:136] = b"\xff" * 12  # base-256, as GNU tar writes what does not fit into octal digits
    huge = bytearray(header(Entry("x.log")))
    huge[124:136] = b"\x80\x7f" + b"\xff" * 10
    log = tar([Entry("a.log", b"a")])[:1024]
    assert problems(read(log + with_check_sum(negative) + END)) == {"<stdin>": "damaged"}
    assert problems(read(log + with_check_sum(huge) + b"rest")) == {"<stdin>!x.log": "cutOff", "<stdin>": "cutOff"}


def test_a_sparse_map_that_cannot_be_or_ends_early() -> None:
    broken = bytearray(sparse_gnu()[:512])
    broken[386:398] = b"not a number"
    log = tar([Entry("a.log", b"a")])[:1024]
    assert problems(read(log + with_check_sum(broken) + sparse_gnu()[512:] + END)) == {"<stdin>": "damaged"}
    assert problems(read(log + sparse_gnu()[:1000])) == {"<stdin>": "cutOff"}


@settings(deadline=None)
@given(at=st.integers(0, 4000), flip=st.integers(1, 255))
def test_no_damaged_byte_ends_in_anything_but_an_answer(at: int, flip: int) -> None:
    whole = bytearray(tar(MEMBERS))
    whole[at % len(whole)] ^= flip
    for item in read(bytes(whole)):
        assert item.name.isprintable()


@pytest.mark.parametrize(
    "record",
    [b"", b"x", b"99999999", b"9 path=y", b"0 path=y\n", b"12 path=y\n", b"8 path y\n", b"-9 path=y\n", b"\xff\n" * 9],
)
def test_a_malformed_pax_header_says_nothing(record: bytes) -> None:
    pax = header(Entry("pax", record, type=tarfile.XHDTYPE)) + record.ljust(512 if record else 0, b"\0")
    assert list(texts(read(pax + tar([Entry("x.log", b"x")])))) == ["<stdin>!x.log"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_extended_headers_of_any_length_cost_no_memory(kind: bytes) -> None:
    size = 8 * EXTENDED_LIMIT
    archive = header(Entry("x.log", bytes(size), type=kind)) + b"n" * size + tar([Entry("x.log", b"x")])
    raw = io.BytesIO(archive)
    del archive
    tracemalloc.start()
    try:
        found = read_walk("-", stdin=raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert texts(found) == {"<stdin>!x.log": b"x"}
    assert peak < 4 * EXTENDED_LIMIT


# Taking turns


def test_members_that_nobody_opens_are_skipped() -> None:
    archive = tar([Entry(f"{n}.log", b"%d" % n * 3000) for n in range(5)])
    opened = []
    for item in walk(["-"], io.BytesIO(archive)):
        assert isinstance(item, LogStream)
        if item.path in ("1.log", "3.log"):
            with item.open() as source:
                opened.append(source.read(10))
    assert opened == [b"1" * 10, b"3" * 10]


def test_a_member_is_over_when_the_next_one_is_asked_for() -> None:
    streams = walk(["-"], io.BytesIO(tar([Entry("a.log", b"a" * 9000), Entry("b.log", b"b")])))
    first = next(streams)
    assert isinstance(first, LogStream)
    assert first.size is None
    with first.open() as source:
        assert source.read(4) == b"aaaa"
        second = next(streams)
        assert isinstance(second, LogStream)
        assert read_log(second).text == b"b"
        assert set(source.read(9000)) <= {ord("a")}, "bytes of another member"
        assert source.read(9000) == b""
    with pytest.raises(RuntimeError), first.open():
        pytest.fail("opened after its turn")


def test_an_archive_on_disk_can_be_walked_again(tmp_path: Path) -> None:
    (tmp_path / "node7.tar").write_bytes(tar([Entry("a.log", b"a")]))
    assert read_walk(tmp_path) == read_walk(tmp_path)
    assert texts(read_walk(tmp_path)) == {f"{tmp_path}/node7.tar!a.log": b"a"}
