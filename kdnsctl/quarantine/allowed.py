"""What a command may not do is named before it does anything: half a quarantine is worse than none."""

from __future__ import annotations

from collections.abc import Iterable

from kdnsctl.access import Permission
from kdnsctl.access.review import review
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import RefusedError


def check_allowed(
    connection: Connection, permissions: Iterable[Permission], command: str, *, scope: CancelScope
) -> None:
    """Raise RefusedError naming the permissions that are refused for sure. A review that fails refuses nothing."""
    answers = review(connection, permissions, scope=scope)
    scope.check()
    refused = [answer for answer in answers if answer.allowed is False]
    if refused:
        what = "; ".join(f"{one.permission}: {one.permission.without}" for one in refused)
        raise RefusedError(
            f"not allowed: {what}; nothing was changed", hint=f"`kdnsctl rbac {command}` prints the Role"
        )
