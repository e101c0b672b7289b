"""Checks T1 to T3: a conntrack table that is full, races, or is searched slowly. These are other faults than stale
entries, with symptoms that are easily taken for them, so none of them decides the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import Case
from kdnsctl.diagnosis.findings import Finding, Severity

NEARLY_FULL = 0.8
FULL = 0.95
CROWDED = 16
"""Entries a bucket holds when the table is full, above which look-ups are slow; the kernel's defaults make it 1 to "
"4."""


def table_full(case: Case) -> Iterator[Finding]:
    """T1: the table is (nearly) full, or entries and packets were dropped for want of room."""
    evidence = case.evidence
    fill = evidence.fill
    said: list[str] = []
    severity = Severity.INFO
    if fill is not None and fill.maximum > 0 and fill.count / fill.maximum > NEARLY_FULL:
        share = fill.count / fill.maximum
        said.append(f"The table holds {fill.count} of at most {fill.maximum} entries ({share:.0%}).")
        severity = Severity.FAULT if share > FULL else Severity.WARNING
    if evidence.table_full:
        said.append(f"The kernel said {wording.count(evidence.table_full, 'time')} that the table is full.")
        severity = Severity.FAULT
    # A packet that lost a race counts as dropped, too: nf_ct_resolve_clash() raises `drop` and `insert_failed`.
    dropped = max(0, _rise(case, "drop") - _rise(case, "insert_failed"))
    grown = {name: rise for name, rise in (("drop", dropped), ("early_drop", _rise(case, "early_drop"))) if rise}
    if grown:
        said.append(f"{_counted(grown)} {_since(case)}.")
        if _compared(case) and severity is Severity.INFO:
            severity = Severity.WARNING
    if said:
        yield Finding(
            "T1",
            severity,
            " ".join(said) + " A full table drops the first packets of new flows, of all pods on the node: that "
            "looks like failing DNS too, but it is not stale entries.",
            "Raise nf_conntrack_max (kube-proxy's conntrack.maxPerCore sets it), or find what makes so many flows.",
            count=fill.count if fill else None,
        )


def insert_races(case: Case) -> Iterator[Finding]:
    """T2: two packets of one socket raced to make an entry, as A and AAAA queries do."""
    failed = _rise(case, "insert_failed")
    if failed:
        resolved = _rise(case, "clash_resolve")
        yield Finding(
            "T2",
            Severity.WARNING if _compared(case) else Severity.INFO,
            f"{_counted({'insert_failed': failed, 'clash_resolve': resolved})} {_since(case)}. Two packets sent at "
            "once from one socket, as for A and AAAA, can lose this race: single queries then time out after 5 s "
            "(kubernetes#56903). It is another fault than stale entries and comes without them.",
            "node-local-dns avoids it, and so does 'options single-request-reopen' in a pod's resolv.conf (glibc).",
            count=failed,
        )


def slow_searches(case: Case) -> Iterator[Finding]:
    """T3: too few buckets for the table, or searches that had to begin again."""
    fill = case.evidence.fill
    said: list[str] = []
    if fill is not None and fill.buckets and fill.maximum / fill.buckets >= CROWDED:
        said.append(f"{fill.maximum} entries may share {fill.buckets} buckets, {fill.maximum // fill.buckets} each.")
    grown = {name: rise for name in ("chaintoolong", "search_restart") if (rise := _rise(case, name))}
    if "chaintoolong" in grown or (grown and _compared(case)):
        said.append(f"{_counted(grown)} {_since(case)}.")
    if said:
        yield Finding(
            "T3",
            Severity.WARNING if "chaintoolong" in grown else Severity.INFO,
            " ".join(said) + " Look-ups in a crowded table are slow, and an entry whose chain is too long is not made.",
            "Raise nf_conntrack_buckets (net.netfilter.nf_conntrack_buckets) along with the maximum.",
        )


def _compared(case: Case) -> bool:
    return case.evidence.counters is not None and case.evidence.counters_later is not None


def _rise(case: Case, name: str) -> int:
    """How much a counter rose between two readings, or since the node started when there is one."""
    before, after = case.evidence.counters, case.evidence.counters_later
    if after is not None and before is not None:
        return max(0, after.get(name, 0) - before.get(name, 0))
    only = after if after is not None else before
    return only.get(name, 0) if only is not None else 0


def _counted(counters: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counters.items())


def _since(case: Case) -> str:
    return "between the two readings" if _compared(case) else "since the node started; one reading does not tell when"
