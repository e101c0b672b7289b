"""Which incident a repair belongs to: that of its nodes' quarantine, if it is one."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec

from kdnsctl.changes.fields import RECORD
from kdnsctl.cluster.objects import Node
from kdnsctl.quarantine.record import NodeRecord, Phase
from kdnsctl.repair.session import incident_of, quarantined, secured_before


def node(name: str, incident: str = "", *, text: str = "", verdict: str = "") -> Node:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    record = NodeRecord(incident, "jane", "r", now, Phase.DRAINED, verdict=verdict)
    text = text or (json.dumps(record.to_json()) if incident else "")
    metadata = {"name": name, "uid": name, "annotations": {RECORD: text} if text else {}}
    return msgspec.convert({"metadata": metadata}, Node)


NODES = (node("a", "one"), node("b", "two"), node("c"), node("d", text="{}"), node("e", "../../etc"))


def test_it_belongs_to_the_quarantine_of_the_nodes_that_are_repaired() -> None:
    assert incident_of(NODES, ("a",)) == "one"
    assert incident_of(NODES, ("a", "c")) == "one"
    assert incident_of(NODES, ("b",)) == "two"


def test_none_two_and_what_is_no_record_are_no_incident() -> None:
    for names in (("c",), ("a", "b"), ("d",), ("e",), ()):
        assert incident_of(NODES, names) is None


def test_who_has_a_record_is_in_quarantine_whatever_is_in_it() -> None:
    assert quarantined(NODES) == ("a", "b", "d", "e")


def test_evidence_is_secured_where_a_capture_proved_the_node_affected() -> None:
    nodes = (node("a", "i", verdict="affected"), node("b", "i", verdict="unknown"), node("c", "i"), *NODES[2:])
    assert secured_before(nodes) == {"a"}
