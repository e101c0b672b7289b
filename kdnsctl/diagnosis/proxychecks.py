"""Checks P1 to P3: kube-proxy in its own words, held against what it left on the node.

Its metrics begin at its start, and none counts a failure of conntrack cleanup; so these explain, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case
from kdnsctl.diagnosis.chainchecks import described
from kdnsctl.diagnosis.evidence import FamilyState, Item, KubeProxyState
from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.healing import restore_failures
from kdnsctl.diagnosis.impact import judged

SILENT = frozenset({"deadline", "portForward"})  # it let the question wait in vain, or nobody listened
LOOK = (
    "Look at kube-proxy's log for failed syncs and the xtables lock; restart it on this node alone, after collecting."
)


def stuck(case: Case) -> Iterator[Finding]:
    """P1: kube-proxy does not get its rules written, or does not even answer."""
    state = case.evidence.kube_proxy
    if state is None:
        silent = case.evidence.why_missing(Item.KUBE_PROXY)
        if silent is not None and silent.code in SILENT:
            yield Finding(
                "P1",
                Severity.WARNING,
                f"kube-proxy does not say how it is: {wording.clean(silent.message)}. One that does not run, or hangs, "
                "writes no rules and cleans up no entries.",
                "See whether kube-proxy runs on this node, and what its log says last; restart it on this node alone, "
                "after collecting.",
                repair=wording.restart(case),
            )
        return
    said: list[str] = []
    severity = Severity.WARNING
    for family, its in sorted(state.families.items()):
        waiting = _waiting(its, state)
        if waiting is not None and waiting > state.sync_period:
            said.append(f"{_name(family)}a sync has been asked for at least {waiting:.0f} s ago and not been done.")
            severity = Severity.FAULT
        if its.healthy is False:
            said.append(f"{_name(family)}kube-proxy says of itself that it is not healthy.")
            severity = Severity.FAULT
    failures = restore_failures(case)
    if failures:
        said.append(f"{wording.count(failures, 'sync')} failed since kube-proxy started.")
    if said:
        yield Finding(
            "P1",
            severity,
            " ".join(each[0].upper() + each[1:] for each in said)
            + " A failed sync also loses the cleanup of conntrack entries that belonged to it (#112604).",
            LOOK,
            count=failures or None,
            repair=wording.restart(case),
        )


def idle_reconciler(case: Case) -> Iterator[Finding]:
    """P2: stale entries, and a reconciler that has never deleted one."""
    state = case.evidence.kube_proxy
    stale = sum(each.count for each in judged(case))
    if state is None or not stale:
        return
    known = {family: its for family, its in state.families.items() if its.deleted_entries is not None}
    if known and not any(its.deleted_entries for its in known.values()):
        runs = sum(its.reconciled or 0 for its in known.values())
        counted = any(its.reconciled is not None for its in known.values())
        ran = f" in {wording.count(runs, 'run')}" if counted else ""
        yield Finding(
            "P2",
            Severity.WARNING,
            f"kube-proxy's reconciler has deleted no entry since it started{ran}, though "
            f"{wording.count(stale, 'stale entry is', 'stale entries are')} there. It does not see them, or does not "
            "come to it: when it cannot list the table, no metric says so.",
            LOOK,
            protocol=COUNTED_PROTOCOL,
            count=stale,
            repair=wording.restart(case),
        )


def modes_disagree(case: Case) -> Iterator[Finding]:
    """P3: the mode that kube-proxy says, the one it is configured for, and the rules that are there."""
    state = case.evidence.kube_proxy
    said = case.evidence.running_mode
    configured = state.configured if state else None
    if said is not None and configured is not None and said is not configured:
        yield Finding(
            "P3",
            Severity.WARNING,
            f"kube-proxy works in {said.value} mode, but is configured for {configured.value}: it fell back, or has "
            "not been restarted since its configuration was changed.",
            "Restart it on this node alone, after collecting, or mend the configuration; then look for leftovers (R7).",
            repair=wording.restart(case),
        )
    found = [dump for dump in case.latest_rules if dump.services]
    if said is not None and found and all(dump.mode is not said for dump in found):
        yield Finding(
            "P3",
            Severity.WARNING,
            f"kube-proxy says that it works in {said.value} mode, but the only Service rules found are in "
            f"{wording.some(dict.fromkeys(described(dump) for dump in found))}.",
            "Make sure that the rules of that mode were read; if they were, kube-proxy has not written any yet.",
        )


def _waiting(its: FamilyState, state: KubeProxyState) -> float | None:
    """For how many seconds at least a sync has been asked for and not done; None when none is, or it is not known.

    Changes are asked for anew while others wait, so it can be longer. When kube-proxy was last idle says nothing: it
    syncs without a change only once an hour (sync-runner, 1.17 to 1.33).
    """
    if its.last_queued is None or its.last_synced is None or state.at is None or its.last_queued <= its.last_synced:
        return None
    return state.at - its.last_queued


def _name(family: int) -> str:
    return f"for IPv{family}, " if family else ""
