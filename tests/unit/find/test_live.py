"""Live nodes judged within one bracket of truth: what counts at once, what waits, and what is never said."""

from __future__ import annotations

import datetime as dt
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kdnsctl.access.review import PATH as REVIEWS
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import Failure, ForbiddenError
from kdnsctl.cluster.retries import NO_RETRIES
from kdnsctl.find.live import HELPFUL, NEEDED, Judged, LiveOptions, State, judge_nodes
from kdnsctl.model import KdnsctlError, Reason, SilentReporter, Verdict
from tests.unit.cluster.apiserver import Server, reply
from tests.unit.cluster.conftest import Connect
from tests.unit.find.clusters import FORBIDDEN
from tests.unit.find.scripted import (
    ALL_SLICES,
    NEW,
    OLD,
    RULES,
    SERVICES,
    STALE_RULES,
    STALE_TABLE,
    TABLE,
    Counting,
    Shell,
    Slices,
    endpoint_slice,
    proxy,
)
from tests.unit.manual_clock import ManualClock

DNS = ("kube-system/kube-dns",)
JUST_CHANGED = "changed when the test runs, not when it is collected"
CUT = Reason("cutOff", "the connection broke off")


class Notes(SilentReporter):
    """Moves the clock on when a second look is announced: nobody waits in these tests."""

    def __init__(self, clock: ManualClock) -> None:
        self.said: list[str] = []
        self._clock = clock

    def noted(self, message: str) -> None:
        self.said.append(message)
        if "looking again" in message:
            self._clock.advance(15)


Judge = Callable[..., Judged]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def told(clock: ManualClock) -> Notes:
    return Notes(clock)


@pytest.fixture
def judge(api: Server, connect_to: Connect, clock: ManualClock, told: Notes) -> Iterator[Judge]:
    with CancelScope(clock=clock) as scope:

        def judge(*shells: Shell, **options: Any) -> Judged:
            by_node = {shell.node: shell for shell in shells}
            asked = LiveOptions(**{"services": DNS, "whole": False, "thorough": False, **options})
            return judge_nodes(
                connect_to(api, retry=NO_RETRIES),
                [proxy(shell.node) for shell in shells],
                (),
                asked,
                scope=scope,
                reporter=told,
                now=dt.datetime.now(dt.UTC),
                shell_of=lambda one: by_node[one.node],
            )

        yield judge
        scope.cancel()


def state(judged: Judged, node: str = "a") -> State:
    value = judged.outcomes[node].value
    assert value is not None, judged.outcomes[node].reason
    return value


def said(judged: Judged, node: str = "a") -> tuple[Verdict, int | None, int]:
    diagnosis = state(judged, node).diagnosis
    return diagnosis.verdict, diagnosis.stale_entries, diagnosis.reads


def test_a_clean_node_is_read_once_and_nobody_asks_for_pods(api: Server, judge: Judge, told: Notes) -> None:
    Slices(api, endpoint_slice(NEW))
    shell = Shell("a")
    assert said(judge(shell)) == (Verdict.CLEAN, 0, 1)
    assert shell.read_facts.count("conntrack") == 1
    assert not any(seen.path == "/api/v1/pods" for seen in api.requests)
    assert told.said == []


def test_entries_that_a_second_look_still_has_count(api: Server, judge: Judge, told: Notes) -> None:
    Slices(api, endpoint_slice(NEW))
    broken, fine = Shell("a", STALE_TABLE), Shell("b")
    judged = judge(broken, fine)
    assert said(judged, "a") == (Verdict.AFFECTED, 60, 2)
    assert said(judged, "b") == (Verdict.CLEAN, 0, 1)
    assert len([line for line in told.said if "looking again after 15s" in line]) == 1
    assert fine.read_facts.count("conntrack") == 1  # only the one that needs it is looked at again
    assert next(seen.query["fieldSelector"][0] for seen in api.requests if seen.path == "/api/v1/pods") == (
        "spec.nodeName=a"
    )


def test_ctrl_c_just_when_a_second_look_is_told_of_keeps_the_first(
    api: Server, judge: Judge, told: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slices(api, endpoint_slice(NEW))
    broken, fine = Shell("a", STALE_TABLE), Shell("b")

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(told, "noted", interrupted)
    judged = judge(broken, fine)
    assert said(judged, "a")[0] is Verdict.UNKNOWN  # there is something that nobody has confirmed
    assert said(judged, "b") == (Verdict.CLEAN, 0, 1)
    assert broken.read_facts.count("conntrack") == 1


def test_a_second_look_reads_the_counters_again(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    shell = Shell("a", STALE_TABLE, counters=(b"entries insert_failed\n10 5\n", b"entries insert_failed\n10 8\n"))
    findings = {one.id: one for one in state(judge(shell, thorough=True)).diagnosis.findings}
    assert shell.read_facts.count("conntrack.counters") == 2
    assert "between the two readings" in findings["T2"].explanation
    assert findings["T2"].count == 3


@pytest.mark.parametrize("whole", [True, False])
def test_an_empty_table_is_not_taken_for_the_nodes(api: Server, judge: Judge, whole: bool) -> None:
    Slices(api, endpoint_slice(NEW))
    judged = judge(Shell("a", b""), whole=whole)
    assert said(judged) == (Verdict.UNKNOWN, 0, 1)
    assert state(judged).diagnosis.reason.code == "tableEmpty"


def test_entries_that_kube_proxy_has_cleaned_up_meanwhile_do_not(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    assert said(judge(Shell("a", STALE_TABLE, TABLE))) == (Verdict.CLEAN, 0, 2)


def test_of_a_second_look_only_flows_count_that_the_first_had_too(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    lines = [line for line in STALE_TABLE.splitlines(keepends=True) if b"dst=10.96.0.10" in line]
    judged = judge(Shell("a", b"".join(lines[:20]), b"".join(lines[10:])))
    assert said(judged) == (Verdict.AFFECTED, 10, 2)


def test_a_second_look_that_fails_leaves_what_is_known_and_is_never_clean(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    judged = judge(Shell("a", STALE_TABLE, KdnsctlError("the node is gone", code="unreachable")))
    diagnosis = state(judged).diagnosis
    assert (diagnosis.verdict, diagnosis.stale_entries, diagnosis.complete) == (Verdict.UNKNOWN, 0, False)
    assert "the node is gone" in diagnosis.reason.message


def test_slices_that_have_not_changed_for_long_settle_it_at_once(api: Server, judge: Judge, told: Notes) -> None:
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=10)
    Slices(api, endpoint_slice(NEW, changed=long_ago))
    assert said(judge(Shell("a", STALE_TABLE))) == (Verdict.AFFECTED, 60, 1)
    assert told.said == []


@pytest.mark.parametrize(
    "slices",
    [
        [JUST_CHANGED],
        [endpoint_slice(NEW)],  # nobody says when
        [  # one may have been deleted beside these: then none of them has changed
            endpoint_slice(NEW[:1], changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
            endpoint_slice(NEW[1:], name="kube-dns-2", changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
        ],
        [endpoint_slice([*NEW, *(f"10.245.0.{n}" for n in range(60))], changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))],
    ],
    ids=["changed", "silent", "several", "full"],
)
def test_slices_that_prove_nothing_lead_to_a_second_look(api: Server, judge: Judge, slices: list[Any]) -> None:
    now = endpoint_slice(NEW, changed=dt.datetime.now(dt.UTC))
    Slices(api, *(now if one == JUST_CHANGED else one for one in slices))
    assert said(judge(Shell("a", STALE_TABLE))) == (Verdict.AFFECTED, 60, 2)


def test_an_endpoint_that_goes_while_nodes_are_read_is_not_settled(
    api: Server, judge: Judge, clock: ManualClock, told: Notes
) -> None:
    """It served when the reading began: no entry of it counts, nor a rule, whether we hear of it soon or late."""
    slices = Slices(api, endpoint_slice(OLD, changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
    after = endpoint_slice(NEW, changed=dt.datetime.now(dt.UTC))

    def roll() -> None:
        slices.now = [after]
        slices.tell("MODIFIED", after)

    shell = Shell("a", STALE_TABLE, TABLE, rules=(STALE_RULES, RULES), during=roll)
    assert state(judge(shell)).diagnosis.verdict is not Verdict.AFFECTED
    assert clock.now() >= 15 or not any("again" in line for line in told.said)


def test_kube_proxy_may_know_of_an_endpoint_before_we_do(api: Server, judge: Judge, told: Notes) -> None:
    """The watch has not told of it, and the table already has its entries: a fresh list decides."""
    slices = Slices(api, endpoint_slice(OLD))

    def come() -> None:
        slices.now = [endpoint_slice(NEW)]  # no event is sent

    assert said(judge(Shell("a", TABLE, during=come))) == (Verdict.CLEAN, 0, 1)
    assert slices.lists == 2
    assert not any("again" in line for line in told.said)


@pytest.mark.parametrize("keep", [0, 1, 5_000, 20_000])
def test_a_cut_table_counts_what_it_has_and_is_never_clean(api: Server, judge: Judge, keep: int) -> None:
    Slices(api, endpoint_slice(NEW, changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
    cut = STALE_TABLE[:keep]
    diagnosis = state(judge(Shell("a", (cut, CUT)))).diagnosis
    whole_lines = cut.splitlines()[: cut.count(b"\n")]
    stale = sum(b"udp" in line and b"dst=10.96.0.10" in line for line in whole_lines)
    assert diagnosis.complete is False
    assert diagnosis.verdict is (Verdict.AFFECTED if stale else Verdict.UNKNOWN)
    assert diagnosis.stale_entries == stale


def test_a_healthy_table_that_was_cut_is_unknown(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    diagnosis = state(judge(Shell("a", (TABLE[:-300], CUT)))).diagnosis
    assert (diagnosis.verdict, diagnosis.reason.code) == (Verdict.UNKNOWN, "cutOff")


def test_a_node_that_may_not_be_read_is_its_own_affair(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    judged = judge(Shell("a", KdnsctlError("pods/exec is forbidden", code="forbidden")), Shell("b"))
    reason = judged.outcomes["a"].reason
    assert reason is not None
    assert (reason.code, reason.message) == ("forbidden", "pods/exec is forbidden")
    assert said(judged, "b") == (Verdict.CLEAN, 0, 1)


@pytest.mark.parametrize(
    ("allowed", "message", "tried"),
    [
        (False, 'pods "p" is forbidden: User "u" cannot get resource "pods/exec" in API group ""', 1),
        (True, 'pods "p" is forbidden: User "u" cannot get resource "pods/exec" in API group ""', 9),
        (False, 'admission webhook "no-exec" denied the request', 9),
    ],
)
def test_where_exec_is_refused_for_good_not_every_node_is_tried(
    api: Server, judge: Judge, allowed: bool, message: str, tried: int
) -> None:
    Slices(api, endpoint_slice(NEW))
    api.on(REVIEWS, reply({"status": {"allowed": allowed}}))
    shells = [Shell(f"n{number}", ForbiddenError(Failure("GET exec", 403, message=message))) for number in range(9)]
    judged = judge(*shells, parallel=1)
    reasons = [judged.outcomes[shell.node].reason for shell in shells]
    assert [reason.code for reason in reasons if reason] == ["forbidden"] * 9
    assert sum(bool(shell.read_facts) for shell in shells) == tried
    assert sum(seen.path == REVIEWS for seen in api.requests) == 2  # asked once: may we get, may we create
    spared = [reason for reason in reasons if reason and "not tried, since another node was refused" in reason.message]
    assert len(spared) == 9 - tried


def test_stale_rules_make_a_node_affected_without_any_entry(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW, changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
    diagnosis = state(judge(Shell("a", TABLE, rules=STALE_RULES))).diagnosis
    assert (diagnosis.verdict, diagnosis.reason.code, diagnosis.stale_entries) == (Verdict.AFFECTED, "staleRules", 0)


def test_stale_rules_that_decide_do_not_leave_entries_uncounted(api: Server, judge: Judge, clock: ManualClock) -> None:
    """A kube-proxy that hangs makes minutes pass between the table and the rules: by then the rules have settled."""
    Slices(api, endpoint_slice(NEW))

    class Hanging(Shell):
        def read(self, fact: Any, *args: Any, **kwargs: Any) -> Any:
            if fact.endpoint is not None:
                clock.advance(40)
            return super().read(fact, *args, **kwargs)

    assert said(judge(Hanging("a", STALE_TABLE, rules=STALE_RULES))) == (Verdict.AFFECTED, 60, 2)


def test_without_endpoint_slices_nothing_is_read(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    api.on("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", FORBIDDEN)
    shell = Shell("a", STALE_TABLE)
    with pytest.raises(ForbiddenError):
        judge(shell)
    assert shell.read_facts == []


def test_where_services_may_not_be_listed_everywhere_kube_system_is_judged(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW, changed=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)))
    kube_dns = api.answers.pop(SERVICES)
    api.on("/api/v1/namespaces/kube-system/services", *kube_dns)
    api.on(SERVICES, FORBIDDEN)
    api.on(ALL_SLICES, FORBIDDEN)
    judged = judge(Shell("a", STALE_TABLE), services=(), whole=True)
    assert said(judged) == (Verdict.AFFECTED, 60, 1)
    assert "those of kube-system are judged, and no others" in judged.notes[0]


def test_a_service_that_is_not_there_ends_it_before_anything_is_read(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    shell = Shell("a")
    with pytest.raises(KdnsctlError, match="there is no Service x/y"):
        judge(shell, services=("x/y",))
    assert shell.read_facts == []


@pytest.mark.parametrize("services", [DNS, ()])
def test_nothing_is_asked_for_that_is_not_declared(api: Server, judge: Judge, services: tuple[str, ...]) -> None:
    Slices(api, endpoint_slice(NEW))
    judge(Shell("a", STALE_TABLE), services=services, whole=not services)
    asked = set()
    for seen in api.requests:
        if seen.path == "/version":  # everybody who is signed in may ask
            continue
        place = seen.path.partition("/namespaces/")
        kind, *name = (place[2].partition("/")[2] if place[1] else seen.path.rpartition("/")[2]).split("/")
        asked.add(("watch" if "watch" in seen.query else "get" if name else "list", kind))
    assert asked <= {(one.verb, one.resource) for one in (*NEEDED, *HELPFUL)}
    assert ("watch", "endpointslices") in asked
    assert all(one.without for one in (*NEEDED, *HELPFUL))


def test_hundreds_of_nodes_stay_within_the_limit_and_flat_in_memory(api: Server, judge: Judge) -> None:
    Slices(api, endpoint_slice(NEW))
    line = TABLE.splitlines(keepends=True)
    table = b"".join(one for one in line if b"udp" in one)[:20_000].rpartition(b"\n")[0] + b"\n"
    working = Counting()

    class Slow(Shell):
        def read(self, *args: Any, **kwargs: Any) -> Any:
            with working:
                return super().read(*args, **kwargs)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            judged = judge(*(Slow(f"n{number}", table) for number in range(count)), parallel=8)
            assert {said(judged, node)[0] for node in judged.outcomes} == {Verdict.CLEAN}
            assert len(judged.outcomes) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(8)  # what is made once
    few, many = peak(30), peak(300)
    assert working.most <= 8
    assert many - few < 270 * 16 * 1024  # 16 KiB a node: its verdict and its findings, not its table or its rules
    assert threading.active_count() < 40
