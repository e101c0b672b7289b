"""Replies of log stores that are documents: pages of more, and what only looks like a document."""

import io
import json
from typing import Any

import pytest

from kdnsctl.logs import klog
from kdnsctl.logs.envelopes import open_envelope
from kdnsctl.logs.sources.documents import chunks
from kdnsctl.logs.sources.opening import SourceError

ENTRY = {"message": "x", "nodeName": "n1"}
HITS = {"total": {"value": 1}, "hits": [{"_source": ENTRY}]}


def read(document: object) -> tuple[bytes, str]:
    text, message = b"", ""
    try:
        for data in chunks(io.BytesIO(document if isinstance(document, bytes) else json.dumps(document).encode())):
            text += data
    except SourceError as error:
        message = f"{error.code}: {error}"
    return text, message


PAGES: dict[str, tuple[dict[str, Any], str]] = {
    "CloudWatch": ({"events": [ENTRY], "nextToken": "abc"}, "it has a nextToken"),
    "Cloud Logging": ({"events": [ENTRY], "nextPageToken": "abc"}, "it has a nextPageToken"),
    "timed out": ({"took": 1, "timed_out": True, "hits": HITS}, "the search timed out"),
    "shards": ({"took": 1, "_shards": {"failed": 2}, "hits": HITS}, "2 shards failed"),
    "hits": ({"took": 1, "hits": {**HITS, "total": {"value": 9}}}, "1 of 9 hits"),
    "hits, old": ({"took": 1, "hits": {**HITS, "total": 9}}, "1 of 9 hits"),
    "Insights": (
        {"results": [[{"field": "@message", "value": "x"}]], "status": "Running"},
        "the query's status is Running",
    ),
}


@pytest.mark.parametrize(("document", "reason"), PAGES.values(), ids=PAGES)
def test_a_page_is_read_and_then_told(document: dict[str, Any], reason: str) -> None:
    text, message = read(document)
    assert (text.count(b"\n"), message) == (1, f"cutOff: only a page of the reply: {reason}")


WHOLE = [
    {"events": [ENTRY], "nextToken": None},
    {"took": 1, "timed_out": False, "_shards": {"failed": 0}, "hits": HITS},
    {"results": [[{"field": "@message", "value": "x"}]], "status": "Complete"},
]


@pytest.mark.parametrize("document", WHOLE)
def test_a_whole_reply_ends_well(document: object) -> None:
    text, message = read(document)
    assert (text.count(b"\n"), message) == (1, "")


@pytest.mark.parametrize("key", ["status", "took", "hits", "events"])
def test_json_lines_that_begin_like_a_reply_are_lines(key: str) -> None:
    lines = b"".join(json.dumps({key: 1, **ENTRY}).encode() + b"\n" for _ in range(3))
    assert read(lines) == (lines, "")


def test_elements_that_are_no_objects_are_not_dropped() -> None:
    assert read([ENTRY, "E0606 x", ["y", ENTRY], 1])[0].splitlines() == [
        b'{"message":"x","nodeName":"n1"}',
        b"E0606 x",
        b'["y",{"message":"x","nodeName":"n1"}]',
        b"1",
    ]


def test_json_of_nothing_but_empty_objects_is_not_built_in_memory() -> None:
    empty = b"{}," * (klog.MOST_VALUES + 1) + b"{}"
    assert klog.decode(b'{"a":[' + empty + b"]}") is None
    assert klog.decode(b'{"a":[' + empty[: 3 * 1_000] + b"1]}") is not None
    assert open_envelope(b'{"log":"x","a":[' + empty + b"]}") is None


def test_a_name_longer_than_kubernetes_has_is_not_believed() -> None:
    for length, believed in ((253, "n" * 253), (254, "")):
        envelope = open_envelope(json.dumps({"log": "x", "nodeName": "n" * length}).encode())
        assert envelope is not None
        assert envelope.node == believed


@pytest.mark.parametrize("beginning", ['{"events": [', '{"took":1,', '{ "status": "success",'])
def test_a_reply_may_go_on_in_further_lines(beginning: str) -> None:
    rest = "" if "events" in beginning else '"events": ['
    assert read(f"{beginning}\n{rest}\n{json.dumps(ENTRY)}]}}\n".encode()) == (b'{"message":"x","nodeName":"n1"}\n', "")
