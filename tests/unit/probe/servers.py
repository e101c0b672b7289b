"""A DNS server on loopback that does what it is told, and a shell that runs a prober on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from kdnsctl.cancel import CancelScope
from kdnsctl.model import Fact, Toolset
from kdnsctl.reach.readings import ReadingLog, read_command
from kdnsctl.reach.shell import Reading, Sink

NAME: Final = "kubernetes.default.svc.cluster.local."
# What comes back for a query from a source port: any number of messages, valid or not.
Reply = Callable[[dns.message.Message, int], list[bytes]]


class Server:
    """UDP and TCP on one port of 127.0.0.1. `asked` has the source port of each query, and the query."""

    def __init__(self) -> None:
        self.reply: Reply = lambda query, _: [answer(query)]
        self.over_tcp: Reply | None = None
        self.asked: list[tuple[int, dns.message.Message]] = []
        self._closed = False
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def _serve_udp(self) -> None:
        while True:
            try:
                wire, client = self._udp.recvfrom(65535)
            except OSError:
                return
            if self._closed:
                return
            query = dns.message.from_wire(wire)
            self.asked.append((client[1], query))
            for one in self.reply(query, client[1]):
                with contextlib.suppress(OSError):  # the asker went away
                    self._udp.sendto(one, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, client = self._tcp.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                length = int.from_bytes(connection.recv(2, socket.MSG_WAITALL))
                query = dns.message.from_wire(connection.recv(length, socket.MSG_WAITALL))
                self.asked.append((client[1], query))
                for one in (self.over_tcp or self.reply)(query, client[1]):
                    connection.sendall(len(one).to_bytes(2) + one)

    def close(self) -> None:
        self._closed = True
        for one in (self._udp, self._tcp):
            with one, contextlib.suppress(OSError):  # as a UDP socket says that has no peer, having woken its reader
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.close()


def answer(query: dns.message.Message, rcode: dns.rcode.Rcode = dns.rcode.NOERROR, *, cut: bool = False) -> bytes:
    reply = dns.message.make_response(query)
    reply.set_rcode(rcode)
    if rcode == dns.rcode.NOERROR:
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 5, "IN", "A", "10.96.0.1"))
    if cut:
        reply.flags |= dns.flags.TC
    return reply.to_wire()


class LocalShell:
    """A `NodeShell` that runs commands on this machine, with the same limit and trailer as on any node."""

    def __init__(self, *toolsets: Toolset, programs: Mapping[str, str] | None = None, node: str = "n1") -> None:
        self._toolsets = toolsets
        self._programs = programs or {}
        self.node = node
        self.rung = "pod" if Toolset.TOOLS in toolsets else "ssh"
        self.commands: list[tuple[str, ...]] = []

    @property
    def toolsets(self) -> tuple[Toolset, ...]:
        return self._toolsets

    def can(self, fact: Fact) -> bool:
        return self.command(fact) is not None

    def command(self, fact: Fact) -> tuple[str, ...] | None:
        return fact.command(self._toolsets)

    def read(self, fact: Fact, sink: Sink, *, scope: CancelScope) -> Reading:
        first, *rest = self.command(fact) or ()
        self.commands.append((first, *rest))
        log = ReadingLog(fact, self.node, self.rung, sink)

        def run(line: list[str], stdout: Callable[[bytes], None]) -> None:
            log.begin()
            with (
                subprocess.Popen(
                    line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
                ) as process,
                scope.closing(lambda: os.killpg(process.pid, signal.SIGKILL)),
            ):
                assert process.stdout is not None
                assert process.stderr is not None
                while piece := process.stdout.read1(64):  # type: ignore[attr-defined]  # pieces end anywhere
                    stdout(piece)
                log.complain(process.stderr.read())
            scope.check()

        return read_command(fact, (self._programs.get(first, first), *rest), log, scope, run)
