"""Requests to one API server: with credentials, impersonation, deadlines, visible retries, and typed errors.

`Connection` is what all of this room's callers hold; `connection.connect` makes it. It knows HTTP and `Status`, not
what any resource means. Every call takes the `CancelScope` it happens in, and ends with it: what is open is shut.

A request, all its retries included, is over within `request_timeout`; a stream only begins within it, and may then be
silent no longer than it at a time. An error never stands for an empty answer.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import TypeVar
from urllib.parse import quote

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.answers import Query, decode, encoded, warning_text
from kdnsctl.cluster.certificates import ClientCertificate
from kdnsctl.cluster.credentials import Credential, Credentials, why_refused
from kdnsctl.cluster.errors import (
    AnswerError,
    ApiError,
    ForbiddenError,
    UnauthorizedError,
    UnreachableError,
    api_error,
)
from kdnsctl.cluster.failures import failure
from kdnsctl.cluster.network import Dialer
from kdnsctl.cluster.pool import SWITCHED, Pool, reader, switched
from kdnsctl.cluster.retries import Retry, RetryPolicy, may_repeat
from kdnsctl.cluster.target import Target
from kdnsctl.cluster.websockets import WebSocket, agreed, new_key, upgrade
from kdnsctl.model import KdnsctlError

T = TypeVar("T")

JSON = "application/json"
MAX_BODY = 256 << 20  # bytes of one decoded reply: pages are far smaller, and a hostile server must not fill the memory
MAX_ERROR = 64 << 10  # bytes read of an answer that is an error
MAX_WARNINGS = 100  # as many different ones are kept
CHUNK = 64 << 10
HEADER_NAME = "!#$&'*+-.^_`|~"  # beside letters and digits; RFC 9110, section 5.6.2, without the percent sign


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer. `audit_id` is the server's name for the request in its audit log, `date` its own time."""

    status: int
    body: bytes
    audit_id: str = ""
    content_type: str = ""
    date: str = ""  # as HTTP writes it; RFC 9110, section 6.6.1


@dataclass(slots=True)
class Stream:
    """A successful answer whose body is still coming. It may be read once."""

    chunks: Iterator[bytes]
    audit_id: str = ""
    content_type: str = ""


@dataclass(slots=True)
class _State:
    """What a connection learns while it is used."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pool: Pool | None = None
    shown: ClientCertificate | None = None
    has_answered: bool = False
    warnings: dict[str, None] = field(default_factory=dict)


class Connection:
    """The way to one API server. Used from any number of threads; `note` may be called from each of them."""

    def __init__(
        self,
        target: Target,
        credentials: Credentials,
        dialer: Dialer,
        *,
        tls: Callable[[ClientCertificate | None], ssl.SSLContext] | None,
        user_agent: str,
        request_timeout: float | None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen record
        note: Callable[[str], None] = lambda _: None,
        on_retry: Callable[[Retry], None] | None = None,
        dice: random.Random | None = None,
    ) -> None:
        self.target = target
        self.request_timeout = request_timeout
        self._credentials = credentials
        self._dialer = dialer
        self._tls = tls
        self.user_agent = user_agent  # may be set anew, when the incident is known
        self._retry = retry
        self._note = note
        self._on_retry = on_retry or (lambda retry: note(str(retry)))
        self._dice = dice or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._state = _State()
        self.forbidden: dict[str, None] = {}  # what the server said of each request that it refused, in order

    # --- asking ---

    def get(self, path: str, type: type[T], *, query: Query | None = None, scope: CancelScope) -> T:  # noqa: A002
        """The object at `path`, decoded. Raises ApiError, UnreachableError, AnswerError, or what ended the scope."""
        return decode(self.request("GET", path, query=query, scope=scope).body, type, f"GET {path}")

    def request(
        self,
        method: str,
        path: str,
        *,
        scope: CancelScope,
        query: Query | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        retry: RetryPolicy | None = None,
    ) -> Reply:
        """Send one request and read its answer whole, within `request_timeout`, retries included."""
        what = f"{method} {path}"
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        if body is not None:
            headers["Content-Type"] = content_type

        def once(limit: CancelScope) -> Reply:
            sent = self._send(method, path, query, headers, body, opening=limit, scope=limit, silence=None)
            with sent as response:
                content = b"".join(self._chunks(response, what, limit, MAX_BODY))
                return Reply(response.status, content, *_named(response), response.headers.get("Date", ""))

        with scope.child(self.request_timeout) as limit:
            return self._until_done(once, method, what, scope, limit, retry or self._retry)

    @contextlib.contextmanager
    def stream(
        self,
        path: str,
        *,
        scope: CancelScope,
        query: Query | None = None,
        accept: str = "*/*",
        silence: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Iterator[Stream]:
        """Open a GET whose body is read piece by piece, within the block and as long as `scope` lasts.

        The answer has to begin within `request_timeout`. `silence` is how many seconds may then pass without a byte
        (None: the request timeout). Only the opening is retried. The chunks raise CutOffError when the body ends before
        its end, UnreachableError when the server has fallen silent.
        """
        what = f"GET {path}"
        quiet = self.request_timeout if silence is None else silence
        with self._opened(path, query, {"Accept": accept}, scope, quiet, retry) as response:
            yield Stream(_until_the_end_of(scope, self._chunks(response, what, scope, None)), *_named(response))

    @contextlib.contextmanager
    def websocket(
        self,
        path: str,
        protocols: Sequence[str],
        *,
        scope: CancelScope,
        query: Query | None = None,
        silence: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Iterator[WebSocket]:
        """Open a websocket for the length of the block, and as long as `scope` lasts. `protocols`: the best first.

        All else is as with `stream`, but that `silence` None means any length of it. What is opened may be opened
        twice, if the first answer is lost. Raises AnswerError for an answer that is no websocket, or in no protocol
        that was asked for.
        """
        what = f"GET {path}"
        key = new_key()

        def failed(error: Exception | None, received: int) -> Exception:
            scope.check()
            return self._failed(error, what, scope, scope, received=received)

        with self._opened(path, query, upgrade(key, protocols), scope, silence, retry, wanted=SWITCHED) as response:
            protocol = agreed(response.headers, key, protocols, what)
            yield WebSocket(*switched(response), what, protocol, _named(response)[0], failed)

    @contextlib.contextmanager
    def _opened(
        self,
        path: str,
        query: Query | None,
        headers: Mapping[str, str],
        scope: CancelScope,
        silence: float | None,
        retry: RetryPolicy | None,
        *,
        wanted: int | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """The response to a GET, open within the block; only the opening is retried."""

        def once(limit: CancelScope) -> contextlib.ExitStack:
            with contextlib.ExitStack() as stack:
                sent = self._send(
                    "GET", path, query, headers, None, opening=limit, scope=scope, silence=silence, wanted=wanted
                )
                opened.append(stack.enter_context(sent))
                return stack.pop_all()

        opened: list[BaseHTTPResponse] = []
        with scope.child(self.request_timeout) as limit:
            stack = self._until_done(once, "GET", f"GET {path}", scope, limit, retry or self._retry)
        with stack:
            yield opened[-1]

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._state.lock:
            if self._state.pool:
                self._state.pool.close()

    def credential(self, scope: CancelScope) -> Credential:
        """What proves who we are, now. Raises CredentialError."""
        return self._credentials.current(scope)

    @property
    def address(self) -> str:
        """The address that was connected to last, the proxy's if there is one; empty before that."""
        return self._dialer.reached

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the server has warned of so far (its Warning headers), each once, in order."""
        return tuple(self._state.warnings)

    # --- one request and its repetitions ---

    def _until_done(
        self,
        once: Callable[[CancelScope], T],
        method: str,
        what: str,
        scope: CancelScope,
        limit: CancelScope,
        policy: RetryPolicy,
    ) -> T:
        failures = 0
        renewed = False
        while True:
            try:
                return once(limit)
            except UnauthorizedError as error:
                if renewed or not error.renewable:
                    raise
                renewed = True  # one more try with a new credential
            except (ApiError, UnreachableError) as error:
                failures += 1
                again = self._worth_repeating(method, what, error, failures, limit, policy)
                scope.check()
                if not again:
                    raise

    def _worth_repeating(
        self,
        method: str,
        what: str,
        error: ApiError | UnreachableError,
        failures: int,
        limit: CancelScope,
        policy: RetryPolicy,
    ) -> bool:
        """Whether to send it again; the wait before is over then. False too when there is no time left for the wait."""
        if failures >= policy.attempts or not may_repeat(method, error, has_answered=self._state.has_answered):
            return False
        wait = policy.wait(failures, error, self._dice)
        left = limit.remaining()
        if left is not None and wait >= left:
            return False
        self._on_retry(Retry(what, failures + 1, policy.attempts, wait, str(error)))
        return not limit.cancelled.wait(wait)

    @contextlib.contextmanager
    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        opening: CancelScope,
        scope: CancelScope,
        silence: float | None,
        wanted: int | None = None,
    ) -> Iterator[BaseHTTPResponse]:
        """The response to one request, if it is a success (`wanted`: this status only); else the error it stands for.

        A success of another kind than wanted is an error without a name of its own, like a redirect.
        """
        what = f"{method} {path}"
        with contextlib.ExitStack() as stack:
            try:
                credential = self._credentials.current(opening)
                sent = self._pool(credential).request(
                    method,
                    f"{self.target.server}{path}{encoded(query)}",
                    headers=self._headers(credential, headers),
                    body=body,
                    opening=opening,
                    scope=scope,
                    silence=silence,
                )
                response = stack.enter_context(sent)
            except (HTTPError, OSError, ValueError, KdnsctlError) as error:
                raise self._failed(error, what, opening, scope) from error
            self._note_warnings(response)
            self._state.has_answered = True
            self._dialer.answered()
            if not (200 <= response.status < 300 if wanted is None else response.status == wanted):
                said = b""
                for chunk in self._chunks(response, what, opening, None):
                    said += chunk
                    if len(said) > MAX_ERROR:
                        break
                refusal = api_error(what, response.status, said[:MAX_ERROR], response.headers)
                if isinstance(refusal, UnauthorizedError):
                    refusal.hint = f"{why_refused(credential)}; sign in again, or check --context and --user"
                    refusal.renewable = self._credentials.refused(credential, opening)
                if isinstance(refusal, ForbiddenError):
                    self.forbidden[refusal.failure.message] = None
                raise refusal
            yield response

    def _chunks(
        self, response: BaseHTTPResponse, what: str, scope: CancelScope, at_most: int | None
    ) -> Iterator[bytes]:
        """The body as it comes. A body longer than `at_most` bytes is an AnswerError."""
        received = 0
        try:
            read = reader(response)
            while chunk := read(CHUNK):
                received += len(chunk)
                if at_most is not None and received > at_most:
                    raise AnswerError(f"the answer to {what} is larger than {at_most >> 20} MiB; it was not read on")
                yield chunk
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            raise self._failed(error, what, scope, scope, received=received) from error
        # A body without a length ends with the connection, also when it is us who have shut that.
        if scope.reason is not None:
            raise self._failed(None, what, scope, scope, received=received)

    def _headers(self, credential: Credential, given: Mapping[str, str]) -> urllib3.HTTPHeaderDict:
        headers = urllib3.HTTPHeaderDict({"User-Agent": self.user_agent})
        headers.update(given)
        if credential.authorization:
            headers["Authorization"] = credential.authorization
        whom = self.target.impersonation
        if whom:
            headers["Impersonate-User"] = whom.user
            for group in whom.groups:
                headers.add("Impersonate-Group", group)
            if whom.uid:
                headers["Impersonate-Uid"] = whom.uid
            for key, value in whom.extra:
                # Letters that no header's name may have are escaped as in URLs; k8s docs, "User impersonation".
                headers.add(f"Impersonate-Extra-{quote(key, safe=HEADER_NAME)}", value)
        return headers

    def _pool(self, credential: Credential) -> Pool:
        """The pool for the client certificate that is valid now: a plug-in may give a new one."""
        state = self._state
        with state.lock:
            if state.pool is None or state.shown != credential.client:
                context = self._tls(credential.client) if self._tls else None
                # The old pool is left to the requests that still use it.
                state.pool = Pool(self._dialer, context, self.target.tls_server_name or None, self.target.proxy)
                state.shown = credential.client
            return state.pool

    def _note_warnings(self, response: BaseHTTPResponse) -> None:
        for header in response.headers.getlist("Warning"):
            text = warning_text(header)
            with self._state.lock:
                new = text not in self._state.warnings and len(self._state.warnings) < MAX_WARNINGS
                if new:
                    self._state.warnings[text] = None
            if new:
                self._note(f"the API server warns: {text}")

    def _failed(
        self,
        error: Exception | None,
        what: str,
        opening: CancelScope,
        scope: CancelScope,
        *,
        received: int | None = None,
    ) -> Exception:
        return failure(
            error,
            what,
            self.target,
            opening=opening,
            scope=scope,
            seconds=self.request_timeout,
            received=received,
        )


def _until_the_end_of(scope: CancelScope, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks; when the scope has ended, that is the error, whatever its end has caused."""
    try:
        yield from chunks
    except UnreachableError:
        scope.check()
        raise


def _named(response: BaseHTTPResponse) -> tuple[str, str]:
    return response.headers.get("Audit-Id", ""), response.headers.get("Content-Type", "")
