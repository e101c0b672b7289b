"""Every request the lab's API received, so that a test can say what a client really sent. Not an audit log."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kdnsctl.lab.replies import JSON


@dataclass(slots=True)
class Entry:
    """One request. `code` is None until an answer has begun; `sender` differs from `user` under impersonation."""

    moment: datetime
    method: str
    path: str
    query: Mapping[str, str]
    user_agent: str
    impersonation: Mapping[str, tuple[str, ...]]
    audit_id: str
    headers: Mapping[str, str]
    sender: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    body: JSON | list[JSON] | None = field(default=None, repr=False)
    code: int | None = None
    finished: bool = False


class Journal:
    """The last requests in the order they arrived."""

    def __init__(self, length: int = 10_000) -> None:
        self._entries: deque[Entry] = deque(maxlen=length)
        self._condition = threading.Condition()

    def add(self, entry: Entry) -> None:
        with self._condition:
            self._entries.append(entry)
            self._condition.notify_all()

    def changed(self) -> None:
        """Called when an entry's code or end is known, so that who waits looks again."""
        with self._condition:
            self._condition.notify_all()

    def entries(self, matches: Callable[[Entry], bool] = lambda _: True) -> list[Entry]:
        with self._condition:
            return [entry for entry in self._entries if matches(entry)]

    def wait_for(self, matches: Callable[[Entry], bool], timeout: float = 30) -> Entry:
        """The first matching entry, once there is one. Raises TimeoutError after `timeout` seconds."""
        with self._condition:
            found: list[Entry] = []

            def look() -> bool:
                found.extend(entry for entry in self._entries if matches(entry))
                return bool(found)

            if not self._condition.wait_for(look, timeout):
                raise TimeoutError(f"no such request arrived within {timeout} s; {len(self._entries)} others did")
            return found[0]

    def clear(self) -> None:
        with self._condition:
            self._entries.clear()
