"""The ways an API server says no, as exceptions that carry the `Status` it would send. No HTTP here.

Texts and fields follow the recordings (`api/missing-node`, `lease-*-conflict`, `nodes-expired-continue`,
`patch-json-test-conflict`, `forbidden-*`, `log-*`, `evict-wrong-uid`). The store, the admission checks and the API all
raise `Refused`; the API turns it into a reply, a program in the same process can read `code` and `reason`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdnsctl.lab.kinds import Kind

JSON = dict[str, Any]


class Refused(Exception):  # noqa: N818 - an answer, not an accident
    """A request the server does not carry out. `status()` is the body, `retry_after` a header in seconds."""

    def __init__(
        self,
        code: int,
        reason: str | None,
        message: str,
        *,
        details: JSON | None = None,
        metadata: JSON | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata or {}
        self.retry_after = retry_after

    def status(self) -> JSON:
        """The body of the reply."""
        body: JSON = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": dict(self.metadata),
            "status": "Failure",
            "message": self.message,
        }
        if self.reason is not None:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One field of an object or of query options that is not acceptable, with the reason as field errors name it."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


def _details(kind: Kind, name: str) -> JSON:
    details: JSON = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.plural
    return details


def not_found(kind: Kind, name: str) -> Refused:
    """404, `api/missing-node.json`."""
    return Refused(404, "NotFound", f'{kind.resource} "{name}" not found', details=_details(kind, name))


def no_such_method() -> Refused:
    """A verb that the resource does not have."""
    message = "the server does not allow this method on the requested resource"
    return Refused(405, "MethodNotAllowed", message, details={})


def already_exists(kind: Kind, name: str) -> Refused:
    """409, `api/lease-create-conflict.json`."""
    return Refused(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', details=_details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> Refused:
    """409 with a reason of its own."""
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return Refused(409, "Conflict", message, details=_details(kind, name))


def stale_write(kind: Kind, name: str) -> Refused:
    """409 for a version that is not the current one, `api/lease-update-conflict.json`."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def wrong_uid(kind: Kind, name: str, wanted: str, actual: str) -> Refused:
    """A UID precondition on a deletion that does not hold; the text names the kind, not the resource."""
    why = (
        f"the UID in the precondition ({wanted}) does not match the UID in record ({actual}). "
        "The object might have been deleted and then recreated"
    )
    return _kind_conflict(kind, name, why)


def wrong_version(kind: Kind, name: str, wanted: str, actual: str) -> Refused:
    """A version precondition on a deletion that does not hold."""
    why = (
        f"the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({actual}). "
        "The object might have been modified"
    )
    return _kind_conflict(kind, name, why)


def _kind_conflict(kind: Kind, name: str, why: str) -> Refused:
    resource = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details: JSON = {"name": name}
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.kind
    return Refused(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{name}": {why}', details=details)


def bad_request(message: str) -> Refused:
    """400, as `api/log-bad-container.json`."""
    return Refused(400, "BadRequest", message)


def rejected_patch() -> Refused:
    """A JSON patch that does not apply, a failed `test` included; a real server keeps the why to itself."""
    return Refused(422, "Invalid", "the server rejected our request due to an error in our request", details={})


def invalid(what: str, name: str, faults: Sequence[FieldFault], *, group: str = "") -> Refused:
    """Fields that are not acceptable. `what` is the kind, `faults` at least one.

    Several faults are joined in brackets, as field error lists print themselves.
    """
    texts = [f"{fault.field}: {fault.message}" for fault in faults]
    joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    qualified = f"{what}.{group}" if group else what
    details: JSON = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = what
    details["causes"] = [{"reason": fault.reason, "message": fault.message, "field": fault.field} for fault in faults]
    return Refused(422, "Invalid", f'{qualified} "{name}" is invalid: {joined}', details=details)


def expired_continue(token: str) -> Refused:
    """The snapshot of a paged list is gone; `token` lets the client go on without consistency."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list."
    )
    return Refused(410, "Expired", message, metadata={"continue": token})


def expired_version(asked: int, oldest: int) -> Refused:
    """A watch or an exact list from before the kept history; `oldest` is the first version still known."""
    return Refused(410, "Expired", f"too old resource version: {asked} ({oldest})")


def future_version(asked: int, current: int) -> Refused:
    """504: the version asked for has not been written yet."""
    return Refused(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
        retry_after=1,
    )


def forbidden(kind_plural: str, group: str, name: str, why: str) -> Refused:
    """403, `api/forbidden-*.json` and `api/psa-denied.json`; `name` "" when the request names no object."""
    resource = f"{kind_plural}.{group}" if group else kind_plural
    message = f'{resource} "{name}" is forbidden: {why}' if name else f"{resource} is forbidden: {why}"
    details: JSON = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind_plural
    return Refused(403, "Forbidden", message, details=details)
