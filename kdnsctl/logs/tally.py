"""Counts what the scan finds in one stream: per signature and peer, with first and last time, in bounded memory.

A `Tally` is a StreamSink. It keeps what a verdict needs and forgets the rest; it judges nothing. Pure. Times are
microseconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kdnsctl.logs.details import (
    MOST_CLIENTS_OF_A_LINE,
    Details,
    details_of,
    endpoints_of,
    hostname_of,
    mode_of,
    port_address_of,
    service_of,
    verbosity_of,
    version_of,
)
from kdnsctl.logs.klog import STAMP_LENGTH
from kdnsctl.logs.signatures import Kind, Known

MOST_PEERS = 10_000
"""Different (signature, Service, address, endpoint) counted apart; what comes after is counted without them."""
MOST_PORTS = 100
"""Service ports remembered for one address."""
MOST_CLIENTS = 1_000
MOST_MOMENTS = 10_000
"""Moments of one sort that are kept, the first ones; counts go on beyond."""
ONE_START = 60_000_000
"""Microseconds within which a version and a mode belong to the same start."""
LONGEST_EXAMPLE = 2_000
LONGEST_TEXT = 4_096
"""Bytes of a line without a record that are kept; enough to see what error message it is."""
LONGEST_REMEMBERED = 1_024
"""Bytes of a failure record up to which what it says is remembered for its repetitions."""

OURS = frozenset(
    {
        "proxier.go",
        "server_others.go",
        "server_linux.go",
        "endpointslicecache.go",
        "endpointschangetracker.go",
        "servicechangetracker.go",
        "bounded_frequency_runner.go",
    }
)
"""Go source files from which, of all components that use klog, kube-proxy is the one that logs."""

MANY_HOLD_IT = frozenset({"START_VERSION", "START_FLAG_V", "START_NODE", "CACHES_SYNCED", "EXIT_CONFIG_CHANGED"})
"""Starts that other components in the same process (k3s, RKE2, MicroK8s) log in the same words."""


MANY_LOG_IT = frozenset({"CACHES_SYNCED", "START_VERSION", "START_FLAG_V", "START_NODE", "TRACE_SLOW"})
"""What other components log in the same words: alone it does not make a log kube-proxy's."""


@dataclass(slots=True)
class Count:
    """How often, and when first and last (None: no record had a time)."""

    count: int = 0
    first: int | None = None
    last: int | None = None
    example: str = ""

    def add(self, time: int | None) -> None:
        """Count one record."""
        self.count += 1
        if time is not None:
            if self.first is None or time < self.first:
                self.first = time
            if self.last is None or time > self.last:
                self.last = time

    def merge(self, other: Count) -> None:
        """Count everything that the other counted."""
        self.count += other.count
        if other.first is not None:
            self.first = other.first if self.first is None else min(self.first, other.first)
        if other.last is not None:
            self.last = other.last if self.last is None else max(self.last, other.last)
        self.example = self.example or other.example


PeerKey = tuple[str, str, str, str]
"""Signature id, Service, address, endpoint; "" where the log does not say."""


@dataclass(slots=True)
class Tally:
    """What one stream, or after merging one node, has logged."""

    since: int | None = None
    shared_process: bool = False
    counts: dict[str, Count] = field(default_factory=dict)
    peers: dict[PeerKey, Count] = field(default_factory=dict)
    causes: dict[tuple[str, str], Count] = field(default_factory=dict)
    entries: int = 0
    clients: set[str] = field(default_factory=set)
    clients_complete: bool = True
    starts: list[int] = field(default_factory=list)
    start_count: int = 0
    deletions_failed: list[tuple[int, str]] = field(default_factory=list)
    endpoint_changes: list[tuple[int, str]] = field(default_factory=list)
    syncs_failed: list[int] = field(default_factory=list)
    addresses: dict[str, set[str]] = field(default_factory=dict)
    versions: list[tuple[int, str]] = field(default_factory=list)
    oldest_possible: int = 0
    newest_possible: int = 1_000
    mode: str | None = None
    verbosity: int | None = None
    hostname: str | None = None
    first_seen: int | None = None
    last_seen: int | None = None
    ours: bool = False
    records: bool = False
    """Whether any line was klog's at all: if not, this is no log of kube-proxy."""
    logs_syncs: bool = False
    """Whether it tells of the ends of syncs, in the window or before: then none told of is none ended."""
    first_text: str = ""
    """The beginning of a line that was no record, for streams that hold nothing else."""
    cuts: dict[str, int] = field(default_factory=dict)
    _details: dict[bytes, Details] = field(default_factory=dict)
    _wordings: set[Known] = field(default_factory=set)
    _endpoints: dict[str, bytes] = field(default_factory=dict)
    _starting: tuple[int | None, frozenset[str]] = (None, frozenset())

    @property
    def first(self) -> int | None:
        """The time of the first record seen or counted."""
        times = [count.first for count in self.counts.values() if count.first is not None]
        return min(times if self.first_seen is None else [*times, self.first_seen], default=None)

    @property
    def last(self) -> int | None:
        """The time of the last record seen or counted."""
        times = [count.last for count in self.counts.values() if count.last is not None]
        return max(times if self.last_seen is None else [*times, self.last_seen], default=None)

    # --- StreamSink

    def seen(self, time: int, file: str) -> None:
        """There is a record at this time, from this Go source file."""
        if self.first_seen is None or time < self.first_seen:
            self.first_seen = time
        if self.last_seen is None or time > self.last_seen:
            self.last_seen = time
        if file:
            self.records = True
            if file in OURS:
                self.ours = True

    def text(self, line: bytes) -> None:
        """There is a line that is no record of klog's."""
        if not self.records and not self.first_text:
            self.first_text = line[:LONGEST_TEXT].decode("utf-8", "replace").strip()

    def cut(self, why: str) -> None:
        """Something could not be read whole."""
        self.cuts[why] = self.cuts.get(why, 0) + 1

    def hit(self, known: Known, time: int | None, payload: bytes) -> None:
        """Count one record of the catalogue."""
        self.records = True
        if known not in self._wordings:
            self._new_wording(known)
        signature = known.signature
        if signature.kind is Kind.RESTART:
            if self.shared_process and signature.id in MANY_HOLD_IT:
                return
            # Learnt from every start, also from one before the window: it says what runs inside the window.
            self._learn(signature.id, time, payload)
        elif signature.id == "SVC_PORT":
            self._address(payload)
        elif signature.id == "SYNC_DONE":
            self.logs_syncs = True
        if self.since is not None and time is not None and time < self.since:
            self.seen(time, "")
            return
        count = self.counts.get(signature.id)
        if count is None:
            count = self.counts[signature.id] = Count(example=_example(payload))
        count.add(time)
        if signature.kind is Kind.FAILURE:
            self._failure(signature.id, time, payload)
        elif signature.names_service and signature.id in ("STALE_EP", "EP_SET"):
            self._endpoint_change(signature.id, time, payload)

    def hits(self, known: Known, count: int, first: int, last: int, payload: bytes) -> bool:
        """Count many records of a message of which only number, first and last matter; see CountSink."""
        if self.since is not None and first < self.since <= last:
            return False
        self.hit(known, first, payload)
        if count > 1:
            self.hit(known, last, payload)
        if self.since is None or first >= self.since:
            self.counts[known.signature.id].count += max(count - 2, 0)
        return True

    def _new_wording(self, known: Known) -> None:
        self._wordings.add(known)
        if self.shared_process and known.signature.id in MANY_HOLD_IT:
            return
        self.oldest_possible = max(self.oldest_possible, known.variant.first)
        self.newest_possible = min(self.newest_possible, known.variant.last)
        self.ours = self.ours or known.signature.id not in MANY_LOG_IT

    def _failure(self, signature: str, time: int | None, payload: bytes) -> None:
        details = self._read(payload)
        peer: PeerKey = (signature, details.service, details.vip, details.endpoint)
        count = self.peers.get(peer)
        if count is None:
            if len(self.peers) >= MOST_PEERS:
                peer = (signature, "", "", "")
            count = self.peers.setdefault(peer, Count())
        count.add(time)
        if signature != "IPT_SYNC_FAILED":  # its cause is in the error logged just before it
            cause = self.causes.get((signature, details.cause))
            if cause is None:
                cause = self.causes[signature, details.cause] = Count(example=_example(payload))
            cause.add(time)
        if details.entries:
            self._quoted(details)
        if time is None:
            return
        if signature.startswith("CT_"):
            if len(self.deletions_failed) < MOST_MOMENTS:
                self.deletions_failed.append((time, details.service))
        elif len(self.syncs_failed) < MOST_MOMENTS:
            self.syncs_failed.append(time)

    def _read(self, payload: bytes) -> Details:
        if len(payload) > LONGEST_REMEMBERED:
            return details_of(payload)
        # Behind the time, the same failure repeats to the letter: read it once.
        tail = payload[payload.find(b",") :] if payload[:1] == b"{" else payload[1 + STAMP_LENGTH :]
        details = self._details.get(tail)
        if details is None:
            if len(self._details) > 5_000:
                self._details.clear()
            details = self._details[tail] = details_of(payload)
        return details

    def _quoted(self, details: Details) -> None:
        self.entries += details.entries
        if details.entries > MOST_CLIENTS_OF_A_LINE and len(details.clients) == MOST_CLIENTS_OF_A_LINE:
            self.clients_complete = False
        if len(self.clients) < MOST_CLIENTS:
            self.clients |= details.clients
        elif not details.clients <= self.clients:
            self.clients_complete = False

    def _endpoint_change(self, signature: str, time: int | None, payload: bytes) -> None:
        service = service_of(payload)
        if signature == "EP_SET":
            endpoints = endpoints_of(payload)
            before = self._endpoints.get(service)
            if len(self._endpoints) < MOST_PEERS or before is not None:
                self._endpoints[service] = endpoints
            if before is None or before == endpoints:
                return
        if time is not None and len(self.endpoint_changes) < MOST_MOMENTS:
            self.endpoint_changes.append((time, service))

    def _address(self, payload: bytes) -> None:
        # One address has several ports: which of them a line without a name is about, the line does not say.
        address, service = port_address_of(payload), service_of(payload)
        if address and service and (address in self.addresses or len(self.addresses) < MOST_PEERS):
            names = self.addresses.setdefault(address, set())
            if len(names) < MOST_PORTS:
                names.add(service)

    def _learn(self, signature: str, time: int | None, payload: bytes) -> None:
        if signature == "START_VERSION":
            version = version_of(payload)
            if version and len(self.versions) < MOST_MOMENTS:
                self.versions.append((time or 0, version))
        elif signature == "START_MODE":
            self.mode = mode_of(payload) or self.mode
        elif signature == "START_FLAG_V":
            level = verbosity_of(payload)
            self.verbosity = self.verbosity if level is None else level
        elif signature == "START_NODE":
            self.hostname = hostname_of(payload) or self.hostname
        in_window = self.since is None or time is None or time >= self.since
        if signature in ("START_VERSION", "START_MODE") and in_window:
            self._start(signature, time)

    def _start(self, signature: str, time: int | None) -> None:
        # One start says its version and its mode, each once, seconds apart and in either order.
        begun, said = self._starting
        if said and signature not in said and (time is None or begun is None or abs(time - begun) < ONE_START):
            self._starting = (begun, said | {signature})
            return
        self._starting = (time, frozenset((signature,)))
        self.start_count += 1
        if time is not None and len(self.starts) < MOST_MOMENTS:
            self.starts.append(time)

    def settle(self) -> None:
        """The stream is over: forget what only served to read on."""
        self._details.clear()
        self._endpoints.clear()
        self._wordings.clear()

    # --- many files of one node

    def merge(self, other: Tally) -> None:
        """Take everything that another stream of the same node has logged."""
        for signature, count in other.counts.items():
            self.counts.setdefault(signature, Count()).merge(count)
        for peer, count in other.peers.items():
            self.peers.setdefault(peer, Count()).merge(count)
        for cause, count in other.causes.items():
            self.causes.setdefault(cause, Count()).merge(count)
        self.entries += other.entries
        self.clients_complete = self.clients_complete and other.clients_complete
        self.clients |= other.clients
        self.starts = sorted([*self.starts, *other.starts])[:MOST_MOMENTS]
        self.start_count += other.start_count
        self.deletions_failed = sorted([*self.deletions_failed, *other.deletions_failed])[:MOST_MOMENTS]
        self.endpoint_changes = sorted([*self.endpoint_changes, *other.endpoint_changes])[:MOST_MOMENTS]
        self.syncs_failed = sorted([*self.syncs_failed, *other.syncs_failed])[:MOST_MOMENTS]
        for address, names in other.addresses.items():
            self.addresses.setdefault(address, set()).update(names)
        self.logs_syncs = self.logs_syncs or other.logs_syncs
        newer = (other.last or 0) >= (self.last or 0)
        self.versions = sorted([*self.versions, *other.versions])
        self.oldest_possible = max(self.oldest_possible, other.oldest_possible)
        self.newest_possible = min(self.newest_possible, other.newest_possible)
        self.mode = (other.mode or self.mode) if newer else (self.mode or other.mode)
        if other.verbosity is not None and (newer or self.verbosity is None):
            self.verbosity = other.verbosity
        self.hostname = self.hostname or other.hostname
        for time in (other.first, other.last):
            if time is not None:
                self.seen(time, "")
        self.ours = self.ours or other.ours
        self.records = self.records or other.records
        self.first_text = self.first_text or other.first_text
        for why, count_of_cuts in other.cuts.items():
            self.cuts[why] = self.cuts.get(why, 0) + count_of_cuts


def _example(payload: bytes) -> str:
    return payload[:LONGEST_EXAMPLE].decode("utf-8", "replace")
