"""Asking from this machine: dnspython writes and reads the messages, sockets of our own choose the source port.

The operator's resolver has no part in it: addresses are asked, and no name is looked up to reach one.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.rdatatype

from kdnsctl.cancel import CancelScope
from kdnsctl.probe.queries import Attempt, Batch, Over, Take

TIMEOUT: Final = "timeout"
CLOSED: Final = "the server closed the connection"
_LONGEST: Final = 65535


class Here:
    """An `Asker`: this machine."""

    @property
    def where(self) -> str:
        return ""

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        for number in range(batch.count):
            if number and batch.interval:
                scope.cancelled.wait(batch.interval / 1000)
            scope.check()
            port = batch.ports[number % len(batch.ports)] if batch.ports else 0
            with _waiter(scope) as waiter:
                attempt = _attempt(batch, port, waiter)
            scope.check()  # what was interrupted is no lost query
            take(attempt)


class _LateError(Exception):
    """The time is up."""


class _Waiter:
    """Waits for a socket, until a moment that is set, or the scope ends."""

    def __init__(self, wake: socket.socket) -> None:
        self._wake = wake
        self.deadline = 0.0

    def wait(self, link: socket.socket, events: int) -> None:
        """Raises _LateError."""
        with selectors.DefaultSelector() as selector:
            selector.register(link, events)
            selector.register(self._wake, selectors.EVENT_READ)
            left = self.deadline - time.monotonic()
            ready = selector.select(left) if left > 0 else []
        if not any(key.fileobj is link for key, _ in ready):
            raise _LateError


@contextlib.contextmanager
def _waiter(scope: CancelScope) -> Iterator[_Waiter]:
    wake, end = socket.socketpair()
    with wake, end, scope.closing(lambda: end.shutdown(socket.SHUT_WR)):
        yield _Waiter(wake)


def _attempt(batch: Batch, port: int, waiter: _Waiter) -> Attempt:
    query = dns.message.make_query(
        batch.name, dns.rdatatype.A, use_edns=0 if batch.edns else False, payload=batch.edns or None
    )
    family = socket.AF_INET6 if ":" in batch.address else socket.AF_INET
    kind = socket.SOCK_STREAM if batch.over is Over.TCP else socket.SOCK_DGRAM
    begun = time.monotonic()
    waiter.deadline = begun + batch.wait / 1000
    try:
        with socket.socket(family, kind) as link:
            link.setblocking(False)
            if port:
                # Over UDP a port is not shared: answers to somebody else's queries would come to us.
                if batch.over is Over.TCP:
                    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                link.bind(("", port))
            _connect(link, batch, waiter)
            port = link.getsockname()[1]
            answer = _over_tcp(link, query, waiter) if batch.over is Over.TCP else _over_udp(link, query, waiter)
    except _LateError:
        return Attempt(port, (time.monotonic() - begun) * 1000, error=TIMEOUT)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        return Attempt(port, (time.monotonic() - begun) * 1000, error=why)
    return Attempt(
        port,
        (time.monotonic() - begun) * 1000,
        rcode=int(answer.rcode()),
        answers=sum(len(records) for records in answer.answer),
        truncated=bool(answer.flags & dns.flags.TC),
        edns=answer.edns >= 0,
    )


def _connect(link: socket.socket, batch: Batch, waiter: _Waiter) -> None:
    """Connected, so that only the server's packets come in, and an ICMP error does, too."""
    with contextlib.suppress(BlockingIOError):
        link.connect((batch.address, batch.port))
        return
    waiter.wait(link, selectors.EVENT_WRITE)
    failed = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed:
        raise OSError(failed, os.strerror(failed))


def _over_udp(link: socket.socket, query: dns.message.Message, waiter: _Waiter) -> dns.message.Message:
    link.send(query.to_wire())
    while True:
        waiter.wait(link, selectors.EVENT_READ)
        try:
            answer = _read(link.recv(_LONGEST))
        except BlockingIOError:
            continue
        if answer is not None and query.is_response(answer):
            return answer


def _over_tcp(link: socket.socket, query: dns.message.Message, waiter: _Waiter) -> dns.message.Message:
    wire = query.to_wire()
    link.send(struct.pack("!H", len(wire)) + wire)  # fits into the buffer of a socket that is new
    while True:
        (length,) = struct.unpack("!H", _whole(link, 2, waiter))
        answer = _read(_whole(link, length, waiter))
        if answer is not None and query.is_response(answer):
            return answer


def _whole(link: socket.socket, wanted: int, waiter: _Waiter) -> bytes:
    had = bytearray()
    while len(had) < wanted:
        waiter.wait(link, selectors.EVENT_READ)
        piece = link.recv(wanted - len(had))
        if not piece:
            raise ConnectionError(CLOSED)
        had += piece
    return bytes(had)


def _read(wire: bytes) -> dns.message.Message | None:
    """A message; None for what is none, as if it had not come: anybody can send us something."""
    try:
        return dns.message.from_wire(wire, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
