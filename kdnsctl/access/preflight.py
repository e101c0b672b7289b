"""Asking for permissions while something else is being asked, so that a preflight costs a command no time of its own.

What follows from an answer is the caller's to decide. A refusal here is a forecast: a rule that names single objects
may still allow what is refused for all of them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator

from kdnsctl.access import Permission
from kdnsctl.access.review import Access, review
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.transport import Connection

PATIENCE = 5.0  # seconds for an answer: what needs longer is found out by doing it


@contextlib.contextmanager
def asking(
    connection: Connection, permissions: Iterable[Permission], *, scope: CancelScope
) -> Iterator[Callable[[], list[Access]]]:
    """Ask while the block runs. What it is given waits for the answers, and gives those that are refused for sure.

    A review that failed, or that `scope` has ended, refuses nothing: what it was about is then found out by doing it.
    """
    answers: list[Access] = []
    asked = list(dict.fromkeys(permissions))

    def ask() -> None:
        with scope.child(PATIENCE) as limit:
            answers.extend(review(connection, asked, scope=limit))

    asker = threading.Thread(target=ask, name="preflight", daemon=True)
    if asked:
        asker.start()

    def refused() -> list[Access]:
        if asked:
            asker.join(scope.remaining(PATIENCE))
        return [answer for answer in list(answers) if answer.allowed is False]

    yield refused
