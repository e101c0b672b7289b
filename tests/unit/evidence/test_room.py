"""Whether there is room: told before anything is written, and refused where nothing at all would fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdnsctl.cluster.objects import Node, NodeStatus
from kdnsctl.evidence.room import AT_LEAST, NEEDED, PER_CORE, PER_ENTRY, READ, check_room, free_bytes, most_of
from kdnsctl.model import RefusedError


def node(cpu: str) -> Node:
    return Node(status=NodeStatus(capacity={"cpu": cpu}))


def test_a_table_grows_with_the_cpus_of_its_node() -> None:
    assert most_of([node("64")]) - most_of([node("32")]) == READ * PER_ENTRY * PER_CORE * 32
    assert most_of([node("1")]) == most_of([node("4")]) > READ * PER_ENTRY * AT_LEAST
    assert most_of([node("4"), node("4")]) == 2 * most_of([node("4")])


@pytest.mark.parametrize("cpu", ["", "1500m", "-3", "٣", "9" * 30])
def test_what_a_node_says_is_not_believed_blindly(cpu: str) -> None:
    assert 0 < most_of([node(cpu)]) <= most_of([node("1024")])
    assert most_of([None]) == most_of([node("")])


def test_enough_room_is_not_worth_a_word() -> None:
    assert check_room(Path("x"), 10 << 20, free=lambda _: 10 << 20) == ""


def test_less_than_full_tables_take_is_told_and_no_reason_to_stop() -> None:
    said = check_room(Path("x"), 3 << 30, free=lambda _: 4 << 20)
    assert "4 MiB free" in said
    assert "3 GiB" in said
    assert "-O DIR" in said


def test_without_room_for_the_records_nothing_is_begun() -> None:
    with pytest.raises(RefusedError) as caught:
        check_room(Path("x"), 1, free=lambda _: NEEDED - 1)
    assert "nothing was collected" in str(caught.value)


def test_the_room_of_a_directory_that_is_not_there_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
    assert not (tmp_path / "a").exists()
