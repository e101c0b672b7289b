"""A very small HTTP server for the stand-ins' own endpoints: /healthz, /metrics, /ready, counters. One function.

It serves short answers and endless streams from threads; it is not the lab's API.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked; `path` without the query string."""

    method: str
    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What to reply. With `stream`, its pieces follow until it ends or the asker leaves."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    stream: Iterator[bytes] | None = None


Handler = Callable[[Request], Answer]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        # Without the base class' look-up of the host's name: nothing in the lab may wait for a resolver.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        # A probe that hangs up is not an error; the base class would fill the pod's log with tracebacks of it.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve_http(host: str, port: int, handler: Handler) -> int:
    """Answer requests on host:port from threads of this process; the port (useful with 0). Raises OSError."""

    class Bound(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            answer = handler(Request(self.command, urlsplit(self.path).path, self.rfile.read(size)))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            if answer.stream is None:
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                return
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for piece in answer.stream:
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                return  # the asker left

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - names of the base class

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class
            """Say nothing: standard error is the container's log."""

    server = _Server((host, port), Bound)
    threading.Thread(target=server.serve_forever, name=f"http {port}", daemon=True).start()
    return int(server.server_address[1])
