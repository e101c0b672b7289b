"""What a journal says of an earlier capture: which nodes are finished, and what becomes of those that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdnsctl.evidence.artefactfile import Source
from kdnsctl.evidence.artefacts import CLUSTER
from kdnsctl.evidence.bundle import Bundle
from kdnsctl.evidence.resuming import Earlier, Gap, earlier, node_record
from kdnsctl.model import Reason

ITEMS = ("conntrack.a", "rules.iptables4")
NODES = ["knode1", "knode2", "knode3"]
GONE = Gap("conntrack.a", Reason("sshUnreachable", "it does not answer"))


def read(bundle: Bundle, node: str, *items: str) -> None:
    for item in items:
        bundle.begin(node, item, f"{item}.txt", Source("exec")).close()


def capture(bundle: Bundle, *, lists: tuple[str, ...] = ("services", "endpointslices")) -> None:
    """knode1 is finished, knode2 lacks its table, and knode3 was being read when the process ended."""
    read(bundle, CLUSTER, *lists)
    read(bundle, "knode1", *ITEMS)
    bundle.record("node", node_record("knode1", "complete", "exec", 2, (), ITEMS))
    bundle.record("node", node_record("knode2", "partial", "ssh", 1, [GONE], ITEMS))
    read(bundle, "knode3", "conntrack.a")


def stands(place: Path) -> Earlier:
    return earlier(Bundle.records(place))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    with Bundle.create(tmp_path / "evidence", {"nodes": NODES, "items": ITEMS}) as bundle:
        capture(bundle)
    return tmp_path / "evidence"


def test_only_a_node_that_was_finished_is_not_read_again(place: Path) -> None:
    found = stands(place)
    assert [node for node in NODES if found.finished(node, ITEMS)] == ["knode1"]
    assert found.items == ITEMS
    assert found.kept(["knode2", "knode3"]) == {"knode1": 1}
    assert (found.nodes["knode2"].status, found.nodes["knode2"].missing) == ("partial", (GONE,))
    unfinished = found.nodes["knode3"]
    assert (unfinished.status, unfinished.whole, unfinished.missing[0].reason.code) == ("", 1, "interrupted")


def test_a_node_is_read_again_for_an_item_that_was_not_asked_for(place: Path) -> None:
    assert stands(place).finished("knode1", ["conntrack.a"])
    assert not stands(place).finished("knode1", [*ITEMS, "conntrack.b"])


@pytest.mark.parametrize("lists", [(), ("services",), ("endpointslices", "nodes")])
def test_tables_that_nothing_can_judge_are_not_kept(tmp_path: Path, lists: tuple[str, ...]) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": NODES, "items": ITEMS}) as bundle:
        capture(bundle, lists=lists)
    assert not any(stands(tmp_path / "evidence").finished(node, ITEMS) for node in NODES)


def test_what_was_kept_once_is_kept_the_next_time_too(place: Path) -> None:
    about: dict[str, Any] = {"nodes": NODES, "kept": {"knode1": 1}, "items": ITEMS}
    with Bundle.resume(place, about, again=True) as second:
        read(second, CLUSTER, "services", "endpointslices")
        second.record("node", node_record("knode2", "complete", "ssh", 2, (), ITEMS))
    found = stands(place)
    assert [node for node in NODES if found.finished(node, ITEMS)] == ["knode1", "knode2"]
    assert found.kept(["knode3"]) == {"knode1": 1, "knode2": 2}


def test_a_capture_that_is_joined_with_none_begins_anew(place: Path) -> None:
    with Bundle.resume(place, {"nodes": ["knode1"], "items": ITEMS}, again=True):
        pass
    found = stands(place)
    assert set(found.nodes) == {"knode1"}
    assert not found.finished("knode1", ITEMS)


@pytest.mark.parametrize("said", [{"node": 5}, {"node": "knode1", "missing": 7, "items": 3, "whole": "x"}, {}])
def test_records_that_are_none_of_ours_say_nothing(tmp_path: Path, said: dict[str, Any]) -> None:
    with Bundle.create(tmp_path / "evidence", {"nodes": NODES}) as bundle:
        bundle.record("node", said)
    found = stands(tmp_path / "evidence")
    assert set(found.nodes) == set(NODES)
    assert not any(found.finished(node, []) for node in NODES)
