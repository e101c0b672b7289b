"""Connection tracking entries as records, whatever form they were printed in.

Nothing is parsed here. Words are the kernel's: an entry has an original tuple, as the client sent it, and a reply
tuple, as the answer is expected; DNAT shows as a reply source that is not the original destination.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Seen(enum.StrEnum):
    """What an entry has seen, as the kernel prints it; exclusive in print (net/netfilter/nf_conntrack_standalone.c)."""

    UNREPLIED = "UNREPLIED"
    REPLIED = ""  # a reply came, and nothing more is printed
    ASSURED = "ASSURED"
    OFFLOAD = "OFFLOAD"
    HW_OFFLOAD = "HW_OFFLOAD"


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """One direction of a flow. Addresses are in their shortest standard form (RFC 5952); ports are None where the
    protocol has none.
    """

    source: str
    destination: str
    source_port: int | None = None
    destination_port: int | None = None
    packets: int | None = None
    octets: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection tracking entry.

    `protocol` is lower case as printed (`udp`, `tcp`, `unknown 89`). `timeout` is in seconds, None for offloaded
    entries and events without one. `id`, `zone`, counters and times are None where they were not printed. `unknown`
    keeps tokens that no parser knows, in order. `line` counts from 1.
    """

    protocol: str
    original: FlowTuple
    reply: FlowTuple
    timeout: int | None = None
    state: str = ""
    seen: Seen = Seen.REPLIED
    mark: int | None = None
    zone: int | None = None
    id: int | None = None
    start: str = ""
    event: str = ""
    unknown: tuple[str, ...] = ()
    line: int = 0

    @property
    def key(self) -> Key:
        """What a judgement on this entry rests on."""
        return Key(
            self.protocol,
            self.original.destination,
            self.original.destination_port,
            self.reply.source,
            self.reply.source_port,
        )


class Key(NamedTuple):
    """Where flows were sent, and where they really go: all entries with one key are judged alike.

    A table of a million entries has few keys, so they are judged once each; see `Wanted`.
    """

    protocol: str
    destination: str
    destination_port: int | None
    reply_source: str
    reply_source_port: int | None


# Whether entries of this key are to be made into records. Asked once for each key of a dump.
Wanted = Callable[[Key], bool]
