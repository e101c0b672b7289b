"""Which exit code a quarantine ends with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kdnsctl.changes.incidents import Actor
from kdnsctl.model import ExitCode, Reason, Verdict
from kdnsctl.quarantine import draining
from kdnsctl.quarantine.capture import Judgement
from kdnsctl.quarantine.outcome import NodeResult, QuarantineReport
from kdnsctl.quarantine.planning import planned
from kdnsctl.quarantine.record import Phase
from tests.unit.quarantine.objects import node

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PLANNED = planned(node("n1"), (), "inc-1", Actor("jane@desk", "1-a"), "", NOW)
FAILED = Reason("forbidden", "no")
ALL_GONE, REFUSED = draining.NodeResult("n1"), draining.NodeResult("n1", refusal="cannot delete")


def result(verdict: Verdict | None, drained: draining.NodeResult | None = None, undrained: str = "") -> NodeResult:
    judgement = None if verdict is None else Judgement(verdict, "", captured=True)
    return NodeResult("n1", Phase.CAPTURED, PLANNED, judgement, drained=drained, undrained=undrained)


@pytest.mark.parametrize(
    ("results", "collected", "wanted"),
    [
        ([result(Verdict.AFFECTED, ALL_GONE)], True, ExitCode.OK),
        ([result(Verdict.AFFECTED, REFUSED)], True, ExitCode.INCOMPLETE),
        ([result(Verdict.AFFECTED)], True, ExitCode.OK),
        ([result(Verdict.CLEAN, undrained="not proven")], True, ExitCode.INCOMPLETE),
        ([result(Verdict.CLEAN)], True, ExitCode.INCOMPLETE),
        ([result(Verdict.UNKNOWN, ALL_GONE)], True, ExitCode.OK),  # --drain-anyway: all is done that was asked
        ([result(Verdict.UNKNOWN, REFUSED)], True, ExitCode.INCOMPLETE),
        ([result(Verdict.AFFECTED, ALL_GONE), result(Verdict.CLEAN)], True, ExitCode.INCOMPLETE),
        ([result(None)], False, ExitCode.OK),
        ([NodeResult("n1", Phase.BEGUN, PLANNED, failed=FAILED)], True, ExitCode.FAILED),
        (
            [result(Verdict.AFFECTED, ALL_GONE), NodeResult("n2", None, PLANNED, failed=FAILED)],
            True,
            ExitCode.INCOMPLETE,
        ),
    ],
)
def test_the_exit_code_tells_whether_all_was_done(results: list[NodeResult], collected: bool, wanted: ExitCode) -> None:
    assert QuarantineReport(NOW, "lab", "inc-1", tuple(results), collected=collected).exit_code is wanted
