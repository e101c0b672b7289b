"""What the log says of a node and what its state says, joined into one verdict. Pure.

State is proof, a log a suspicion. Stale state makes a node affected, whatever was logged; clean state makes it clean,
also when a failure was logged: then something has cleaned up since. Without a usable state the log decides, as it does
alone; but what is not settled is never called clean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kdnsctl.find.live import State
from kdnsctl.find.report import KubeProxy, NodeFinding, NodeState, Problem
from kdnsctl.model import Basis, Outcome, Reason, Verdict

NOT_SETTLED = "notSettled"
LOGGED_AND_CLEAN = "failureLoggedStateClean"


def joined(finding: NodeFinding, outcome: Outcome[State] | None) -> NodeFinding:
    """One node's finding from its log, with its state. `outcome` None: nobody tried to read its state."""
    if outcome is None:
        return finding
    if outcome.value is None:
        return _as_log_says(finding, outcome.reason or Reason("internalError", "its state was not read"))
    state = outcome.value
    diagnosis = state.diagnosis
    told = replace(
        finding,
        stale_entries=diagnosis.stale_entries,
        state=NodeState(state.read_at, state.via, diagnosis),
        kube_proxy=_proxy(finding.kube_proxy, state),
    )
    match diagnosis.verdict:
        case Verdict.AFFECTED:
            return _decided(told, Verdict.AFFECTED, _both_reasons(diagnosis.reason, finding), diagnosis.complete)
        case Verdict.CLEAN:
            return _decided(told, Verdict.CLEAN, _clean_reason(finding, state), complete=True)
        case _:
            return _as_log_says(told, diagnosis.reason)


def basis_counts(findings: Iterable[NodeFinding]) -> dict[Basis, int]:
    """How many of the judged nodes were judged by what."""
    judged = [one.basis for one in findings if one.verdict not in (Verdict.UNKNOWN, Verdict.NOT_APPLICABLE)]
    return {basis: judged.count(basis) for basis in (Basis.BOTH, Basis.STATE, Basis.LOG) if basis in judged}


def _decided(finding: NodeFinding, verdict: Verdict, reason: Reason, complete: bool) -> NodeFinding:  # noqa: FBT001
    """The state's verdict. The log has a part in it where it could be judged too."""
    log_tells = finding.verdict in (Verdict.SUSPECT, Verdict.CLEAN)
    return replace(
        finding,
        verdict=verdict,
        basis=Basis.BOTH if log_tells else Basis.STATE,
        reason=reason.message,
        reason_code=reason.code,
        complete=complete and finding.complete,
    )


def _both_reasons(stale: Reason, finding: NodeFinding) -> Reason:
    logged = f"; {finding.reason}" if finding.verdict is Verdict.SUSPECT else ""
    return Reason(stale.code, stale.message + logged)


def _clean_reason(finding: NodeFinding, state: State) -> Reason:
    at = f" at {state.read_at:%Y-%m-%dT%H:%M:%SZ}" if state.read_at else ""
    if finding.verdict is not Verdict.SUSPECT:
        return Reason(state.diagnosis.reason.code, f"no stale entries{at}")
    seen = [one.last_seen for one in finding.signatures if one.last_seen]
    when = f" at {max(seen):%Y-%m-%dT%H:%M:%SZ}" if seen else ""
    return Reason(LOGGED_AND_CLEAN, f"failure logged{when}, no stale entries{at}")


def _as_log_says(finding: NodeFinding, why: Reason) -> NodeFinding:
    """The log's verdict, with why the state has none."""
    problem = Problem(why.code, f"its state could not be judged: {why.message}")
    told = replace(finding, complete=False, problems=(*finding.problems, problem))
    if finding.verdict is Verdict.UNKNOWN or (why.code == NOT_SETTLED and finding.verdict is Verdict.CLEAN):
        return replace(told, verdict=Verdict.UNKNOWN, reason=why.message, reason_code=why.code)
    return told


def _proxy(said: KubeProxy, state: State) -> KubeProxy:
    mode = state.mode.value if state.mode else said.mode
    return replace(said, mode=mode, version=said.version or state.version or None)
