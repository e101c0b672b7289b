"""From nodes as they are to the steps that quarantine them: new ones, and those where a quarantine goes on.

Nothing is changed here. A node's record is the first step and says all the others, so that whatever happens after it,
the node itself tells what to go on with and what to take back. A value that already was as we want it is nobody's but
its owner's: it is no step, and stays when the node is released.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from kdnsctl.changes.fields import RECORD, VERBS
from kdnsctl.changes.incidents import Actor
from kdnsctl.changes.plan import NodePlan
from kdnsctl.cluster.objects import Node
from kdnsctl.model import RefusedError, Step
from kdnsctl.quarantine.guards import dying
from kdnsctl.quarantine.holds import is_key, terminating
from kdnsctl.quarantine.holdsbase import Hold
from kdnsctl.quarantine.holdswords import by_hand, told
from kdnsctl.quarantine.record import NodeRecord, Phase, containment, parsed, record_step


@dataclass(frozen=True, slots=True)
class Planned:
    """One node: the record that is there (`found`) and the one that will be. `dying`: why it goes away already."""

    node: Node
    found: NodeRecord | None
    record: NodeRecord
    holds: tuple[Hold, ...]
    dying: str = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.metadata.name

    @property
    def uid(self) -> str:
        """The node's UID."""
        return self.node.metadata.uid

    def plan(self, then: Sequence[str]) -> NodePlan:
        """The steps and what follows them, as a plan."""
        first = record_step(self.name, self.node.metadata.uid, self.found, self.record)
        return NodePlan(self.name, (first, *self.record.steps), tuple(then), tuple(self.notes()), by_hand(self.holds))

    def notes(self) -> list[str]:
        """What the operator has to know: what is held how, and what is not."""
        notes = [f"{self.dying}: it is captured first"] if self.dying else []
        if self.found is not None:
            notes.append(f"in quarantine since {self.found.since:%Y-%m-%d %H:%M:%SZ} ({self.found.phase}): going on")
        return notes + [told(hold) for hold in self.holds]


def record_of(node: Node) -> NodeRecord | None:
    """The record on a node, None without one. Raises RecordError when what is there is none."""
    text = node.metadata.annotations.get(RECORD)
    if text is None:
        return None
    return parsed(node.metadata.name, node.metadata.uid, json_of(text), VERBS, is_key)


def json_of(text: str) -> Any:
    """An annotation's JSON; its text where it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return text


def planned(node: Node, holds: Sequence[Hold], incident: str, actor: Actor, reason: str, now: datetime) -> Planned:
    """What to do about one node.

    Raises RefusedError when it is in quarantine by another incident, or somebody else uses our taint; RecordError.
    """
    found = record_of(node)
    name, uid = node.metadata.name, node.metadata.uid
    if found is not None and found.incident != incident:
        raise RefusedError(
            f"{name} is in quarantine already, in incident {found.incident} by {found.operator} since "
            f"{found.since:%Y-%m-%d %H:%M:%SZ}; nothing was changed",
            hint=f"go on with it: --incident {found.incident}",
        )
    # What is not done yet is planned anew: its owner may have set something else before we came to it.
    known = {_what(step): step for step in (found.steps if found else ()) if found and found.has_done(step)}
    steps: list[Step] = list(known.values())
    cordon, taint = containment(name, uid, incident)
    own = next((one for one in node.spec.taints if (one.key, one.effect) == (RECORD, "NoSchedule")), None)
    if own is not None and found is None:
        raise RefusedError(
            f"{name} has a taint {RECORD}={own.value} and no record of a quarantine; nothing was changed",
            hint=f"find out whose it is; kubectl taint node {name} {RECORD}- removes it",
        )
    # Also of a manager that is at it already: its removal may fail, or stop at a hook.
    wanted = [step for hold in holds for step in hold.steps]
    wanted += [*([] if node.spec.unschedulable else [cordon]), taint]
    steps += [step for step in wanted if _what(step) not in known and step.before != step.after]
    if found is not None:
        phase = found.phase
        record = replace(
            found, operator=actor.operator, run=actor.run, steps=tuple(steps), reason=reason or found.reason
        )
    else:
        phase = Phase.BEGUN
        record = NodeRecord(incident, actor.operator, actor.run, now, phase, tuple(steps), reason)
    return Planned(node, found, record, tuple(holds), dying(node) or terminating(holds))


def common_incident(nodes: Collection[Node]) -> str | None:
    """The incident that these nodes are in quarantine by, if it is one: without --incident it is gone on with."""
    found = {record.incident for record in map(record_of, nodes) if record is not None}
    return found.pop() if len(found) == 1 else None


def _what(step: Step) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """What a step is about, whatever it sets it to."""
    return step.verb, tuple(sorted(step.args.items()))
