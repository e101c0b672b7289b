"""repair flush, done: stale conntrack entries are deleted on one node after the other, and nothing else is.

Each node is judged once more when its turn comes. Then its stale entries are deleted by group, the table is read again,
and so on until none is left. The first node goes alone: only when one is proven well do the others follow. What is
stale, and what the rules say, is known to `diagnosis`; what is done about it, to `flushplan`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kdnsctl import fleet
from kdnsctl.cancel import CancelScope
from kdnsctl.changes import flows
from kdnsctl.changes.executor import PART, Log, take
from kdnsctl.changes.journal import Record
from kdnsctl.changes.verbs import Means
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, StaleGroup
from kdnsctl.find.live import State
from kdnsctl.model import KdnsctlError, Reason, SilentReporter, Verdict
from kdnsctl.netfilter.entries import Key
from kdnsctl.repair.assessing import assess
from kdnsctl.repair.flushplan import Prepared, refused
from kdnsctl.repair.hands import shells
from kdnsctl.repair.proving import Prober
from kdnsctl.repair.report import NodeRepair, RepairReport, Result
from kdnsctl.repair.session import Session

MOST_ROUNDS: Final = 50  # of deleting and reading again, for one node
IDLE_ROUNDS: Final = 3  # in a row in which nothing could be deleted
MOST_STEPS: Final = 50  # groups of one node that are deleted in one round


def flush(prepared: Prepared, session: Session, probe: Prober | None = None) -> RepairReport:
    """Do as the plan says; its nodes are locked by the caller. When the scope ends, the report has what was done.

    `probe` asks DNS from a node that is well again; by default, by whichever rung to it has a prober.
    """
    session.begin("repair flush", prepared.todo)
    work = _Work(prepared, session, probe or prepared.probe)
    results: dict[str, NodeRepair] = {}
    left = list(prepared.todo)
    proven, why = False, ""
    while left and not proven and not why:
        first = left.pop(0)
        results |= work.run([first])
        proven = results[first].result is Result.REPAIRED
        if results[first].result not in (Result.REPAIRED, Result.NOTHING_TO_DO):
            why = f"{first}, which went first, is not proven well"
    if session.scope.reason is not None:
        why = why or "the command was ended before"
    if why:
        results |= {name: NodeRepair(name, Result.NOT_TRIED, Reason("stopped", why), Verdict.AFFECTED) for name in left}
    else:
        results |= work.run(left)
    return prepared.report(results, session.now(), session.incident.id)


class _Work:
    """What the nodes of one run share."""

    def __init__(self, prepared: Prepared, session: Session, probe: Prober) -> None:
        if prepared.judging is None:
            raise ValueError("there is no node to flush")
        self._prepared = prepared
        self._judging = prepared.judging
        self._session = session
        self._probe = probe
        self._lock = threading.Lock()
        self._failures = 0
        self._attempts: dict[str, _Attempt] = {}

    def run(self, nodes: Sequence[str]) -> dict[str, NodeRepair]:
        """Flush these nodes; one answer for each."""
        if not nodes:
            return {}
        outcomes = fleet.run(
            nodes,
            self._one,
            parallel=self._prepared.options.parallel,
            deadline=None,
            reporter=self._session.reporter if len(nodes) > 1 else SilentReporter(),
            scope=self._session.scope,
            what="flushing nodes",
        )
        return {one.node: one.value or self._ended(one.node, one.reason) for one in outcomes}

    def _ended(self, node: str, reason: Reason | None) -> NodeRepair:
        """A node whose work was ended, as far as it came."""
        why = reason or Reason("stopped", "it was not begun")
        attempt = self._attempts.get(node)
        if attempt is None:
            return NodeRepair(node, Result.NOT_TRIED, why, Verdict.AFFECTED)
        return attempt.answer(Result.FAILED, Reason(why.code, f"ended before it was done: {why.message}"))

    def _one(self, node: str, scope: CancelScope) -> NodeRepair:
        with self._lock:
            if self._failures >= self._prepared.options.max_failures:
                return NodeRepair(
                    node,
                    Result.NOT_TRIED,
                    Reason("stopped", f"{self._failures} nodes failed before it (--max-failures)"),
                    Verdict.AFFECTED,
                )
        attempt = self._attempts[node] = _Attempt(node)
        try:
            answer = self._flushed(attempt, scope)
        except KdnsctlError as error:
            if scope.reason is not None:
                answer = attempt.answer(Result.FAILED, Reason(scope.reason.code, f"ended before it was done: {error}"))
            else:
                answer = attempt.answer(Result.FAILED, Reason(error.code, str(error), error))
        finally:
            self._prepared.hands[node].close()
        if answer.result is Result.FAILED:
            with self._lock:
                self._failures += 1
        self._session.incident.journal.append(
            "repaired",
            {
                "run": self._session.actor.run,
                "node": node,
                "result": answer.result.value,
                "deleted": answer.deleted,
                "verdict": answer.verdict.value,
                "message": answer.reason.message,
            },
        )
        return answer

    def _flushed(self, attempt: _Attempt, scope: CancelScope) -> NodeRepair:
        node, tcp = attempt.node, self._prepared.options.tcp
        state = self._judging.one(node, scope)
        attempt.before = state.diagnosis.verdict
        assessment = assess(state, tcp=tcp)
        if assessment.refused is not None:
            return refused(
                self._prepared, node, state, assessment, self._session.connection, scope, self._session.now()
            )
        if not assessment.groups:
            return attempt.answer(Result.NOTHING_TO_DO, state.diagnosis.reason, state.diagnosis.verdict)
        shell = self._prepared.hands[node].shell(scope)
        attempt.via = shell.rung
        idle = 0
        while assessment.groups:
            if attempt.rounds >= MOST_ROUNDS or idle >= IDLE_ROUNDS:
                left = f"{assessment.count} stale entries are left after {attempt.rounds} rounds"
                why = f"{left}: they cannot be deleted, or they come back"
                return attempt.answer(Result.FAILED, Reason("notGone", why), state.diagnosis.verdict)
            deleted = self._round(attempt, assessment.groups, scope)
            idle = 0 if deleted else idle + 1
            state = self._judging.one(node, scope, patient=False)
            assessment = assess(state, tcp=tcp, proven=attempt.proven)
            if not assessment.groups and (assessment.refused or _waits(state, tcp=tcp)):
                # What is new, or not settled, takes a second look.
                state = self._judging.one(node, scope)
                assessment = assess(state, tcp=tcp, proven=attempt.proven)
            if assessment.refused is not None:
                answer = attempt.answer(Result.FAILED, assessment.refused, state.diagnosis.verdict)
                return replace(answer, advice=assessment.advice)
        return self._proven(attempt, state, scope)

    def _round(self, attempt: _Attempt, groups: Iterable[StaleGroup], scope: CancelScope) -> int:
        """Delete each group once; how many entries went."""
        attempt.rounds += 1
        deleted = 0
        node = attempt.node
        means = Means(self._session.connection, scope, shell=shells(self._prepared.hands, scope))
        largest = sorted(groups, key=lambda each: -(each.count + each.waiting))
        for group in largest[:MOST_STEPS]:
            if self._judging.serves(node, group.key, scope):
                continue  # its address has come back to life meanwhile
            step = flows.step_of(node, self._prepared.uids.get(node, ""), group.key, group.count + group.waiting)
            before = attempt.deleted
            effect = take(step, _Counting(self._session.incident.journal, attempt), means, self._session.actor.run)
            attempt.proven.add(group.key)
            # Should conntrack count more than it printed, its count holds.
            attempt.deleted = max(attempt.deleted, before + int((effect.details or {}).get("deleted", 0)))
            deleted += attempt.deleted - before
        return deleted

    def _proven(self, attempt: _Attempt, state: State, scope: CancelScope) -> NodeRepair:
        verdict, reason = state.diagnosis.verdict, state.diagnosis.reason
        probed = self._probe(attempt.node, scope)
        well = verdict is Verdict.CLEAN and probed.well is not False
        if probed.well is False:
            reason = Reason("probe", f"its state is well, and DNS is not: {probed.message}")
        return replace(attempt.answer(Result.REPAIRED if well else Result.FAILED, reason, verdict), probed=probed)


@dataclass(slots=True)
class _Attempt:
    """How far one node is. `proven` are the keys whose entries were deleted: what has them is stale at once."""

    node: str
    before: Verdict = Verdict.AFFECTED
    via: str = ""
    deleted: int = 0
    rounds: int = 0
    proven: set[Key] = field(default_factory=set)

    def answer(self, result: Result, reason: Reason, after: Verdict | None = None) -> NodeRepair:
        return NodeRepair(
            self.node,
            result,
            reason,
            self.before,
            after,
            changed=self.deleted > 0,
            via=self.via,
            deleted=self.deleted,
            rounds=self.rounds,
        )


class _Counting:
    """A journal that counts what was deleted while it is written: known also of a step whose end is not."""

    def __init__(self, log: Log, attempt: _Attempt) -> None:
        self._log = log
        self._attempt = attempt

    def append(self, kind: str, body: Mapping[str, Any]) -> Record:
        record = self._log.append(kind, body)
        if kind == PART:
            self._attempt.deleted += len(body.get("flows") or ())
        return record


def _waits(state: State, *, tcp: bool) -> bool:
    protocols = (COUNTED_PROTOCOL, "tcp") if tcp else (COUNTED_PROTOCOL,)
    stale = state.case.stale if state.case else ()
    return any(each.waiting and each.in_scope and each.key.protocol in protocols for each in stale)
