"""The word `-`: names of nodes on standard input, as lines or as a report."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cli import nodenames
from kdnsctl.cli.nodenames import from_stdin
from kdnsctl.find.report import to_json
from kdnsctl.model import UsageError, Verdict
from tests.unit.cli import reports


def names(content: str | bytes, *include: Verdict) -> tuple[str, ...]:
    body = content.encode() if isinstance(content, str) else content
    return from_stdin(io.BytesIO(body), include=include).names


def report(*nodes: tuple[str, str], **more: Any) -> str:
    listed = [{"name": name, "verdict": verdict} for name, verdict in nodes]
    return json.dumps({"apiVersion": "kdnsctl.io/v1", "kind": "FindReport", "nodes": listed} | more)


def test_names_one_on_each_line_with_or_without_their_kind() -> None:
    assert names("node/a\r\nb\n\n  c.d  \nnode/a\n") == ("a", "b", "c.d")


@pytest.mark.parametrize("content", ["a\r\nb\r\n", report(("a", "affected"), ("b", "affected"))])
def test_a_byte_order_mark_is_no_part_of_a_name_or_report(content: str) -> None:
    assert names("\ufeff" + content) == ("a", "b")


@pytest.mark.parametrize("verdict", [[], {}, None, 3, ["affected"]])
def test_a_verdict_that_is_none_chooses_no_node(verdict: Any) -> None:
    nodes = [{"name": "a", "verdict": verdict}, {"name": "b", "verdict": "affected"}]
    content = json.dumps({"apiVersion": "kdnsctl.io/v1", "kind": "FindReport", "nodes": nodes}).encode()
    assert from_stdin(io.BytesIO(content), include=frozenset({Verdict.SUSPECT})).names == ("b",)


@pytest.mark.parametrize("content", ["", "\n", " \r\n\n"])
def test_empty_input_names_nothing(content: str) -> None:
    assert names(content) == ()


def test_of_a_report_the_affected_and_the_suspects_where_asked() -> None:
    text = report(("a", "affected"), ("s", "suspect"), ("c", "clean"), ("u", "unknown"), ("w", "notApplicable"))
    named = from_stdin(io.BytesIO(text.encode()))
    assert named.names == ("a",)
    assert named.notes == ("1 suspect node of the report left out; --include suspect takes it too",)
    assert names(text, Verdict.SUSPECT) == ("a", "s")


def test_a_report_as_it_is_printed_is_understood() -> None:
    printed = json.dumps(to_json(reports.report()))
    found = {node.name for node in reports.report().nodes if node.verdict is Verdict.SUSPECT and node.identified}
    assert found
    assert set(names(printed, Verdict.SUSPECT)) >= found


def test_what_is_no_node_but_a_pod_or_file_is_left_out_and_said() -> None:
    text = json.loads(report(("kube-proxy-x", "affected"), ("a", "affected")))
    text["nodes"][0]["identified"] = False
    named = from_stdin(io.BytesIO(json.dumps(text).encode()))
    assert named.names == ("a",)
    assert named.notes == ("1 of the report left out, because its logs did not say which node they are from",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\nb c\n", "line 2 of standard input: 'b c' is not a node name"),
        ("NAME   STATUS\n", "line 1 of standard input: 'NAME   STATUS' is not a node name"),
        ("-\n", "line 1 of standard input: '-' is not a node name"),
        (b"\xff\xfe", "standard input is no text"),
        (report(("a", "affected"))[:-5], "standard input is not the JSON of a report"),
        (report(("a", "affected")) * 2, "standard input is not the JSON of a report"),
        ('{"a":' * 100_000, "standard input is not the JSON of a report"),
        ("{}", "standard input is JSON, but no report of nodes: its kind is None"),
        ('{"kind": "NodeList", "items": []}', "no report of nodes: its kind is 'NodeList'"),
        (report(apiVersion="v1"), "no report of nodes"),
        (report(nodes="a"), "has no list of nodes"),
        (report(nodes=["a"]), "has no list of nodes"),
        (report(("a b", "affected")), "a node whose name is none: 'a b'"),
        (report(nodes=[{"verdict": "affected"}]), "a node whose name is none: None"),
    ],
)
def test_what_is_neither_is_refused(content: str | bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        names(content)
    assert message in str(caught.value)


def test_a_closed_and_an_endless_input_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="but it is closed"):
        from_stdin(None)
    monkeypatch.setattr(nodenames, "MAX_INPUT", 10)
    with pytest.raises(UsageError, match="larger than"):
        names("a\n" * 6)


@given(st.binary(max_size=200))
def test_whatever_comes_is_names_or_refused(content: bytes) -> None:
    try:
        found = names(content)
    except UsageError:
        return
    assert all(name and name.strip() == name and "/" not in name for name in found)
