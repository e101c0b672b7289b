"""What a node needs: which of its conntrack entries may be deleted, or why none may be. Pure: states in, decisions out.

The rules come first. As long as they lead a Service's flows to an endpoint that does not serve, every entry that is
deleted comes back with its flow's next packet, so deleting would only look like a repair. Evidence that is not whole
can prove a fault, but not that the rules are right, so nothing is deleted on it either.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kdnsctl.diagnosis import wording
from kdnsctl.diagnosis.case import COUNTED_PROTOCOL, Case, RuleFault, StaleGroup, Wrong
from kdnsctl.diagnosis.index import Kind
from kdnsctl.find.live import State
from kdnsctl.model import Reason, Verdict
from kdnsctl.netfilter.deletion import command
from kdnsctl.netfilter.entries import Key
from kdnsctl.netfilter.rules import Mode

RULES: Final = "rulesNotRight"  # code of a refusal: another repair comes first
RESTART: Final = "kdnsctl repair restart-kube-proxy"


@dataclass(frozen=True, slots=True)
class Assessment:
    """What may be done about a node. `refused` is why nothing may be, None when `groups` may be deleted, if any."""

    groups: tuple[StaleGroup, ...] = ()
    refused: Reason | None = None
    advice: str = ""

    @property
    def count(self) -> int:
        """How many entries would be deleted."""
        return sum(each.count + each.waiting for each in self.groups)


def assess(state: State, *, tcp: bool = False, proven: Collection[Key] = ()) -> Assessment:
    """Judge whether deleting helps. `proven` are keys that were known to be stale, and settled, a moment ago.

    The state must have its case (`LiveOptions.keep`). TCP entries are only taken when `tcp`.
    """
    case = state.case
    if case is None:
        raise ValueError("the state was judged without keeping its case")
    if state.diagnosis.verdict is Verdict.NOT_APPLICABLE:
        return Assessment()
    groups = tuple(each for each in case.stale if _may_go(each, proven, tcp=tcp))
    faults = [fault for fault in case.faults if _matters(fault, tcp=tcp)]
    if faults:
        return Assessment(refused=Reason(RULES, f"{_rules(faults)}: every deleted entry would come back"))
    if groups and _may_be_ipvs(case):
        return Assessment(refused=Reason("ipvs", "kube-proxy works in ipvs mode"), advice=wording.IPVS)
    if without := [each for each in groups if each.kind is Kind.NO_ENDPOINTS]:
        why = f"no endpoint of {without[0].service} serves: without one no flow can be answered"
        return Assessment(refused=Reason("noEndpoints", why), advice="Bring the Service's endpoints back first.")
    if not state.diagnosis.complete:
        gaps = state.diagnosis.missing
        why = gaps[0].message if gaps else "something is missing"
        more = f" (and {len(gaps) - 1} more)" if len(gaps) > 1 else ""
        return Assessment(refused=Reason("incomplete", f"the evidence is not whole: {why}{more}"))
    if not groups and state.diagnosis.verdict is not Verdict.CLEAN:
        reason = state.diagnosis.reason
        return Assessment(refused=reason, advice="Look again in a minute." if reason.code == "notSettled" else "")
    return Assessment(groups)


def by_hand(groups: Iterable[StaleGroup]) -> tuple[str, ...]:
    """The commands that delete these entries and no others, for somebody with a shell on the node."""
    return tuple(dict.fromkeys(shlex.join(("sudo", *command(each.key))) for each in groups))


def _may_go(group: StaleGroup, proven: Collection[Key], *, tcp: bool) -> bool:
    key = group.key
    if key.destination_port is None or key.reply_source_port is None:
        return False
    if not (group.in_scope and group.kind.stale and (key.protocol == COUNTED_PROTOCOL or (tcp and _is_tcp(key)))):
        return False
    return group.count > 0 or key in proven


def _is_tcp(key: Key) -> bool:
    return key.protocol == "tcp"


def _matters(fault: RuleFault, *, tcp: bool) -> bool:
    protocols = (COUNTED_PROTOCOL, "tcp") if tcp else (COUNTED_PROTOCOL,)
    return fault.in_scope and fault.service.protocol in protocols


def _rules(faults: Sequence[RuleFault]) -> str:
    first = faults[0]
    targets = dict.fromkeys(fault.target for fault in faults if fault.wrong is Wrong.DEAD_TARGET)
    if not targets:
        return f"the rules for {first.service} are not right ({first.wrong.value})"
    serve = "does not serve" if len(targets) == 1 else "do not serve"
    return f"the rules for {first.service} lead to {wording.some(targets)}, which {serve}"


def _may_be_ipvs(case: Case) -> bool:
    """Whether kube-proxy works in ipvs mode, or has rules of it where its mode is not known."""
    mode = case.evidence.running_mode
    return mode is Mode.IPVS or (mode is None and any(one.mode is Mode.IPVS for one in case.latest_rules))
