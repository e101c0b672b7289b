"""What is asked, and what came back: the records that every way of asking shares. Pure.

An answer is an answer whatever its rcode is: a server that says SERVFAIL or NXDOMAIN has been reached, so the way to it
is well.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kdnsctl.cancel import CancelScope

NAME: Final = "kubernetes.default.svc.cluster.local."
"""What is asked for: it has one answer in every cluster of this domain, and no search path adds to it."""

DETECTION: Final = 0.99
MOST: Final = (
    256  # queries from fresh ports at most: from 56 backends on they detect less than DETECTION, and it is said
)
FEWEST: Final = 7  # as for two backends: one pod serves, and the one before it may still be in the rules
EDNS_SIZE: Final = 1232  # bytes that fit every path without fragments (DNS flag day 2020)
FIXED_PORTS: Final = (28530, 28531, 28532, 28533)
"""Source ports that are held. Below Linux' ip_local_port_range (32768 on) and below NodePorts (30000 on), so that
nothing else is given them; always the same, so that a later run meets the entries of an earlier one."""

# What a socket says when no query has left this machine: that tells of the machine, and is no lost query.
UNSENT: Final = frozenset(
    os.strerror(number)
    for number in (
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EAFNOSUPPORT,
        errno.ENETUNREACH,
        errno.EMFILE,
        errno.ENFILE,
    )
)

_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")


class Over(enum.StrEnum):
    """By which protocol a server is asked."""

    UDP = "UDP"
    TCP = "TCP"


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries to one address, one after the other: `count` of them, `interval` ms apart, each waited for `wait` ms.

    `ports` are source ports, which the queries take in turn; without them each has a new one of the system's. `edns` is
    the size of answers that is offered in bytes, 0 for a query without EDNS. Raises ValueError for what is no address,
    no name, or no number of its kind: all of it goes into commands on nodes.
    """

    address: str
    port: int = 53
    name: str = NAME
    over: Over = Over.UDP
    count: int = 1
    interval: int = 50
    wait: int = 1000
    ports: tuple[int, ...] = ()
    edns: int = 0

    def __post_init__(self) -> None:
        if "%" in self.address or ipaddress.ip_address(self.address).is_unspecified:
            raise ValueError(f"no address that can be asked: {self.address}")
        if not is_name(self.name):
            raise ValueError(f"not a name for DNS: {self.name!r}")
        if not all(0 < port < 65536 for port in (self.port, *self.ports)) or len(self.ports) > 32:
            raise ValueError(f"ports go from 1 to 65535, and no more than 32 are held: {self.port}, {self.ports}")
        if not (1 <= self.count <= 10_000 and 0 <= self.interval <= 60_000 and 1 <= self.wait <= 60_000):
            raise ValueError(f"too many, or too slow: {self.count}, {self.interval} ms, {self.wait} ms")
        if self.edns and not 512 <= self.edns <= 4096:
            raise ValueError(f"EDNS offers 512 to 4096 bytes, not {self.edns}")

    @property
    def seconds(self) -> int:
        """How long it takes when nothing is answered, rounded up."""
        return math.ceil(self.count * (self.interval + self.wait) / 1000)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One query: from which port, how many ms it took, and the answer's rcode, or why there was none (`error`).

    `port` is 0 where it is not known: no socket could be made.
    """

    port: int
    ms: float
    rcode: int | None = None
    answers: int = 0
    truncated: bool = False
    edns: bool = False
    error: str = ""

    @property
    def answered(self) -> bool:
        """Whether the server was reached."""
        return self.rcode is not None

    @property
    def unsent(self) -> bool:
        """Whether no query was sent: a port that is taken, a network that is not there."""
        return self.error in UNSENT


Take = Callable[[Attempt], object]


class Asker(Protocol):
    """A place from which DNS can be asked."""

    @property
    def where(self) -> str:
        """The node's name; "" for this machine."""

    def ask(self, batch: Batch, take: Take, *, scope: CancelScope) -> None:
        """Ask, and hand over each attempt when it is over, in order.

        Raises KdnsctlError when nothing can be asked from here or it broke off, and what ended `scope`.
        """


def queries_for(backends: int, detection: float = DETECTION) -> int:
    """How many queries from fresh ports meet one dead backend among so many with this probability.

    Rules give each new flow to one of k backends by chance: n flows all miss one with (1 - 1/k)^n. No fewer than
    `FEWEST`, no more than `MOST`.
    """
    if backends < 2:
        return FEWEST
    return min(MOST, max(FEWEST, math.ceil(math.log(1 - detection) / math.log1p(-1 / backends))))


def detected_by(queries: int, backends: int) -> float:
    """With which probability so many queries meet one dead backend among so many."""
    return 1.0 if backends < 2 else 1 - (1 - 1 / backends) ** queries


def is_name(text: str) -> bool:
    """Whether it can be asked for, and can do no harm as a word of a command."""
    return _NAME.match(text) is not None


def at(address: str, port: int) -> str:
    """An address and a port as they are written."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def rcode_name(rcode: int) -> str:
    """An rcode as DNS people say it."""
    return _RCODES.get(rcode, f"rcode {rcode}")


@dataclass(frozen=True, slots=True)
class Tally:
    """Attempts, added up. `rcodes` and `errors` have their counts; times are in ms, and of answers only.

    `unsent` are those that sent nothing, which `sent` does not count; their errors are among the others.
    """

    sent: int
    answered: int
    unsent: int = 0
    rcodes: tuple[tuple[int, int], ...] = ()
    errors: tuple[tuple[str, int], ...] = ()
    truncated: int = 0
    edns: int = 0
    times: tuple[float, ...] = ()

    @property
    def lost(self) -> int:
        """How many were not answered."""
        return self.sent - self.answered

    def percentile(self, share: float) -> float | None:
        """The time in ms within which this share of the answers came, by nearest rank; None without answers."""
        if not self.times:
            return None
        return self.times[max(1, math.ceil(share * len(self.times))) - 1]


def tally(attempts: Iterable[Attempt]) -> Tally:
    """Add them up."""
    known: Sequence[Attempt] = tuple(attempts)
    answered = [one for one in known if one.rcode is not None]
    unsent = sum(one.unsent for one in known)
    return Tally(
        sent=len(known) - unsent,
        answered=len(answered),
        unsent=unsent,
        rcodes=tuple(sorted(Counter(one.rcode for one in answered if one.rcode is not None).items())),
        errors=tuple(sorted(Counter(one.error for one in known if one.rcode is None).items())),
        truncated=sum(one.truncated for one in answered),
        edns=sum(one.edns for one in answered),
        times=tuple(sorted(one.ms for one in answered)),
    )
