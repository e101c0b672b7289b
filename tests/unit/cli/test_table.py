"""Whatever the width: nothing too wide, nothing lost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cli.table import Cell, lay_out, painter

PLAIN = painter(color=False)
WORD = st.text("abcdefghij-.:", min_size=1, max_size=60)
CELL = st.lists(WORD, min_size=1, max_size=3).map(lambda parts: Cell(tuple(parts)))


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=5), st.integers(44, 250))
def test_at_any_width_the_lines_fit_and_hold_every_part(rows: list[tuple[Cell, Cell, Cell]], width: int) -> None:
    lines = lay_out(["FIRST", "SECOND", "THIRD"], rows, width=width, paint=PLAIN)
    assert max(len(line) for line in lines) <= width
    # Pieces of two long parts can stand side by side, so letters are counted; what every row says is said once.
    shown = Counter("".join(lines))
    for index in range(3):
        needed = {row[index].parts for row in rows}
        assert not Counter("".join("".join(parts) for parts in needed)) - shown


def test_a_pipe_gets_every_row_on_a_line_of_its_own() -> None:
    rows = [[Cell(("x" * 300, "y")), Cell(("z",))]]
    assert lay_out(["A", "B"], rows, width=None, paint=PLAIN)[1:] == ["x" * 300 + ",y   z"]


def cells(*texts: str) -> list[Cell]:
    return [Cell((text,)) for text in texts]


def test_it_fits_and_so_a_row_is_a_line() -> None:
    rows = [cells("a", "x", "1"), cells("bbbb", "x", "22")]
    expected = ["NAME   KIND   N", "a      x      1", "bbbb   x      22"]
    assert lay_out(["NAME", "KIND", "N"], rows, width=16, paint=PLAIN) == expected
    assert lay_out(["NAME", "KIND", "N"], rows, width=None, paint=PLAIN) == expected


def test_the_next_narrower_says_once_what_every_row_says_and_stacks_parts() -> None:
    rows = [[Cell(("a",)), Cell(("same",)), Cell(("one", "two"))], [Cell(("b",)), Cell(("same",)), Cell(("three",))]]
    assert lay_out(["NAME", "KIND", "PARTS"], rows, width=20, paint=PLAIN) == [
        "NAME  PARTS",
        "a     one",
        "      two",
        "b     three",
        "In every row: KIND",
        "same.",
    ]


def test_a_column_in_which_nothing_is_said_goes_without_a_word() -> None:
    rows = [cells("first-name", "-", "1"), cells("second-name", "-", "2")]
    assert lay_out(["NAME", "SAID", "N"], rows, width=16, paint=PLAIN) == [
        "NAME         N", "first-name   1", "second-name  2",
    ]  # fmt: skip


def test_narrower_still_the_first_column_has_its_own_line() -> None:
    rows = [cells("a-rather-long-name", "x", "1"), cells("another-long-name", "y", "2")]
    assert lay_out(["NAME", "KIND", "N"], rows, width=20, paint=PLAIN) == [
        "NAME", "  KIND  N", "a-rather-long-name", "  x     1", "another-long-name", "  y     2",
    ]  # fmt: skip


def test_narrowest_each_value_has_its_own_line() -> None:
    rows = [cells("name", "a value that is long", "1")]
    assert lay_out(["NAME", "KIND", "N"], rows, width=24, paint=PLAIN) == [
        "name",
        "  KIND  a value that is",
        "        long",
        "  N     1",
    ]


def test_spare_columns_go_last_first_before_the_rows_are_taken_apart() -> None:
    rows = [cells("a", "12345678", "123456", "1"), cells("b", "x", "y", "2")]
    heads = ["NAME", "FIRST", "SECOND", "N"]

    def head(width: int) -> str:
        return lay_out(heads, rows, width=width, paint=PLAIN, spare=("FIRST", "SECOND"))[0]

    assert head(25).split() == heads
    assert head(17).split() == ["NAME", "FIRST", "N"]
    assert head(15).split() == ["NAME", "SECOND", "N"]
    assert head(8).split() == ["NAME", "N"]


def test_at_the_narrowest_spare_columns_have_lines_too() -> None:
    rows = [cells("name", "a value that is rather long", "1")]
    lines = lay_out(["NAME", "KIND", "N"], rows, width=24, paint=PLAIN, spare=("N",))
    assert lines[-1] == "  N     1"


def test_a_word_that_does_not_fit_beside_its_heading_is_whole_below_it() -> None:
    rows = [cells("name", "a pkg/proxy/endpoints.go", "1")]
    assert lay_out(["NAME", "SOURCE", "N"], rows, width=26, paint=PLAIN) == [
        "name",
        "  SOURCE",
        "    a",
        "    pkg/proxy/endpoints.go",
        "  N       1",
    ]


@pytest.mark.parametrize("width", [None, 10])
def test_rows_for_scripts_are_never_folded(width: int | None) -> None:
    rows = [cells("a-rather-long-name", "x", "1")]
    lines = lay_out(["NAME", "KIND", "N"], rows, width=width, paint=PLAIN, with_headings=False)
    assert lines == ["a-rather-long-name   x   1"]


def test_wide_characters_take_two_cells_and_combining_ones_none() -> None:
    rows = [cells("日本", "x"), cells("e\u0301", "y"), cells("abcd", "z")]
    lines = lay_out(["NAME", "N"], rows, width=None, paint=PLAIN)
    assert lines[1:] == ["日本   x", "e\u0301      y", "abcd   z"]


def test_colour_does_not_move_columns() -> None:
    rows = [[Cell(("a",), "red"), Cell(("x",))], [Cell(("bb",)), Cell(("y",))]]
    lines = lay_out(["NAME", "N"], rows, width=None, paint=painter(color=True))
    assert lines == ["NAME   N", "\x1b[1;31ma\x1b[0m      x", "bb     y"]


def test_a_long_sentence_is_filled_in_its_column_and_the_rows_stay_rows() -> None:
    rows = [cells("server", "failed", "no connection to it: connection refused"), cells("name", "ok", "an address")]
    assert lay_out(["CHECK", "STATE", "DETAIL"], rows, width=42, paint=PLAIN) == [
        "CHECK   STATE   DETAIL",
        "server  failed  no connection to it:",
        "                connection refused",
        "name    ok      an address",
    ]


def test_what_has_to_be_copied_is_not_broken_to_fill_a_column() -> None:
    path = "/var/lib/kdnsctl/incidents/evidence"
    lines = lay_out(["CHECK", "DETAIL"], [cells("name", f"it is in {path}"), cells("b", "x")], width=40, paint=PLAIN)
    assert any(line.endswith(path) for line in lines)
    assert lines[0] == "name"  # not as columns
