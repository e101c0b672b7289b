"""All that is known of one node at one moment, whoever read it and by whatever way: what a diagnosis is made of.

Only records. What is missing is None, and says in `missing` why, so that a verdict can name the reason.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from kdnsctl.diagnosis.flows import Reading
from kdnsctl.model import Reason
from kdnsctl.netfilter.rules import Mode, NodeRules

SETTLE = timedelta(seconds=30)
RECHECK = timedelta(seconds=15)
LOCAL_PORTS = (32_768, 60_999)
"""The ports that a client's kernel chooses from by default, 28,232 of them: net.ipv4.ip_local_port_range."""


class Item(enum.StrEnum):
    """The kinds of evidence. Health needs the first two."""

    CONNTRACK = "conntrack"
    RULES = "rules"
    COUNTERS = "counters"
    FILL = "fill"
    TIMEOUTS = "timeouts"
    KERNEL_LOG = "kernelLog"
    KUBE_PROXY = "kubeProxy"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Missing:
    """A piece of evidence that could not be had, or not as a whole."""

    item: Item
    reason: Reason


@dataclass(frozen=True, slots=True)
class Fill:
    """How full the table is: net.netfilter.nf_conntrack_count, _max and _buckets; None where not read."""

    count: int
    maximum: int
    buckets: int | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds an unused UDP entry lives: nf_conntrack_udp_timeout, and _stream once it is assured; kernel defaults."""

    udp: int = 30
    stream: int = 120


@dataclass(frozen=True, slots=True)
class FamilyState:
    """What kube-proxy says of itself for one address family; None where it says nothing (pkg/proxy/metrics/metrics.go).

    Times are seconds since 1970. `restore_failures` are full and partial restores, or nftables syncs, that failed;
    `deleted_entries` and `reconciled` count what its conntrack reconciler (1.33 and later) deleted and how often it
    ran. `healthy` is its own word on /healthz.
    """

    last_queued: float | None = None
    last_synced: float | None = None
    restore_failures: int | None = None
    deleted_entries: int | None = None
    reconciled: int | None = None
    healthy: bool | None = None


@dataclass(frozen=True, slots=True)
class KubeProxyState:
    """kube-proxy in its own words: /proxyMode, /metrics and /healthz by address family, and its configuration.

    `configured` is the mode that its configuration names. `sync_period` is in seconds. `families` has 4 and 6, and 0
    for releases whose metrics do not tell families apart. `at` is when it was asked, in seconds since 1970 by the
    node's clock, None when not known.
    """

    mode: Mode | None = None
    configured: Mode | None = None
    sync_period: float = 30.0
    families: Mapping[int, FamilyState] = field(default_factory=dict)
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a node.

    `conntrack` and `conntrack_later`, `rules` and `rules_later`, `counters` and `counters_later` are two readings of
    the same thing; `rules` has one record for each backend and address family that was read, at `rules_at`. Counters
    are named as `conntrack -S` names them, summed over the CPUs. `table_full` counts lines of the kernel log that say
    so, None when it was not read. `replacement` names what does kube-proxy's work where there is none by design.
    `local_ports` are the first and last port that the node's own clients choose from, None when not known. `broken` is
    why, beyond what the readings themselves say, something that is judged is not all that was there: whatever else is
    whole, it proves no health then.
    """

    node: str = ""
    live: bool = False
    conntrack: Reading | None = None
    conntrack_later: Reading | None = None
    rules: tuple[NodeRules, ...] = ()
    rules_later: tuple[NodeRules, ...] = ()
    rules_at: datetime | None = None
    rules_later_at: datetime | None = None
    counters: Mapping[str, int] | None = None
    counters_later: Mapping[str, int] | None = None
    fill: Fill | None = None
    timeouts: Timeouts | None = None
    table_full: int | None = None
    kube_proxy: KubeProxyState | None = None
    version: str = ""
    mode: Mode | None = None
    replacement: str = ""
    local_ports: tuple[int, int] | None = None
    missing: tuple[Missing, ...] = ()
    broken: tuple[Reason, ...] = ()

    @property
    def running_mode(self) -> Mode | None:
        """The mode kube-proxy works in: as it says itself, else as is otherwise known."""
        said = self.kube_proxy.mode if self.kube_proxy else None
        return said or self.mode

    def why_missing(self, item: Item) -> Reason | None:
        """Why a kind of evidence is missing, None when nobody said."""
        return next((each.reason for each in self.missing if each.item is item), None)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a verdict is about, and when a live reading counts.

    `services` are NAMESPACE/NAME; empty means every Service of the truth. A live reading counts what points to an
    endpoint that has not served for `settle`, or what a second reading at least `recheck` later still has.
    """

    services: tuple[str, ...] = ()
    settle: timedelta = SETTLE
    recheck: timedelta = RECHECK
