import hashlib
import json
import multiprocessing
import os
import resource
import signal
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.changes.journal import FIRST, LONGEST, Journal, JournalError, read
from kdnsctl.model import KdnsctlError, RefusedError

MOMENT = datetime(2026, 11, 23, 3, 2, 39, 120345, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def written(path: Path, *bodies: dict[str, object]) -> list[bytes]:
    with Journal.open(path, now=lambda: MOMENT) as journal:
        for body in bodies:
            journal.append("step", body)
    return path.read_bytes().splitlines(keepends=True)


class TestAppending:
    def test_each_line_carries_the_hash_of_the_one_before(self, path: Path) -> None:
        lines = written(path, {"verb": "cordon"}, {"verb": "taint"}, {"verb": "drain"})
        previous = FIRST
        for number, line in enumerate(lines, 1):
            fields = json.loads(line)
            assert (fields["number"], fields["previous"]) == (number, previous)
            previous = hashlib.sha256(line.rstrip(b"\n")).hexdigest()
        assert read(path).head == previous

    def test_what_is_read_is_what_was_written(self, path: Path) -> None:
        written(path, {"verb": "cordon", "uid": "ä\n\u2028"})
        (record,) = read(path).records
        assert (record.number, record.time, record.kind, record.body) == (
            1,
            MOMENT,
            "step",
            {"verb": "cordon", "uid": "ä\n\u2028"},
        )

    def test_the_file_is_nobody_elses(self, path: Path) -> None:
        written(path, {})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_it_goes_on_where_it_was(self, path: Path) -> None:
        written(path, {"n": 1})
        written(path, {"n": 2})
        assert [record.body["n"] for record in read(path).records] == [1, 2]

    def test_two_that_are_open_at_once_make_one_chain(self, path: Path) -> None:
        with Journal.open(path) as one, Journal.open(path) as other:
            one.append("step", {"by": "one"})
            other.append("step", {"by": "other"})
            one.append("step", {"by": "one"})
            assert one.head == read(path).head
        assert [record.body["by"] for record in read(path).records] == ["one", "other", "one"]
        assert read(path).problem is None

    def test_threads_and_processes_at_once_make_one_chain(self, path: Path) -> None:
        processes = [multiprocessing.get_context("spawn").Process(target=append_many, args=(path,)) for _ in range(2)]
        for process in processes:
            process.start()
        with Journal.open(path) as journal:
            threads = [
                threading.Thread(target=lambda: [journal.append("step", {}) for _ in range(20)]) for _ in range(3)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert len(read(path).records) == 2 * 20 + 3 * 20
        assert read(path).problem is None

    @pytest.mark.parametrize("key", ["number", "time", "kind", "previous", "discarded"])
    def test_the_journals_own_keys_are_not_for_others(self, path: Path, key: str) -> None:
        with Journal.open(path) as journal, pytest.raises(ValueError) as caught:
            journal.append("step", {key: 1})
        assert key in str(caught.value)
        assert path.read_bytes() == b""

    def test_an_endless_record_is_not_written(self, path: Path) -> None:
        with Journal.open(path) as journal, pytest.raises(ValueError) as caught:
            journal.append("step", {"output": "x" * LONGEST})
        assert "does not fit" in str(caught.value)
        assert path.read_bytes() == b""

    def test_bytes_that_are_not_json_are_not_written(self, path: Path) -> None:
        with Journal.open(path) as journal:
            with pytest.raises(TypeError):
                journal.append("step", {"output": object()})
            journal.append("step", {})
        assert len(read(path).records) == 1


def append_many(path: Path) -> None:
    with Journal.open(path) as journal:
        for _ in range(20):
            journal.append("step", {"by": os.getpid()})


class TestWhatCannotBeWritten:
    def test_a_place_that_is_not_there_is_refused_before_anything_is_done(self, tmp_path: Path) -> None:
        with pytest.raises(RefusedError) as caught:
            Journal.open(tmp_path / "absent" / "journal.jsonl")
        assert "nothing was changed" in str(caught.value)

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        target = tmp_path / "precious"
        target.write_bytes(b"")
        (tmp_path / "journal.jsonl").symlink_to(target)
        with pytest.raises(RefusedError):
            Journal.open(tmp_path / "journal.jsonl")

    def test_what_is_not_a_file_is_refused(self, path: Path) -> None:
        os.mkfifo(path)
        with pytest.raises(RefusedError) as caught:
            Journal.open(path)
        assert "not a file" in str(caught.value)

    def test_a_full_disk_is_an_error_and_leaves_whole_records_only(self, path: Path) -> None:
        """RLIMIT_FSIZE stands for the full disk: a short write first, then an error."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Journal.open(path) as journal:
            journal.append("step", {"n": 1})
            size = path.stat().st_size
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
                with pytest.raises(KdnsctlError) as caught:
                    journal.append("step", {"n": 2})
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, handler)
            assert caught.value.code == "journalUnwritable"
            assert path.stat().st_size == size
            journal.append("step", {"n": 3})
        assert [record.body["n"] for record in read(path).records] == [1, 3]


class TestTornLines:
    @pytest.mark.parametrize("left", [1, 20, -1])
    def test_a_torn_last_line_counts_as_nothing(self, path: Path, left: int) -> None:
        lines = written(path, {"n": 1}, {"n": 2})
        torn = lines[1][:left]
        path.write_bytes(lines[0] + torn)
        reading = read(path)
        assert ([record.body["n"] for record in reading.records], reading.problem) == ([1], None)
        assert reading.torn == len(torn)

    def test_the_next_append_removes_it_and_says_so(self, path: Path) -> None:
        lines = written(path, {"n": 1}, {"n": 2})
        path.write_bytes(lines[0] + lines[1][:-1])
        written(path, {"n": 3})
        reading = read(path)
        assert [(record.body["n"], record.discarded) for record in reading.records] == [(1, 0), (3, len(lines[1]) - 1)]
        assert (reading.problem, reading.torn) == (None, 0)

    def test_opening_alone_says_nothing_and_loses_nothing_whole(self, path: Path) -> None:
        lines = written(path, {"n": 1}, {"n": 2})
        path.write_bytes(lines[0] + lines[1] + b'{"number": 3')
        written(path)
        assert [record.body["n"] for record in read(path).records] == [1, 2]


class TestWhatWasChanged:
    @given(data=st.data())
    def test_any_flipped_bit_is_found_in_all_but_the_last_line(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
        lines = written(path, {"n": 1}, {"n": 2}, {"n": 3})
        content = bytearray(b"".join(lines))
        position = data.draw(st.integers(0, len(content) - len(lines[2]) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        assert read(path).problem is not None

    @given(data=st.data())
    def test_a_flipped_bit_in_the_last_line_changes_the_head(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
        lines = written(path, {"n": 1}, {"n": 2})
        head = read(path).head
        content = bytearray(b"".join(lines))
        position = data.draw(st.integers(len(lines[0]), len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        assert read(path).head != head

    @pytest.mark.parametrize("left_out", [0, 1])
    def test_a_removed_line_is_found(self, path: Path, left_out: int) -> None:
        lines = written(path, {"n": 1}, {"n": 2}, {"n": 3})
        path.write_bytes(b"".join(line for number, line in enumerate(lines) if number != left_out))
        reading = read(path)
        assert (len(reading.records), reading.problem is not None) == (left_out, True)

    def test_a_changed_journal_is_not_appended_to(self, path: Path) -> None:
        lines = written(path, {"n": 1}, {"n": 2})
        path.write_bytes(lines[1] + lines[0])
        before = path.read_bytes()
        with pytest.raises(JournalError):
            Journal.open(path)
        assert path.read_bytes() == before

    def test_records_that_vanish_while_it_is_open_are_noticed(self, path: Path) -> None:
        with Journal.open(path) as journal:
            journal.append("step", {"n": 1})
            path.write_bytes(b"")
            with pytest.raises(JournalError) as caught:
                journal.append("step", {"n": 2})
        assert "shorter" in str(caught.value)

    @pytest.mark.parametrize(
        "line",
        [b"", b"{}", b"[1]", b'"text"', b"\xff",
         b'{"number":1,"time":"now","kind":"step","previous":"' + b"0" * 64 + b'"}',
         b'{"number":1,"time":"2026-11-23T03:02:39","kind":"step","previous":"' + b"0" * 64 + b'"}',
         b'{"number":1,"time":"2026-11-23T03:02:39Z","kind":7,"previous":"' + b"0" * 64 + b'"}'],
    )  # fmt: skip
    def test_what_is_no_record_is_told(self, path: Path, line: bytes) -> None:
        path.write_bytes(line + b"\n")
        assert read(path).problem is not None

    def test_a_line_without_end_is_not_read_into_memory(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(8 * LONGEST)
        reading = read(path)
        assert reading.problem is not None
        assert "too long" in reading.problem.message
