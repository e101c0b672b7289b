"""All checks, in the order in which their findings are shown. Adding a check is adding a function, here and in
docs/findings.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from kdnsctl.diagnosis import (
    chainchecks,
    entrychecks,
    healing,
    impact,
    pathchecks,
    proxychecks,
    rulechecks,
    tablechecks,
)
from kdnsctl.diagnosis.case import Case
from kdnsctl.diagnosis.findings import Client, Finding
from kdnsctl.diagnosis.wording import printable


@dataclass(frozen=True, slots=True)
class Check:
    """A check by its id, which every finding of it carries, and what it looks for in a few words."""

    id: str
    title: str
    run: Callable[[Case], Iterator[Finding]]


CHECKS = (
    Check("C1", "entries that lead to a dead backend", entrychecks.dead_backend),
    Check("C2", "entries that are not translated", entrychecks.untranslated),
    Check("C3", "entries that lead to another pod", entrychecks.reused_address),
    Check("C4", "entries of a Service without endpoints", entrychecks.no_endpoints),
    Check("C5", "entries of a Service that is gone", entrychecks.service_gone),
    Check("C6", "entries of a NodePort that lead to a dead backend", entrychecks.node_port),
    Check("C7", "stale entries that are in use", impact.in_use),
    Check("C8", "clients that are hurt", impact.hurt_clients),
    Check("C9", "odds for clients with random ports", impact.random_port_odds),
    Check("C10", "whether it heals by itself", healing.outlook),
    Check("R1", "rules that are missing or refuse flows", rulechecks.missing_rules),
    Check("R2", "rules that lead to dead endpoints", rulechecks.dead_targets),
    Check("R3", "serving endpoints without a rule", rulechecks.endpoints_without_rule),
    Check("R4", "endpoint chains that no packet reaches", chainchecks.unreachable_chains),
    Check("R5", "endpoints with unequal shares", chainchecks.uneven_shares),
    Check("R6", "rules that packets do not get to", chainchecks.unreached_rules),
    Check("R7", "rules in more than one place", chainchecks.leftovers),
    Check("R8", "chains that are not what their name says", chainchecks.wrong_names),
    Check("R9", "counters that stand still", chainchecks.flat_counters),
    Check("T1", "a full table", tablechecks.table_full),
    Check("T2", "races between packets", tablechecks.insert_races),
    Check("T3", "slow searches", tablechecks.slow_searches),
    Check("P1", "a kube-proxy that is stuck", proxychecks.stuck),
    Check("P2", "a reconciler that does nothing", proxychecks.idle_reconciler),
    Check("P3", "modes that disagree", proxychecks.modes_disagree),
    Check("N1", "node-local-dns", pathchecks.node_local_dns),
    Check("N2", "no kube-proxy by design", pathchecks.no_kube_proxy),
    Check("Q1", "gaps in the evidence", pathchecks.evidence_quality),
)


def findings(case: Case) -> tuple[Finding, ...]:
    """What all checks find."""
    return tuple(_printable(finding) for check in CHECKS for finding in check.run(case))


def _printable(finding: Finding) -> Finding:
    """A finding without characters that a terminal would obey: names of Services and pods can be anybody's."""
    return replace(
        finding,
        explanation=printable(finding.explanation),
        advice=printable(finding.advice),
        commands=tuple(printable(command) for command in finding.commands),
        repair=printable(finding.repair),
        service=printable(finding.service),
        protocol=printable(finding.protocol),
        backends=tuple(printable(backend) for backend in finding.backends),
        clients=tuple(
            Client(printable(each.address), each.count, printable(each.pod), printable(each.namespace))
            for each in finding.clients
        ),
    )
