"""The verdict on one node from its state: the only place where findings become affected, clean or unknown.

A proven fault stands on cut-off evidence too. Health has to be proven for every Service asked for, in each of its
address families: by a whole reading of the table in which nothing is stale, and by whole rules that lead to serving
endpoints only. What has not settled is neither. Logs are no business of this room.
"""

from __future__ import annotations

from dataclasses import replace

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, RuleFault, StaleGroup, Wrong
from kdnsctl.diagnosis.catalogue import findings
from kdnsctl.diagnosis.drift import rule_faults
from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.findings import Diagnosis
from kdnsctl.diagnosis.gaps import gaps_of
from kdnsctl.diagnosis.index import Index
from kdnsctl.diagnosis.stale import stale_groups
from kdnsctl.diagnosis.truth import Truth
from kdnsctl.model import Reason, Verdict


def diagnose(evidence: Evidence, truth: Truth, terms: Terms | None = None) -> Diagnosis:
    """Judge a node by its state. Without terms the verdict is about every Service of the truth."""
    case = case_of(evidence, truth, terms or Terms())
    readings = [reading for reading in (evidence.conntrack, evidence.conntrack_later) if reading is not None]
    gaps = tuple(gaps_of(case))
    verdict, reason = _verdict(case, gaps)
    return Diagnosis(
        verdict,
        replace(reason, message=wording.printable(reason.message)),
        findings(case),
        sum(each.count for each in case.stale if each.counts) if readings else None,
        not gaps,
        gaps,
        len(readings) or 1,
    )


def case_of(evidence: Evidence, truth: Truth, terms: Terms) -> Case:
    """Work out what a node's evidence shows, for the checks and the verdict."""
    index = Index(truth, evidence.node)
    stale = tuple(stale_groups(evidence, truth, terms, index))
    return Case(evidence, truth, terms, index, stale, tuple(rule_faults(evidence, truth, terms, index)))


def unsettled(evidence: Evidence, truth: Truth, terms: Terms | None = None) -> tuple[StaleGroup | RuleFault, ...]:
    """What a live reading shows of the Services asked for but may not count yet: a second reading has to confirm it.

    Empty when a second reading would change nothing: nothing is pending, or what is proven already decides.
    """
    case = case_of(evidence, truth, terms or Terms())
    if any(each.counts for each in case.stale) or any(fault.counts for fault in case.faults):
        return ()
    return (*_waiting_groups(case), *_waiting_faults(case))


def _waiting_groups(case: Case) -> list[StaleGroup]:
    return [each for each in case.stale if each.in_scope and each.waiting and each.key.protocol == COUNTED_PROTOCOL]


def _waiting_faults(case: Case) -> list[RuleFault]:
    return [
        fault
        for fault in case.faults
        if fault.in_scope and not fault.settled and fault.proven and fault.service.protocol == COUNTED_PROTOCOL
    ]


def _verdict(case: Case, gaps: tuple[Reason, ...]) -> tuple[Verdict, Reason]:
    counted = sum(each.count for each in case.stale if each.counts and _decides(each, case))
    faults = [fault for fault in case.faults if fault.counts]
    if counted:
        once = not case.evidence.live and case.evidence.conntrack_later is None
        entries = wording.count(counted, "stale UDP entry", "stale UDP entries")
        more = f"; {_rule_reason(faults).message}" if faults else ""
        return Verdict.AFFECTED, Reason("staleEntries", entries + (" (one read)" if once else "") + more)
    if faults:
        return Verdict.AFFECTED, _rule_reason(faults)
    if case.evidence.replacement:
        message = f"{case.evidence.replacement} does kube-proxy's work here: conntrack holds no Service flows"
        return Verdict.NOT_APPLICABLE, Reason("noKubeProxy", message)
    if waiting := _waiting_groups(case):
        entries = wording.count(sum(each.waiting for each in waiting), "entry", "entries")
        message = f"{entries} may just be waiting for kube-proxy's cleanup; a second reading tells"
        return Verdict.UNKNOWN, Reason("notSettled", message)
    if waiting_faults := _waiting_faults(case):
        message = f"rules for {waiting_faults[0].service} are not up to date yet; a second reading tells"
        return Verdict.UNKNOWN, Reason("notSettled", message)
    if gaps:
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        return Verdict.UNKNOWN, Reason(gaps[0].code, gaps[0].message + more)
    names = wording.some(dict.fromkeys(f"{each.namespace}/{each.name}" for each in case.services))
    return Verdict.CLEAN, Reason("noStaleEntries", f"no stale UDP entries or rules for {names}")


def _decides(group: StaleGroup, case: Case) -> bool:
    """Without kube-proxy untranslated entries mean nothing: its replacement translates elsewhere, if at all."""
    return not case.evidence.replacement or group.key.reply_source != group.key.destination


def _rule_reason(faults: list[RuleFault]) -> Reason:
    dead = [fault for fault in faults if fault.wrong is Wrong.DEAD_TARGET]
    if dead:
        targets = dict.fromkeys(fault.target for fault in dead)
        serve = "does not serve it" if len(targets) == 1 else "do not serve it"
        return Reason("staleRules", f"rules for {dead[0].service} lead to {wording.some(targets)}, which {serve}")
    first = faults[0]
    return Reason("missingRules", f"{first.service}: {first.wrong.value}")
