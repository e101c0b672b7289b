"""What holds for every node: the aggregate is the definition, and less evidence never makes a node healthier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.diagnosis.evidence import Evidence
from kdnsctl.diagnosis.findings import Diagnosis
from kdnsctl.diagnosis.flows import Reading
from kdnsctl.diagnosis.truth import ServicePort, Truth
from kdnsctl.model import Verdict
from kdnsctl.netfilter.entries import Entry
from kdnsctl.netfilter.rules import NodeRules
from tests.unit.diagnosis.nodes import (
    ALIVE,
    ALIVE6,
    ALSO_ALIVE,
    CLIENT,
    CUT,
    DEAD,
    DEAD6,
    DNS,
    NODE,
    NODE_IP,
    NOON,
    OTHER_IP,
    VIP,
    VIP6,
    entry,
    judge,
    reading,
    rules,
    service,
    truth,
)

GONE_VIP, NODE_PORT = "10.96.9.9", 30_053
BACKENDS = (ALIVE, ALSO_ALIVE, DEAD, ALIVE6, DEAD6)
RANK = {Verdict.CLEAN: 0, Verdict.UNKNOWN: 1, Verdict.AFFECTED: 2}


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    destination = draw(st.sampled_from((VIP, VIP6, GONE_VIP, NODE_IP, OTHER_IP, "8.8.8.8")))
    backend = draw(st.sampled_from((*BACKENDS, destination)))
    return entry(
        backend,
        destination=destination,
        port=draw(st.sampled_from((53, NODE_PORT, 80))),
        backend_port=draw(st.sampled_from((53, 5353))),
        protocol=draw(st.sampled_from(("udp", "udp", "tcp"))),
        sport=draw(st.integers(1024, 1100)),
        client=draw(st.sampled_from((CLIENT, "10.244.2.9"))),
    )


@st.composite
def truths(draw: st.DrawFn) -> Truth:
    serving = draw(st.lists(st.sampled_from(BACKENDS), unique=True, max_size=4))
    terminating = draw(st.lists(st.sampled_from(serving), unique=True)) if serving else []
    ready = [each for each in serving if each not in terminating]
    ports: list[ServicePort] = [
        service(
            ready,
            terminating=terminating,
            addresses=draw(st.sampled_from(((VIP,), (VIP, VIP6)))),
            node_port=draw(st.sampled_from((0, NODE_PORT))),
        )
    ]
    return replace(truth(*ports), services_known=draw(st.booleans()))


@st.composite
def node_states(draw: st.DrawFn) -> tuple[Evidence, Truth, list[Entry]]:
    known = draw(truths())
    found = draw(st.lists(entries(), max_size=8))
    later = draw(st.none() | st.lists(st.sampled_from(found) if found else entries(), max_size=8))
    dumps = tuple(
        rules(known, family=family, instead=draw(st.sampled_from((None, (DEAD,), (ALIVE,))))) for family in (4, 6)
    )
    is_live = draw(st.booleans())
    watched = draw(st.sampled_from((None, NOON - timedelta(seconds=5), NOON - timedelta(minutes=5))))
    known = replace(known, since=watched)
    at = NOON + timedelta(seconds=draw(st.sampled_from((5, 15))))
    return (
        Evidence(
            node=NODE,
            live=is_live,
            conntrack=reading(found, known, at=NOON),
            conntrack_later=None if later is None else reading(later, known, at=at),
            rules=dumps,
            rules_at=NOON,
        ),
        known,
        found,
    )


def is_stale(found: Entry, known: Truth) -> bool:
    """The definition, one entry at a time, as architecture and kube-proxy have it: no index, no groups."""
    if found.protocol != "udp":
        return False
    destination, port = found.original.destination, found.original.destination_port
    for each in known.services:
        to_address = destination in each.addresses and port == each.port
        to_node_port = each.node_port != 0 and destination in known.nodes[NODE] and port == each.node_port
        if each.protocol == "udp" and (to_address or to_node_port):
            serving = [(backend.address, backend.port) for backend in each.backends]
            return (found.reply.source, found.reply.source_port) not in serving
    in_range = destination.startswith("10.96.") or destination.startswith("fd00:96::")  # noqa: PIE810 - two ranges
    return known.services_known and in_range and found.reply.source != destination


@given(known=truths(), found=st.lists(entries(), max_size=60))
def test_the_streaming_aggregate_counts_what_the_definition_does(known: Truth, found: list[Entry]) -> None:
    state = Evidence(node=NODE, conntrack=reading(found, known))
    diagnosis = judge(state, known)
    expected = sum(is_stale(each, known) for each in found)
    assert diagnosis.stale_entries == expected
    assert (diagnosis.verdict is Verdict.AFFECTED) == (expected > 0)
    by_check = [each for each in diagnosis.findings if each.id in ("C1", "C2", "C3", "C4", "C5", "C6")]
    udp = [each for each in by_check if each.protocol == "udp" and each.severity.value != "info"]
    assert sum(each.count or 0 for each in udp) == expected


Reduce = Callable[[Evidence], Evidence]


def _cut(part: Reading | None) -> Reading | None:
    return None if part is None else replace(part, completeness=CUT)


def _cut_rules(dumps: tuple[NodeRules, ...]) -> tuple[NodeRules, ...]:
    return tuple(replace(each, completeness=CUT) for each in dumps)


REDUCTIONS: dict[str, Reduce] = {
    "cut the table": lambda found: replace(found, conntrack=_cut(found.conntrack)),
    "cut the second table": lambda found: replace(found, conntrack_later=_cut(found.conntrack_later)),
    "cut the rules": lambda found: replace(found, rules=_cut_rules(found.rules)),
    "lose the rules": lambda found: replace(found, rules=()),
    "lose the rules of IPv4": lambda found: replace(found, rules=found.rules[1:]),
    "lose all readings": lambda found: replace(found, conntrack=None, conntrack_later=None),
    "lose the name": lambda found: replace(found, node=""),
    "lose the times": lambda found: replace(found, rules_at=None),
}


@given(state=node_states(), how=st.sampled_from(sorted(REDUCTIONS)), named=st.booleans())
def test_less_evidence_never_makes_a_node_clean(
    state: tuple[Evidence, Truth, list[Entry]],
    how: str,
    named: bool,
) -> None:
    found, known, _ = state
    services = (DNS,) if named else ()
    before = judge(found, known, *services)
    after = judge(REDUCTIONS[how](found), known, *services)
    if before.verdict is not Verdict.CLEAN:
        assert after.verdict is not Verdict.CLEAN


@given(state=node_states(), keep=st.integers(0, 8))
def test_a_dump_that_ends_early_never_makes_a_node_clean(state: tuple[Evidence, Truth, list[Entry]], keep: int) -> None:
    found, known, all_entries = state
    short = reading(all_entries[:keep], known, at=NOON, completeness=CUT)
    after = judge(replace(found, conntrack=short, conntrack_later=None), known)
    assert after.verdict is not Verdict.CLEAN


@given(state=node_states(), which=st.sampled_from(("services_known", "endpoints_known")))
def test_less_truth_never_makes_a_node_clean(state: tuple[Evidence, Truth, list[Entry]], which: str) -> None:
    found, known, _ = state
    if which == "services_known":
        before, after = judge(found, known, DNS), judge(found, replace(known, services_known=False), DNS)
        assert RANK[after.verdict] == RANK[before.verdict]
    else:
        after = judge(found, replace(known, endpoints_known=False))
        assert after.verdict is not Verdict.CLEAN


@given(state=node_states(), more=st.lists(entries(), min_size=1, max_size=5))
def test_more_stale_entries_never_lower_the_verdict(
    state: tuple[Evidence, Truth, list[Entry]], more: list[Entry]
) -> None:
    found, known, all_entries = state
    stale = [each for each in more if is_stale(each, known)]
    before = judge(found, known)
    grown = replace(found, conntrack=reading([*all_entries, *stale], known, at=NOON))
    after = judge(grown, known)
    assert RANK[after.verdict] >= RANK[before.verdict]


@given(state=node_states())
def test_every_verdict_has_a_reason_and_every_count_a_ground(state: tuple[Evidence, Truth, list[Entry]]) -> None:
    found, known, _ = state
    diagnosis: Diagnosis = judge(found, known)
    assert diagnosis.reason.code
    assert diagnosis.reason.message
    assert diagnosis.stale_entries is not None
    if diagnosis.stale_entries:
        assert diagnosis.verdict is Verdict.AFFECTED
    if diagnosis.verdict is Verdict.CLEAN:
        assert diagnosis.complete
    for finding in diagnosis.findings:
        assert finding.explanation.isprintable()
        assert finding.advice == "" or finding.advice.isprintable()
        assert all(command.isprintable() for command in finding.commands)
