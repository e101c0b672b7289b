from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import ssl
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
import yaml

from kdnsctl.cancel import INTERRUPTED, CancelScope
from kdnsctl.cluster.caches import cache_directory
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.errors import (
    CredentialError,
    KubeconfigError,
    NoConnectionError,
    TlsError,
    UnauthorizedError,
    UnreachableError,
)
from kdnsctl.cluster.objects import Version
from kdnsctl.model import CancelledError, KdnsctlError, UsageError
from tests.unit.cluster.apiserver import Exchange, Server, recorded, reply, status
from tests.unit.cluster.conftest import Connect, Kubeconfig, encoded, server_tls
from tests.unit.cluster.tunnel import Tunnel

ECDSA = trustme.KeyType.ECDSA
YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


def clear(error: KdnsctlError) -> str:
    """The error's line, which is one line."""
    text = str(error)
    assert text
    assert text.isprintable()
    assert error.hint.isprintable()
    return text


# --- which server ---


def test_no_kubeconfig_is_one_clear_line(environment: dict[str, str], scope: CancelScope, tmp_path: Path) -> None:
    with pytest.raises(KubeconfigError) as caught:
        connect(ConnectOptions(environment=environment), scope)
    assert clear(caught.value) == f"no kubeconfig: {tmp_path}/.kube/config does not exist, and this is no pod"
    assert all(way in caught.value.hint for way in ("--kubeconfig", "find-affected --logs PATH", "analyze PATH"))
    assert "--kubeconfig" in caught.value.hint


def test_a_kubeconfig_named_on_the_command_line_must_exist(environment: dict[str, str], scope: CancelScope) -> None:
    with pytest.raises(KubeconfigError, match=r"--kubeconfig nowhere: there is no such file"):
        connect(ConnectOptions(kubeconfig="nowhere", environment=environment), scope)


def test_a_context_that_is_not_there_is_wrong_usage(
    kubeconfig: Kubeconfig, environment: dict[str, str], scope: CancelScope
) -> None:
    path = kubeconfig("https://localhost:1")
    with pytest.raises(UsageError) as caught:
        connect(ConnectOptions(context="prdo", environment=environment), scope)
    assert (clear(caught.value), caught.value.hint) == (f"no context 'prdo' in {path}", "there are: here")


def test_options_override_what_the_context_names(
    api: Server, kubeconfig: Kubeconfig, environment: dict[str, str], scope: CancelScope
) -> None:
    api.on("/version", recorded("version"))
    path = kubeconfig("https://elsewhere.test:1")
    content = yaml.safe_load(path.read_text())
    content["clusters"].append(
        {"name": "c2", "cluster": dict(content["clusters"][0]["cluster"], server="https://no:1")}
    )
    content["users"].append({"name": "u2", "user": {"token": "second"}})
    path.write_text(yaml.safe_dump(content))
    options = ConnectOptions(cluster="c2", user="u2", server=api.url, environment=environment)
    connection = connect(options, scope)
    assert connection.get("/version", Version, scope=scope).major == "1"
    connection.close()
    assert api.requests[0].header("Authorization") == "Bearer second"
    assert (connection.target.cluster, connection.target.user) == ("c2", "u2")
    assert str(connection.target) == f"{api.url} (context here) as u2"


def test_a_server_alone_needs_no_kubeconfig(environment: dict[str, str], scope: CancelScope) -> None:
    with Server(None) as plain:
        plain.on("/version", recorded("version"))
        connection = connect(ConnectOptions(server=plain.url, environment=environment), scope)
        assert connection.get("/version", Version, scope=scope).minor == "36"
        connection.close()
    assert plain.requests[0].header("Authorization") is None


def test_a_server_alone_wins_over_a_kubeconfig_that_chooses_nothing(
    kubeconfig: Kubeconfig, environment: dict[str, str], scope: CancelScope
) -> None:
    path = kubeconfig("https://elsewhere.test")
    path.write_text(path.read_text().replace("current-context: here", ""))
    connection = connect(ConnectOptions(server="api.test:6443", environment=environment), scope)
    assert (connection.target.server, connection.target.user) == ("https://api.test:6443", "")
    with pytest.raises(KubeconfigError, match="no context is current in") as caught:
        connect(ConnectOptions(environment=environment), scope)
    assert caught.value.hint == "choose one with --context: here"


def test_a_context_needs_a_kubeconfig(environment: dict[str, str], scope: CancelScope) -> None:
    with pytest.raises(UsageError, match="no kubeconfig to find the context, cluster or user in"):
        connect(ConnectOptions(context="here", server="https://api.test", environment=environment), scope)


def test_in_a_pod_its_own_cluster_is_used(
    api: Server, authority: trustme.CA, environment: dict[str, str], scope: CancelScope, tmp_path: Path
) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text("of-the-pod\n")
    authority.cert_pem.write_to_path(account / "ca.crt")
    api.on("/version", recorded("version"))
    inside = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
    connection = connect(ConnectOptions(environment=environment | inside, service_account=account), scope)
    connection.get("/version", Version, scope=scope)
    connection.close()
    assert api.requests[0].header("Authorization") == "Bearer of-the-pod"
    assert connection.target.cluster == "in-cluster"


def test_a_server_that_may_not_be_verified_is_refused(connect_to: Connect) -> None:
    with pytest.raises(KubeconfigError, match="insecure-skip-tls-verify"):
        connect_to("https://localhost:1", cluster_entry={"insecure-skip-tls-verify": True})


def test_a_credential_does_not_go_over_the_network_in_the_clear(connect_to: Connect) -> None:
    with pytest.raises(KubeconfigError, match=r"http://api.test is not https: the token of user u"):
        connect_to("http://api.test")


@pytest.mark.parametrize("server", ["https://", "ftp://api.test", "https://api.test:port"])
def test_an_address_that_is_none_is_shown(connect_to: Connect, server: str) -> None:
    with pytest.raises(KubeconfigError, match="is not the address of a server: "):
        connect_to(server)


def test_impersonation_of_the_kubeconfig_is_used_and_overridden(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/version", recorded("version"))
    user = {"token": "t", "as": "jane", "as-groups": ["a", "b"], "as-user-extra": {"acme.com/project": ["x", "y"]}}
    connect_to(api, user=user).get("/version", Version, scope=scope)
    connect_to(api, user=user, as_user="joe").get("/version", Version, scope=scope)
    first, second = api.requests
    assert (first.header("Impersonate-User"), first.headers_named("Impersonate-Group")) == ("jane", ["a", "b"])
    assert first.headers_named("Impersonate-Extra-acme.com%2Fproject") == ["x", "y"]
    assert (second.header("Impersonate-User"), second.headers_named("Impersonate-Group")) == ("joe", [])


def test_impersonated_groups_need_a_user(connect_to: Connect) -> None:
    with pytest.raises(UsageError, match="need --as"):
        connect_to("https://localhost:1", as_groups=("ops",))


def test_an_incident_that_would_break_the_header_is_refused(connect_to: Connect) -> None:
    with pytest.raises(UsageError, match="an incident's name"):
        connect_to("https://localhost:1", incident="a\r\nX-Evil: 1")


# --- who answers ---


def test_nobody_listens(connect_to: Connect, scope: CancelScope) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UnreachableError) as caught:
        connect_to(f"https://127.0.0.1:{port}").get("/version", Version, scope=scope)
    assert clear(caught.value) == f"no connection to 127.0.0.1:{port}: connection refused"


def test_a_server_that_accepts_and_says_nothing_is_given_up(
    connect_to: Connect, scope: CancelScope, silent_port: int
) -> None:
    connection = connect_to(f"https://localhost:{silent_port}", request_timeout=0.2)
    with pytest.raises(UnreachableError) as caught:
        connection.get("/version", Version, scope=scope)
    assert clear(caught.value) == f"localhost:{silent_port} did not answer GET /version within 0.2s"


@pytest.mark.parametrize(
    ("names", "made_by", "ended", "said"),
    [
        (["localhost"], "ours", True, "the certificate of localhost:{port} has expired"),
        (["other.test"], "ours", False, "the certificate of localhost:{port} is not made out to localhost"),
        (["localhost"], "theirs", False, "the certificate of localhost:{port} is not signed by the authority in the"),
    ],
)
def test_a_servers_certificate_that_is_wrong(
    connect_to: Connect,
    scope: CancelScope,
    authority: trustme.CA,
    names: list[str],
    made_by: str,
    ended: bool,
    said: str,
) -> None:
    maker = authority if made_by == "ours" else trustme.CA(key_type=ECDSA)
    validity: dict[str, Any] = {"not_before": YESTERDAY - dt.timedelta(days=1), "not_after": YESTERDAY} if ended else {}
    with Server(server_tls(maker.issue_cert(*names, key_type=ECDSA, **validity))) as server:
        with pytest.raises(TlsError) as caught:
            connect_to(server).get("/version", Version, scope=scope)
        assert clear(caught.value).startswith(said.format(port=server.port))
        assert caught.value.hint
        assert not server.requests  # no credential was sent


def test_a_name_in_the_certificate_can_be_given(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/version", recorded("version"))
    connect_to(api, tls_server_name="api.cluster.test").get("/version", Version, scope=scope)
    with pytest.raises(TlsError, match=r"is not made out to wrong\.test"):
        connect_to(api, cluster_entry={"tls-server-name": "wrong.test"}).get("/version", Version, scope=scope)


def test_a_server_without_tls_is_recognised(connect_to: Connect, scope: CancelScope) -> None:
    with Server(None) as plain:
        with pytest.raises(TlsError) as caught:
            connect_to(f"https://localhost:{plain.port}").get("/version", Version, scope=scope)
        assert clear(caught.value) == f"localhost:{plain.port} does not speak TLS"


# --- who we are ---


def client_pair(authority: trustme.CA, **validity: Any) -> tuple[bytes, bytes]:
    leaf = authority.issue_cert(common_name="admin", key_type=ECDSA, **validity)
    return leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()


@pytest.mark.parametrize("inline", [True, False])
def test_client_certificates_are_shown_to_the_server(
    connect_to: Connect, scope: CancelScope, authority: trustme.CA, tmp_path: Path, inline: bool
) -> None:
    certificate, key = client_pair(authority)
    user: dict[str, Any] = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    if not inline:  # relative to the kubeconfig
        (tmp_path / ".kube").mkdir()
        (tmp_path / ".kube" / "me.crt").write_bytes(certificate)
        (tmp_path / ".kube" / "me.key").write_bytes(key)
        user = {"client-certificate": "me.crt", "client-key": "me.key"}
    with Server(server_tls(authority.issue_cert("localhost", key_type=ECDSA), clients=authority)) as server:
        server.on("/version", recorded("version"))
        assert connect_to(server, user=user).get("/version", Version, scope=scope).minor == "36"
        with pytest.raises((TlsError, UnreachableError)):
            connect_to(server, user={}).get("/version", Version, scope=scope)


def test_a_client_certificate_that_has_expired_is_named_as_the_reason_of_a_401(
    api: Server, connect_to: Connect, scope: CancelScope, authority: trustme.CA
) -> None:
    ended = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    certificate, key = client_pair(authority, not_before=ended - dt.timedelta(days=1), not_after=ended)
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    api.on("/version", status(401, "Unauthorized", "Unauthorized"))
    with pytest.raises(UnauthorizedError) as caught:
        connect_to(api, user=user).get("/version", Version, scope=scope)
    assert "the client certificate of user u in " in caught.value.hint
    assert " expired on 2026-01-02T03:04:05Z; sign in again" in caught.value.hint


def test_a_server_that_refuses_an_expired_client_certificate_in_the_handshake(
    connect_to: Connect, scope: CancelScope, authority: trustme.CA
) -> None:
    certificate, key = client_pair(authority, not_before=YESTERDAY - dt.timedelta(days=1), not_after=YESTERDAY)
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}
    strict = server_tls(authority.issue_cert("localhost", key_type=ECDSA), clients=authority)
    strict.maximum_version = ssl.TLSVersion.TLSv1_2  # in 1.3 the refusal can come too late to be read
    with Server(strict) as server, pytest.raises(TlsError, match="refuses our client certificate: it has expired"):
        connect_to(server, user=user).get("/version", Version, scope=scope)


def test_a_key_that_does_not_belong_to_the_certificate(connect_to: Connect, authority: trustme.CA) -> None:
    certificate, _ = client_pair(authority)
    _, other = client_pair(authority)
    user = {"client-certificate-data": encoded(certificate), "client-key-data": encoded(other)}
    with pytest.raises(CredentialError, match="the client certificate and its key cannot be used"):
        connect_to("https://localhost:1", user=user)
    with pytest.raises(CredentialError, match="has a client certificate and no key"):
        connect_to("https://localhost:1", user={"client-certificate-data": encoded(certificate)})


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"tokenFile": "/no/such/token"}, "the token file cannot be read: /no/such/token: No such file or directory"),
        ({"token": "a\nb"}, "is no token: it holds characters that no token has"),
        ({"client-certificate-data": "%%%", "client-key-data": "%%%"}, "cannot be used"),
        ({"client-certificate": "/no/such.crt", "client-key": "/x"}, "client-certificate of user u .* cannot be read"),
        ({"auth-provider": {"name": "azure", "config": {}}}, "the auth-provider 'azure', which nothing supports"),
        ({"auth-provider": {"name": "oidc", "config": {}}}, "the oidc token of user u .* is missing"),
    ],
)
def test_credentials_that_cannot_be_had(connect_to: Connect, user: dict[str, Any], said: str) -> None:
    with pytest.raises((CredentialError, KubeconfigError), match=said) as caught:
        connect_to("https://localhost:1", user=user)
    assert clear(caught.value)


def test_a_token_in_a_file_wins_over_the_one_beside_it(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path
) -> None:
    api.on("/version", recorded("version"))
    (tmp_path / "token").write_text("from-file")
    connect_to(api, user={"token": "old", "tokenFile": str(tmp_path / "token")}).get("/version", Version, scope=scope)
    connect_to(api, user={"token": "old", "tokenFile": "missing"}).get("/version", Version, scope=scope)
    connect_to(api, user={"username": "me", "password": "pw"}).get("/version", Version, scope=scope)
    sent = [request.header("Authorization") for request in api.requests]
    assert sent == ["Bearer from-file", "Bearer old", "Basic bWU6cHc="]


# --- plug-ins ---

V1 = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, script: str, **more: Any) -> dict[str, Any]:
    """A user whose credential comes from a Python script."""
    file = tmp_path / "plugin.py"
    file.write_text(script)
    return {"exec": {"apiVersion": V1, "command": sys.executable, "args": ["-S", "-E", str(file)], **more}}


def printing(status: dict[str, Any]) -> str:
    return f"print({msgspec.json.encode({'apiVersion': V1, 'kind': 'ExecCredential', 'status': status}).decode()!r})"


def test_a_plug_ins_token_is_used_until_it_is_refused(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    script = f"""
import json, os, pathlib
count = pathlib.Path({str(count)!r})
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["apiVersion"] == {V1!r} and info["spec"]["interactive"] is False
assert info["spec"]["cluster"]["server"].startswith("https://localhost:")
assert info["spec"]["cluster"]["certificate-authority-data"] and os.environ["EXTRA"] == "1"
status = {{"token": f"t{{number}}", "expirationTimestamp": "2999-01-01T00:00:00Z"}}
print(json.dumps({{"apiVersion": {V1!r}, "kind": "ExecCredential", "status": status}}))
"""
    user = plugin(tmp_path, script, provideClusterInfo=True, env=[{"name": "EXTRA", "value": "1"}])
    connection = connect_to(api, user=user)
    assert count.read_text() == "1"  # run when connecting, so that its failure is the first thing that is said

    def check(exchange: Exchange) -> None:
        refused = exchange.seen.header("Authorization") == "Bearer t1" and len(api.requests) >= 3
        (status(401, "Unauthorized", "Unauthorized") if refused else reply({}))(exchange)

    api.on("/x", check)
    for _ in range(4):
        connection.request("GET", "/x", scope=scope)
    assert [r.header("Authorization") for r in api.requests] == [f"Bearer t{n}" for n in (1, 1, 1, 2, 2)]


COUNTING = """
import json, pathlib
count = pathlib.Path({count!r})
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
status = {{"token": f"t{{number}}", "expirationTimestamp": {ends!r}}}
print(json.dumps({{"apiVersion": {v1!r}, "kind": "ExecCredential", "status": status}}))
"""


def test_a_plug_in_that_fails_while_a_command_runs_is_not_run_for_every_request(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    script = COUNTING.format(count=str(count), ends="2999-01-01T00:00:00Z", v1=V1)
    script += "if number > 1: raise SystemExit('the session has ended')\n"
    connection = connect_to(api, user=plugin(tmp_path, script))
    api.on("/x", status(401, "Unauthorized", "Unauthorized"))
    for _ in range(5):
        with pytest.raises(CredentialError, match=r"failed with exit code 1: .*; it said: the session has ended$"):
            connection.request("GET", "/x", scope=scope)
    assert (count.read_text(), len(api.requests)) == ("2", 1)


def test_a_credential_that_was_had_anew_and_is_refused_too_is_not_asked_for_with_every_request(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    script = COUNTING.format(count=str(count), ends="2999-01-01T00:00:00Z", v1=V1)
    connection = connect_to(api, user=plugin(tmp_path, script))
    api.on("/x", status(401, "Unauthorized", "Unauthorized"))
    for _ in range(5):
        with pytest.raises(UnauthorizedError):
            connection.request("GET", "/x", scope=scope)
    assert count.read_text() == "2"


@pytest.mark.parametrize(
    "lives", [dt.timedelta(seconds=25), dt.timedelta(days=-1)], ids=["short", "over, by our clock"]
)
def test_a_token_that_ends_soon_is_used_for_a_while(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path, lives: dt.timedelta
) -> None:
    count = tmp_path / "count"
    ends = f"{dt.datetime.now(dt.UTC) + lives:%Y-%m-%dT%H:%M:%SZ}"
    connection = connect_to(api, user=plugin(tmp_path, COUNTING.format(count=str(count), ends=ends, v1=V1)))
    api.on("/x", reply({}))
    for _ in range(5):
        connection.request("GET", "/x", scope=scope)
    assert count.read_text() == "1"


def test_a_plug_in_may_give_a_certificate(
    connect_to: Connect, scope: CancelScope, authority: trustme.CA, tmp_path: Path
) -> None:
    certificate, key = client_pair(authority)
    script = printing({"clientCertificateData": certificate.decode(), "clientKeyData": key.decode()})
    with Server(server_tls(authority.issue_cert("localhost", key_type=ECDSA), clients=authority)) as server:
        server.on("/version", recorded("version"))
        connect_to(server, user=plugin(tmp_path, script)).get("/version", Version, scope=scope)
        assert server.requests[0].header("Authorization") is None


@pytest.mark.parametrize(
    ("script", "more", "said"),
    [
        (
            "import sys; print('no session\\x1b[2J\\nplease log in', file=sys.stderr); sys.exit(3)",
            {},
            r"failed with exit code 3: .*plugin.py; it said: no session \[2J \| please log in$",
        ),
        ("print('hello')", {}, r"printed no ExecCredential: .*plugin.py: .*; it said nothing on stderr$"),
        (printing({}), {}, "gave neither a token nor a certificate"),
        (printing({"token": "t"}).replace("/v1", "/v1beta1"), {}, "answers in client.authentication.k8s.io/v1beta1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", {}, "was ended by SIGTERM"),
        ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "an API version that is not known"),
        ("", {"interactiveMode": "Always"}, "needs a terminal"),
    ],
)
def test_a_plug_in_that_fails_is_shown_with_its_command_and_stderr(
    connect_to: Connect, tmp_path: Path, script: str, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(CredentialError, match=said) as caught:
        connect_to("https://localhost:1", user=plugin(tmp_path, script, **more))
    assert clear(caught.value)


def test_a_plug_in_that_is_not_installed(connect_to: Connect) -> None:
    user = {"exec": {"apiVersion": V1, "command": "no-such-plugin", "installHint": "install it like this"}}
    with pytest.raises(CredentialError) as caught:
        connect_to("https://localhost:1", user=user)
    assert clear(caught.value) == "the credential plug-in cannot be run: no-such-plugin: No such file or directory"
    assert caught.value.hint == "install it like this"


def test_a_plug_in_that_asks_a_person_is_heard_while_it_does(
    connect_to: Connect, tmp_path: Path, notes: list[str]
) -> None:
    script = "import sys; print('open https://login.test\\x07', file=sys.stderr)\n" + printing({"token": "t"})
    connect_to("https://localhost:1", user=plugin(tmp_path, script, interactiveMode="Always"), interactive=True)
    assert notes == ["open https://login.test"]
    connect_to("https://localhost:1", user=plugin(tmp_path, script, interactiveMode="Never"), interactive=True)
    assert len(notes) == 1


def test_a_plug_in_beside_the_kubeconfig(connect_to: Connect, tmp_path: Path) -> None:
    (tmp_path / ".kube" / "bin").mkdir(parents=True)
    command = tmp_path / ".kube" / "bin" / "login"
    command.write_text(f"#!{sys.executable} -S\n{printing({'token': 't'})}\n")
    command.chmod(0o700)
    user = {"exec": {"apiVersion": V1, "command": "./bin/login"}}
    assert connect_to("https://localhost:1", user=user).target.user == "u"


HANGING = "#!/bin/sh\necho waiting >&2\nsleep 600\nexit 1\n"  # no Python: it must say so before its time is over


def test_a_plug_in_that_hangs_is_ended_with_all_it_started(connect_to: Connect, tmp_path: Path) -> None:
    command = tmp_path / "plugin"
    command.write_text(HANGING)
    command.chmod(0o700)
    user = {"exec": {"apiVersion": V1, "command": str(command)}}
    with pytest.raises(CredentialError, match=r"did not finish within .*plugin; it said: waiting$"):
        connect_to("https://localhost:1", user=user, request_timeout=2)


def test_ctrl_c_ends_a_plug_in(kubeconfig: Kubeconfig, environment: dict[str, str], tmp_path: Path) -> None:
    started = tmp_path / "started"
    script = f"import os, signal; os.open({str(started)!r}, os.O_WRONLY); signal.pause()"
    kubeconfig("https://localhost:1", plugin(tmp_path, script))
    os.mkfifo(started)  # opened for reading by us, for writing by the plug-in: both wait for each other
    with CancelScope(60) as scope:

        def interrupt() -> None:
            with started.open("rb"):
                scope.cancel(INTERRUPTED)

        threading.Thread(target=interrupt).start()
        with pytest.raises(CancelledError):
            connect(ConnectOptions(environment=environment, request_timeout=None), scope)


# --- names and addresses ---


def test_a_fixed_address_is_used_and_the_name_still_verified(
    api: Server, connect_to: Connect, scope: CancelScope
) -> None:
    api.on("/version", recorded("version"))
    connection = connect_to(f"https://api.cluster.test:{api.port}", resolve={"API.cluster.test": "127.0.0.1"})
    connection.get("/version", Version, scope=scope)
    assert api.requests[0].header("Host") == f"api.cluster.test:{api.port}"
    other = connect_to(f"https://other.test:{api.port}", resolve={"other.test": "127.0.0.1"})
    with pytest.raises(TlsError, match=r"is not made out to other\.test"):
        other.get("/version", Version, scope=scope)


def test_a_resolver_that_hangs_does_not_hang_us(connect_to: Connect, scope: CancelScope) -> None:
    over = threading.Event()

    def hanging(_: str, __: int) -> list[str]:
        over.wait(60)
        return []

    connection = connect_to("https://api.cluster.test:6443", look_up=hanging, request_timeout=0.4)
    with pytest.raises(UnreachableError) as caught:
        connection.get("/version", Version, scope=scope)
    over.set()
    assert clear(caught.value) == "cannot resolve api.cluster.test: the resolver did not answer within 0.2s"
    assert caught.value.hint == "if you know its address: --resolve api.cluster.test=ADDRESS"


def test_the_address_that_answered_last_is_used_when_resolving_fails(
    api: Server, connect_to: Connect, scope: CancelScope, notes: list[str], environment: dict[str, str]
) -> None:
    api.on("/version", recorded("version"))
    server = f"https://api.cluster.test:{api.port}"
    connect_to(server, look_up=lambda *_: ["127.0.0.1"]).get("/version", Version, scope=scope)
    kept = cache_directory(environment) / "addresses.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not notes

    def broken(*_: object) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    connect_to(server, look_up=broken).get("/version", Version, scope=scope)
    assert notes[0].startswith("cannot resolve api.cluster.test: Name or service not known; using 127.0.0.1, which")
    connect_to(server, look_up=broken, variables={"XDG_CACHE_HOME": "relative"}).get("/version", Version, scope=scope)
    with pytest.raises(UnreachableError, match=r"^cannot resolve other.test: Name or service not known$"):
        connect_to("https://other.test", look_up=broken).get("/version", Version, scope=scope)


def test_a_cache_that_cannot_be_used_changes_nothing(
    api: Server, connect_to: Connect, scope: CancelScope, tmp_path: Path, notes: list[str]
) -> None:
    (tmp_path / ".cache").write_text("a file where the folder should be")
    api.on("/version", recorded("version"))
    server = f"https://api.cluster.test:{api.port}"
    connect_to(server, look_up=lambda *_: ["127.0.0.1"]).get("/version", Version, scope=scope)
    assert not notes


def test_the_next_address_is_tried_when_one_refuses(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/version", recorded("version"))
    connection = connect_to(f"https://api.cluster.test:{api.port}", look_up=lambda *_: ["127.0.0.9", "127.0.0.1"])
    assert connection.get("/version", Version, scope=scope).minor == "36"


def test_an_address_that_stops_answering_is_looked_up_again(
    tls: ssl.SSLContext, connect_to: Connect, scope: CancelScope
) -> None:
    asked: list[str] = []

    def look_up(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    with Server(tls) as server:
        server.on("/version", recorded("version"))
        connection = connect_to(f"https://api.cluster.test:{server.port}", look_up=look_up)
        connection.get("/version", Version, scope=scope)
        connection.get("/version", Version, scope=scope)
        assert len(asked) == 1
        connection.close()
    with pytest.raises(UnreachableError, match="connection refused"):
        connection.get("/version", Version, scope=scope)
    assert len(asked) == 4  # it has answered before, so it is tried again, four times in all


# --- proxies ---


@pytest.mark.parametrize("from_kubeconfig", [True, False])
def test_an_http_proxy_is_used(api: Server, connect_to: Connect, scope: CancelScope, from_kubeconfig: bool) -> None:
    api.on("/version", recorded("version"))
    tunnel = Tunnel("http", api.port)
    url = f"http://me:secret@localhost:{tunnel.port}"
    given: dict[str, Any] = (
        {"cluster_entry": {"proxy-url": url}} if from_kubeconfig else {"variables": {"HTTPS_PROXY": url}}
    )
    connection = connect_to(f"https://api.cluster.test:{api.port}", **given)
    connection.get("/version", Version, scope=scope)
    connection.close()
    tunnel.close()
    assert tunnel.asked[0].startswith(f"CONNECT api.cluster.test:{api.port} HTTP/1.".encode())
    assert b"proxy-authorization: basic bwu6c2vjcmv0" in tunnel.asked[0].lower()
    assert "secret" not in repr(connection.target)


def test_a_socks_proxy_resolves_the_name(api: Server, connect_to: Connect, scope: CancelScope) -> None:
    api.on("/version", recorded("version"))
    tunnel = Tunnel("socks", api.port)
    proxy = {"proxy-url": f"socks5://localhost:{tunnel.port}"}
    connection = connect_to(f"https://api.cluster.test:{api.port}", cluster_entry=proxy)
    connection.get("/version", Version, scope=scope)
    connection.close()
    tunnel.close()
    assert tunnel.asked == [b"\x05\x01\x00", b"\x05\x01\x00\x03\x10api.cluster.test" + api.port.to_bytes(2, "big")]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"HTTP/1.1 400", "wants a password, or is none"),
        (b"\x05\xff", "wants a password, or is none"),
        (b"\x05\x00\x05\x05\x00\x01", "cannot connect to api.cluster.test:6443: connection refused"),
        (b"\x05\x00\x05\x63\x00\x01", "cannot connect to api.cluster.test:6443: error 99"),
        (b"\x05", "failed: it closed the connection"),
    ],
)
def test_a_socks_proxy_that_fails_is_named(connect_to: Connect, scope: CancelScope, said: bytes, expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):  # we hang up on what we do not understand
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                while client.recv(100):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        connection = connect_to(
            "https://api.cluster.test:6443", cluster_entry={"proxy-url": f"socks5://127.0.0.1:{port}"}
        )
        with pytest.raises(UnreachableError) as caught:
            connection.get("/version", Version, scope=scope)
        thread.join()
    assert clear(caught.value) == f"the SOCKS proxy 127.0.0.1:{port} {expected}"


def test_a_proxy_that_refuses_is_named(connect_to: Connect, scope: CancelScope) -> None:
    with Server(None) as proxy:
        proxy.on("", status(407, "", "who are you?"))
        connection = connect_to("https://api.cluster.test:6443", variables={"https_proxy": proxy.url})
        with pytest.raises(UnreachableError) as caught:
            connection.get("/version", Version, scope=scope)
        assert clear(caught.value).startswith(f"the proxy {proxy.url} (https_proxy) gives no connection to api.cluster")


@pytest.mark.parametrize("scheme", ["http", "socks5"])
def test_a_proxy_that_is_not_there_is_named(connect_to: Connect, scope: CancelScope, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    connection = connect_to("https://api.cluster.test:6443", variables={"HTTPS_PROXY": f"{scheme}://127.0.0.1:{port}"})
    with pytest.raises(NoConnectionError) as caught:
        connection.get("/version", Version, scope=scope)
    named = f"the proxy {scheme}://127.0.0.1:{port} (HTTPS_PROXY) is not reached: no connection to 127.0.0.1:{port}"
    assert clear(caught.value).startswith(named)
    assert caught.value.hint == "except the server from it with NO_PROXY, or correct the proxy"


def test_a_proxy_that_hangs_is_named(connect_to: Connect, scope: CancelScope, silent_port: int) -> None:
    proxy = {"variables": {"HTTPS_PROXY": f"http://127.0.0.1:{silent_port}"}}
    connection = connect_to("https://api.cluster.test:6443", request_timeout=0.3, **proxy)
    with pytest.raises(UnreachableError) as caught:
        connection.get("/version", Version, scope=scope)
    way = f"through the proxy http://127.0.0.1:{silent_port} (HTTPS_PROXY)"
    assert clear(caught.value) == f"api.cluster.test:6443 did not answer GET /version {way} within 0.3s"


def test_completion_and_help_do_not_pay_for_the_kubernetes_package() -> None:
    code = (
        "import sys, kdnsctl.cluster.connection, kdnsctl.cluster.proxyload, kdnsctl.cluster.dns, kdnsctl.cluster.watch;"
        "print([name for name in ('kubernetes', 'requests', 'aiohttp', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
