"""What PATHs on the command line become: which logs, in what order, by what names; and what is said of the rest."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import pickle  # noqa: TID251  # as multiprocessing does, of our own objects
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.logs.sources import walking
from kdnsctl.logs.sources.opening import Code, SourceError
from kdnsctl.logs.sources.trees import order_key
from kdnsctl.logs.sources.walking import LogStream, Unreadable, walk
from kdnsctl.model import UsageError
from tests.unit.logs.sources.reading import Log, link, problems, read_log, read_walk, texts, write

PODS = "var/log/pods/kube-system_kube-proxy-x7k2p_0f3a/kube-proxy"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty directory of its own, so that names can be written out."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is found, and how it is named


def test_a_file_that_is_named_itself(here: Path) -> None:
    write(here, {"node7/kube-proxy.log": b"one\n"})
    os.utime("node7/kube-proxy.log", (1717692586, 1717692586))
    assert read_walk("node7/kube-proxy.log") == [
        Log(
            name="node7/kube-proxy.log",
            path="node7/kube-proxy.log",
            modified=datetime(2024, 6, 6, 16, 49, 46, tzinfo=UTC),
            explicit=True,
            text=b"one\n",
        )
    ]


def test_a_directory_stands_for_every_file_in_it_at_any_depth(here: Path) -> None:
    write(here, {"logs/a.log": b"a", "logs/b/c/d.log": b"d", "logs/b/.hidden": b"h", "elsewhere.log": b"e"})
    found = read_walk("logs")
    assert texts(found) == {"logs/a.log": b"a", "logs/b/.hidden": b"h", "logs/b/c/d.log": b"d"}
    assert not any(item.explicit for item in found)


@pytest.fixture
def deep() -> Iterator[str]:
    """The path of a file deeper than Python can recurse, which pytest could not remove again."""
    directories = ["/".join(["d"] * depth) for depth in range(1, 1500)]
    for directory in directories:
        Path(directory).mkdir()
    file = Path(directories[-1], "x.log")
    file.write_bytes(b"x")
    yield str(file)
    file.unlink()
    for directory in reversed(directories):
        Path(directory).rmdir()


def test_depth_has_no_limit_but_the_system_s(deep: str) -> None:
    (log,) = read_walk("d")
    assert isinstance(log, Log)
    assert (log.path, log.text) == (deep, b"x")
    assert len(log.name) < 500
    assert [item.path for item in read_walk("**/x.log")] == [deep]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/kube-proxy.log", ["node1/kube-proxy.log", "node2/kube-proxy.log"]),
        ("node[12]/kube-proxy.log", ["node1/kube-proxy.log", "node2/kube-proxy.log"]),
        ("node?/*.log", ["node1/kube-proxy.log", "node2/kube-proxy.log", "node2/other.log"]),
        (
            "**/*.log",
            ["node1/deep/er/x.log", "node1/kube-proxy.log", "node2/kube-proxy.log", "node2/other.log", "y.log"],
        ),
        ("node1/**", ["node1/deep/er/x.log", "node1/kube-proxy.log"]),
        ("node1/**/er/*", ["node1/deep/er/x.log"]),
        ("**/er", ["node1/deep/er/x.log"]),
        ("**/**/x.log", ["node1/deep/er/x.log"]),
        ("./n*1/deep/e?/../er/x.log", ["./node1/deep/er/../er/x.log"]),
        (".h*/*", [".hidden/z.log"]),
    ],
)
def test_globs(here: Path, pattern: str, expected: list[str]) -> None:
    names = ["node1/deep/er/x.log", "node1/kube-proxy.log", "node2/kube-proxy.log", "node2/other.log", "y.log"]
    write(here, dict.fromkeys([*names, ".hidden/z.log"], b"x"))
    found = read_walk(pattern)
    assert list(texts(found)) == expected
    assert not any(item.explicit for item in found)


def test_an_absolute_glob(here: Path) -> None:
    write(here, {"node1/x.log": b"1", "node2/x.log": b"2"})
    assert texts(read_walk(here / "node*" / "x.log")) == {f"{here}/node1/x.log": b"1", f"{here}/node2/x.log": b"2"}


def test_a_file_whose_name_looks_like_a_glob_is_that_file(here: Path) -> None:
    write(here, {"kube-proxy[1].log": b"itself", "kube-proxy1.log": b"not meant"})
    assert texts(read_walk("kube-proxy[1].log")) == {"kube-proxy[1].log": b"itself"}


def test_compression_is_told_by_content_and_its_suffix_is_no_part_of_the_path(here: Path) -> None:
    text = b"text\n" * 99
    write(
        here,
        {
            "logs/0.log.20240606-164946.gz": gzip.compress(text),
            "logs/1.log.xz": lzma.compress(text),
            "logs/2.log": bz2.compress(text),
            "logs/3.log.gz": text,
        },
    )
    found = read_walk("logs")
    assert set(texts(found).values()) == {text}
    assert [item.path for item in found] == ["logs/0.log.20240606-164946", "logs/1.log", "logs/2.log", "logs/3.log"]


@pytest.mark.parametrize(
    ("given_path", "path"), [("./node7//x.log", "node7/x.log"), ("node7/../node7/x.log", "node7/../node7/x.log")]
)
def test_the_path_for_naming_rules_has_no_empty_steps(here: Path, given_path: str, path: str) -> None:
    write(here, {"node7/x.log": b"x"})
    assert [item.path for item in read_walk(given_path)] == [path]
    assert [item.path for item in read_walk(here / given_path)] == [f"{here}/{path}"]


def test_names_are_safe_to_show_and_stay_openable(here: Path) -> None:
    names = ["a\nb.log", "\x1b[31mred.log", "[bold]markup[/].log", "\u202egol.log", os.fsdecode(b"\xff.log")]
    write(here, {f"logs/{name}": b"text" for name in names})
    found = read_walk("logs")
    assert set(texts(found)) == {
        "logs/a\\nb.log",
        "logs/\\x1b[31mred.log",
        "logs/[bold]markup[/].log",
        "logs/\\u202egol.log",
        "logs/\\xff.log",
    }
    assert all(item.name.isprintable() and item.path.isprintable() for item in found)


# Order


def test_numbers_in_names_are_sorted_by_value(here: Path) -> None:
    names = ["node2/1.log", "node2/9.log", "node2/10.log", "node10/0.log", "node10/00.log", f"x{'9' * 240}"]
    write(here, {f"logs/{name}": b"" for name in reversed(names)})
    assert list(texts(read_walk("logs"))) == [f"logs/{name}" for name in names]


@pytest.mark.parametrize(
    "names",
    [
        [
            "0.log.20240606-164946.gz",
            "0.log.20240606-170000",
            "0.log.20250101-000000.gz",
            "0.log",
            "1.log.20240606-180000",
            "1.log",
        ],
        ["kube-proxy.log.10.gz", "kube-proxy.log.2.gz", "kube-proxy.log.1", "kube-proxy.log", "syslog"],
        ["kube-proxy.log-20240605.gz", "kube-proxy.log-20240606", "kube-proxy.log"],
        ["ip-10-0-0-1.2", "ip-10-0-0-1.10"],
    ],
    ids=["kubelet", "logrotate", "logrotate with dates", "not rotated"],
)
def test_rotated_files_come_oldest_first_and_before_the_current_one(here: Path, names: list[str]) -> None:
    write(here, {f"logs/{name}": b"" for name in names})
    assert [item.name for item in read_walk("logs")] == [f"logs/{name}" for name in names]
    assert [item.name for item in read_walk(*(f"logs/{name}" for name in reversed(names)))] == [
        f"logs/{n}" for n in names
    ]
    assert [item.name for item in read_walk("logs/*")] == [f"logs/{name}" for name in names]


@given(st.lists(st.text(st.sampled_from("0123456789.-log/\x00é")), max_size=6))
def test_any_two_paths_can_be_ordered(paths: list[str]) -> None:
    assert sorted(sorted(paths, reverse=True), key=order_key) == sorted(sorted(paths), key=order_key)


# Each file once


def test_pods_and_containers_trees_give_each_file_once_and_by_its_own_name(here: Path) -> None:
    write(here, {f"{PODS}/0.log.20240606-164946.gz": gzip.compress(b"old\n"), f"{PODS}/0.log": b"new\n"})
    link(here / "var/log/containers/kube-proxy-x7k2p_kube-system_kube-proxy-ab12.log", f"../../../{PODS}/0.log")
    expected = {f"{PODS}/0.log.20240606-164946.gz": b"old\n", f"{PODS}/0.log": b"new\n"}
    assert list(texts(read_walk("var/log")).items()) == list(expected.items())
    assert texts(read_walk("var/log/containers", "var/log/pods")) == expected


def test_the_containers_tree_alone_is_followed_to_the_files(here: Path) -> None:
    write(here, {f"{PODS}/0.log": b"new\n"})
    link(here / "var/log/containers/kube-proxy-x_kube-system_kube-proxy-ab12.log", here / PODS / "0.log")
    link(here / "var/log/containers/the-same-again.log", here / PODS / "0.log")
    found = read_walk("var/log/containers")
    assert texts(found) == {"var/log/containers/kube-proxy-x_kube-system_kube-proxy-ab12.log": b"new\n"}
    assert found[0].path == "var/log/containers/kube-proxy-x_kube-system_kube-proxy-ab12.log"


def test_a_copy_of_var_log_whose_links_are_absolute(here: Path) -> None:
    write(here, {f"node7/{PODS}/0.log": b"new\n"})
    link(here / "node7/var/log/containers/x.log", f"/{PODS}/0.log")  # of the node it was copied from
    expected = {f"node7/{PODS}/0.log": b"new\n"}
    assert texts(read_walk("node7")) == texts(read_walk("node7/var/log")) == expected
    assert problems(read_walk("node7/var/log/containers")) == {"node7/var/log/containers/x.log": "danglingLink"}


def test_a_file_named_twice_hard_linked_or_reached_by_several_paths_counts_once(here: Path) -> None:
    write(here, {"logs/a.log": b"a"})
    os.link("logs/a.log", "logs/b.log")
    link(here / "c.log", "logs/a.log")
    found = read_walk("logs/b.log", "logs/b.log", "logs", "logs/", "*/a.log", "c.log", here / "logs")
    assert list(texts(found).values()) == [b"a"]


def test_a_file_that_was_named_and_also_found_was_named(here: Path) -> None:
    write(here, {"logs/a.log": b"a", "logs/b.log": b"b"})
    assert [(item.name, item.explicit) for item in read_walk("logs", "logs/b.log")] == [
        ("logs/a.log", False),
        ("logs/b.log", True),
    ]


def test_links_that_lead_round_in_circles_end(here: Path) -> None:
    write(here, {"logs/a/x.log": b"x"})
    link(here / "logs/a/up", "..")
    link(here / "logs/a/down", "../a")
    link(here / "logs/self", "self")
    for path in ("logs", "logs/**", "logs/**/x.log", "logs/*"):
        read = [item.name for item in read_walk(path) if isinstance(item, Log)]
        assert len(read) == 1, path
        assert read[0].endswith("/x.log")
    assert problems(read_walk("logs")) == {"logs/self": "unreadable"}


def test_a_link_out_of_the_directory_is_followed_to_a_file_only(here: Path) -> None:
    write(here, {"outside/x.log": b"x", "outside/y.log": b"y"})
    link(here / "logs/file.log", "../outside/x.log")
    link(here / "logs/again.log", "file.log")
    link(here / "logs/directory", "../outside")
    link(here / "logs/device", "/dev/zero")
    found = read_walk("logs")
    assert [item.text for item in found if isinstance(item, Log)] == [b"x"]
    assert problems(found) == {"logs/device": "notAFile", "logs/directory": "notAFile"}


def test_a_directory_that_is_a_link_can_be_named(here: Path) -> None:
    write(here, {"real/x.log": b"x"})
    link(here / "alias", "real")
    assert texts(read_walk("alias")) == {"alias/x.log": b"x"}


# What cannot be read


def test_pipes_sockets_and_devices_in_a_directory_are_not_opened(here: Path) -> None:
    write(here, {"logs/x.log": b"x"})
    os.mkfifo("logs/fifo")  # opening it would wait for a writer for ever
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("logs/socket")
        for path in ("logs", "logs/*", "**/*"):
            found = read_walk(path)
            assert problems(found) == {"logs/fifo": "notAFile", "logs/socket": "notAFile"}
            assert [item.text for item in found if isinstance(item, Log)] == [b"x"]
        assert read_walk("logs/socket") == [
            Unreadable("logs/socket", "logs/socket", "notAFile", "neither a file nor a directory: not opened", True)
        ]


@pytest.mark.parametrize("path", ["logs", "logs/*", "logs/**/*"])
def test_dangling_links_are_told_and_the_rest_is_read(here: Path, path: str) -> None:
    write(here, {"logs/x.log": b"x"})
    link(here / "logs/gone.log", "nowhere/0.log")
    found = read_walk(path)
    assert problems(found) == {"logs/gone.log": "danglingLink"}
    assert [item.text for item in found if isinstance(item, Log)] == [b"x"]


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Make the files and directories of these names unreadable, for root too: by what opens and lists them."""
    opener, scandir = walking._opener, os.scandir

    def open_or_refuse(path: str, flags: int) -> int:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied")
        return opener(path, flags)

    def list_or_refuse(path: str) -> "os._ScandirIterator[str]":
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(walking, "_opener", open_or_refuse)
    monkeypatch.setattr(os, "scandir", list_or_refuse)


@pytest.mark.parametrize("path", ["logs", "logs/**/*.log"])
def test_what_is_forbidden_is_told_once_each_and_the_rest_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    write(here, {"logs/a.log": b"a", "logs/secret.log": b"s", "logs/closed/x.log": b"x", "logs/z.log": b"z"})
    forbid(monkeypatch, "secret.log", "closed")
    found = read_walk(path, "logs/")
    assert problems(found) == {"logs/secret.log": "unreadable", "logs/closed": "unreadable"}
    assert len([item for item in found if isinstance(item, Unreadable)]) == 2
    assert {item.message for item in found if isinstance(item, Unreadable)} == {"cannot be read: Permission denied"}
    assert [item.text for item in found if isinstance(item, Log)] == [b"a", b"z"]


def test_an_unreadable_file_and_directory_that_were_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, {"secret.log": b"s", "closed/x.log": b"x"})
    forbid(monkeypatch, "secret.log", "closed")
    assert [(item.name, item.code, item.explicit) for item in read_walk("secret.log", "closed")] == [
        ("closed", "unreadable", True),
        ("secret.log", "unreadable", True),
    ]


def test_a_path_that_leads_nowhere_but_is_not_missing(here: Path) -> None:
    link(here / "loop.log", "loop.log")
    link(here / "logs" / "round", "round")
    for paths in (["loop.log"], ["logs/*"], ["x" * 5000]):
        (item,) = read_walk(*paths)
        assert item.code == "unreadable"


def test_a_file_that_vanishes_between_the_walk_and_its_opening(here: Path) -> None:
    write(here, {"logs/a.log": b"a", "logs/b.log": b"b"})
    streams = [item for item in walk(["logs"], None) if isinstance(item, LogStream)]
    Path("logs/a.log").unlink()
    Path("logs/b.log").unlink()
    Path("logs/b.log").mkdir()
    for stream in streams:
        with pytest.raises(SourceError, match="cannot be read") as error, stream.open():
            pytest.fail("opened")
        assert error.value.code == Code.UNREADABLE


def test_a_file_that_becomes_a_pipe_is_not_waited_for(here: Path) -> None:
    write(here, {"logs/a.log": b"a"})
    (stream,) = walk(["logs"], None)
    assert isinstance(stream, LogStream)
    Path("logs/a.log").unlink()
    os.mkfifo("logs/a.log")
    assert (read_log(stream).code, read_log(stream).message) == ("unreadable", "is no longer a regular file")


def test_a_file_that_vanishes_while_its_directory_is_walked(here: Path) -> None:
    write(here, {"logs/a.log": b"a", "logs/b.log": b"b", "logs/c/d.log": b"d"})
    found = walk(["logs"], None)
    next(found)
    Path("logs/b.log").unlink()
    Path("logs/c/d.log").unlink()
    Path("logs/c").rmdir()
    assert [(item.name, item.code) for item in found if isinstance(item, Unreadable)] == [
        ("logs/b.log", "unreadable"),
        ("logs/c", "unreadable"),
    ]


def test_a_disk_that_fails_at_the_first_byte(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here, {"logs/a.log": b"a"})

    class Failing(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            raise OSError(5, f"Input/output error in {size} bytes")

    monkeypatch.setattr(walking, "_regular_file", lambda _path: Failing())
    assert problems(read_walk("logs/a.log")) == {"logs/a.log": "unreadable"}


@pytest.mark.parametrize(
    ("beginning", "word"),
    [
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"Rar!\x1a\x07\x01\x00", "rar"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"LPKSHHRH", "journalctl"),
    ],
)
def test_formats_that_are_not_read_are_told_with_what_to_do(here: Path, beginning: bytes, word: str) -> None:
    write(here, {"logs/bundle": beginning + b"and so on", "logs/x.log": b"x"})
    refused, log = read_walk("logs")
    assert isinstance(refused, Unreadable)
    assert refused.code == "unsupported"
    assert word in refused.message
    assert isinstance(log, Log)
    assert log.text == b"x"


def test_a_cut_off_file_gives_what_it_has(here: Path) -> None:
    text = b"a line that repeats\n" * 9999
    write(here, {"logs/0.log.gz": gzip.compress(text)[:-30], "logs/1.log": b"x"})
    cut, whole = read_walk("logs")
    assert isinstance(cut, Log)
    assert cut.code == "cutOff"
    assert len(cut.text) > 1000
    assert text.startswith(cut.text)
    assert isinstance(whole, Log)
    assert whole.text == b"x"


# What makes no sense is told before anything is read


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["missing.log"], "no such file or directory: 'missing.log'"),
        (["x.log/y"], "no such file or directory: 'x.log/y'"),
        ([""], "no such file or directory: ''"),
        (["gone.log"], "a link to something that does not exist: 'gone.log'"),
        (["*.txt"], "no files match '*.txt'"),
        (["empty/**"], "no files match 'empty/**'"),
        (["missing/**/x"], "no files match 'missing/**/x'"),
        (["empty"], "no files in 'empty'"),
        (["only-itself"], "no files in 'only-itself'"),
        (["-", "-"], "stdin ('-') is named twice; it can be read once"),
        (["bad\x1bname"], r"no such file or directory: 'bad\x1bname'"),
    ],
)
def test_usage_errors_come_at_once(here: Path, paths: list[str], message: str) -> None:
    write(here, {"x.log": b"x"})
    Path("empty/also/empty").mkdir(parents=True)
    link(here / "only-itself/up", ".")
    link(here / "gone.log", "nowhere")
    with pytest.raises(UsageError) as error:
        walk(["x.log", *paths], io.BytesIO(b"never read"))
    assert str(error.value) == message


def test_stdin_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="there is none"):
        walk(["-"], None)


def test_an_empty_directory_among_what_a_glob_matches_is_fine(here: Path) -> None:
    write(here, {"node1/x.log": b"x"})
    Path("node2").mkdir()
    assert texts(read_walk("node*")) == {"node1/x.log": b"x"}


@pytest.mark.usefixtures("here")
def test_a_directory_without_anything_readable_is_not_empty() -> None:
    Path("logs").mkdir()
    os.mkfifo("logs/fifo")
    assert problems(read_walk("logs")) == {"logs/fifo": "notAFile"}


# Stdin and pipes


def test_stdin(here: Path) -> None:
    write(here, {"x.log": b"x"})
    assert read_walk("-", "x.log", stdin=io.BytesIO(gzip.compress(b"piped\n")))[1:] == [
        Log("<stdin>", "", None, explicit=True, text=b"piped\n")
    ]


def test_empty_stdin_is_an_empty_log() -> None:
    assert read_walk("-", stdin=io.BytesIO()) == [Log("<stdin>", "", None, explicit=True, text=b"")]


def test_stdin_that_is_a_file_which_was_named_as_well_counts_once(here: Path) -> None:
    write(here, {"x.log": b"x"})
    with Path("x.log").open("rb") as stdin:
        assert texts(read_walk("-", "x.log", stdin=stdin)) == {"x.log": b"x"}


def test_stdin_that_another_process_left_non_blocking_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def write_slowly() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            pipe.writelines(b"a line\n" * 300 for _ in range(200))

    writer = threading.Thread(target=write_slowly)
    with os.fdopen(reading, "rb") as stdin:
        items = walk(["-"], stdin)
        writer.start()
        (log,) = map(read_log, (item for item in items if isinstance(item, LogStream)))
    writer.join()
    assert log.text == b"a line\n" * 300 * 200


@contextlib.contextmanager
def filled_pipe(data: bytes) -> Iterator[str]:
    """What the shell's <(command) gives: the path of a pipe. The data must fit into the pipe's buffer (64 KiB)."""
    reading, writing = os.pipe()
    try:
        os.write(writing, data)
        os.close(writing)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


def test_process_substitution_is_read_as_a_stream() -> None:
    with filled_pipe(b"first\n") as first, filled_pipe(gzip.compress(b"second\n")) as second:
        found = read_walk(second, first, second)
        assert found == [
            Log(second, "", None, explicit=True, text=b"second\n"),
            Log(first, "", None, explicit=True, text=b"first\n"),
        ]


def test_a_named_pipe_is_read_when_it_is_named(here: Path) -> None:
    os.mkfifo("node7.fifo")

    def write_to_fifo() -> None:
        Path("node7.fifo").write_bytes(b"through the pipe\n")

    writer = threading.Thread(target=write_to_fifo)
    writer.start()
    found = read_walk("node7.fifo")
    writer.join()
    assert found == [Log("node7.fifo", "node7.fifo", None, explicit=True, text=b"through the pipe\n")]
    assert here.joinpath("node7.fifo").is_fifo()


def test_a_named_pipe_that_vanishes_before_its_turn(here: Path) -> None:
    os.mkfifo("node7.fifo")
    found = walk(["node7.fifo"], None)
    here.joinpath("node7.fifo").unlink()
    assert [(item.name, item.explicit) for item in found if isinstance(item, Unreadable)] == [("node7.fifo", True)]


def test_what_comes_once_must_be_read_in_its_turn() -> None:
    found = walk(["-"], io.BytesIO(b"piped"))
    stream = next(found)
    assert isinstance(stream, LogStream)
    assert read_log(stream).text == b"piped"
    with pytest.raises(RuntimeError, match="once"), stream.open():
        pytest.fail("opened twice")
    assert list(found) == []

    (late,) = walk(["-"], io.BytesIO(b"piped"))
    assert isinstance(late, LogStream)
    with pytest.raises(RuntimeError, match="before the next one"), late.open():
        pytest.fail("opened after its turn")


def test_a_file_can_be_opened_again_later_and_by_another_process(here: Path) -> None:
    write(here, {"x.log": gzip.compress(b"text\n")})
    (stream,) = walk(["x.log"], None)
    assert isinstance(stream, LogStream)
    assert stream.size == Path("x.log").stat().st_size
    assert [read_log(stream).text, read_log(pickle.loads(pickle.dumps(stream))).text] == [b"text\n", b"text\n"]
