"""Checks R1 to R3: rules that are missing, that lead to endpoints that do not serve, and endpoints without a rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, RuleFault, Wrong
from kdnsctl.diagnosis.drift import families, is_reached, rules_for, usable
from kdnsctl.diagnosis.findings import Finding, Severity
from kdnsctl.diagnosis.index import endpoint_text

REPAIR = (
    f"{wording.COLLECT_FIRST} Then find out why kube-proxy does not write its rules: its log (failed restores, the "
    "xtables lock), its /healthz, whether it runs at all. Deleting conntrack entries does not help as long as the "
    "rules are as they are. Restarting kube-proxy on this node alone writes them anew, unless they cannot be written:"
)
READ_AGAIN = "Read the rules again before anything is done to them: kube-proxy may be about to write them."


def missing_rules(case: Case) -> Iterator[Finding]:
    """R1: no rule for a Service that has endpoints, or one that refuses its flows."""
    for fault in case.faults:
        if fault.wrong not in (Wrong.ABSENT, Wrong.REJECTED):
            continue
        what = (
            f"The rules refuse flows to {fault.service}, though endpoints serve it."
            if fault.wrong is Wrong.REJECTED
            else f"There are no rules for {fault.service} (IPv{fault.family}), though endpoints serve it and other "
            "Services have rules: new flows to it go nowhere."
        )
        yield _finding("R1", [fault], what, case)


def dead_targets(case: Case) -> Iterator[Finding]:
    """R2: rules in reach lead to endpoints that do not serve."""
    together: dict[tuple[object, ...], list[RuleFault]] = defaultdict(list)
    for fault in case.faults:
        if fault.wrong is Wrong.DEAD_TARGET:
            together[
                str(fault.service), fault.service.protocol, fault.family, fault.rules.mode, fault.rules.backing
            ].append(fault)
    for faults in together.values():
        targets = list(dict.fromkeys(fault.target for fault in faults))
        shares = {fault.target: fault.share for fault in faults if fault.share is not None}
        share = f" They get {sum(shares.values()):.0%} of new flows." if len(shares) == len(targets) else ""
        yield _finding(
            "R2",
            faults,
            f"The rules for {faults[0].service} lead to {wording.some(targets)}, which "
            f"{'does' if len(targets) == 1 else 'do'} not serve it.{share} Clients with fresh source ports are hurt "
            "as well, and deleted entries come back.",
            case,
        )


def endpoints_without_rule(case: Case) -> Iterator[Finding]:
    """R3: a serving endpoint that no rule leads to. Traffic policies and topology may leave it out rightly."""
    if not case.truth.endpoints_known:
        return
    for service in case.truth.services:
        if service.local_only:
            continue
        for family in families(service):
            found = [(dump, rules) for dump, rules in rules_for(case.latest_rules, service, family) if is_reached(dump)]
            if not found or any(rules.problems for _, rules in found):
                continue
            reachable = {(target.address, target.port) for _, rules in found for target in rules.targets}
            left_out = [
                endpoint_text(backend.address, backend.port)
                for backend in usable(service, family, case.evidence.node)
                if (backend.address, backend.port) not in reachable
            ]
            if left_out and reachable:
                yield Finding(
                    "R3",
                    Severity.WARNING,
                    f"No rule leads to {wording.some(left_out)}, though "
                    f"{'it serves' if len(left_out) == 1 else 'they serve'} {service}. New endpoints are missing for "
                    "a moment on every node; if it lasts, kube-proxy does not keep its rules up to date.",
                    "Read the rules again. If they have not changed, treat it like R2: look at kube-proxy's log and "
                    "health.",
                    service=str(service),
                    port=service.port,
                    protocol=service.protocol,
                    count=len(left_out),
                    backends=tuple(left_out),
                    family=family,
                )


def _finding(check: str, faults: list[RuleFault], explanation: str, case: Case) -> Finding:
    first = faults[0]
    settled = any(fault.settled for fault in faults)
    notes = [explanation]
    severity = Severity.FAULT
    if not settled:
        severity = Severity.WARNING
        notes.append("This may only be kube-proxy's lag; a second reading tells.")
    if not any(fault.proven for fault in faults):
        severity = Severity.WARNING
        notes.append(
            "It is not proven: other rules for the same flows, or parts that could not be read, may explain it."
        )
    if first.service.protocol != COUNTED_PROTOCOL:
        notes.append(f"This is {first.service.protocol}: it does not make the node affected.")
    elif not first.in_scope:
        notes.append("The verdict is not about this Service.")
    targets = tuple(dict.fromkeys(fault.target for fault in faults if fault.target))
    return Finding(
        check,
        severity,
        " ".join(notes),
        REPAIR if settled else READ_AGAIN,
        service=str(first.service),
        port=first.service.port,
        protocol=first.service.protocol,
        count=len(targets) or 1,
        backends=targets,
        family=first.family,
        repair=wording.restart(case) if settled else "",
    )
