"""Pages and pictures that are made from the commands are as the commands are today."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.docs import images, reference
from tests.docs.blocks import ROOT, pages

MADE = reference.pages()


@pytest.mark.parametrize("name", list(MADE))
def test_the_reference_is_what_the_commands_say(name: str) -> None:
    path = reference.PLACE / name
    assert path.exists(), "run `nox -s reference`"
    assert path.read_text(encoding="utf-8") == MADE[name], f"{name} is not current: run `nox -s reference`"


def test_there_is_no_page_of_a_command_that_is_gone() -> None:
    assert {path.name for path in reference.PLACE.iterdir()} == set(MADE)


def test_every_picture_is_made_by_the_script_shown_on_a_page_and_described() -> None:
    made = {f"{shot.name}.svg" for shot in images.SHOTS}
    assert {path.name for path in images.PLACE.iterdir()} == made
    shown = {
        found[2]: found[1]
        for page in pages()
        for found in re.finditer(r"!\[([^\]]*)\]\((?:docs/)?images/([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown.keys() == made
    assert all(len(words.split()) > 3 for words in shown.values())


def test_a_picture_is_well_formed_and_asks_no_other_server_for_anything() -> None:
    for path in images.PLACE.iterdir():
        assert ET.parse(path).getroot().tag.endswith("svg")
        addresses = set(re.findall(r"https?://[^\s\"<)]+", path.read_text(encoding="utf-8")))
        assert {each for each in addresses if "127.0.0.1" not in each} == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "schemas").iterdir()), ids=lambda path: path.name)
def test_a_schema_takes_keys_that_are_added_later(path: Path) -> None:
    def closed(value: object) -> bool:
        if isinstance(value, dict):
            return value.get("additionalProperties") is False or any(map(closed, value.values()))
        return isinstance(value, list) and any(map(closed, value))

    schema = json.loads(path.read_text(encoding="utf-8"))
    assert not closed(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "Keys are added in later versions, and never change meaning." in schema["description"]


def test_every_kind_of_output_is_on_the_page_of_schemas() -> None:
    page = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
    kinds = {path.name.partition(".")[0] for path in (ROOT / "docs" / "schemas").glob("*.schema.json")}
    assert set(re.findall(r"^\| \[(\w+)\]\(schemas/\1\.schema\.json\) \|", page, re.MULTILINE)) == kinds
