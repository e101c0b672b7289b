from __future__ import annotations

import base64
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster import authprovider
from kdnsctl.cluster.errors import CredentialError
from kdnsctl.cluster.kubeconfig import AuthProvider, Named, User
from tests.unit.cluster import apiserver
from tests.unit.cluster.apiserver import Server, reply
from tests.unit.cluster.conftest import encoded

USER = Named("u", User(), Path("/home/me/.kube/config"))


def jwt(until: float) -> str:
    parts = ({"alg": "none"}, {"exp": until})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*texts, "c2ln"])


def provider(name: str, **config: str) -> AuthProvider:
    return AuthProvider(name=name, config={key.replace("_", "-"): value for key, value in config.items()})


def test_a_token_that_has_not_ended_is_used_as_it_is(scope: CancelScope) -> None:
    good = jwt(time.time() + 3600)
    assert authprovider.token(provider("oidc", id_token=good), USER, scope)[0] == good
    google = provider("gcp", access_token="g", expiry="2999-01-01T00:00:00Z")
    token, until = authprovider.token(google, USER, scope)
    assert token == "g"
    assert until is not None
    assert until.year == 2999


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"refresh_token": "r"},  # no authority for the identity provider: it would not be verified
        {"idp_certificate_authority_data": "x"},
    ],
)
def test_one_that_has_ended_and_cannot_be_renewed_safely(scope: CancelScope, config: dict[str, str]) -> None:
    with pytest.raises(
        CredentialError, match=r"the oidc token of user u in .* ended at 2001-09-09T01:46:40Z"
    ) as caught:
        authprovider.token(provider("oidc", id_token=jwt(1e9), **config), USER, scope)
    assert "run any kubectl command" in caught.value.hint


@pytest.fixture
def identity(tls: ssl.SSLContext, authority: trustme.CA) -> Any:
    with Server(tls) as server:
        config = {
            "idp_issuer_url": server.url,
            "idp_certificate_authority_data": encoded(authority.cert_pem.bytes()),
            "client_id": "kdnsctl",
            "client_secret": "s",
            "refresh_token": "r",
            "id_token": jwt(1e9),
        }
        yield server, config


def renewed(config: dict[str, str], seconds: float) -> str:
    """The token, or the error's line; in a process of its own, since `kubernetes` leaves connections open."""
    program = """if True:
        import json, sys
        from pathlib import Path
        from kdnsctl.cancel import CancelScope
        from kdnsctl.cluster import authprovider
        from kdnsctl.cluster.kubeconfig import AuthProvider, Named, User
        from kdnsctl.model import KdnsctlError
        config = json.loads(sys.stdin.read())
        with CancelScope(float(sys.argv[1])) as scope:
            try:
                user = Named("u", User(), Path("/home/me/.kube/config"))
                print(authprovider.token(AuthProvider(name="oidc", config=config), user, scope)[0])
            except KdnsctlError as error:
                print(error)
    """
    made = {key.replace("_", "-"): value for key, value in config.items()}
    command = [sys.executable, "-c", program, str(seconds)]
    done = subprocess.run(command, input=json.dumps(made), capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n")


def test_one_that_has_ended_is_renewed_by_the_kubernetes_package(identity: Any) -> None:
    server, config = identity
    new = jwt(time.time() + 3600)
    server.on("/.well-known/openid-configuration", reply({"token_endpoint": f"{server.url}/token"}))
    server.on("/token", reply({"id_token": new, "refresh_token": "r2", "access_token": "a", "token_type": "bearer"}))
    assert renewed(config, 60) == new
    assert b"grant_type=refresh_token" in server.requests[-1].body


def test_an_identity_provider_that_fails_is_one_line(identity: Any) -> None:
    server, config = identity
    server.on("/.well-known/openid-configuration", apiserver.status(500, "", "no"))
    said = renewed(config, 60)
    assert said.startswith("the oidc token of user u in /home/me/.kube/config could not be renewed: ")
    assert said.isprintable()


def test_an_identity_provider_that_never_answers_is_given_up(identity: Any) -> None:
    server, config = identity
    server.on("/.well-known/openid-configuration", apiserver.hang)
    assert renewed(config, 2).endswith("could not be renewed: no answer in time")


@given(st.binary(max_size=60))
def test_any_text_may_stand_where_a_token_should(text: bytes) -> None:
    end = authprovider.expiry(text.decode("latin-1"))
    assert end is None or end.year > 0
