"""What the journal remembers of DNS: Services that lost a pod and were not heard since, nodes found affected."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kdnsctl.changes.journal import Record
from kdnsctl.quarantine.remembered import affected, unproven

Line = tuple[str, dict[str, Any]]
DNS = "kube-system/kube-dns"
TAKING: Line = ("dnsPod", {"service": DNS, "pod": "kube-system/coredns-1", "uid": "u1"})
BEGUN: Line = ("stepBegun", {"step": {"verb": "pod.evict", "uid": "u1"}})
OTHER: Line = ("stepBegun", {"step": {"verb": "pod.evict", "uid": "u2"}})
HEARD: Line = ("dnsAsked", {"service": DNS, "answers": True})
REFUSED: Line = ("stepFailed", {"of": 2, "certain": True})


def journal(*lines: Line) -> list[Record]:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    return [Record(number, now, kind, body, "") for number, (kind, body) in enumerate(lines, 1)]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ((), set()),
        ((TAKING,), set()),
        ((TAKING, OTHER), set()),
        ((TAKING, BEGUN), {DNS}),
        ((TAKING, BEGUN, ("stepDone", {"of": 2, "changed": True})), {DNS}),
        ((TAKING, BEGUN, ("stepFailed", {"of": 2, "certain": False})), {DNS}),
        ((TAKING, BEGUN, REFUSED), set()),
        ((TAKING, BEGUN, REFUSED, BEGUN), {DNS}),
        ((TAKING, BEGUN, HEARD), set()),
        ((TAKING, BEGUN, ("dnsAsked", {"service": DNS, "answers": None})), {DNS}),
        ((TAKING, BEGUN, ("dnsAsked", {"service": DNS, "answers": False})), {DNS}),
        ((TAKING, BEGUN, ("dnsAsked", {"service": "openshift-dns/dns-default", "answers": True})), {DNS}),
        ((TAKING, BEGUN, HEARD, TAKING, BEGUN), {DNS}),
    ],
)
def test_a_service_is_unproven_from_its_pods_eviction_to_its_answer(lines: tuple[Line, ...], wanted: set[str]) -> None:
    assert unproven(journal(*lines)) == wanted


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([("found", {"nodes": {"affected": ["n1", "n2"], "suspect": ["n3"]}})], {"n1", "n2"}),
        ([("captured", {"nodes": {"n1": {"verdict": "affected"}, "n2": {"verdict": "unknown"}}})], {"n1"}),
        ([("repaired", {"node": "n1", "verdict": "affected"})], {"n1"}),
    ],
)
def test_nodes_that_were_found_affected(lines: list[Line], wanted: set[str]) -> None:
    assert affected(journal(*lines)) == wanted


@pytest.mark.parametrize(
    ("line", "still"),
    [
        (("found", {"nodes": {"clean": ["n1"]}}), False),
        (("captured", {"nodes": {"n1": {"verdict": "clean"}}}), False),
        (("repaired", {"node": "n1", "verdict": "clean"}), False),
        (("run", {"command": "release", "nodes": ["n1"]}), False),
        (("captured", {"nodes": {"n1": {"verdict": "unknown"}}}), True),
        (("run", {"command": "quarantine", "nodes": ["n1"]}), True),
        (("found", {"nodes": {"clean": ["n2"]}}), True),
    ],
)
def test_until_they_are_found_well_or_released(line: Line, still: bool) -> None:
    lines = journal(("found", {"nodes": {"affected": ["n1"]}}), line)
    assert affected(lines) == ({"n1"} if still else set())
