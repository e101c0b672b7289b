"""Asking the server "may I?" for a set of permissions, all at once (authorization.k8s.io/v1 SelfSubjectAccessReview).

The review is answered for whom the connection impersonates, if it does. It is a forecast: admission may still refuse.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from kdnsctl import fleet
from kdnsctl.access import Permission
from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import decode
from kdnsctl.cluster.objects import SelfSubjectAccessReview
from kdnsctl.cluster.transport import Connection
from kdnsctl.model import Reason, Reporter, SilentReporter

PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Access:
    """Whether something is allowed; None when that could not be found out, and `why` says why not.

    `why` of a refusal is the authorizer's own reason, which most leave empty.
    """

    permission: Permission
    allowed: bool | None
    why: str = ""
    reason: Reason | None = None


def review(
    connection: Connection,
    permissions: Iterable[Permission],
    *,
    scope: CancelScope,
    parallel: int = PARALLEL,
    reporter: Reporter | None = None,
) -> list[Access]:
    """One `Access` per permission, in order, each asked once. Raises nothing for a review that fails: see `Access`."""
    asked = list(dict.fromkeys(permissions))
    by_number = {str(number): permission for number, permission in enumerate(asked)}

    def ask(number: str, limit: CancelScope) -> SelfSubjectAccessReview:
        reply = connection.request("POST", PATH, body=review_of(by_number[number]), scope=limit)
        return decode(reply.body, SelfSubjectAccessReview, f"POST {PATH}")

    outcomes = fleet.run(
        by_number,
        ask,
        parallel=parallel,
        deadline=None,
        reporter=reporter or SilentReporter(),
        scope=scope,
        what="permissions",
    )
    answers: list[Access] = []
    for permission, outcome in zip(asked, outcomes, strict=True):
        if outcome.value is None:
            why = outcome.reason.message if outcome.reason else ""
            answers.append(Access(permission, None, why, outcome.reason))
            continue
        status = outcome.value.status
        unsure = not status.allowed and bool(status.evaluation_error)
        answers.append(Access(permission, None if unsure else status.allowed, status.reason or status.evaluation_error))
    return answers


def missing(answers: Iterable[Access]) -> list[Access]:
    """Those that are not known to be allowed."""
    return [answer for answer in answers if not answer.allowed]


def review_of(permission: Permission) -> bytes:
    """The request's body."""
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "subresource": permission.subresource,
        "namespace": permission.namespace or "",
        "name": permission.name,
    }
    return msgspec.json.encode(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
    )
