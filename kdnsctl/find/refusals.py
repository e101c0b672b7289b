"""Namespaces in which commands may not be run, known from a first refusal: a few nodes are tried, and hundreds are not.

A refusal alone says nothing of other pods, since admission can refuse single ones; a forecast alone may be wrong. Where
both say no, for the same verb, the other nodes are spared. Nothing is asked before something was refused.
"""

from __future__ import annotations

import threading

from kdnsctl.access.review import review
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import execs
from kdnsctl.cluster.errors import ForbiddenError
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import KdnsctlError


class Refusals:
    """What has been refused so far. Used from any number of threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def check(self, namespace: str) -> None:
        """Raises KdnsctlError with the code `forbidden` where nothing needs to be tried any more."""
        why = self._known.get(namespace)
        if why:
            raise KdnsctlError(f"not tried, since another node was refused: {why}", code=ForbiddenError.code)

    def learn(self, namespace: str, error: ForbiddenError, scope: CancelScope) -> None:
        """Something was refused in a namespace: ask once whether that holds for all pods in it."""
        with self._lock:
            if namespace in self._known:
                return
            answers = review(self._connection, execs.needed(namespace), scope=scope)
            # The server's own authorizer names the verb: User "x" cannot get resource "pods/exec" in …
            said = str(error)
            both = [one for one in answers if one.allowed is False and f"cannot {one.permission.verb} " in said]
            self._known[namespace] = f"{both[0].permission} is not allowed" if both else ""
