"""When a request is sent again, and how long to wait before: every retry is bounded, jittered, cancellable and told.

It decides; `transport` sends. What may be repeated: what certainly was not done (429, and 503 with Retry-After, as the
server itself asks), and reads that were cut off on the way. A 429 with a disruption budget as its cause is never
repeated here: it is an answer, and who evicts decides. Errors of the server's own (500) are answers too.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from kdnsctl.cluster.errors import ApiError, CutOffError, NoConnectionError, TooManyRequestsError, UnreachableError

GATEWAY: Final = (502, 503, 504)  # something before the API server, or the API server starting or stopping


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry that is about to happen: `attempt` counts from 2, `wait` is in seconds."""

    request: str
    attempt: int
    attempts: int
    wait: float
    why: str

    def __str__(self) -> str:
        return f"{self.why}; trying again in {self.wait:.1f}s ({self.attempt} of {self.attempts})"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` in all; the n-th wait is about `first` × 2ⁿ seconds, never more than `longest`.

    Retry-After is obeyed as it is, with a little jitter on top, so that clients do not come back all at once.
    """

    attempts: int = 4
    first: float = 0.5
    longest: float = 8.0

    def wait(self, failures: int, error: ApiError | UnreachableError, dice: random.Random) -> float:
        """Seconds before the next attempt, after `failures` of them."""
        asked = error.failure.retry_after if isinstance(error, ApiError) else None
        if asked is not None:
            return asked + dice.uniform(0, min(1.0, self.first))
        return float(min(self.longest, self.first * 2 ** (failures - 1)) * dice.uniform(0.5, 1.0))


NO_RETRIES = RetryPolicy(attempts=1)


def may_repeat(method: str, error: ApiError | UnreachableError, *, has_answered: bool) -> bool:
    """Whether a failed request may be sent again. `has_answered`: this server has answered before in this run.

    One that never has is reported at once: a wrong context or a VPN that is down does not heal by waiting.
    """
    match error:
        case TooManyRequestsError():
            return not error.budget
        case ApiError():
            if error.status == 503 and error.failure.retry_after is not None:
                return True
            return method == "GET" and error.status in GATEWAY
        case NoConnectionError():
            return has_answered
        case CutOffError():
            return method == "GET"
        case _:
            return False
