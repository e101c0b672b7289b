"""A scripted HTTPS server on loopback: it says what a test tells it to, and fails as it is told to.

It knows nothing of Kubernetes: answers are recordings or written down in the test. Each request is kept, so that a test
can look at what was really sent.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

API = Path(__file__).parents[2] / "recordings" / "api"


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: list[tuple[str, str]]
    body: bytes
    peer: tuple[str, int]

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def headers_named(self, name: str) -> list[str]:
        """All headers of that name, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Exchange(http.server.BaseHTTPRequestHandler):
    """One connection of a client; answers are functions of this."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart
    server: _Listener
    seen: Seen

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            super().handle_one_request()
            return
        self.close_connection = True

    def answer(self) -> None:
        owner = self.server.owner
        parts = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size) if size else b""
        self.seen = Seen(
            self.command, parts.path, parse_qs(parts.query), list(self.headers.items()), body, self.client_address
        )
        owner.next_answer(self.seen)(self)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = answer  # noqa: N815 - the names http.server calls

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass

    def send(
        self, status: int, body: bytes, content_type: str = "application/json", headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """A whole answer with its length."""
        if self.seen.header("Accept-Encoding") == "gzip" and len(body) > 128 << 10:  # as the API server does
            body, headers = gzip.compress(body, 1), [*headers, ("Content-Encoding", "gzip")]
        self.begin(status, content_type, [*headers, ("Content-Length", str(len(body)))])
        self.wfile.write(body)

    def begin(self, status: int, content_type: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """The head of an answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def send_chunks(self, chunks: Iterable[bytes], *, content_type: str = "text/plain", ended: bool = True) -> None:
        """An answer without a length; with `ended` False the chunk that says "the end" is missing."""
        self.begin(200, content_type, [("Transfer-Encoding", "chunked")])
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        if ended:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        socket.socket.close(self.connection)

    def hang(self) -> None:
        """Say nothing more until the test is over."""
        self.server.owner.over.wait()
        self.close_connection = True


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, owner: Server) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), Exchange)

    def get_request(self) -> tuple[socket.socket, Any]:
        connected, address = super().get_request()
        self.owner.connections += 1
        if self.owner.tls:
            # The handshake happens in the thread of the connection, when that first reads.
            connected = self.owner.tls.wrap_socket(connected, server_side=True, do_handshake_on_connect=False)
        return connected, address

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - signature of the base class
        self.owner.failed()


Answer = Callable[[Exchange], None]


@dataclass
class Server:
    """`answers` by path, without the query: used in order, the last again and again. Unknown paths are 404."""

    tls: ssl.SSLContext | None
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    broken: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._listener = _Listener(self)
        self.port = self._listener.server_address[1]
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
        assert not self.broken, self.broken

    def failed(self) -> None:
        import sys
        import traceback

        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, ssl.SSLError, TimeoutError, OSError)):
            self.broken.append(traceback.format_exc())

    def on(self, path: str, *answers: Answer) -> None:
        """Script the answers to a path."""
        self.answers[path] = list(answers)

    def next_answer(self, seen: Seen) -> Answer:
        with self._lock:
            self.requests.append(seen)
            left = self.answers.get(seen.path)
            if not left:
                return status(404, "NotFound", "the server could not find the requested resource")
            return left.pop(0) if len(left) > 1 else left[0]

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"


def reply(
    body: object, *, status: int = 200, content_type: str = "application/json", headers: Iterable[tuple[str, str]] = ()
) -> Answer:
    """Answer with JSON, or with bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.send(status, content, content_type, headers)


def status(
    code: int, reason: str, message: str, *, headers: Iterable[tuple[str, str]] = (), details: object = None
) -> Answer:
    """Answer with a Status."""
    said = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return reply(said | ({"details": details} if details else {}), status=code, headers=headers)


def recorded(name: str) -> Answer:
    """Answer as the real server did: status and headers from NAME.headers, the body from NAME.json or NAME.txt."""
    head = (API / f"{name}.headers").read_text().splitlines()
    code = int(head[0].split()[1])
    fields = [(key, value.strip()) for key, _, value in (line.partition(":") for line in head[1:] if line.strip())]
    dropped = ("content-length", "content-type", "date")
    kept = [(key, value) for key, value in fields if key not in dropped]
    kind = dict(fields).get("content-type", "application/json")
    text = API / f"{name}.txt"
    body = text.read_bytes() if text.exists() else (API / f"{name}.json").read_bytes()
    return reply(body, status=code, content_type=kind, headers=kept)


def chunks(*pieces: bytes, ended: bool = True) -> Answer:
    """Answer in chunks; without the last one when `ended` is False."""
    return lambda exchange: exchange.send_chunks(pieces, ended=ended)


def chunks_then_reset(*pieces: bytes) -> Answer:
    """Answer in chunks, and reset the connection in the middle."""

    def answer(exchange: Exchange) -> None:
        exchange.send_chunks(pieces, ended=False)
        exchange.reset()

    return answer


def chunks_then_hang(*pieces: bytes, content_type: str = "text/plain") -> Answer:
    """Answer in chunks, and then fall silent."""

    def answer(exchange: Exchange) -> None:
        exchange.send_chunks(pieces, ended=False, content_type=content_type)
        exchange.hang()

    return answer


def reset(exchange: Exchange) -> None:
    """Reset the connection instead of an answer."""
    exchange.reset()


def hang(exchange: Exchange) -> None:
    """Never answer."""
    exchange.hang()
