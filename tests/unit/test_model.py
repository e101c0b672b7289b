from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.model import (
    CancelledError,
    Coverage,
    ExitCode,
    KdnsctlError,
    Outcome,
    Reason,
    RefusedError,
    Scope,
    SilentReporter,
    UsageError,
    Verdict,
    exit_code_of,
)

verdicts = st.lists(st.sampled_from(Verdict))
scopes = st.sampled_from(Scope)


def test_an_outcome_is_a_value_or_a_reason_never_both_never_neither() -> None:
    assert Outcome("knode1", value=0).value == 0
    late: Outcome[int] = Outcome("knode1", reason=Reason("deadline", "too late"))
    assert late.value is None
    with pytest.raises(ValueError, match="either a value or a reason: knode1"):
        Outcome("knode1")
    with pytest.raises(ValueError, match="either a value or a reason: knode1"):
        Outcome("knode1", value=1, reason=Reason("deadline", "too late"))


def test_reasons_are_compared_by_what_they_say_not_by_the_exception_they_keep() -> None:
    error = OSError("reset")
    reason = Reason("unreachable", "no route", error)
    assert reason == Reason("unreachable", "no route")
    assert hash(reason) == hash(Reason("unreachable", "no route"))
    assert reason.error is error
    assert "reset" not in repr(reason)


@given(verdicts, scopes)
def test_coverage_counts_every_node_once(of: list[Verdict], scope: Scope) -> None:
    coverage = Coverage.of(iter(of), scope)
    assert coverage.in_scope == len(of)
    assert coverage.judged + coverage.unknown + coverage.not_applicable == coverage.in_scope
    assert coverage.unknown == of.count(Verdict.UNKNOWN)
    assert coverage.not_applicable == of.count(Verdict.NOT_APPLICABLE)
    assert coverage.scope is scope


@given(verdicts, scopes)
def test_found_wins_over_incomplete_wins_over_well(of: list[Verdict], scope: Scope) -> None:
    code = exit_code_of(of, Coverage.of(of, scope))
    if {Verdict.AFFECTED, Verdict.SUSPECT} & set(of):
        assert code is ExitCode.FOUND
    elif Verdict.UNKNOWN in of or scope is Scope.PARTIAL:
        assert code is ExitCode.INCOMPLETE
    else:
        assert code is ExitCode.OK


def test_a_node_that_cannot_have_the_fault_is_no_reason_for_exit_4() -> None:
    of = [Verdict.CLEAN, Verdict.NOT_APPLICABLE]
    assert exit_code_of(of, Coverage.of(of)) is ExitCode.OK


def test_no_nodes_at_all_of_a_partial_list_are_not_well() -> None:
    assert exit_code_of([], Coverage.of([], Scope.PARTIAL)) is ExitCode.INCOMPLETE


@pytest.mark.parametrize(
    ("kind", "exit_code", "code"),
    [
        (KdnsctlError, 1, "failed"),
        (UsageError, 2, "usage"),
        (RefusedError, 5, "refused"),
        (CancelledError, 130, "cancelled"),
    ],
)
def test_errors_carry_message_hint_exit_code_and_the_code_of_their_reason(
    kind: type[KdnsctlError], exit_code: int, code: str
) -> None:
    error = kind("no such node: knode9; nothing was done", hint="see `kubectl get nodes`")
    assert str(error) == "no such node: knode9; nothing was done"
    assert error.hint == "see `kubectl get nodes`"
    assert (error.exit_code, error.code) == (exit_code, code)
    assert kind("gone").hint == ""


def test_an_error_may_name_its_kind_of_failure_more_precisely() -> None:
    assert KdnsctlError("no route to knode1", code="unreachable").code == "unreachable"
    assert KdnsctlError("other").code == "failed"


def test_the_silent_reporter_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = SilentReporter()
    reporter.started("nodes", None)
    reporter.advanced(1, 2)
    reporter.noted("two are unreachable")
    reporter.finished()
    assert capfd.readouterr() == ("", "")
