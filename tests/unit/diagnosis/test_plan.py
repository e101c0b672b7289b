"""What findings advise, as one plan: in order, each thing once, and commands where they belong."""

from __future__ import annotations

from dataclasses import replace

from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.plan import Measure, plan
from kdnsctl.diagnosis.wording import COLLECT_FIRST


def finding(check: str, advice: str, *commands: str, protocol: str = "udp") -> Finding:
    return Finding(check, Severity.FAULT, "seen", advice, protocol=protocol, commands=commands)


def texts(*findings: Finding) -> list[str]:
    return [measure.text for measure in plan(findings)]


def test_evidence_comes_first_rules_before_entries_and_clients_last() -> None:
    assert texts(
        finding("C1", "Do not delete yet."),
        finding("C8", "Restart pods."),
        finding("C10", f"{COLLECT_FIRST} Restart kube-proxy."),
        finding("R2", f"{COLLECT_FIRST} Mend the rules."),
        finding("T1", "Raise the maximum."),
    ) == [
        COLLECT_FIRST,
        "Do not delete yet.",
        "Mend the rules.",
        "Restart kube-proxy.",
        "Raise the maximum.",
        "Restart pods.",
    ]


def test_entries_that_may_be_deleted_are_before_the_restart_that_would_do_it_too() -> None:
    found = plan(
        [finding("C10", "Restart."), finding("C1", f"Endpoints first. {COLLECT_FIRST} Delete:", "conntrack -D")]
    )
    assert found == (
        Measure(COLLECT_FIRST),
        Measure("Endpoints first. Delete:", commands=("conntrack -D",)),
        Measure("Restart."),
    )


def test_the_same_is_said_once_with_all_of_its_commands() -> None:
    found = plan([finding("C1", "Delete:", "a", "b"), finding("C3", "Delete:", "b", "c")])
    assert found == (Measure("Delete:", commands=("a", "b", "c")),)


def test_a_tcp_twin_is_left_out_and_tcp_alone_is_not() -> None:
    udp, tcp = finding("R2", "Mend udp."), finding("R2", "Mend tcp.", protocol="tcp")
    assert texts(tcp, udp) == ["Mend udp."]
    assert texts(tcp) == ["Mend tcp."]


def test_what_the_repair_of_rules_does_is_not_advised_again() -> None:
    look = finding("P1", "Look at kube-proxy.", protocol="")
    mend = finding("R2", f"{COLLECT_FIRST} Mend.")
    assert texts(look, finding("R3", "As R2."), mend) == [COLLECT_FIRST, "Mend."]
    assert texts(look, finding("R2", "Read again.")) == ["Read again.", "Look at kube-proxy."]
    assert texts(look) == ["Look at kube-proxy."]


def test_nothing_to_do() -> None:
    assert plan([finding("Q1", "")]) == ()


def test_a_repair_is_named_once() -> None:
    twice = [
        replace(finding("R1", "Rules.", "a"), repair="restart"),
        replace(finding("C10", "Heals."), repair="restart"),
    ]
    assert plan(twice) == (Measure("Rules.", ("restart",), ("a",)), Measure("Heals."))
