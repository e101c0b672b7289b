"""What urllib3, ssl, a socket or a scope raised, as the error that an operator should see.

It decides about words and kinds only; whether a request is repeated is decided in `retries`.
"""

from __future__ import annotations

import ssl

from urllib3.exceptions import DecodeError, ProxyError, ReadTimeoutError
from urllib3.exceptions import SSLError as Urllib3SSLError

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.certificates import tls_error
from kdnsctl.cluster.errors import AnswerError, CutOffError, NoConnectionError, UnreachableError, printable
from kdnsctl.cluster.target import Target
from kdnsctl.model import KdnsctlError


def failure(
    error: Exception | None,
    what: str,
    target: Target,
    *,
    opening: CancelScope,
    scope: CancelScope,
    seconds: float | None,
    received: int | None = None,
) -> Exception:
    """The error for `error` (None: only a scope has ended), met while `what` (`GET /version`) was asked of `target`.

    `opening` is the scope of connecting and of the answer's beginning, `scope` that of the whole; `seconds` is how long
    the operator would wait. `received` counts the bytes of the answer's body, None before there was an answer.
    """
    scopes_end = _end_of(scope)
    if scopes_end is not None and scopes_end.code != "deadline":
        return scopes_end
    if isinstance(error, KdnsctlError) and not (opening.cancelled.is_set() and error.code == "deadline"):
        return error
    after = "" if received is None else f" after {received} bytes of the answer"
    if opening.cancelled.is_set() or isinstance(error, (ReadTimeoutError, TimeoutError)):
        late = f" within {duration(seconds)}" if seconds else ""
        hint = "is the server overloaded, or something in between swallowing packets? See also --request-timeout"
        if after:
            return UnreachableError(f"{target.address} fell silent{after} to {what}", hint=hint)
        return UnreachableError(f"{target.address} did not answer {what}{late}", hint=hint)
    cause = error.args[0] if isinstance(error, Urllib3SSLError) and error.args else error
    if isinstance(cause, ssl.SSLError) and received is None:
        return tls_error(cause, target.address, target.expected_name)
    if isinstance(error, ProxyError) and target.proxy:
        why = printable(str(error.args[1] if len(error.args) > 1 else error))
        proxy = f"{target.proxy.url} ({target.proxy.origin})"
        return NoConnectionError(
            f"the proxy {proxy} gives no connection to {target.address}: {why}",
            hint="except the server from it with NO_PROXY, or correct the proxy",
        )
    if isinstance(error, DecodeError):
        return AnswerError(f"the answer to {what} cannot be decompressed: {error}")
    doubt = "" if what.startswith("GET ") else "; whether it was done is not known"
    return CutOffError(f"{target.address} closed the connection{after or ' without an answer'} to {what}{doubt}")


def _end_of(scope: CancelScope) -> KdnsctlError | None:
    try:
        scope.check()
    except KdnsctlError as end:
        return end
    return None
