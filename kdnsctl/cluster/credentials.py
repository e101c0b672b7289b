"""What proves who we are: tokens, token files, certificates, plug-ins, passwords; renewed while a command runs.

A drain outlives a token of 15 minutes, so a credential is asked for with every request and had anew when it ends, or
when the server does not accept it any more. One that cannot be had, or that is refused again, is not asked for with
every request: a plug-in that opens a browser would open one for each node. Which server it is for, and whom it
impersonates, is not known here.
"""

from __future__ import annotations

import base64
import datetime as dt
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import authprovider, execplugin
from kdnsctl.cluster.certificates import ClientCertificate, not_after, read_pem
from kdnsctl.cluster.errors import CredentialError
from kdnsctl.cluster.kubeconfig import ExecPlugin, Named, User

EARLY = dt.timedelta(seconds=30)  # a credential is renewed that long before its end: clocks differ
TOKEN_FILE_AGE = dt.timedelta(minutes=1)  # how long a token read from a file is used; client-go's period too
USED_FOR = dt.timedelta(seconds=10)  # at least, whatever it says of its end: this machine's clock may be ahead
NOT_AGAIN: Final = 30.0  # seconds in which what has failed, or was refused, is not asked for once more
SLACK: Final = 0.5  # seconds: whoever waits for another's renewal learns why it failed


@dataclass(frozen=True, slots=True)
class Credential:
    """One proof: an Authorization header, a client certificate, both or neither. `until` is when to have it anew."""

    origin: str
    authorization: str = ""
    client: ClientCertificate | None = None
    until: dt.datetime | None = None

    def __repr__(self) -> str:  # a token does not belong into a traceback
        return f"Credential({self.origin})"


ANONYMOUS = Credential("no credential at all")


class Credentials:
    """The current credential, from `load`, which gets the scope to work in. `renewable`: a new one can be had."""

    def __init__(self, load: Callable[[CancelScope], Credential], *, renewable: bool) -> None:
        self._load = load
        self._renewable = renewable
        self._lock = threading.Lock()
        self._current: Credential | None = None
        self._failed: tuple[CredentialError, float] | None = None  # and when, by the scope's clock
        self._refused_at: float | None = None  # when one was had anew because the server had refused the last

    def current(self, scope: CancelScope) -> Credential:
        """A credential that has not ended. One thread has it renewed, the others wait. Raises CredentialError."""
        left = scope.remaining()
        if not self._lock.acquire(timeout=-1 if left is None else left + SLACK):
            if scope.reason is None or scope.reason.code != "deadline":
                scope.check()
            raise CredentialError("the credential was not renewed in time")
        try:
            known = self._current
            now = dt.datetime.now(dt.UTC)
            if known is None or (self._renewable and known.until is not None and known.until <= now):
                known = self._current = self._renewed(scope)
            return known
        finally:
            self._lock.release()

    def refused(self, credential: Credential, scope: CancelScope) -> bool:
        """The server does not accept it. Whether another may be had: then `current` will try."""
        if not self._renewable:
            return False
        with self._lock:
            if self._current is credential:
                if _lately(self._refused_at, scope):
                    return False  # it is itself what was had anew
                self._refused_at = scope.clock.now()
                self._current = None
        return True

    def _renewed(self, scope: CancelScope) -> Credential:
        if self._failed and _lately(self._failed[1], scope):
            known = self._failed[0]
            raise CredentialError(str(known), hint=known.hint)
        try:
            return self._load(scope)
        except CredentialError as error:
            self._failed = error, scope.clock.now()
            raise


def nobody() -> Credentials:
    """No proof at all: what a server tells everybody."""
    return Credentials(lambda _: ANONYMOUS, renewable=False)


def of_token_file(path: Path) -> Credentials:
    """The token in a file that something else renews, as in a pod."""

    def load(_: CancelScope) -> Credential:
        return _bearer(_token_in(path), f"token in {path}", dt.datetime.now(dt.UTC) + TOKEN_FILE_AGE)

    return Credentials(load, renewable=True)


def of_user(
    user: Named[User] | None,
    cluster: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    interactive: bool,
    note: Callable[[str], None],
) -> Credentials:
    """The credentials of a kubeconfig's user. `cluster` is for plug-ins that want to know for which one."""
    if user is None:
        return nobody()
    entry, origin = user.entry, f"user {user.name} in {user.file}"
    certificate = _client_certificate(user, origin)
    if entry.token_file or entry.token:
        return _of_token(user, origin, certificate)
    if entry.username is not None and entry.password is not None:
        pair = base64.b64encode(f"{entry.username}:{entry.password}".encode()).decode()
        basic = Credential(f"password of {origin}", f"Basic {pair}", certificate)
        return Credentials(lambda _: basic, renewable=False)
    if entry.exec is not None:
        return _of_plugin(entry.exec, user, certificate, cluster, environment, interactive=interactive, note=note)
    provider = entry.auth_provider
    if provider is not None:

        def from_provider(scope: CancelScope) -> Credential:
            token, until = authprovider.token(provider, user, scope)
            return _bearer(token, f"auth-provider of {origin}", _renewal(until), certificate)

        return Credentials(from_provider, renewable=True)
    if certificate:
        return Credentials(lambda _: Credential(certificate.origin, client=certificate), renewable=False)
    return nobody()


def _of_token(user: Named[User], origin: str, certificate: ClientCertificate | None) -> Credentials:
    """The token of the entry, or of its file, which wins; the entry's stands in while there is no file."""
    token = user.entry.token or ""
    if not user.entry.token_file:
        return Credentials(lambda _: _bearer(token, f"token of {origin}", None, certificate), renewable=False)
    path = user.path(user.entry.token_file)

    def from_file(_: CancelScope) -> Credential:
        try:
            now = _token_in(path)
        except CredentialError:
            if not token:
                raise
            now = token
        until = dt.datetime.now(dt.UTC) + TOKEN_FILE_AGE
        return _bearer(now, f"token in {path}", until, certificate)

    return Credentials(from_file, renewable=True)


def _of_plugin(
    plugin: ExecPlugin,
    user: Named[User],
    certificate: ClientCertificate | None,
    cluster: Mapping[str, object],
    environment: Mapping[str, str],
    *,
    interactive: bool,
    note: Callable[[str], None],
) -> Credentials:
    folder, source = user.file.parent, f"credential plug-in {plugin.command}"

    def from_plugin(scope: CancelScope) -> Credential:
        status = execplugin.run(plugin, folder, cluster, environment, scope, interactive=interactive, note=note)
        client = certificate
        if status.client_certificate_data:
            client = ClientCertificate(status.client_certificate_data.encode(), status.client_key_data.encode(), source)
        return _bearer(status.token, source, _renewal(status.expiration_timestamp), client)

    return Credentials(from_plugin, renewable=True)


def why_refused(credential: Credential) -> str:
    """What is known about a credential that the server did not accept; empty when nothing is."""
    if credential is ANONYMOUS:
        return "the kubeconfig holds no credential for the user"
    ended = not_after(credential.client.certificate) if credential.client else None
    if credential.client and ended and ended <= dt.datetime.now(dt.UTC):
        return f"the {credential.client.origin} expired on {ended:%Y-%m-%dT%H:%M:%SZ}"
    return f"the server does not accept the {credential.origin}"


def _lately(moment: float | None, scope: CancelScope) -> bool:
    return moment is not None and scope.clock.now() - moment < NOT_AGAIN


def _renewal(end: dt.datetime | None) -> dt.datetime | None:
    """When to have a credential anew that says when it ends. One that lives for less than a minute is used up."""
    if end is None:
        return None
    now = dt.datetime.now(dt.UTC)
    left = end - now
    return now + max(left - EARLY, left / 2, USED_FOR)


def _bearer(token: str, origin: str, until: dt.datetime | None, client: ClientCertificate | None = None) -> Credential:
    if not token:
        return Credential(origin, client=client, until=until)
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CredentialError(f"the {origin} is no token: it holds characters that no token has")
    return Credential(origin, f"Bearer {token}", client, until)


def _token_in(path: Path) -> str:
    try:
        token = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CredentialError(f"the token file cannot be read: {path}: {why}") from error
    if not token:
        raise CredentialError(f"the token file is empty: {path}")
    return token


def _client_certificate(user: Named[User], origin: str) -> ClientCertificate | None:
    entry = user.entry
    certificate = read_pem(
        entry.client_certificate_data,
        user.path(entry.client_certificate) if entry.client_certificate else None,
        "client-certificate",
        origin,
    )
    key = read_pem(
        entry.client_key_data, user.path(entry.client_key) if entry.client_key else None, "client-key", origin
    )
    if certificate is None:
        return None
    if key is None:
        raise CredentialError(f"{origin} has a client certificate and no key for it")
    return ClientCertificate(certificate, key, f"client certificate of {origin}")
