"""Log and state joined: what is said of a node for every pair of what the two say."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import jsonschema
import pytest

from kdnsctl.diagnosis.findings import Client, Diagnosis, Finding, Severity
from kdnsctl.find.joined import basis_counts, joined
from kdnsctl.find.live import State
from kdnsctl.find.report import FindReport, NodeFinding, SignatureCount, to_json
from kdnsctl.model import Basis, Coverage, Outcome, Reason, Verdict

AT = dt.datetime(2026, 11, 23, 3, 5, tzinfo=dt.UTC)
LOGGED = SignatureCount("CT_DEL_ENDPOINT", 2, AT - dt.timedelta(hours=1), AT - dt.timedelta(minutes=30))


def log(verdict: Verdict) -> NodeFinding:
    suspect = verdict is Verdict.SUSPECT
    code = "failureLogged" if suspect else "nothingLogged" if verdict is Verdict.CLEAN else "logProvesNothing"
    return NodeFinding(
        "a", verdict, Basis.LOG, "logged 2x CT_DEL_ENDPOINT" if suspect else code, code, signatures=(LOGGED,) * suspect
    )


def state(verdict: Verdict, code: str, stale: int | None = 0, *, complete: bool = True) -> Outcome[State]:
    diagnosis = Diagnosis(verdict, Reason(code, f"because {code}"), (), stale, complete)
    return Outcome("a", State(diagnosis, AT, "exec", None, "v1.36.2"))


@pytest.mark.parametrize(
    ("by_log", "by_state", "verdict", "basis", "code"),
    [
        (Verdict.SUSPECT, state(Verdict.AFFECTED, "staleEntries", 60), Verdict.AFFECTED, Basis.BOTH, "staleEntries"),
        (Verdict.CLEAN, state(Verdict.AFFECTED, "staleEntries", 60), Verdict.AFFECTED, Basis.BOTH, "staleEntries"),
        (Verdict.UNKNOWN, state(Verdict.AFFECTED, "staleRules"), Verdict.AFFECTED, Basis.STATE, "staleRules"),
        (Verdict.SUSPECT, state(Verdict.CLEAN, "ok"), Verdict.CLEAN, Basis.BOTH, "failureLoggedStateClean"),
        (Verdict.CLEAN, state(Verdict.CLEAN, "ok"), Verdict.CLEAN, Basis.BOTH, "ok"),
        (Verdict.UNKNOWN, state(Verdict.CLEAN, "ok"), Verdict.CLEAN, Basis.STATE, "ok"),
        (Verdict.SUSPECT, state(Verdict.UNKNOWN, "cutOff"), Verdict.SUSPECT, Basis.LOG, "failureLogged"),
        (Verdict.CLEAN, state(Verdict.UNKNOWN, "cutOff"), Verdict.CLEAN, Basis.LOG, "nothingLogged"),
        (Verdict.CLEAN, state(Verdict.UNKNOWN, "notSettled"), Verdict.UNKNOWN, Basis.LOG, "notSettled"),
        (Verdict.SUSPECT, state(Verdict.UNKNOWN, "notSettled"), Verdict.SUSPECT, Basis.LOG, "failureLogged"),
        (Verdict.UNKNOWN, state(Verdict.UNKNOWN, "cutOff"), Verdict.UNKNOWN, Basis.LOG, "cutOff"),
    ],
)
def test_state_is_proof_and_a_log_a_suspicion(
    by_log: Verdict, by_state: Outcome[State], verdict: Verdict, basis: Basis, code: str
) -> None:
    one = joined(log(by_log), by_state)
    assert (one.verdict, one.basis, one.reason_code) == (verdict, basis, code)
    assert one.state is not None
    assert one.state.read_at == AT


@pytest.mark.parametrize("by_log", [Verdict.SUSPECT, Verdict.CLEAN, Verdict.UNKNOWN])
def test_without_a_state_the_log_decides_and_the_reason_is_kept(by_log: Verdict) -> None:
    assert joined(log(by_log), None) == log(by_log)
    one = joined(log(by_log), Outcome("a", reason=Reason("forbidden", "pods/exec is forbidden")))
    assert one.verdict is by_log
    assert (one.complete, one.stale_entries, one.state) == (False, None, None)
    assert "pods/exec is forbidden" in one.problems[-1].message
    assert one.reason_code == ("forbidden" if by_log is Verdict.UNKNOWN else log(by_log).reason_code)


def test_a_clean_state_says_when_the_failure_was_and_when_it_was_gone() -> None:
    one = joined(log(Verdict.SUSPECT), state(Verdict.CLEAN, "ok"))
    assert one.reason == "failure logged at 2026-11-23T02:35:00Z, no stale entries at 2026-11-23T03:05:00Z"


def test_entries_of_a_cut_table_count_and_the_node_is_not_complete() -> None:
    one = joined(log(Verdict.CLEAN), state(Verdict.AFFECTED, "staleEntries", 3, complete=False))
    assert (one.verdict, one.stale_entries, one.complete) == (Verdict.AFFECTED, 3, False)


def test_the_report_with_states_is_as_its_schema_says(pytestconfig: pytest.Config) -> None:
    schema = json.loads((pytestconfig.rootpath / "docs/schemas/FindReport.schema.json").read_text())
    finding = Finding(
        "C1", Severity.FAULT, "why", "do", "kube-system/kube-dns:dns", 53, "udp", 60, ("10.244.1.2:53",),
        (Client("10.244.2.3", 60, "p", "ns"),), 4,
    )  # fmt: skip
    stale = state(Verdict.AFFECTED, "staleEntries", 60)
    assert stale.value is not None
    told = replace(stale.value, diagnosis=replace(stale.value.diagnosis, findings=(finding,)))
    nodes = (joined(log(Verdict.SUSPECT), Outcome("a", told)), joined(log(Verdict.CLEAN), None))
    report = to_json(FindReport(AT, nodes, Coverage.of(node.verdict for node in nodes)))
    jsonschema.validate(report, schema)
    assert report["nodes"][0]["state"]["findings"][0]["clients"][0]["pod"] == "p"
    assert report["nodes"][1]["state"] is None


def test_what_was_judged_by_what_leaves_out_who_was_not_judged() -> None:
    nodes = [
        joined(log(Verdict.SUSPECT), state(Verdict.CLEAN, "ok")),
        joined(log(Verdict.UNKNOWN), state(Verdict.CLEAN, "ok")),
        log(Verdict.SUSPECT),
        log(Verdict.UNKNOWN),
    ]
    assert basis_counts(nodes) == {Basis.BOTH: 1, Basis.STATE: 1, Basis.LOG: 1}
