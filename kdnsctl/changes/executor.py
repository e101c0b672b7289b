"""Taking steps, and taking them back: each is journaled before and after, whatever it is taken with.

A step whose end is not in the journal may have been taken or not: undo looks at the object itself, and restores only
what still is as the step left it. What somebody else changed since is drift: it is reported, and left alone.

Records: `stepBegun` (the step), `stepDone` (`of`: the number of its beginning, `changed`), `stepFailed` (`of`, `code`,
`message`, `certain`: whether nothing can have been done), and between them `stepPart` (`of`, and what the verb tells
of a part that is done); the same for undoing: `undoBegun` (`of`: the step's
last beginning, `all`: of all that it takes back), `undoDone`, `undoFailed`. `stepDone` and `undoDone` have the
server's `auditId`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from kdnsctl.changes.journal import Record
from kdnsctl.changes.table import VERBS
from kdnsctl.changes.verbs import DriftError, Effect, Means, Verb, verb_of
from kdnsctl.cluster.errors import ApiError, NoConnectionError, NotFoundError
from kdnsctl.model import KdnsctlError, Reason, Step

BEGUN: Final = "stepBegun"
DONE: Final = "stepDone"
FAILED: Final = "stepFailed"
PART: Final = "stepPart"
UNDO_BEGUN: Final = "undoBegun"
UNDO_DONE: Final = "undoDone"
UNDO_FAILED: Final = "undoFailed"


class Log(Protocol):
    """Where steps are journaled: a `journal.Journal`, from any thread."""

    def append(self, kind: str, body: Mapping[str, Any]) -> Record:
        """Add a record; on the disk when this returns. Raises KdnsctlError when it could not be written."""


def take(step: Step, log: Log, means: Means, run: str, verbs: Mapping[str, Verb] = VERBS) -> Effect:
    """Take one step. Raises KdnsctlError, journaled, when it could not be; before it when it cannot be journaled.

    `run` names this run of the tool in the journal.
    """
    verb = verb_of(step, verbs)
    means.scope.check()
    begun = log.append(BEGUN, {"run": run, "step": step.to_json(), "says": verb.says(step)})
    return _apply(verb, step, means, log, (DONE, FAILED), {"run": run, "of": begun.number})


def take_all(
    steps: Iterable[Step], log: Log, means: Means, run: str, verbs: Mapping[str, Verb] = VERBS
) -> list[Effect]:
    """Take steps in order; the first that fails ends it, by its error."""
    return [take(step, log, means, run, verbs) for step in steps]


def _apply(verb: Verb, step: Step, means: Means, log: Log, kinds: tuple[str, str], about: Mapping[str, Any]) -> Effect:
    done, failed = kinds
    try:
        effect = verb.apply(step, replace(means, note=lambda body: log.append(PART, {**about, **body})))
    except KdnsctlError as error:
        audit = error.failure.audit_id if isinstance(error, ApiError) else ""
        certain = isinstance(error, DriftError | NoConnectionError) or (
            isinstance(error, ApiError) and 400 <= error.status < 500
        )
        said = {"code": error.code, "message": str(error), "certain": certain}
        log.append(failed, {**about, **said, **({"auditId": audit} if audit else {})})
        raise
    more: dict[str, Any] = {"auditId": effect.audit_id} if effect.audit_id else {}
    if effect.details:
        more["details"] = dict(effect.details)
    log.append(done, {**about, "changed": effect.changed, **more})
    return effect


# --- the way back ---


@dataclass(frozen=True, slots=True)
class Taken:
    """A step of a journal that was taken, or may have been (`certain` False).

    `numbers` are the records in which it was begun: several steps that changed the same thing are one from the first
    `before` to the last `after`.
    """

    numbers: tuple[int, ...]
    step: Step
    certain: bool


class Undone(enum.StrEnum):
    """What came of taking a step back."""

    RESTORED = "restored"
    ALREADY = "already"  # it was as before the step
    DRIFT = "drift"  # somebody else changed it since
    GONE = "gone"  # the object is no more
    NO_WAY_BACK = "noWayBack"  # such a step cannot be undone
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class UndoneStep:
    """One step and what came of it; `reason` when it could not be restored."""

    taken: Taken
    says: str
    outcome: Undone
    reason: Reason | None = None


def to_undo(records: Sequence[Record], verbs: Mapping[str, Verb] = VERBS) -> list[Taken]:
    """The steps of a journal that can be undone and are not yet, the last one first.

    What has no way back (a pod that was evicted) is left out. Raises KdnsctlError for a step that is none.
    """
    ends: dict[int, Record] = {}
    undone: set[int] = set()
    for record in records:
        if record.kind in (DONE, FAILED):
            ends[int(record.body.get("of") or 0)] = record
        elif record.kind == UNDO_DONE:
            undone.update(int(number) for number in record.body.get("all") or ())
    found: list[Taken] = []
    for record in records:
        if record.kind != BEGUN or record.number in undone:
            continue
        end = ends.get(record.number)
        step = _step(record)
        if end is not None and end.kind == DONE:
            changed = end.body.get("changed") is True
            _settle(found, step, step.before if changed else step.after)
            if changed:
                _add(found, Taken((record.number,), step, certain=True))
        elif end is None or end.body.get("certain") is not True:
            _add(found, Taken((record.number,), step, certain=False))
    left = [one for one in found[::-1] if not _goes_nowhere(one)]
    return [one for one in left if verb_of(one.step, verbs).inverse(one.step) is not None]


def _settle(found: list[Taken], step: Step, seen: Any) -> None:
    """What a later step saw of the same thing tells whether an earlier one, whose end is not known, was taken."""
    for place in range(len(found) - 1, -1, -1):
        one = found[place]
        if one.certain or not _same_thing(one.step, step):
            continue
        del found[place]
        if one.step.after == seen:
            _add(found, replace(one, certain=True), place)


def _same_thing(one: Step, other: Step) -> bool:
    return (one.verb, one.args, one.uid) == (other.verb, other.args, other.uid)


def _add(found: list[Taken], taken: Taken, place: int | None = None) -> None:
    """Add a step, as one with an earlier one that it goes on from."""
    step = taken.step
    for index, earlier in enumerate(found):
        old = earlier.step
        if not (_same_thing(old, step) and earlier.certain and old.after == step.before and old.before != old.after):
            continue
        if taken.certain:
            found[index] = Taken((*earlier.numbers, *taken.numbers), replace(step, before=old.before), certain=True)
            return
        if step.after == old.before:
            return  # it takes the earlier one back, or did not: taking that back is right either way
    found.insert(len(found) if place is None else place, taken)


def _goes_nowhere(taken: Taken) -> bool:
    """Whether what was changed has been changed back since."""
    return len(taken.numbers) > 1 and taken.step.before == taken.step.after


def undo(
    taken: Iterable[Taken], log: Log, means: Means, run: str, verbs: Mapping[str, Verb] = VERBS
) -> list[UndoneStep]:
    """Take steps back, in the order given. One that cannot be is in the answer, and the others are gone on with.

    Raises what ended the scope, and KdnsctlError when nothing can be journaled.
    """
    return [_undone(one, log, means, run, verbs) for one in taken]


def _undone(taken: Taken, log: Log, means: Means, run: str, verbs: Mapping[str, Verb]) -> UndoneStep:
    verb = verb_of(taken.step, verbs)
    back = verb.inverse(taken.step)
    if back is None:
        return UndoneStep(taken, verb.says(taken.step), Undone.NO_WAY_BACK)
    means.scope.check()
    about = {"run": run, "of": taken.numbers[-1], "all": list(taken.numbers)}
    log.append(UNDO_BEGUN, {**about, "step": back.to_json(), "says": verb.says(back)})
    return _outcome(
        taken, verb.says(back), lambda: _apply(verb, back, means, log, (UNDO_DONE, UNDO_FAILED), about), means
    )


def take_back(
    taken: Taken, back: Step, log: Log, means: Means, run: str, verbs: Mapping[str, Verb] = VERBS
) -> UndoneStep:
    """Take back by the step `back` what is known from elsewhere than this journal; it is journaled as a step."""
    says = verb_of(back, verbs).says(back)
    return _outcome(taken, says, lambda: take(back, log, means, run, verbs), means)


def _outcome(taken: Taken, says: str, do: Callable[[], Effect], means: Means) -> UndoneStep:
    try:
        effect = do()
    except DriftError as error:
        return UndoneStep(taken, says, Undone.DRIFT, Reason(error.code, str(error), error))
    except NotFoundError as error:
        return UndoneStep(taken, says, Undone.GONE, Reason(error.code, str(error), error))
    except KdnsctlError as error:
        means.scope.check()
        return UndoneStep(taken, says, Undone.FAILED, Reason(error.code, str(error), error))
    return UndoneStep(taken, says, Undone.RESTORED if effect.changed else Undone.ALREADY)


def _step(record: Record) -> Step:
    try:
        return Step.from_json(record.body.get("step"))
    except ValueError as error:
        raise KdnsctlError(f"record {record.number} of the journal is no step: {error}", code="unknownStep") from error
