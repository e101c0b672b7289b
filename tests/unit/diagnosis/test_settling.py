"""When a live reading may count what it shows, and what needs a second look."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kdnsctl.diagnosis.case import RuleFault, StaleGroup
from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.findings import Severity
from kdnsctl.diagnosis.plan import plan
from kdnsctl.diagnosis.truth import Truth
from kdnsctl.diagnosis.verdict import diagnose, unsettled
from kdnsctl.model import Verdict
from tests.unit.diagnosis.nodes import (
    ALIVE,
    CUT,
    DEAD,
    DEAD_TOO,
    DNS,
    NOON,
    VIP,
    both_families,
    entry,
    evidence,
    flows,
    judge,
    live,
    rules,
    service,
    the,
    truth,
)

KNOWN = truth()
END = (f"{DNS}:dns", DEAD, 53)


def gone(seconds: float, known: Truth = KNOWN) -> Truth:
    """The dead endpoint stopped serving so many seconds before noon."""
    return replace(known, gone={END: NOON - timedelta(seconds=seconds)})


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(30, Verdict.AFFECTED), (29.9, Verdict.UNKNOWN), (0, Verdict.UNKNOWN)]
)
def test_an_endpoint_gone_for_the_settle_time_counts(seconds: float, verdict: Verdict) -> None:
    known = gone(seconds)
    diagnosis = judge(live(flows(3), known), known)
    assert diagnosis.verdict is verdict
    assert diagnosis.stale_entries == (3 if verdict is Verdict.AFFECTED else 0)


def test_what_is_not_settled_is_neither_affected_nor_clean_and_says_so() -> None:
    known = gone(1)
    diagnosis = judge(live(flows(3), known), known)
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert diagnosis.reason.code == "notSettled"
    assert "3 entries" in diagnosis.reason.message
    finding = the(diagnosis, "C1")
    assert (finding.severity, finding.count) == (Severity.WARNING, 3)
    assert "later reading" in finding.explanation


def test_what_is_not_settled_calls_for_nothing_but_a_second_look() -> None:
    known = gone(1)
    measures = plan(judge(live(flows(3), known), known).findings)
    assert [measure.text.partition(":")[0] for measure in measures if "source port" not in measure.text] == [
        "Read the node again before anything is done to it"
    ]
    assert not any(measure.commands for measure in measures)


def test_a_watch_that_never_saw_the_endpoint_serve_settles_it() -> None:
    seen_for = replace(KNOWN, since=NOON - timedelta(seconds=30))
    assert judge(live(flows(3), seen_for), seen_for).verdict is Verdict.AFFECTED
    too_short = replace(KNOWN, since=NOON - timedelta(seconds=29))
    assert judge(live(flows(3), too_short), too_short).verdict is Verdict.UNKNOWN


def test_a_service_that_has_not_changed_for_long_settles_it_too() -> None:
    known = replace(KNOWN, since=NOON, unchanged={DNS: NOON - timedelta(hours=1)})
    assert judge(live(flows(3), known), known).verdict is Verdict.AFFECTED
    only_just = replace(gone(1), unchanged={DNS: NOON - timedelta(hours=1)})
    assert judge(live(flows(3), only_just), only_just).verdict is Verdict.UNKNOWN


def test_without_any_time_a_single_live_reading_never_counts() -> None:
    assert judge(live(flows(3), KNOWN), KNOWN).verdict is Verdict.UNKNOWN
    untimed = live(flows(3), gone(3600))
    untimed = replace(untimed, conntrack=replace(untimed.conntrack, at=None, began=None) if untimed.conntrack else None)
    assert judge(untimed, gone(3600)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(("apart", "verdict"), [(15, Verdict.AFFECTED), (14.9, Verdict.UNKNOWN)])
def test_a_second_reading_counts_when_it_is_late_enough(apart: float, verdict: Verdict) -> None:
    diagnosis = judge(live(flows(3), KNOWN, flows(3), apart=apart), KNOWN)
    assert diagnosis.verdict is verdict
    assert diagnosis.reads == 2


def test_only_entries_that_both_readings_have_are_counted() -> None:
    known = KNOWN
    diagnosis = judge(live(flows(5), known, flows(5, first=20_003)), known)
    assert diagnosis.verdict is Verdict.AFFECTED
    assert diagnosis.stale_entries == 2
    finding = the(diagnosis, "C1")
    assert finding.count == 5
    assert "3 entries" in finding.explanation


def test_untranslated_entries_need_a_second_reading_however_long_the_watch() -> None:
    known = replace(KNOWN, since=NOON - timedelta(hours=1), unchanged={DNS: NOON - timedelta(hours=1)})
    once = judge(live([entry(VIP)], known), known)
    assert once.verdict is Verdict.UNKNOWN
    assert judge(live([entry(VIP)], known, [entry(VIP)]), known).verdict is Verdict.AFFECTED


def test_what_the_second_reading_does_not_have_any_more_has_healed() -> None:
    assert judge(live(flows(3), KNOWN, []), KNOWN).verdict is Verdict.CLEAN
    known = gone(3600)
    healed = judge(live(flows(3), known, []), known)
    assert (healed.verdict, healed.stale_entries) == (Verdict.CLEAN, 0)


def test_a_second_reading_that_is_cut_off_heals_nothing() -> None:
    known = gone(3600)
    diagnosis = judge(live(flows(3), known, [], completeness=CUT), known)
    assert (diagnosis.verdict, diagnosis.stale_entries) == (Verdict.AFFECTED, 3)
    assert judge(live(flows(3), KNOWN, [], completeness=CUT), KNOWN).verdict is Verdict.UNKNOWN


def test_a_second_reading_of_other_addresses_heals_nothing() -> None:
    known = gone(3600)
    found = live(flows(3), known, [])
    assert found.conntrack_later is not None
    elsewhere = replace(found.conntrack_later, addresses=frozenset({"10.96.0.99"}))
    assert judge(replace(found, conntrack_later=elsewhere), known).stale_entries == 3
    other_family = replace(found.conntrack_later, families=frozenset({6}))
    assert judge(replace(found, conntrack_later=other_family), known).stale_entries == 3


def test_entries_that_are_new_in_the_second_reading_wait_for_a_third() -> None:
    diagnosis = judge(live([], KNOWN, flows(2)), KNOWN)
    assert diagnosis.verdict is Verdict.UNKNOWN
    assert diagnosis.reason.code == "notSettled"
    known = gone(30)
    assert judge(live([], known, flows(2)), known).stale_entries == 2


def test_an_offline_dump_counts_at_once_and_says_that_it_was_one_read() -> None:
    diagnosis = judge(evidence(flows(3), gone(1)), gone(1))
    assert diagnosis.verdict is Verdict.AFFECTED
    assert "one read" in diagnosis.reason.message


def test_two_offline_dumps_count_what_the_later_has() -> None:
    found = replace(live(flows(3), KNOWN, flows(2), apart=1), live=False)
    diagnosis = judge(found, KNOWN)
    assert (diagnosis.verdict, diagnosis.stale_entries, diagnosis.reads) == (Verdict.AFFECTED, 2, 2)
    assert "one read" not in diagnosis.reason.message


def test_the_terms_can_be_set() -> None:
    known = gone(5)
    quick = Terms(settle=timedelta(seconds=5))
    assert diagnose(live(flows(1), known), known, quick).verdict is Verdict.AFFECTED
    soon = Terms(recheck=timedelta(seconds=1))
    assert diagnose(live(flows(1), KNOWN, flows(1), apart=1), KNOWN, soon).verdict is Verdict.AFFECTED


def test_an_endpoint_that_came_while_the_table_was_read_serves() -> None:
    before, after = truth(service((ALIVE,))), truth(service((ALIVE, DEAD)))
    found = live(flows(3), before)
    assert found.conntrack is not None
    assert found.conntrack.groups
    assert judge(found, after).verdict is Verdict.CLEAN


# --- rules


def drifting(known: Truth = KNOWN, again: bool | None = None, apart: float = 20) -> Evidence:
    """A live node whose rules lead to a dead endpoint; `again`: whether they still do when read again."""
    bad = (rules(known, instead=(ALIVE, DEAD)), rules(known, family=6))
    later = () if again is None else bad if again else both_families(known)
    return live([], known, rules=bad, rules_later=later, rules_later_at=NOON + timedelta(seconds=apart))


def test_rules_settle_like_entries() -> None:
    assert judge(drifting(), KNOWN).verdict is Verdict.UNKNOWN
    assert judge(drifting(gone(29)), gone(29)).verdict is Verdict.UNKNOWN
    known = gone(30)
    diagnosis = judge(drifting(known), known)
    assert diagnosis.verdict is Verdict.AFFECTED
    assert diagnosis.reason.code == "staleRules"


@pytest.mark.parametrize(
    ("again", "apart", "verdict"),
    [(True, 15, Verdict.AFFECTED), (True, 14, Verdict.UNKNOWN), (False, 20, Verdict.CLEAN)],
)
def test_rules_that_are_read_again(again: bool, apart: float, verdict: Verdict) -> None:
    assert judge(drifting(again=again, apart=apart), KNOWN).verdict is verdict


def test_cut_off_rules_do_not_refute_what_whole_ones_showed() -> None:
    known = gone(30)
    cut = tuple(replace(each, services=(), completeness=CUT) for each in both_families(known))
    diagnosis = judge(replace(drifting(known), rules_later=cut), known)
    assert diagnosis.verdict is Verdict.AFFECTED


def test_rules_that_were_whole_once_prove_health_though_the_second_dump_is_cut_off() -> None:
    good = both_families(KNOWN)
    cut = tuple(replace(each, completeness=CUT, services=()) for each in good)
    later = NOON + timedelta(seconds=20)
    assert judge(live([], KNOWN, rules_later=cut, rules_later_at=later), KNOWN).verdict is Verdict.CLEAN
    only_later = live([], KNOWN, rules=(), rules_later=good, rules_later_at=later)
    assert judge(only_later, KNOWN).verdict is Verdict.CLEAN


def test_rules_that_were_not_read_again_are_not_refuted() -> None:
    known = gone(30)
    found = drifting(known)
    six_only = replace(found, rules_later=found.rules[1:], rules_later_at=NOON + timedelta(seconds=20))
    assert judge(six_only, known).verdict is Verdict.AFFECTED


def test_a_missing_rule_settles_when_the_service_has_not_changed_for_long() -> None:
    other = service(name="metrics", addresses=("10.96.1.1",))
    known = truth(service(), other)
    without = replace(rules(known), services=rules(known).services[1:])
    found = live([], known, rules=(without,))
    assert judge(found, known, DNS).reason.code == "notSettled"
    steady = replace(known, unchanged={DNS: NOON - timedelta(seconds=30)})
    assert judge(found, steady, DNS).verdict is Verdict.AFFECTED


def test_rules_that_are_not_up_to_date_yet_are_named() -> None:
    diagnosis = judge(drifting(), KNOWN)
    assert diagnosis.reason.code == "notSettled"
    assert the(diagnosis, "R2").severity is Severity.WARNING


# --- what has to be read again


def test_unsettled_names_what_a_second_reading_has_to_confirm() -> None:
    known = gone(1)
    (waiting,) = unsettled(live(flows(3), known), known)
    assert isinstance(waiting, StaleGroup)
    assert (waiting.waiting, waiting.key.reply_source) == (3, DEAD)
    (fault,) = unsettled(drifting(), KNOWN)
    assert isinstance(fault, RuleFault)
    assert fault.target == f"{DEAD}:53"


def test_nothing_is_unsettled_where_a_second_reading_changes_nothing() -> None:
    assert unsettled(live([entry(ALIVE)], KNOWN), KNOWN) == ()
    assert unsettled(evidence(flows(3)), KNOWN) == ()
    half = replace(KNOWN, gone={END: NOON - timedelta(hours=1), (END[0], DEAD_TOO, 53): NOON})
    assert unsettled(live([*flows(3), *flows(3, DEAD_TOO)], half), half) == ()


def test_other_services_and_tcp_need_no_second_reading() -> None:
    tcp = truth(service(), service(port_name="dns-tcp", protocol="tcp"))
    assert unsettled(live(flows(3, protocol="tcp"), tcp), tcp) == ()
    assert unsettled(live(flows(3), KNOWN), KNOWN, Terms(services=("default/web",))) == ()


def test_endpoints_of_other_services_say_nothing_of_this_one() -> None:
    known = replace(KNOWN, gone={("default/web", DEAD, 53): NOON - timedelta(hours=1)}, since=NOON)
    assert judge(live(flows(1), known), known).verdict is Verdict.UNKNOWN
