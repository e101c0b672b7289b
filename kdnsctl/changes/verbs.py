"""What a verb is: the code behind a step's name. Steps are data; here is what they are looked up in.

A verb knows how to take a step, how to say it to a person, and which step takes it back. It does not journal, does not
ask anybody, and decides nothing about whether the step is wise: that is done by the executor and the rooms above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError, Step
from kdnsctl.reach.shell import ChangingShell


@dataclass(frozen=True, slots=True)
class Means:
    """What a step is taken with. `dry_run`: the server is asked whether it would, and nothing changes.

    `shell` opens a node for steps that run on one; None where no step does. `note` journals a part of what a step has
    done while it is still at it, so that it is known also when its end is not; the executor sets it.
    """

    connection: Connection
    scope: CancelScope
    dry_run: bool = False
    shell: Callable[[str], ChangingShell] | None = None
    note: Callable[[Mapping[str, Any]], object] = lambda _: None


@dataclass(frozen=True, slots=True)
class Effect:
    """What came of a step. `changed` is False when all was as the step wants it before.

    `audit_id` is the server's name for the request in its audit log, `details` what a verb has to add for the journal.
    """

    changed: bool
    audit_id: str = ""
    details: Mapping[str, Any] | None = None


class DriftError(KdnsctlError):
    """What a step is about is not as the step supposes: somebody else changed it. It was left as it is."""

    code = "drift"

    def __init__(self, message: str, found: Any = None) -> None:
        super().__init__(message)
        self.found = found


class Verb(Protocol):
    """One kind of change."""

    def check(self, step: Step) -> None:
        """Raise ValueError when the step is none of this verb's: a journal or a record may be damaged or forged."""

    def says(self, step: Step) -> str:
        """The step in words, as an order: `cordon knode1`."""

    def inverse(self, step: Step) -> Step | None:
        """The step that takes it back; None when nothing does."""

    def apply(self, step: Step, means: Means) -> Effect:
        """Take the step. Raises DriftError when the state is not the step's, else KdnsctlError."""


def verb_of(step: Step, verbs: Mapping[str, Verb]) -> Verb:
    """The verb of a step that has been checked. Raises KdnsctlError for one that this version does not know."""
    verb = verbs.get(step.verb)
    if verb is None:
        raise KdnsctlError(
            f"this version of kdnsctl does not know the step {step.verb!r}",
            hint="use the version that took it",
            code="unknownStep",
        )
    try:
        verb.check(step)
    except ValueError as error:
        raise KdnsctlError(f"not a step of kdnsctl: {step.verb}: {error}", code="unknownStep") from error
    return verb
