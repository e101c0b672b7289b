from __future__ import annotations

import base64
import os
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.connection import ConnectOptions, connect
from kdnsctl.cluster.retries import RetryPolicy
from kdnsctl.cluster.transport import Connection
from tests.unit.cluster.apiserver import Server

QUICK = RetryPolicy(attempts=4, first=0.001, longest=0.01)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def server_tls(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if clients:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    names = ("localhost", "127.0.0.1", "api.cluster.test")
    return server_tls(authority.issue_cert(*names, key_type=trustme.KeyType.ECDSA))


@pytest.fixture
def api(tls: ssl.SSLContext) -> Iterator[Server]:
    with Server(tls) as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    with CancelScope(60) as whole:  # no test waits that long: it is what ends one that hangs
        yield whole


Kubeconfig = Callable[..., Path]


@pytest.fixture
def kubeconfig(tmp_path: Path, authority: trustme.CA) -> Kubeconfig:
    """Writes ~/.kube/config with one context, `here`, for a server."""

    def write(server: str, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
        entry = {"server": server, "certificate-authority-data": encoded(authority.cert_pem.bytes())} | cluster
        content = {
            "clusters": [{"name": "c", "cluster": entry}],
            "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "here",
        }
        path = tmp_path / ".kube" / "config"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


Connect = Callable[..., Connection]


@pytest.fixture
def connect_to(
    kubeconfig: Kubeconfig, environment: dict[str, str], scope: CancelScope, notes: list[str]
) -> Iterator[Connect]:
    """Connects to a `Server` or an address, with the options of ConnectOptions."""
    made: list[Connection] = []

    def make(
        server: Server | str, *, user: dict[str, Any] | None = None, retry: RetryPolicy = QUICK, **given: Any
    ) -> Connection:
        cluster = given.pop("cluster_entry", {})
        look_up = {"look_up": given.pop("look_up")} if "look_up" in given else {}
        kubeconfig(server if isinstance(server, str) else server.url, user, **cluster)
        options = ConnectOptions(environment=environment | given.pop("variables", {}), **given)
        connection = connect(options, scope, note=notes.append, retry=retry, **look_up)
        connection._dice = random.Random(0)
        made.append(connection)
        return connection

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def notes() -> list[str]:
    """What the operator was told."""
    return []


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
