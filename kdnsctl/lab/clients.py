"""The lab's DNS clients: one that keeps its source port and one that takes a new one each time, both counting.

They run as two containers of a DaemonSet pod on every node and ask the DNS Service's address for one name, over and
over. A held port is what keeps a stale conntrack entry alive (each query refreshes it); a new port meets the rules
as they are now. Counters are served over HTTP in the pod, also as a stream that has one line per query, so that
whoever waits for an effect waits for an event.
"""

# ruff: noqa: T201, S104 - standard output is the container's log; "all interfaces" are those of a pod
from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import dns.exception
import dns.message
import dns.rcode

from kdnsctl.lab.webserver import Answer, Request, serve_http

FIXED_HTTP = 8090
FRESH_HTTP = 8091
HELD_PORT = 20000
FRESH_RANGE = range(30000, 60000)
"""Fresh ports are taken in order: none comes back within the life of a conntrack entry, so "fresh" is never luck."""
_PIECE = 0.1
_WELL = 3
_PATIENCE = 3
"""A client that was answered `_WELL` times in a row waits so many times as long before it calls a query lost. On a busy
machine an answer may be late; from a dead endpoint none ever comes, and only the first loss takes longer."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a client saw since it started. `in_a_row`: how many results equal to the last one came together."""

    kind: str
    port: int
    answered: int = 0
    lost: int = 0
    last_answered: bool | None = None
    in_a_row: int = 0

    def add(self, *, answered: bool, port: int) -> Counters:
        return replace(
            self,
            port=port,
            answered=self.answered + answered,
            lost=self.lost + (not answered),
            last_answered=answered,
            in_a_row=self.in_a_row + 1 if answered == self.last_answered else 1,
        )


class Board:
    """The latest counters, with a way to wait for the next."""

    def __init__(self, first: Counters) -> None:
        self._changed = threading.Condition()
        self._value = first

    def post(self, value: Counters) -> None:
        with self._changed:
            self._value = value
            self._changed.notify_all()

    def read(self) -> Counters:
        with self._changed:
            return self._value

    def follow(self) -> Iterator[bytes]:
        """A JSON line now and one after every query."""
        seen: Counters | None = None
        while True:
            with self._changed:
                while self._value is seen:
                    self._changed.wait()
                seen = self._value
            yield json.dumps(asdict(seen)).encode() + b"\n"

    def handle(self, request: Request) -> Answer:
        if request.path == "/counters":
            return Answer(200, json.dumps(asdict(self.read())).encode(), "application/json")
        if request.path == "/follow":
            return Answer(200, content_type="application/json", stream=self.follow())
        return Answer(404, b"404 page not found\n")


def ask(link: socket.socket, server: tuple[str, int], name: str, timeout: float) -> bool:
    """Send one query and wait up to `timeout` seconds for its own answer; late answers to others are skipped.

    Only time in which this process got to run counts: when the machine stands still, so does the one who answers.
    """
    query = dns.message.make_query(name, "A")
    try:
        link.sendto(query.to_wire(), server)
    except OSError:
        return False  # for example an ICMP error of an earlier query, or no route
    waited = 0.0
    while waited < timeout:
        piece = min(_PIECE, timeout - waited)
        began = time.monotonic()
        ready = select.select([link], [], [], piece)[0]
        waited += min(piece, time.monotonic() - began) if ready else piece
        if not ready:
            continue
        try:
            reply = dns.message.from_wire(link.recv(4096))
        except (OSError, dns.exception.DNSException):
            continue
        if reply.id == query.id:
            return reply.rcode() == dns.rcode.NOERROR and bool(reply.answer)
    return False


def _fresh_socket(ports: Iterator[int]) -> socket.socket:
    while True:
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            link.bind(("0.0.0.0", next(ports)))
            return link
        except OSError:
            link.close()


def _cycle(numbers: range) -> Iterator[int]:
    while True:
        yield from numbers


def run(kind: str, server: tuple[str, int], name: str, interval: float, timeout: float, board: Board) -> None:
    """Ask for ever. The interval is the pause between a result and the next query."""
    counters = board.read()
    ports = _cycle(FRESH_RANGE)
    held: socket.socket | None = None
    if kind == "fixed":
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        held.bind(("0.0.0.0", HELD_PORT))
    lines = 0
    rest = threading.Event()  # never set: the pause between two queries is the client's own rhythm
    while True:
        link = held or _fresh_socket(ports)
        before = counters
        well = bool(before.last_answered) and before.in_a_row >= _WELL
        answered = ask(link, server, name, timeout * (_PATIENCE if well else 1))
        counters = counters.add(answered=answered, port=int(link.getsockname()[1]))
        if held is None:
            link.close()
        board.post(counters)
        lines += 1
        if counters.last_answered != before.last_answered or lines % 300 == 0:
            print(json.dumps(asdict(counters)), flush=True)
        rest.wait(interval)


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:  # noqa: ARG001 - every stand-in is called like this
    """Run as the container's process. Arguments: fixed|fresh and how to ask."""
    parser = argparse.ArgumentParser(prog="dns-client", add_help=False)
    parser.add_argument("kind", choices=("fixed", "fresh"))
    parser.add_argument("--server", default="10.96.0.10")
    parser.add_argument("--name", default="kubernetes.default.svc.cluster.local.")
    parser.add_argument("--interval", type=float, default=0.1)
    parser.add_argument("--timeout", type=float, default=1.0)
    options = parser.parse_args(list(argv))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    board = Board(Counters(options.kind, HELD_PORT if options.kind == "fixed" else 0))
    serve_http("0.0.0.0", FIXED_HTTP if options.kind == "fixed" else FRESH_HTTP, board.handle)
    run(options.kind, (options.server, 53), options.name, options.interval, options.timeout, board)
    return 0
