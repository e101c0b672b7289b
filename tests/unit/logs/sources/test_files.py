"""Streams out of files: documents, named streams, repeated records, bounds, and that every input gives at least one."""

# ruff: noqa: E501 - names of streams stay in one piece

from __future__ import annotations

import dataclasses
import io
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.logs.signatures import recognise
from kdnsctl.logs.sources import documents, files, repeats
from kdnsctl.logs.sources.documents import chunks
from kdnsctl.logs.sources.files import FileStream, Inputs, ReadOptions, newest_record, read_all, read_stream
from kdnsctl.logs.sources.opening import ByteSource, Code, SourceError, from_file
from kdnsctl.logs.sources.refusals import refusal
from kdnsctl.logs.sources.repeats import MarkedTally, Records, Repeats
from kdnsctl.logs.sources.walking import LogStream, Unreadable
from kdnsctl.logs.times import from_datetime
from kdnsctl.model import KdnsctlError, SilentReporter

NOW = datetime(2026, 3, 13, tzinfo=UTC)
NOON = datetime(2026, 3, 12, 12, tzinfo=UTC)
ERROR = (
    "error deleting conntrack entries for UDP peer {10.96.0.10, 10.244.1.5}, error: conntrack command returned: "
    '"conntrack v1.4.7 (conntrack-tools): Operation failed: such conntrack doesn\'t exist\\n", error message: exit status 1'
)


QUIET = "I0312 12:00:00.000000       1 some.go:1] Something was done"


def failure(at: datetime = NOON) -> str:
    text = f'"Failed to delete endpoint connections" err={json.dumps(ERROR)} servicePortName="kube-system/kube-dns:dns"'
    return f"E{at:%m%d %H:%M:%S.%f}       1 cleanup.go:99] {text}"


def stream(content: bytes, path: str = "logs/x.log", *, explicit: bool = False) -> LogStream:
    @contextmanager
    def opened() -> Iterator[ByteSource]:
        yield from_file(io.BytesIO(content))

    return LogStream(path, path, NOW, explicit, opened, None)


def read(content: str | bytes, path: str = "logs/x.log", **options: Any) -> list[FileStream]:
    content = content.encode() if isinstance(content, str) else content
    return read_stream(stream(content, path), ReadOptions(**options), NOW)


def counted(streams: list[FileStream]) -> dict[str, int]:
    """Failures by what the stream goes by."""
    return {
        one.origin.node or one.origin.pod or "?": sum(count.count for count in one.tally.peers.values())
        for one in streams
    }


# --- JSON documents

CLOUDWATCH_STREAM = f"ip-10-0-0-1.ec2.internal-dataplane.tail.var.log.containers.kube-proxy-x7x2p_kube-system_kube-proxy-{'0a' * 32}.log"
MILLISECONDS = from_datetime(NOON) // 1000
DOCUMENTS: dict[str, tuple[object, dict[str, int]]] = {
    "array": (
        [{"kubernetes": {"host": "node-a", "pod_name": "p"}, "log": failure(), "time": "2026-03-12T12:00:00Z"}],
        {"node-a": 1},
    ),
    "gcloud": (
        [
            {
                "resource": {"type": "k8s_node", "labels": {"node_name": "gke-a"}},
                "textPayload": failure(),
                "timestamp": "2026-03-12T12:00:00Z",
            }
        ],
        {"gke-a": 1},
    ),
    "cloudwatch": (
        {
            "events": [
                {
                    "logStreamName": CLOUDWATCH_STREAM,
                    "timestamp": MILLISECONDS,
                    "message": json.dumps({"log": failure()}),
                },
                {"logStreamName": CLOUDWATCH_STREAM, "timestamp": MILLISECONDS + 5, "message": failure()},
            ]
        },
        {"ip-10-0-0-1.ec2.internal": 2},
    ),
    "insights": (
        {
            "results": [
                [
                    {"field": "@timestamp", "value": "2026-03-12 12:00:00.000"},
                    {"field": "@logStream", "value": CLOUDWATCH_STREAM},
                    {"field": "@message", "value": failure()},
                ]
            ],
            "status": "Complete",
        },
        {"ip-10-0-0-1.ec2.internal": 1},
    ),
    "elasticsearch": (
        {
            "took": 3,
            "hits": {
                "hits": [
                    {
                        "_source": {
                            "@timestamp": "2026-03-12T12:00:00.000Z",
                            "message": failure(),
                            "kubernetes": {"node": {"name": "node-b"}, "container": {"name": "kube-proxy"}},
                        }
                    }
                ]
            },
        },
        {"node-b": 1},
    ),
    "loki": (
        {
            "status": "success",
            "data": {
                "resultType": "streams",
                "result": [
                    {
                        "stream": {"node": "node-c", "pod": "kube-proxy-x7x2p", "container": "kube-proxy"},
                        "values": [[str(from_datetime(NOON) * 1000), failure()]],
                    },
                    {"stream": {"pod": "coredns-1", "container": "coredns"}, "values": [["1", failure()]]},
                ],
            },
        },
        {"node-c": 1},
    ),
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_log_stores_are_taken_apart(name: str, indent: int | None) -> None:
    document, expected = DOCUMENTS[name]
    streams = read(json.dumps(document, indent=indent))
    assert counted(streams) == expected
    assert not any(one.damages for one in streams)
    assert all(one.tally.first == from_datetime(NOON) for one in streams)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_cut_off_is_no_document_and_says_so(name: str) -> None:
    whole = json.dumps(DOCUMENTS[name][0], indent=2).encode()

    @contextmanager
    def opened() -> Iterator[ByteSource]:
        yield _Failing(whole[:-9])

    (one,) = read_stream(LogStream("x", "x", NOW, True, opened), ReadOptions(), NOW)
    assert [(damage.code, damage.message) for damage in one.damages] == [
        ("cutOff", "ends here"),
        ("cutRecord", "a failure in a form that is not understood"),
    ]


class _Failing:
    """Gives its content and then an error."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, /) -> bytes:
        if not self._content:
            raise SourceError(Code.CUT_OFF, "ends here")
        piece, self._content = self._content[:size], self._content[size:]
        return piece


def test_a_document_that_is_too_large_is_read_line_by_line_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "LARGEST_DOCUMENT", 4_000)
    monkeypatch.setattr(documents, "CHUNK", 1_000)
    entries = [json.dumps({"nodeName": "node-a", "message": failure()}) for _ in range(30)]
    streams = read("[\n" + ",\n".join(entries) + "\n]\n")
    damages = {(damage.code, damage.message) for one in streams for damage in one.damages}
    assert damages == {
        ("tooLarge", "a JSON document of more than 0 MiB, read line by line; give JSON lines (jq -c '.[]')"),
        ("cutRecord", "a failure in a form that is not understood"),  # `{…},` is no JSON line
    }
    assert read("".join(f"{entry}\n" for entry in entries))[0].damages == []


@pytest.mark.parametrize(
    "text",
    [
        "[pod/kube-proxy-x7x2p/kube-proxy] " + failure() + "\n",
        "[1, 2, 3]\n" + failure() + "\n",
        '{"events": "not a list"}\n' + failure() + "\n",
        "{\n" + failure() + "\n",
        "  \n" + failure() + "\n",
    ],
)
def test_what_only_begins_like_a_document_is_read_as_lines(text: str) -> None:
    assert sum(counted(read(text)).values()) == 1


@given(st.binary(max_size=300).map(lambda tail: b"[" + tail) | st.binary(max_size=300), st.integers(1, 64))
def test_whatever_is_no_document_comes_through_as_it_is(content: bytes, size: int) -> None:
    class Small:
        def __init__(self) -> None:
            self._source = io.BytesIO(content)

        def read(self, _: int, /) -> bytes:
            return self._source.read(size)

    whole = b"".join(chunks(Small()))
    try:
        document = json.loads(content)
    except ValueError:
        assert whole == content
    else:
        assert whole == content or isinstance(document, list | dict)


# --- streams


def test_every_input_gives_a_stream(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\0\0\0", b"{", b"[]", b"[{}]", b"\xff\xfe", failure().encode()):
        assert len(read(content)) == 1, content
    (tmp_path / "a.log").write_text(failure())
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04")
    found = read_all(inputs(tmp_path), ReadOptions(), now=NOW, reporter=SilentReporter())
    assert [type(item) for item in found] == [FileStream, Unreadable]


def inputs(*paths: Path, stdin: bytes = b"", twice: bool = False) -> Inputs:
    return Inputs([str(path) for path in paths], io.BytesIO(stdin), twice=twice)


def test_headings_do_not_make_a_stream_of_their_own() -> None:
    text = "-- Logs begin at Thu 2026-03-12\n2026-03-12T12:00:00Z some heading\n"
    text += f"[pod/kube-proxy-x7x2p/kube-proxy] {failure()}\n"
    assert counted(read(text)) == {"kube-proxy-x7x2p": 1}


def test_unnamed_lines_with_a_failure_make_one() -> None:
    text = f"{failure()}\n[pod/kube-proxy-x7x2p/kube-proxy] {failure()}\n"
    assert counted(read(text)) == {"?": 1, "kube-proxy-x7x2p": 1}


def test_what_was_cut_from_unnamed_lines_is_not_forgotten() -> None:
    text = "x" * (17 << 20) + f"\n[pod/kube-proxy-x7x2p/kube-proxy] {failure()}\n"
    (one,) = read(text)
    assert [(damage.code, damage.message) for damage in one.damages] == [("cutRecord", "a line longer than 16 MiB")]


def test_streams_beyond_the_limit_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_STREAMS", 3)
    text = "".join(f"[pod/kube-proxy-{index}/kube-proxy] {failure()}\n" for index in range(5))
    streams = read(text)
    assert len(streams) == 3
    assert {damage.code for one in streams for damage in one.damages} == {"tooManyStreams"}


def test_a_static_pod_in_the_lines_names_the_node() -> None:
    (one,) = read(f"[pod/kube-proxy-worker-1/kube-proxy] {failure()}\n")
    assert (one.origin.node, one.origin.node_from) == ("worker-1", "pod")


def test_lines_without_a_node_take_it_from_the_path() -> None:
    (one,) = read(f"[pod/kube-proxy-x7x2p/kube-proxy] {failure()}\n", "node-a/kube-proxy.log")
    assert (one.origin.node, one.origin.node_from, one.origin.pod) == ("node-a", "path", "kube-proxy-x7x2p")


def test_kube_proxys_own_word_wins_over_the_path_and_not_over_the_lines() -> None:
    flag = 'I0312 12:00:00.000000       1 flags.go:64] FLAG: --hostname-override="ip-10-0-0-1"'
    (one,) = read(f"{flag}\n", "node-a/kube-proxy.log")
    assert (one.origin.node, one.origin.node_from, one.origin.component) == ("ip-10-0-0-1", "flag", "kube-proxy")
    (one,) = read(json.dumps({"nodeName": "node-b", "message": flag}) + "\n", "node-a/kube-proxy.log")
    assert (one.origin.node, one.origin.node_from) == ("node-b", "field")


@pytest.mark.parametrize(
    ("modified", "year"),
    [
        (datetime(2026, 3, 12, 11, tzinfo=UTC), 2026),
        (datetime(2026, 3, 1, tzinfo=UTC), 2025),
        (datetime(1970, 1, 1, tzinfo=UTC), 2026),
        (datetime(1980, 1, 1, tzinfo=UTC), 2026),
        (None, 2026),
    ],
)
def test_the_year_comes_from_the_file_unless_its_time_is_made_up(modified: datetime | None, year: int) -> None:
    made = stream(failure().encode())
    (one,) = read_stream(dataclasses.replace(made, modified=modified), ReadOptions(), NOW)
    assert one.tally.first == from_datetime(NOON.replace(year=year))


@pytest.mark.parametrize(
    ("process", "ignored"),
    [("kubelet", True), ("k3s", False), ("kube-proxy", False), ("microk8s.daemon-kubelite", False)],
)
def test_which_processes_can_hold_kube_proxy(process: str, ignored: bool) -> None:
    (one,) = read(f"Mar 12 12:00:00 node-a {process}[812]: {QUIET}\n")
    assert bool(one.others) is ignored
    assert counted([one]) == ({"?": 0} if ignored else {"node-a": 0})


def test_a_failure_counts_whatever_its_process_is_called() -> None:
    head = "Mar 12 12:00:00 node-a 4f1b2c3d4e5f[812]:"
    (one,) = read(
        f"{head} {QUIET}\n{head} {failure()}\n{head} {failure()}\nMar 12 12:00:00 node-a kubelet[9]: {QUIET}\n"
    )
    assert counted([one]) == {"node-a": 2}


@pytest.mark.parametrize("first", [True, False])
def test_a_stream_of_nothing_but_the_kubelets_error_says_so(first: bool) -> None:
    streams = [
        f"[pod/kube-proxy-x7x2p/kube-proxy] {failure()}\n",
        "[pod/kube-proxy-b4b4b/kube-proxy] unable to retrieve container logs for containerd://0a1b\n",
    ]
    found = {one.origin.pod: one for one in read("".join(streams if first else reversed(streams)))}
    assert found["kube-proxy-x7x2p"].damages == []
    empty = found["kube-proxy-b4b4b"]
    assert (empty.records, [damage.code for damage in empty.damages]) == (False, ["errorText"])


def test_the_others_named_are_few() -> None:
    text = "".join(f"2026-03-12T12:00:0{index}+0000 node-a unit{index}[1]: {QUIET}\n" for index in range(9))
    (one,) = read(text)
    assert one.others == "only what unit0, unit1, unit2, unit3, unit4 logged"


def test_more_than_one_stream_ends_in_the_order_of_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{index}.log" for index in range(5)]
    for index, name in enumerate(names):
        (tmp_path / name).write_text(f"{failure()}\n" * (index % 3 + 1))
    monkeypatch.setattr(files, "cores", lambda: 1)
    monkeypatch.setattr(files, "WORTH_PROCESSES", 1)
    found = read_all(inputs(tmp_path), ReadOptions(), now=NOW, reporter=SilentReporter())
    assert [Path(item.source).name for item in found if isinstance(item, FileStream)] == names


class Progress(SilentReporter):
    """Remembers what was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def started(self, what: str, total: int | None) -> None:
        self.told.append(what if total is None else (what, total))

    def advanced(self, done: int, total: int | None = None) -> None:
        self.told.append((done, total))

    def finished(self) -> None:
        self.told.append("finished")


def test_progress_is_told_and_ends_however_the_work_ends(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(failure())
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04")
    progress = Progress()
    read_all(inputs(tmp_path), ReadOptions(), now=NOW, reporter=progress)
    assert progress.told == ["reading logs", (1, None), (2, 2), "finished"]

    class Broken(Inputs):
        def walk(self) -> Iterator[LogStream | Unreadable]:
            raise ZeroDivisionError

    progress = Progress()
    with pytest.raises(ZeroDivisionError):
        read_all(Broken([], io.BytesIO(), twice=False), ReadOptions(), now=NOW, reporter=progress)
    assert progress.told == ["reading logs", "finished"]


# --- the newest record, and reading twice


def test_the_newest_record_is_kube_proxys_if_it_has_any(tmp_path: Path) -> None:
    def newest() -> int | None:
        return newest_record(inputs(tmp_path), year=2026, now=NOW, reporter=SilentReporter())

    assert (tmp_path / "x.zip").write_bytes(b"PK\x03\x04")
    assert newest() is None
    (tmp_path / "kubelet.log").write_text("I0312 13:00:00.000000       1 kubelet.go:1] x\n")
    assert newest() == from_datetime(NOON + timedelta(hours=1))
    (tmp_path / "kube-proxy.log").write_text(failure() + "\n")
    assert newest() == from_datetime(NOON)


@pytest.mark.parametrize("of", ["stdin", "pipe"])
def test_pipes_can_be_read_twice_when_that_was_said(tmp_path: Path, of: str) -> None:
    if of == "stdin":
        kept = Inputs(["-"], io.BytesIO(failure().encode()), twice=True)
    else:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_text, args=(failure(),), daemon=True)
        writer.start()
        kept = Inputs([str(pipe)], io.BytesIO(), twice=True)
        writer.join()
    for _ in range(2):
        (one,) = read_all(kept, ReadOptions(), now=NOW, reporter=SilentReporter())
        assert isinstance(one, FileStream)
        assert counted([one]) == {"?": 1}
    kept.close()


def test_a_pipe_that_is_named_twice_is_waited_for_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "again").symlink_to(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(failure(),), daemon=True)
    writer.start()
    kept = Inputs([str(pipe), str(pipe), str(tmp_path / "again")], io.BytesIO(), twice=True)
    writer.join()
    (one,) = read_all(kept, ReadOptions(), now=NOW, reporter=SilentReporter())
    assert isinstance(one, FileStream)
    assert counted([one]) == {"?": 1}
    kept.close()


def test_a_path_that_cannot_be_looked_at_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "kube-proxy.log").write_text(failure())
    kept = Inputs([str(tmp_path / ("x" * 300)), str(tmp_path / "kube-proxy.log")], io.BytesIO(), twice=True)
    found = read_all(kept, ReadOptions(), now=NOW, reporter=SilentReporter())
    assert {type(item) for item in found} == {FileStream, Unreadable}


def test_a_record_from_the_future_does_not_date_the_window(tmp_path: Path) -> None:
    wrong = f"9998-01-01T00:00:00.000000000Z {QUIET}\n"
    (tmp_path / "kube-proxy.log").write_text(failure() + "\n")
    (tmp_path / "wrong.log").write_text(failure() + "\n" + wrong)
    paths = [tmp_path / "kube-proxy.log", tmp_path / "wrong.log"]
    assert newest_record(inputs(*paths), year=2026, now=NOW, reporter=SilentReporter()) == from_datetime(NOON)
    reading = ReadOptions(from_datetime(NOON), year=2026)
    right, doubtful = read_all(inputs(*paths), reading, now=NOW, reporter=SilentReporter())
    assert isinstance(right, FileStream)
    assert isinstance(doubtful, FileStream)
    assert (right.damages, [damage.code for damage in doubtful.damages]) == ([], ["wrongClock"])


@pytest.mark.parametrize(
    ("stamp", "absolute", "codes"),
    [
        ("Mar 12 12:00:00", True, ["zoneUnknown"]),
        ("Mar 12 12:00:00", False, []),
        ("2026-03-12T12:00:00+0200", True, []),
    ],
)
def test_a_journal_without_zones_cannot_be_held_against_a_time(stamp: str, absolute: bool, codes: list[str]) -> None:
    (one,) = read(f"{stamp} node-a kube-proxy[812]: {QUIET}\n", absolute=absolute)
    assert [damage.code for damage in one.damages] == codes


def test_a_pipe_that_cannot_be_kept_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object, /) -> int:
            raise OSError(28, "No space left on device")

    full = Full()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
    with pytest.raises(KdnsctlError, match=r"could not be kept in .*: No space left on device") as failed:
        Inputs(["-"], io.BytesIO(b"x"), twice=True)
    assert failed.value.hint == "write it to a file and name that, or give --since-time"
    assert full.closed


# --- the same records again


def tally(*records: str, since: int | None = None) -> MarkedTally:
    made = MarkedTally(since=since)
    known = recognise(b"cleanup.go", b"Failed to delete endpoint connections", structured=True)
    assert known is not None
    for record in records:
        made.hit(known, from_datetime(NOON), record.encode())
    return made


ONE, TWO, THREE = (failure(NOON + timedelta(minutes=number)) for number in range(3))


@pytest.mark.parametrize(
    ("known", "new", "again"),
    [
        ((), (ONE,), Repeats.NONE),
        ((ONE,), (), Repeats.NONE),
        ((ONE,), (ONE,), Repeats.ALL),
        ((ONE, TWO), (TWO,), Repeats.ALL),
        ((ONE,), (ONE, TWO), Repeats.SOME),
        ((ONE,), (TWO, THREE), Repeats.NONE),
    ],
)
def test_how_much_of_a_log_is_known(known: tuple[str, ...], new: tuple[str, ...], again: Repeats) -> None:
    records = Records()
    for record in known:
        records.add(tally(record))
    assert records.again(tally(*new)) is again


def test_records_before_the_window_are_not_marked() -> None:
    assert len(tally(ONE, since=from_datetime(NOON) + 1).marks) == 0
    assert len(tally(ONE, since=from_datetime(NOON)).marks) == 1


def test_beyond_the_marks_only_the_same_log_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST_MARKS", 2)
    records = Records()
    records.add(tally(ONE, TWO, THREE))
    assert records.again(tally(ONE, TWO, THREE)) is Repeats.ALL
    assert records.again(tally(ONE, TWO, THREE, THREE)) is Repeats.SOME
    assert records.again(tally(TWO)) is Repeats.ALL
    assert records.again(tally(THREE)) is Repeats.NONE  # it is one, but that cannot be proven


Records_ = st.lists(st.sampled_from([failure(NOON + timedelta(seconds=number)) for number in range(6)]), max_size=6)


@given(Records_, Records_)
def test_only_records_that_are_there_are_said_to_be_there(known: list[str], new: list[str]) -> None:
    records = Records()
    records.add(tally(*known))
    expected = Repeats.NONE
    if set(known) & set(new):
        expected = Repeats.ALL if set(new) <= set(known) else Repeats.SOME
    assert records.again(tally(*new)) is expected


# --- error messages


@given(st.binary(max_size=6_000))
def test_any_bytes_are_an_error_message_or_not(body: bytes) -> None:
    shown = refusal(body)
    assert shown == "" or (shown.isprintable() and len(shown) <= 201)


def test_an_error_message_is_shown_in_one_line() -> None:
    text = "error: a\n\tb\x00\u202e"
    assert refusal(text.encode()) == "error: a b??"
    assert refusal(json.dumps({"kind": "Status", "message": text}).encode()) == "error: a b??"


def test_a_log_is_no_error_message() -> None:
    assert refusal(failure().encode()) == ""
    assert refusal(b"") == ""
    assert read("error: x\n" + failure())[0].damages == []
