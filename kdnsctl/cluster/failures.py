"""What urllib3, ssl, a socket or a scope raised, as the error that an operator should see.

It decides about words and kinds only; whether a request is repeated is decided in `retries`.
"""

from __future__ import annotations

import ssl

from urllib3.exceptions import DecodeError, ProxyError, ReadTimeoutError
from urllib3.exceptions import SSLError as Urllib3SSLError

from kdnsctl.cancel import CancelScope, duration
from kdnsctl.cluster.certificates import tls_error
from kdnsctl.cluster.errors import (
    AnswerError,
    BehindProxyError,
    CutOffError,
    NoConnectionError,
    UnreachableError,
    printable,
)
from kdnsctl.cluster.network import is_address
from kdnsctl.cluster.target import Target
from kdnsctl.model import KdnsctlError

PROXY_HINT = "except the server from it with NO_PROXY, or correct the proxy"


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
        return _of_proxy(error, target) if isinstance(error, NoConnectionError) else error
    after = "" if received is None else f" after {received} bytes of the answer"
    if opening.cancelled.is_set() or isinstance(error, (ReadTimeoutError, TimeoutError)):
        late = f" within {duration(seconds)}" if seconds else ""
        hint = "is the server overloaded, or something in between swallowing packets? See also --request-timeout"
        if after:
            return UnreachableError(f"{target.address} fell silent{after} to {what}", hint=hint)
        way = f" through the proxy {target.proxy}" if target.proxy else ""
        return UnreachableError(f"{target.address} did not answer {what}{way}{late}", hint=hint)
    cause = error.args[0] if isinstance(error, Urllib3SSLError) and error.args else error
    if isinstance(cause, ssl.SSLError) and received is None:
        return tls_error(cause, target.address, target.expected_name)
    if isinstance(error, ProxyError) and target.proxy:
        why = printable(str(error.args[1] if len(error.args) > 1 else error))
        return NoConnectionError(
            f"the proxy {target.proxy} gives no connection to {target.address}: {why}", hint=PROXY_HINT
        )
    if isinstance(error, DecodeError):
        return AnswerError(f"the answer to {what} cannot be decompressed: {error}")
    doubt = "" if what.startswith("GET ") else "; whether it was done is not known"
    return CutOffError(f"{target.address} closed the connection{after or ' without an answer'} to {what}{doubt}")


def _of_proxy(error: NoConnectionError, target: Target) -> NoConnectionError:
    """It is the proxy that could not be connected to, if there is one: nobody knows its address by heart."""
    if target.proxy is None or isinstance(error, BehindProxyError):
        return error
    known = "" if is_address(target.proxy.host) else f"; if you know its address: --resolve {target.proxy.host}=ADDRESS"
    return NoConnectionError(f"the proxy {target.proxy} is not reached: {error}", hint=PROXY_HINT + known)


def _end_of(scope: CancelScope) -> KdnsctlError | None:
    try:
        scope.check()
    except KdnsctlError as end:
        return end
    return None
