"""A plain HTTPS client for the tests, on http.client: what it sends and gets is all visible."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from kdnsctl.lab.api.access import MASTERS
from kdnsctl.lab.api.server import ApiServer


@dataclass(frozen=True)
class Reply:
    code: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Requests as one user, by client certificate."""

    authorization: str | None = None

    def __init__(
        self, server: ApiServer, user: str = "admin", groups: Sequence[str] = (MASTERS,), *, certificate: bool = True
    ) -> None:
        address = urlsplit(server.url)
        assert address.hostname is not None
        self.address = (address.hostname, address.port or 443)
        self.context = ssl.create_default_context(cadata=server.authority.pem.decode())
        if certificate:
            issued = server.authority.client(user, groups)
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory, "client.pem")
                path.write_bytes(issued.certificate + issued.key)
                self.context.load_cert_chain(path)
        self._connections: list[tuple[http.client.HTTPSConnection, http.client.HTTPResponse | None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close every open connection, whatever is still being answered."""
        while self._connections:
            connection, response = self._connections.pop()
            if response is not None:
                response.close()
            connection.close()

    def connect(self) -> http.client.HTTPSConnection:
        """A connection of one's own; closed with the client."""
        connection = http.client.HTTPSConnection(*self.address, context=self.context, timeout=60)
        self._connections.append((connection, None))
        return connection

    def open(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Send a request and return once the headers of the answer are there."""
        connection = self.connect()
        data = None if body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if body is not None else {}
        if self.authorization is not None:
            given["Authorization"] = self.authorization
        connection.request(method, path, data, {**given, **(headers or {})})
        response = connection.getresponse()
        self._connections[-1] = (connection, response)
        return response

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        response = self.open(method, path, body, headers)
        reply = Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        self._connections.pop()[0].close()
        return reply

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.send("GET", path, headers=headers)

    def events(self, path: str, headers: Mapping[str, str] | None = None) -> Iterator[Any]:
        """The events of a watch, as they come."""
        response = self.open("GET", path, headers=headers)
        assert response.status == 200, response.read()
        for line in response:
            yield json.loads(line)


class Operator(Client):
    """Requests to a started lab as the one who started it, by token."""

    def __init__(self, server: str, ca_file: Path, token_file: Path) -> None:
        address = urlsplit(server)
        assert address.hostname is not None
        self.address = (address.hostname, address.port or 443)
        self.context = ssl.create_default_context(cafile=str(ca_file))
        self.authorization = f"Bearer {token_file.read_text()}"
        self._connections = []
