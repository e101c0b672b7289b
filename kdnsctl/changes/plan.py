"""Plans: what will be changed on which node, as values that can be printed, rehearsed and only then executed.

Nothing is changed here. A rehearsal asks the server for each step with `dryRun=All`: admission and validation run, and
nothing is kept. Each step is rehearsed by itself, against the state as it is now.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdnsctl.changes.table import VERBS
from kdnsctl.changes.verbs import Means, Verb, verb_of
from kdnsctl.model import API_VERSION, CancelledError, KdnsctlError, Reason, Step


class DryRun(enum.StrEnum):
    """How far a command goes: all the way, not to the server, or to the server's own dry run. Names are kubectl's."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What will be done about one node: steps that change something, and `then` in words what does not.

    `by_hand` are commands that are not run: what this command cannot do, and somebody with access can.
    """

    node: str
    steps: tuple[Step, ...] = ()
    then: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command will do. `refused` has what the server's dry run refused, by node and the step's place."""

    command: str
    cluster: str
    nodes: tuple[NodePlan, ...]
    dry_run: DryRun = DryRun.NONE
    notes: tuple[str, ...] = ()
    refused: Mapping[tuple[str, int], Reason] | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return tuple(step for node in self.nodes for step in node.steps)


def undoing(command: str, cluster: str, steps: Sequence[Step], verbs: Mapping[str, Verb] = VERBS) -> Plan:
    """What takes steps back, in the order given, by the object that they are about."""
    by_object: dict[str, list[Step]] = {}
    notes = []
    for step in steps:
        back = verb_of(step, verbs).inverse(step)
        if back is None:
            notes.append(f"cannot be taken back: {sentence(step, verbs)}")
        else:
            name = step.args.get("node") or str(step.args.get("path", "")).rpartition("/")[2]
            by_object.setdefault(str(name), []).append(back)
    return Plan(
        command, cluster, tuple(NodePlan(name, tuple(of)) for name, of in by_object.items()), notes=tuple(notes)
    )


def rehearsed(plan: Plan, means: Means, verbs: Mapping[str, Verb] = VERBS) -> Plan:
    """The plan with what the server says to each step. Raises what ended the scope."""
    dry = replace(means, dry_run=True)
    refused: dict[tuple[str, int], Reason] = {}
    for node in plan.nodes:
        for place, step in enumerate(node.steps):
            try:
                verb_of(step, verbs).apply(step, dry)
            except CancelledError:
                raise
            except KdnsctlError as error:
                means.scope.check()
                refused[node.node, place] = Reason(error.code, str(error), error)
    return replace(plan, refused=refused, dry_run=DryRun.SERVER)


def sentences(node: NodePlan, verbs: Mapping[str, Verb] = VERBS) -> list[str]:
    """What will be done about a node, one line each."""
    return [*(sentence(step, verbs) for step in node.steps), *node.then]


def sentence(step: Step, verbs: Mapping[str, Verb] = VERBS) -> str:
    """One step in words."""
    return verb_of(step, verbs).says(step)


def to_json(plan: Plan, verbs: Mapping[str, Verb] = VERBS) -> dict[str, Any]:
    """The plan as plain data (docs/schemas/Plan.schema.json)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Plan",
        "command": plan.command,
        "cluster": plan.cluster,
        "dryRun": plan.dry_run.value,
        "nodes": [
            {
                "name": node.node,
                "steps": [
                    {
                        **step.to_json(),
                        "description": sentence(step, verbs),
                        "refused": _reason((plan.refused or {}).get((node.node, place))),
                    }
                    for place, step in enumerate(node.steps)
                ],
                "then": list(node.then),
                "notes": list(node.notes),
                "byHand": list(node.by_hand),
            }
            for node in plan.nodes
        ],
        "notes": list(plan.notes),
    }


def _reason(reason: Reason | None) -> dict[str, str] | None:
    return None if reason is None else {"code": reason.code, "message": reason.message}
