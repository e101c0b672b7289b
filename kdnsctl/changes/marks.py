"""Which steps of a node's record are done: marked by the patch that does them, unmarked by the one that undoes them.

A record is written before its steps are taken, and a run may be killed between the two. If somebody else does the same
meanwhile (cordons the node), the node looks as if the step had been taken. The record and the field are of one object,
so one patch changes both: what is not marked, the quarantine has not done, and it takes nothing of that back.

Records are plain data here, as the annotation has them; `done` has the names of steps. A record without `done`, of an
earlier version, says nothing of it. Pure; reading and writing records is the verbs' work (`fields`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kdnsctl.model import Step

DONE: Final = "done"

Record = Mapping[str, Any]


def name_of(step: Step) -> str:
    """What a step is called in `done`: its verb, and what it is about but for the object."""
    return " ".join([step.verb, *(str(value) for name, value in sorted(step.args.items()) if name != "path")])


def done_in(record: Any) -> frozenset[str] | None:
    """The names of the steps that are done; None for what is no record, or one that does not say."""
    done = record.get(DONE) if isinstance(record, Mapping) else None
    return frozenset(one for one in done if isinstance(one, str)) if isinstance(done, list) else None


def is_way_back(record: Record, step: Step) -> bool:
    """Whether a step takes something back: those that do something are all in the record, before they are taken."""
    steps = record.get("steps")
    return not any(
        isinstance(one, Mapping)
        and (one.get("verb"), one.get("args"), one.get("after")) == (step.verb, step.args, step.after)
        for one in (steps if isinstance(steps, list) else ())
    )


def with_mark(record: Record, step: Step) -> Record | None:
    """The record as it is to be once the step is taken; None when it says so already, or does not say such things."""
    done = done_in(record)
    if done is None:
        return None
    after = done - {name_of(step)} if is_way_back(record, step) else done | {name_of(step)}
    return None if after == done else {**record, DONE: sorted(after)}


def says_taken(record: Record, step: Step) -> bool | None:
    """Whether a step was taken, as far as the record knows; None when it does not."""
    done = done_in(record)
    return None if done is None else (name_of(step) in done) is not is_way_back(record, step)


def is_others(record: Record, step: Step) -> bool:
    """Whether a step would take back what the quarantine has not done."""
    done = done_in(record)
    return done is not None and is_way_back(record, step) and name_of(step) not in done


def kept(found: Any, record: Any) -> Any:
    """A record that replaces `found` on the node: the marks stay as they are there, whatever its writer knew."""
    if not isinstance(found, Mapping) or not isinstance(record, Mapping):
        return record
    rest = {key: value for key, value in record.items() if key != DONE}
    return {**rest, DONE: found[DONE]} if DONE in found else rest


def same(one: Any, other: Any) -> bool:
    """Whether two records say the same but for the marks, which steps set without writing a record anew."""
    return bool(_unmarked(one) == _unmarked(other))


def _unmarked(record: Any) -> Any:
    return {key: value for key, value in record.items() if key != DONE} if isinstance(record, Mapping) else record
