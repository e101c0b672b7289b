"""What a runbook is: a title, variables, and numbered steps, each with what it runs and what its exit codes lead to.

Records only. How they are written in Markdown is known to `parsing`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kdnsctl.runbook.words import Pipeline

GIVEN = "INCIDENT"  # the one variable that every runbook has: the incident that the run belongs to


class Kind(enum.StrEnum):
    """What a step does: only looks, changes something, or is done by a person."""

    READS = "reads"
    CHANGES = "changes"
    BY_HAND = "byHand"


class Way(enum.StrEnum):
    """What follows a step."""

    ON = "goOn"
    STEP = "step"
    DONE = "done"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Next:
    """What follows. `step` is the number of the step for `Way.STEP`, else 0."""

    way: Way
    step: int = 0

    def __str__(self) -> str:
        return {Way.ON: "go on", Way.STEP: f"step {self.step}", Way.DONE: "done", Way.STOP: "stop"}[self.way]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exit code of a step means, and what follows. `code` None is every other code."""

    code: int | None
    meaning: str
    next: Next


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that stands in commands as $NAME. `default` may use other variables; empty: it has to be given."""

    name: str
    about: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `text` is its Markdown as it stands, heading included; `effect` what the line before the code says.

    `remembers` names the variable that takes the words printed by the last command, or is empty.
    """

    number: int
    title: str
    text: str
    kind: Kind
    effect: str = ""
    commands: tuple[Pipeline, ...] = ()
    remembers: str = ""
    outcomes: tuple[Outcome, ...] = ()

    def after(self, code: int) -> Outcome | None:
        """What the exit code `code` leads to; None when the runbook does not say."""
        exact = next((one for one in self.outcomes if one.code == code), None)
        return exact or next((one for one in self.outcomes if one.code is None), None)


@dataclass(frozen=True, slots=True)
class Runbook:
    """A whole runbook. `digest` is the SHA-256 of its text, by which a resumed run knows that it is the same."""

    name: str
    title: str
    summary: str
    text: str
    digest: str
    steps: tuple[Step, ...]
    variables: tuple[Variable, ...] = ()

    def step(self, number: int) -> Step:
        """The step with this number. Raises KeyError."""
        for step in self.steps:
            if step.number == number:
                return step
        raise KeyError(number)
