"""All checks, in the order in which their findings are shown. Adding a check is adding a function, here and in
docs/findings.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdnsctl.diagnosis import entrychecks, rulechecks
from kdnsctl.diagnosis.case import Case
from kdnsctl.diagnosis.findings import Finding


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
    Check("R1", "rules that are missing or refuse flows", rulechecks.missing_rules),
    Check("R2", "rules that lead to dead endpoints", rulechecks.dead_targets),
    Check("R3", "serving endpoints without a rule", rulechecks.endpoints_without_rule),
)


def findings(case: Case) -> tuple[Finding, ...]:
    """What all checks find."""
    return tuple(finding for check in CHECKS for finding in check.run(case))
