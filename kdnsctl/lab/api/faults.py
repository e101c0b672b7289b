"""Misbehaviour on demand: overload, internal errors, resets, slow and cut-off streams.

A test or `kdnsctl lab` adds a `Fault`; the server asks for one per request and does as it says. Only requests that
match are touched, and only as often as said.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field

from kdnsctl.lab.replies import JSON, Refused


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer with this code at once. `text` is a plain body, `status` a JSON one; `retry_after` in seconds."""

    code: int
    text: str = ""
    status: JSON | None = None
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Disturb:
    """Let the answer begin, then spoil it.

    `after_bytes`: how much of the body (for exec: of the command's output) is still sent, None for all of it. Then the
    connection is reset (`reset`), or the answer ends as if it were complete; an exec then ends without its exit code.
    `delay`: seconds to wait before each piece of at most `piece` bytes.
    """

    after_bytes: int | None = None
    reset: bool = True
    delay: float = 0.0
    piece: int = 65536


@dataclass(slots=True)
class Fault:
    """What to do to which requests. `path` is searched as a regular expression in the path with its query.

    `times`: how many requests it meets, None for all; `after`: how many matching ones pass unharmed before.
    """

    action: Respond | Disturb
    method: str | None = None
    path: str = ""
    user_agent: str = ""
    times: int | None = 1
    after: int = 0
    met: int = field(default=0, init=False)

    def _matches(self, method: str, path: str, user_agent: str) -> bool:
        return (
            (self.method is None or self.method == method)
            and re.search(self.path, path) is not None
            and self.user_agent in user_agent
        )

    def strike(self, method: str, path: str, user_agent: str) -> bool:
        """Whether this request is met; counts it."""
        if self.times == 0 or not self._matches(method, path, user_agent):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is not None:
            self.times -= 1
        self.met += 1
        return True


def overloaded(retry_after: int | None = 1) -> Respond:
    """429 from API Priority and Fairness: plain text, with Retry-After unless None (apiserver 1.36, filters)."""
    return Respond(429, "Too many requests, please try again later.\n", None, retry_after)


def internal_error(why: str = "etcdserver: request timed out") -> Respond:
    """500 with a Status, as for a failing database."""
    message = f"Internal error occurred: {why}"
    refusal = Refused(500, "InternalError", message, details={"causes": [{"message": why}]})
    return Respond(500, status=refusal.status())


class Faults:
    """The faults in force. Safe from any thread."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def pick(self, method: str, path: str, user_agent: str) -> Respond | Disturb | None:
        """The action of the first fault that meets the request."""
        with self._lock:
            for fault in self._faults:
                if fault.strike(method, path, user_agent):
                    return fault.action
        return None
