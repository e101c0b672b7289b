"""What is to be done about a node, as one plan: the advice of its findings in the order in which to follow it.

Each check advises for itself (`Finding.advice`). Here what they say together is put in order and said once: evidence
before repair, rules before entries, the node before its clients. Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdnsctl.diagnosis.case import COUNTED_PROTOCOL
from kdnsctl.diagnosis.findings import Finding
from kdnsctl.diagnosis.wording import COLLECT_FIRST

ENTRIES = frozenset({"C1", "C2", "C3", "C4", "C5", "C6"})
RULES = frozenset({"R1", "R2", "R6"})  # whose repair is that of kube-proxy, which the others then need not advise
KUBE_PROXY = frozenset({"R3", "P1", "P2"})
HEALING = "C10"
FOR_CLIENTS = ("C7", "C8", "C9")


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to do. `repair` are kdnsctl's commands for it, `commands` the same for a root shell on the node."""

    text: str
    repair: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def plan(findings: Iterable[Finding]) -> tuple[Measure, ...]:
    """The measures, first things first. That evidence is collected comes before all, once, if any of them asks for it.

    A TCP port is left out beside the UDP port of the same kind of finding, and what the repair of rules does anyway.
    """
    advising = [each for each in findings if each.advice]
    rules = any(each.id in RULES and COLLECT_FIRST in each.advice for each in advising)  # to be mended, not read again
    kept = [each for each in advising if not _twin(each, advising) and not (rules and each.id in KUBE_PROXY)]
    measures: dict[str, Measure] = {}
    for each in sorted(kept, key=_turn):
        text = " ".join(each.advice.replace(COLLECT_FIRST, "").split())
        before = measures.get(text, Measure(text))
        # A repair that is told of already is not told of again.
        told = {one for other in measures.values() for one in other.repair if other is not before}
        repair = dict.fromkeys((*before.repair, *([each.repair] if each.repair and each.repair not in told else [])))
        measures[text] = Measure(text, tuple(repair), tuple(dict.fromkeys((*before.commands, *each.commands))))
    first = (Measure(COLLECT_FIRST),) if any(COLLECT_FIRST in each.advice for each in kept) else ()
    return (*first, *measures.values())


def _twin(finding: Finding, all_of_them: Sequence[Finding]) -> bool:
    """Whether the same check says the same of a UDP port, which is what this is about."""
    return finding.protocol not in ("", COUNTED_PROTOCOL) and any(
        each.id == finding.id and each.protocol == COUNTED_PROTOCOL for each in all_of_them
    )


def _turn(finding: Finding) -> int:
    if finding.id in ENTRIES:
        return 2 if finding.commands else 0  # without: why not to touch them
    if finding.id in RULES:
        return 1
    if finding.id == HEALING:
        return 3
    return 5 + FOR_CLIENTS.index(finding.id) if finding.id in FOR_CLIENTS else 4
