"""The catalogue on the screen."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from kdnsctl.__main__ import main
from kdnsctl.logs.signatures import CATALOGUE, Signature
from tests.unit.cli.conftest import Run
from tests.unit.cli.terminals import on_terminal

IDS = [entry.id for entry in CATALOGUE]


def test_the_list_has_a_row_for_each(run: Run) -> None:
    ran = run("signatures")
    assert ran.code == 0
    assert ran.lines[0].split() == ["ID", "KIND", "SEVERITY", "VERSIONS", "SUMMARY"]
    assert [line.split()[0] for line in ran.lines[1:]] == IDS
    bare = run("signatures", "--no-headers")
    assert [line.split() for line in bare.lines] == [line.split() for line in ran.lines[1:]]


def test_wide_says_what_each_means_and_does_not(run: Run) -> None:
    ran = run("signatures", "-o", "wide")
    assert all(entry.means in ran.out and entry.not_means in ran.out for entry in CATALOGUE)


@pytest.mark.parametrize("said", ["CT_DEL_ENDPOINT", "ct_del_endpoint"])
def test_one_in_full(run: Run, said: str) -> None:
    entry = next(entry for entry in CATALOGUE if entry.id == "CT_DEL_ENDPOINT")
    ran = run("signatures", said)
    text = " ".join(ran.out.split())
    assert ran.lines[0] == "CT_DEL_ENDPOINT"
    for part in (
        entry.summary,
        f"Means: {entry.means}",
        f"Does not mean: {entry.not_means}",
        entry.source,
        entry.versions,
    ):
        assert " ".join(part.split()) in text


@pytest.mark.parametrize("entry", CATALOGUE, ids=IDS)
def test_one_in_full_says_what_to_grep_for_and_each_wording(run: Run, entry: Signature) -> None:
    ran = run("signatures", entry.id)
    text = " ".join(ran.out.split())
    assert all(f"  {phrase}" in ran.lines for phrase in entry.phrases)
    for variant in entry.variants:
        assert " ".join((f'"{variant.text}"' if variant.structured else variant.text).split()) in text
    assert not [line for line in ran.lines if line.endswith(": ") or line == "Does not mean:"]


def test_json_and_yaml_follow_the_schema(run: Run, pytestconfig: pytest.Config) -> None:
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/SignatureList.schema.json").read_text("utf-8"))
    everything = json.loads(run("signatures", "-o", "json").out)
    jsonschema.Draft202012Validator(schema).validate(everything)
    assert [entry["id"] for entry in everything["signatures"]] == IDS
    assert list(everything["signatures"][0]) == list(schema["properties"]["signatures"]["items"]["properties"])
    assert yaml.safe_load(run("signatures", "-o", "yaml").out) == everything
    one = json.loads(run("signatures", "CT_LIST_FAIL", "-o", "json").out)
    assert one["kind"] == "SignatureList"
    assert [entry["id"] for entry in one["signatures"]] == ["CT_LIST_FAIL"]


def test_names_are_what_signature_accepts(run: Run) -> None:
    assert run("signatures", "-o", "name").lines == IDS


@pytest.mark.parametrize("columns", [40, 80])
def test_on_a_narrow_terminal_every_text_is_whole(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    listed = on_terminal(monkeypatch, lambda: main(["signatures"]), columns=columns)
    assert max(map(len, listed.lines)) <= columns
    together = "".join(listed.text.split())
    assert all("".join(entry.summary.split()) in together.replace("SUMMARY", "") for entry in CATALOGUE)


def test_at_60_columns_no_word_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = on_terminal(monkeypatch, lambda: main(["signatures", "-o", "wide"]), columns=60)
    shown = {*wide.text.split()}
    for entry in CATALOGUE:
        assert {*f"{entry.id} {entry.summary} {entry.means} {entry.not_means} {entry.source}".split()} <= shown
        full = on_terminal(monkeypatch, lambda entry=entry: main(["signatures", entry.id]), columns=60)  # type: ignore[misc]
        assert max(map(len, [*wide.lines, *full.lines])) <= 60
