"""What came of a quarantine: the repairs that are named next are those that the captures call for."""

from __future__ import annotations

from datetime import UTC, datetime

from kdnsctl.model import Verdict
from kdnsctl.quarantine.capture import Judgement
from kdnsctl.quarantine.outcome import NodeResult, QuarantineReport
from kdnsctl.quarantine.planning import Planned
from kdnsctl.quarantine.record import NodeRecord, Phase
from tests.unit.quarantine.objects import node

NOW = datetime(2026, 11, 28, tzinfo=UTC)
FLUSH, RESTART = "kdnsctl repair flush", "kdnsctl repair restart-kube-proxy"


def result(name: str, verdict: Verdict, repair: str) -> NodeResult:
    record = NodeRecord("i", "jane", "r", NOW, Phase.CAPTURED)
    judged = Judgement(verdict, "why", captured=True, repair=repair)
    return NodeResult(name, Phase.CAPTURED, Planned(node(name), None, record, ()), judged)


def repairs(*nodes: NodeResult) -> list[str]:
    return [" ".join(words) for words in QuarantineReport(NOW, "c", "i", nodes).repairs]


def test_nodes_that_take_the_same_repair_are_named_in_one_command() -> None:
    assert repairs(
        result("a", Verdict.AFFECTED, f"{FLUSH} a"),
        result("b", Verdict.AFFECTED, f"{RESTART} b"),
        result("c", Verdict.AFFECTED, f"{FLUSH} c --service logs/syslog"),
        result("flush", Verdict.AFFECTED, f"{FLUSH} flush"),
    ) == ["repair flush a flush", "repair restart-kube-proxy b", "repair flush c --service logs/syslog"]


def test_what_is_not_affected_or_has_no_repair_gets_none() -> None:
    assert repairs(result("a", Verdict.CLEAN, f"{FLUSH} a"), result("b", Verdict.AFFECTED, "")) == []


def test_one_command_names_few_nodes() -> None:
    many = [result(f"n{at}", Verdict.AFFECTED, f"{FLUSH} n{at}") for at in range(9)]
    assert repairs(*many) == ["repair flush n0 n1 n2 n3 n4"]
