"""What can go wrong on the way to the API server and in its answer, each kind with one line for an operator.

This module names the kinds and turns a `Status` into one of them; it sends nothing and retries nothing. Every error
says the request or the server it is about, and `code` groups the nodes that failed for the same reason.

    KdnsctlError
    ├── KubeconfigError        the kubeconfig is missing, broken or names what is not there
    ├── CredentialError        no credential could be had: plug-in, token file, client certificate
    ├── UnreachableError       no answer in time
    │   ├── NoConnectionError  name, route, proxy, refusal: nothing was sent
    │   │   └── BehindProxyError
    │   ├── CutOffError        the connection broke before the end of the answer
    │   └── TlsError           something answered, and is not to be trusted; or does not trust us
    ├── AnswerError            an answer that is not Kubernetes'
    └── ApiError               the server said no; `status` is HTTP's
        ├── BadRequestError 400 · UnauthorizedError 401 · ForbiddenError 403 · NotFoundError 404 · NotAllowedError 405
        ├── ConflictError 409 · GoneError 410 · InvalidError 422 · TooManyRequestsError 429
        └── ServerError 5xx
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from kdnsctl.cluster.objects import Status, StatusDetails
from kdnsctl.model import KdnsctlError

DISRUPTION_BUDGET = "DisruptionBudget"  # the cause in a 429 that means a budget, not load; k8s.io/api/policy/v1


class KubeconfigError(KdnsctlError):
    """The kubeconfig is missing, broken, or names what it does not hold."""

    code = "kubeconfig"


class CredentialError(KdnsctlError):
    """What should prove who we are could not be had."""

    code = "credential"


class UnreachableError(KdnsctlError):
    """No answer. What was asked may or may not have been done, unless the message says so."""

    code = "unreachable"


class NoConnectionError(UnreachableError):
    """No connection could be made. Nothing was sent."""


class BehindProxyError(NoConnectionError):
    """A proxy was reached, and cannot or does not connect to what is behind it."""


class CutOffError(UnreachableError):
    """The connection broke after the request was sent and before the end of the answer."""

    code = "cutOff"


class TlsError(UnreachableError):
    """The server's certificate is not to be trusted, or the server does not trust ours."""

    code = "tls"


class AnswerError(KdnsctlError):
    """The answer is not what Kubernetes sends: a proxy's or portal's page, or a body that cannot be decoded."""

    code = "badAnswer"


NO_DETAILS = StatusDetails()


@dataclass(frozen=True, slots=True)
class Failure:
    """The facts of a refusal: what was asked (`GET /api/v1/nodes`), HTTP's status, and what the server said."""

    request: str
    status: int
    reason: str = ""
    message: str = ""
    details: StatusDetails = NO_DETAILS
    retry_after: float | None = None  # seconds
    audit_id: str = ""


class ApiError(KdnsctlError):
    """The server did not do what was asked. `failure` holds all it said."""

    code = "apiError"
    advice = ""

    def __init__(self, failure: Failure, *, hint: str | None = None) -> None:
        self.failure = failure
        said = failure.message or failure.reason or "no reason given"
        super().__init__(
            f"{said} (HTTP {failure.status}, {failure.request})", hint=self.advice if hint is None else hint
        )

    @property
    def status(self) -> int:
        """HTTP's status."""
        return self.failure.status

    @property
    def reason(self) -> str:
        """The server's one-word reason."""
        return self.failure.reason


class BadRequestError(ApiError):
    """The request makes no sense to the server."""

    code = "badRequest"


class UnauthorizedError(ApiError):
    """The server does not know who we are: no credential, a wrong one, or one that has expired."""

    code = "unauthorized"
    advice = "sign in again, then repeat"
    renewable = False  # whether there may be another credential to try


class ForbiddenError(ApiError):
    """The server knows who we are, and we may not; or an admission rule refuses what we sent."""

    code = "forbidden"
    advice = "`kdnsctl rbac` prints the permissions that are needed"


class NotFoundError(ApiError):
    """There is no such object, or no such resource."""

    code = "notFound"


class NotAllowedError(ApiError):
    """The resource does not know the verb."""

    code = "notAllowed"


class ConflictError(ApiError):
    """The object is not, or no longer, what the request supposed."""

    code = "conflict"


class GoneError(ApiError):
    """The resourceVersion, or the place in a list, is too old: start again."""

    code = "gone"


class InvalidError(ApiError):
    """The server refuses the content, or a JSON patch's `test` failed."""

    code = "invalid"


class TooManyRequestsError(ApiError):
    """Not now: the server has too much to do, or a disruption budget is used up. `budget` tells which."""

    code = "tooManyRequests"
    advice = "the server is overloaded: repeat later, or with a smaller --parallel"

    def __init__(self, failure: Failure) -> None:
        causes = [cause.message for cause in failure.details.causes if cause.reason == DISRUPTION_BUDGET]
        self.budget = bool(causes)
        super().__init__(failure, hint="; ".join(causes) if causes else None)


class ServerError(ApiError):
    """The server failed, or something between us and it."""

    code = "serverError"


KINDS: Mapping[int, type[ApiError]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    405: NotAllowedError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}

_status = msgspec.json.Decoder(Status)


def api_error(request: str, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> ApiError:
    """The error for a reply that is not a success.

    `body` is a `Status` as JSON, or anything that a proxy or load balancer says instead, of which the beginning is
    quoted. `headers` gives Retry-After and Audit-ID.
    """
    given = headers or {}
    try:
        said = _status.decode(body)
    except msgspec.DecodeError:
        said = Status()
    if said.kind != "Status":
        text = " ".join(body[:300].decode("utf-8", "replace").split())
        said = Status(message=printable(text)[:200])
    failure = Failure(
        request=request,
        status=status,
        reason=said.reason,
        message=printable(said.message),
        details=said.details or NO_DETAILS,
        retry_after=retry_after(given.get("Retry-After", ""), said),
        audit_id=given.get("Audit-Id", ""),
    )
    return kind_of(status)(failure)


def of_status(request: str, said: Status, audit_id: str = "") -> ApiError:
    """The error for a `Status` that came inside a successful reply, as watches send it."""
    failure = Failure(
        request, said.code, said.reason, printable(said.message), said.details or NO_DETAILS, None, audit_id
    )
    return kind_of(said.code)(failure)


def kind_of(status: int) -> type[ApiError]:
    """The kind of error that HTTP's status stands for."""
    return KINDS.get(status, ServerError if status >= 500 else ApiError)


def retry_after(header: str, said: Status) -> float | None:
    """Seconds to wait by the Retry-After header, else by the Status; None when neither says. Dates are not read."""
    if header.strip().isdecimal():
        return float(header)
    if said.details and said.details.retry_after_seconds > 0:
        return float(said.details.retry_after_seconds)
    return None


def printable(text: str) -> str:
    """Foreign text for one line of a message: control characters, which could steer a terminal, become spaces."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
