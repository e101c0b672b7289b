"""When a credential is had anew, and when not: by a clock that the test moves."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.credentials import NOT_AGAIN, Credential, Credentials
from kdnsctl.cluster.errors import CredentialError
from kdnsctl.model import Reason
from tests.unit.manual_clock import ManualClock

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def numbered(calls: list[CancelScope], *, until: dt.datetime | None = None) -> Credentials:
    """Credentials c1, c2, … as they are asked for."""

    def load(scope: CancelScope) -> Credential:
        calls.append(scope)
        return Credential(f"c{len(calls)}", until=until)

    return Credentials(load, renewable=True)


def test_one_that_has_ended_is_had_anew(scope: CancelScope) -> None:
    credentials = numbered([], until=LONG_AGO)
    assert [credentials.current(scope).origin for _ in range(3)] == ["c1", "c2", "c3"]


def test_a_failure_is_remembered_for_a_while_with_its_words() -> None:
    clock, calls = ManualClock(), list[int]()

    def load(_: CancelScope) -> Credential:
        calls.append(len(calls))
        raise CredentialError("no session", hint="sign in")

    credentials = Credentials(load, renewable=True)
    with CancelScope(clock=clock) as scope:
        for _ in range(3):
            with pytest.raises(CredentialError, match=r"^no session$") as caught:
                credentials.current(scope)
            assert caught.value.hint == "sign in"
        assert len(calls) == 1
        clock.advance(NOT_AGAIN)
        with pytest.raises(CredentialError):
            credentials.current(scope)
        assert len(calls) == 2


def test_one_that_was_had_anew_after_a_refusal_is_not_had_anew_again_at_once() -> None:
    clock = ManualClock()
    credentials = numbered([])
    with CancelScope(clock=clock) as scope:
        first = credentials.current(scope)
        assert credentials.refused(first, scope)
        second = credentials.current(scope)
        assert credentials.refused(first, scope)  # of a request that was under way: there is a new one already
        assert credentials.current(scope) is second
        assert not credentials.refused(second, scope)
        assert credentials.current(scope) is second
        clock.advance(NOT_AGAIN)
        assert credentials.refused(second, scope)
        assert credentials.current(scope).origin == "c3"


def test_who_waits_for_a_renewal_that_hangs_learns_why_it_failed() -> None:
    begun, calls = threading.Event(), list[int]()

    def load(scope: CancelScope) -> Credential:
        calls.append(1)
        begun.set()
        scope.cancelled.wait()
        raise CredentialError("it hangs")

    credentials = Credentials(load, renewable=True)
    said: list[str] = []

    def ask(scope: CancelScope) -> None:
        with pytest.raises(CredentialError) as caught:
            credentials.current(scope)
        said.append(str(caught.value))

    with CancelScope() as scope:
        threads = [threading.Thread(target=ask, args=(scope,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        begun.wait()
        scope.cancel(Reason("deadline", "late"))
        for thread in threads:
            thread.join()
    assert said == ["it hangs"] * 3
    assert len(calls) == 1
