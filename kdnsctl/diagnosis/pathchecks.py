"""Checks N1, N2 and Q1: whether queries take the way that was looked at, and how good the evidence is."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import Case
from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.gaps import gaps_of, truth_is_of_another_time

MOST_REASONS = 20


def node_local_dns(case: Case) -> Iterator[Finding]:
    """N1: a DNS cache on the node, whose queries are exempt from connection tracking."""
    exempt = dict.fromkeys(address for dump in case.latest_rules for address in dump.notrack)
    vips = {address for service in case.services for address in service.addresses}
    local = [address for address in exempt if _is_link_local(address)]
    covered = [address for address in exempt if address in vips]
    if not local and not covered:
        return
    covers = (
        f" Flows to {wording.some(covered)} are exempt too: what pods send there is answered on the node, and "
        "entries to it are left from before, or not of this path."
        if covered
        else " Pods that use the Service's own address still take the way that was judged here."
    )
    yield Finding(
        "N1",
        Severity.INFO,
        f"node-local-dns is set up on this node: packets to {wording.some(exempt)} are not tracked.{covers} The "
        "cache itself asks the DNS Service over TCP, through kube-proxy's rules: stale UDP entries do not hurt it, "
        "wrong rules do.",
        "Check that pods have the cache's address in /etc/resolv.conf, and that the cache answers.",
        backends=tuple(exempt),
    )


def no_kube_proxy(case: Case) -> Iterator[Finding]:
    """N2: something else does kube-proxy's work, so that netfilter holds no Service flows."""
    replacement = case.evidence.replacement
    if replacement:
        yield Finding(
            "N2",
            Severity.INFO,
            f"{wording.clean(replacement)} does kube-proxy's work on this node, by other means than netfilter: its "
            "conntrack table and rules say nothing about Services. That is not the same as clean.",
            "Use the replacement's own tools (for Cilium: cilium-dbg bpf ct list global, cilium-dbg service list).",
        )


def evidence_quality(case: Case) -> Iterator[Finding]:
    """Q1: what is missing, cut off, or of another time, and so leaves the judgement open."""
    gaps = [reason.message for reason in gaps_of(case)]
    other = [each.reason.message for each in case.evidence.missing if each.reason.message not in gaps]
    said = list(dict.fromkeys(gaps + other))
    if not said:
        return
    effect = (
        "What was found still counts, but health is not proven."
        if gaps
        else "The verdict does not depend on it; the explanation may be poorer."
    )
    again = " Read both again, together." if truth_is_of_another_time(case) else ""
    yield Finding(
        "Q1",
        Severity.WARNING if gaps else Severity.INFO,
        f"The evidence has gaps: {wording.some(map(wording.clean, said), MOST_REASONS)}. {effect}",
        f"Collect what is missing and judge again.{again}" if gaps else "",
        count=len(said),
    )


def _is_link_local(address: str) -> bool:
    try:
        return ip_address(address).is_link_local
    except ValueError:
        return False
