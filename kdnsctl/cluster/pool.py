"""urllib3's connections, taught four things: to connect through our `Dialer`, to be shut by a `CancelScope`, to know
nothing about retries, and to read chunked bodies fast.

urllib3 asks for a socket in the thread that makes the request, so what belongs to the request (its scope and the
dialer) is passed in a context variable. Nothing here knows of Kubernetes.

`_new_conn` is where urllib3 makes its TCP connections (its own SOCKS support overrides the same method). The socket is
kept twice while TLS is negotiated: `wrap_socket` takes the file descriptor out of the first object, and the scope must
be able to shut it at any moment.
"""

from __future__ import annotations

import contextlib
import contextvars
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import BaseHTTPResponse, HTTPResponse

from kdnsctl.cancel import CancelScope
from kdnsctl.cluster.network import Dialer, Socks, patience, shut
from kdnsctl.cluster.proxies import Proxy
from kdnsctl.cluster.unchunked import Unchunked, UnchunkedResponse

SWITCHED = 101  # HTTP's status for: from here on it is the protocol that was asked for
KEPT = 1024  # connections kept for the next request; more are closed after use, never waited for


@dataclass(slots=True)
class Call:
    """What a request needs below urllib3. `sockets` are those it uses now: what the scope shuts."""

    scope: CancelScope
    dialer: Dialer
    socks: Socks | None
    sockets: list[socket.socket]

    def shut(self) -> None:
        """Let whoever waits for this request's sockets fail."""
        for used in list(self.sockets):
            shut(used)


_current: contextvars.ContextVar[Call] = contextvars.ContextVar("call")


class _Dialed(HTTPConnection):
    """What both kinds of connections do alike."""

    response_class = UnchunkedResponse

    def _new_conn(self) -> socket.socket:
        call = _current.get()
        made = call.dialer.dial(self.host, self.port or self.default_port, call.scope, call.socks)
        call.sockets.append(made.dup())
        call.scope.check()  # it ended before there was something to shut
        return made

    def connect(self) -> None:
        call = _current.get()
        known = len(call.sockets)
        try:
            super().connect()
        finally:
            twins = call.sockets[known:]
            if self.sock is not None:
                call.sockets.append(self.sock)
            for twin in twins:
                call.sockets.remove(twin)
                twin.close()

    def request(self, *args: Any, **options: Any) -> None:
        call = _current.get()
        if self.sock is not None and self.sock not in call.sockets:  # kept from an earlier request
            call.sockets.append(self.sock)
            call.scope.check()
        super().request(*args, **options)


class _PlainConnection(_Dialed):
    """http://"""


class _TlsConnection(_Dialed, HTTPSConnection):
    """https://"""


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Pool:
    """Connections to one server, through a proxy or not."""

    def __init__(
        self, dialer: Dialer, tls: ssl.SSLContext | None, server_name: str | None, proxy: Proxy | None
    ) -> None:
        self._dialer = dialer
        self._socks = Socks(proxy.host, proxy.port) if proxy and proxy.scheme.startswith("socks5") else None
        options: dict[str, Any] = {"num_pools": 2, "maxsize": KEPT, "block": False, "retries": False}
        if tls is not None:
            options |= {"ssl_context": tls}
            if server_name:
                options |= {"server_hostname": server_name}
        self._manager: urllib3.PoolManager
        if proxy is None or self._socks:
            self._manager = urllib3.PoolManager(**options)
        else:
            headers = urllib3.make_headers(proxy_basic_auth=f"{proxy.user}:{proxy.password}") if proxy.user else None
            self._manager = urllib3.ProxyManager(proxy.url, proxy_headers=headers, **options)
        self._manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        headers: urllib3.HTTPHeaderDict,
        body: bytes | None,
        opening: CancelScope,
        scope: CancelScope,
        silence: float | None,
    ) -> Iterator[BaseHTTPResponse]:
        """Send a request; the body of the response is read within the block, and shut when `scope` ends.

        Connecting, sending and the head of the response are shut when `opening` ends too. `silence` is how many seconds
        the server may send nothing at all, None for any number. Raises what urllib3 and `Dialer` raise. Nothing is sent
        twice, no redirect is followed.
        """
        call = Call(opening, self._dialer, self._socks, [])
        token = _current.set(call)
        with scope.closing(call.shut):
            try:
                with opening.closing(call.shut):
                    opening.check()
                    response = self._manager.urlopen(
                        method,
                        url,
                        body=body,
                        headers=headers,
                        timeout=urllib3.Timeout(connect=patience(opening), read=patience(opening)),
                        retries=False,
                        redirect=False,
                        preload_content=False,
                        decode_content=True,
                    )
            finally:
                _current.reset(token)
            for used in call.sockets:
                used.settimeout(silence)
            try:
                yield response
            finally:
                # A connection whose body was read to its end can serve again; any other must not: what is left of
                # the body would be taken for the next answer.
                if response.closed:
                    response.release_conn()
                else:
                    response.close()

    def close(self) -> None:
        """Close what is kept."""
        self._manager.clear()


def reader(response: BaseHTTPResponse) -> Callable[[int], bytes]:
    """What reads up to so many bytes of the body as soon as there are any; b"" at its end.

    A chunked body that is not compressed is read past urllib3, whose way costs something for every 16 KiB that TLS
    gives: 7 to 9 % of the CPU time of reading a thousand logs. Raises what urllib3 raises, and there http.client's own
    HTTPException and OSError instead.
    """

    def through_urllib3(size: int) -> bytes:
        return response.read1(size, decode_content=True)

    head = response._original_response if isinstance(response, HTTPResponse) else None  # noqa: SLF001 - as in `switched`
    if head is None or not isinstance(head.fp, Unchunked) or response.headers.get("Content-Encoding"):
        return through_urllib3
    body = head.fp
    # At the end urllib3 reads too: so it learns that the connection is free.
    return lambda size: body.read1(size) or through_urllib3(size)


def switched(response: BaseHTTPResponse) -> tuple[IO[bytes], socket.socket]:
    """What to read from and what to write to after a 101: HTTP is over, and the connection is the caller's.

    Reading goes through the response's own buffer, which may already hold the beginning of what comes next.
    """
    connection = response.connection
    if not isinstance(response, HTTPResponse) or not isinstance(connection, HTTPConnection):
        raise TypeError(f"not a response of urllib3's own: {type(response).__name__}")
    head = response._original_response  # noqa: SLF001 - urllib3 2.x has no public way to the buffer under a response
    if connection.sock is None or head is None or head.fp is None:
        raise ValueError("the connection of this response is gone")
    return head.fp, connection.sock
