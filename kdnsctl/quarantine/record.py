"""What is written on a quarantined node, so that anybody can go on or undo it: the annotation `kdnsctl.io/quarantine`.

It holds the incident, who, since when, how far, every step with the value that was there before, and which steps of the
node are done, which they mark themselves (`changes.marks`). It can be written
by whoever may change nodes, so a record is checked before it is acted on: its steps may only be about this node and the
keys that holds use, and only set what a quarantine sets. Nothing is read from or sent to a cluster here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kdnsctl.changes import marks
from kdnsctl.changes.fields import NODES, RECORD, node_path
from kdnsctl.changes.incidents import checked_id
from kdnsctl.changes.verbs import Verb, verb_of
from kdnsctl.model import KdnsctlError, Step

VERSION: Final = 1
LONGEST_REASON: Final = 500  # characters
HOOK_MOMENT: Final = "preTerminate"  # of a Machine: before its instance is deleted, after its drain
TAINT_EFFECT: Final = "NoSchedule"  # NoExecute would delete pods without asking a budget, DaemonSets' pods too


class Phase(enum.StrEnum):
    """How far a quarantine is. It only ever goes on."""

    BEGUN = "begun"  # the record is written; holds, cordon and taint may be there in part
    CONTAINED = "contained"  # held, cordoned and tainted, and read back
    CAPTURED = "captured"  # the evidence is secured
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """The record. `steps` are all that change something for this node, but for the record itself, in order.

    `done` has the names of those of the node that are done, as it was read; None: an earlier version did not say.
    """

    incident: str
    operator: str
    run: str
    since: datetime
    phase: Phase
    steps: tuple[Step, ...] = ()
    reason: str = ""
    verdict: str = ""
    done: tuple[str, ...] | None = ()

    def has_done(self, step: Step) -> bool:
        """Whether the quarantine has taken a step, or may have: those that are not about the node mark nothing."""
        if step not in self.steps:
            return False
        unmarked = self.done is None or not step.args["path"].startswith(NODES)
        return unmarked or marks.name_of(step) in (self.done or ())

    def to_json(self) -> dict[str, Any]:
        """The record as the annotation holds it at first, with no step done: the marks are the steps' own."""
        return {
            "version": VERSION,
            "incident": self.incident,
            "operator": self.operator,
            "run": self.run,
            "since": self.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "phase": self.phase.value,
            "reason": self.reason,
            "verdict": self.verdict,
            "steps": [step.to_json() for step in self.steps],
            marks.DONE: [],
        }


class RecordError(KdnsctlError):
    """What is written on the node is no record, or asks for what no record may ask."""

    code = "badRecord"


def parsed(node: str, uid: str, value: Any, verbs: Mapping[str, Verb], is_key: Callable[[str], bool]) -> NodeRecord:
    """The record of a node, from the annotation's JSON. `is_key` knows the keys that holds use.

    Raises RecordError for anything that was not written by this program for this node.
    """
    try:
        return _parsed(node, uid, value, verbs, is_key)
    except (ValueError, TypeError, KdnsctlError) as error:
        raise RecordError(
            f"the annotation {RECORD} of {node} is no record of kdnsctl: {error}",
            hint=f"look at it: kubectl get node {node} -o yaml; nothing of it was acted on",
        ) from error


def _parsed(node: str, uid: str, value: Any, verbs: Mapping[str, Verb], is_key: Callable[[str], bool]) -> NodeRecord:
    if not isinstance(value, Mapping) or value.get("version") != VERSION:
        raise ValueError(f"not a record of version {VERSION}")
    texts = {key: value.get(key, "") for key in ("incident", "operator", "run", "since", "reason", "verdict")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("its fields are no text")
    checked_id(texts["incident"])
    since = datetime.fromisoformat(texts.pop("since"))
    if since.tzinfo is None:
        raise ValueError("its time has no zone")
    steps = tuple(Step.from_json(step) for step in value.get("steps", ()))
    for step in steps:
        _check(step, node, uid, verbs, is_key)
    done = value.get(marks.DONE)
    if done is not None and not (isinstance(done, list) and all(isinstance(one, str) for one in done)):
        raise ValueError("what is done is no list of names")
    names = None if done is None else tuple(done)
    return NodeRecord(since=since, phase=Phase(value.get("phase") or ""), steps=steps, done=names, **texts)


def _check(step: Step, node: str, uid: str, verbs: Mapping[str, Verb], is_key: Callable[[str], bool]) -> None:
    """What a step is about, and what it sets: whoever acts on a record may do more than whoever can write one."""
    verb_of(step, verbs)
    path = step.args["path"]
    if path.startswith("/api/") and (path != node_path(node) or step.uid != uid):
        raise ValueError(f"a step is about {path}, another node")
    match step.verb:
        case "node.cordon":
            well = (step.before, step.after) == (None, True)
        case "node.taint":
            wanted = {"key": RECORD, "effect": TAINT_EFFECT}
            after = step.after if isinstance(step.after, Mapping) else {}
            same = all(one.get(name) == value for one in (step.args, after) for name, value in wanted.items())
            well = same and step.before is None and set(after) == {*wanted, "value"} and isinstance(after["value"], str)
        case "object.annotate" | "object.label":
            if not is_key(step.args["key"]):
                raise ValueError(f"a step is about {step.args['key']}, which no hold uses")
            well = isinstance(step.after, str) and (step.before is None or isinstance(step.before, str))
        case "machine.hook":
            name = step.args["name"]
            if not name.startswith("kdnsctl"):
                raise ValueError(f"a step is about the hook {name}, which is not ours")
            well = (step.before, step.after, step.args["moment"]) == (None, {"name": name, "owner": name}, HOOK_MOMENT)
        case _:
            raise ValueError(f"a step {step.verb} of a record is not taken back")
    if not well:
        raise ValueError(f"a step {step.verb} sets what no quarantine sets")


def record_step(node: str, uid: str, before: NodeRecord | None, after: NodeRecord | None) -> Step:
    """The step that writes the record, or removes it."""
    return Step(
        "node.record",
        {"path": node_path(node)},
        uid,
        before.to_json() if before else None,
        after.to_json() if after else None,
    )


def containment(node: str, uid: str, incident: str) -> tuple[Step, Step]:
    """Cordon and the taint of our own: a cordon is undone by many, and says nothing of who made it."""
    path = node_path(node)
    taint = {"key": RECORD, "value": incident, "effect": TAINT_EFFECT}
    return (
        Step("node.cordon", {"path": path}, uid, None, True),
        Step("node.taint", {"path": path, "key": RECORD, "effect": TAINT_EFFECT}, uid, None, taint),
    )
