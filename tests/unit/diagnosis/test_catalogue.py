"""The catalogue: ids, order, and that docs/findings.md has each of them and no other."""

from __future__ import annotations

import re

import pytest

from kdnsctl.diagnosis.catalogue import CHECKS

CELL = re.compile(r"^\| ([A-Z]\d+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_ids_are_unique_and_in_the_order_of_their_groups() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert [each[0] for each in ids] == [letter for letter in "CRTPNQ" for each in ids if each[0] == letter]
    for letter in "CRTPN":
        numbers = [int(each[1:]) for each in ids if each[0] == letter]
        assert numbers == list(range(1, len(numbers) + 1))
    assert ids[-1] == "Q1"


def test_every_check_has_a_title_of_its_own() -> None:
    titles = [check.title for check in CHECKS]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_every_finding_is_documented_and_nothing_else(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs" / "findings.md").read_text("utf-8")
    documented = [match[1] for match in CELL.finditer(text)]
    assert documented == [check.id for check in CHECKS]
    for match in CELL.finditer(text):
        assert all(cell.strip() for cell in match.groups()[1:]), match[1]


def test_each_check_names_its_own_id_in_its_docstring() -> None:
    for check in CHECKS:
        assert (check.run.__doc__ or "").startswith(f"{check.id}: "), check.id
