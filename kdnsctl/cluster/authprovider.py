"""Credentials of the old kind that was built into clients (`auth-provider`): the one thing left to `kubernetes.config`.

A token that the kubeconfig holds and that has not ended is used as it is. One that has ended is renewed by the
`kubernetes` package (36 and 37 know `oidc` and `gcp`), imported only then, in a thread that is given up at the end of
the scope: it waits for ever. It is not asked where it would not verify the identity provider's certificate, which is
what it does when the kubeconfig names no authority for it. Nothing is written to the kubeconfig.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import threading
from collections.abc import Callable

import msgspec

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.errors import CredentialError, printable
from kdnsctl.cluster.kubeconfig import AuthProvider, Named, User

KUBECTL_RENEWS = "run any kubectl command with this context: it renews the token in the kubeconfig; then repeat"


class _Claims(msgspec.Struct, frozen=True):
    exp: float | None = None


def token(provider: AuthProvider, user: Named[User], scope: CancelScope) -> tuple[str, dt.datetime | None]:
    """A token that has not ended, and when it ends. Raises CredentialError."""
    config = provider.config or {}
    where = f"user {user.name} in {user.file}"
    now = dt.datetime.now(dt.UTC)
    if provider.name == "oidc":
        known, until = config.get("id-token", ""), expiry(config.get("id-token", ""))
        renewable = bool(config.get("refresh-token"))
        verified = bool(config.get("idp-certificate-authority") or config.get("idp-certificate-authority-data"))
    elif provider.name == "gcp":
        known, until = config.get("access-token", ""), _moment(config.get("expiry", ""))
        renewable = verified = bool(config.get("cmd-path"))
    else:
        raise CredentialError(
            f"{where} signs in by the auth-provider {provider.name!r}, which nothing supports any more",
            hint="use its credential plug-in (azure: kubelogin), or --token-file",
        )
    if known and (until is None or until > now):
        return known, until
    if not renewable or not verified:
        ended = f"ended at {until:%Y-%m-%dT%H:%M:%SZ}" if until else "is missing"
        raise CredentialError(f"the {provider.name} token of {where} {ended}", hint=KUBECTL_RENEWS)
    renewed = _renewed(provider, user, where, scope)
    return renewed, expiry(renewed)


def expiry(jwt: str) -> dt.datetime | None:
    """When a JSON web token ends (RFC 7519, `exp`); None when it does not say. Nothing verifies it here."""
    parts = jwt.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims)
        return None if claims.exp is None else dt.datetime.fromtimestamp(claims.exp, dt.UTC)
    except (binascii.Error, msgspec.DecodeError, ValueError, OverflowError):
        return None


def _moment(text: str) -> dt.datetime | None:
    try:
        return msgspec.convert(text, dt.datetime)
    except msgspec.ValidationError:
        return None


def _renewed(provider: AuthProvider, user: Named[User], where: str, scope: CancelScope) -> str:
    config = dict(provider.config or {})
    if config.get("idp-certificate-authority"):
        config["idp-certificate-authority"] = str(user.path(config["idp-certificate-authority"]))
    entry: dict[str, object] = {"auth-provider": {"name": provider.name, "config": config}}
    done = threading.Event()
    tokens: list[str] = []
    failures: list[Exception] = []

    def ask() -> None:
        try:
            tokens.append(_by_library(entry))
        except Exception as error:  # noqa: BLE001 - whatever the library and what it uses raise becomes one line
            failures.append(error)
        finally:
            done.set()

    threading.Thread(target=ask, name="auth-provider", daemon=True).start()
    with scope.closing(done.set):
        done.wait(scope.remaining())
    if tokens and tokens[0] and tokens[0] != (provider.config or {}).get("id-token"):
        return tokens[0]
    if scope.reason is not None and scope.reason.code != "deadline":
        scope.check()
    why = printable(str(failures[0])) if failures else "no new one was given" if tokens else "no answer in time"
    raise CredentialError(
        f"the {provider.name} token of {where} could not be renewed: {why}", hint=KUBECTL_RENEWS
    ) from (failures[0] if failures else None)


def _by_library(user: dict[str, object]) -> str:
    from kubernetes import client, config  # noqa: PLC0415 - half a second, for this one case

    content = {
        "clusters": [{"name": "_", "cluster": {"server": "https://localhost"}}],
        "users": [{"name": "_", "user": user}],
        "contexts": [{"name": "_", "context": {"cluster": "_", "user": "_"}}],
        "current-context": "_",
    }
    configuration = client.Configuration()
    load: Callable[..., None] = config.load_kube_config_from_dict  # untyped there
    load(content, client_configuration=configuration, persist_config=False)
    keys = configuration.api_key  # by another name in 36 than in 37
    return str(keys.get("BearerToken") or keys.get("authorization") or "").removeprefix("Bearer ")
