"""Facts that kube-proxy tells of itself over HTTP on the node's loopback address: mode, health, metrics; and what they
say. Nothing is asked here.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from kdnsctl.diagnosis.evidence import FamilyState, KubeProxyState
from kdnsctl.model import Endpoint, Fact, Privilege, Proof
from kdnsctl.netfilter.rules import Mode

METRICS_PORT: Final = 10249  # metricsBindAddress, by default 127.0.0.1:10249
HEALTH_PORT: Final = 10256  # healthzBindAddress, by default 0.0.0.0:10256


def _endpoint(id_: str, title: str, port: int, path: str, max_bytes: int) -> Fact:
    return Fact(
        id=f"kubeProxy.{id_}",
        title=title,
        privilege=Privilege.NONE,
        proof=Proof.CLOSED,
        max_bytes=max_bytes,
        seconds=10,
        endpoint=Endpoint(port, path),
    )


MODE: Final = _endpoint("mode", "kube-proxy's mode", METRICS_PORT, "/proxyMode", 4 << 10)
HEALTH: Final = _endpoint("health", "kube-proxy's health", HEALTH_PORT, "/healthz", 64 << 10)
METRICS: Final = _endpoint("metrics", "kube-proxy's metrics", METRICS_PORT, "/metrics", 16 << 20)


@dataclass(frozen=True, slots=True)
class Health:
    """What /healthz says: `at` is its own clock, in seconds since 1970; `healthy` by address family, 0 for all."""

    at: float | None = None
    healthy: Mapping[int, bool] = field(default_factory=dict)


def mode(data: bytes) -> Mode | None:
    """The mode from /proxyMode; None for one that is not known."""
    try:
        return Mode(data.strip().decode("ascii", "replace"))
    except ValueError:
        return None


def families(data: bytes) -> dict[int, FamilyState]:
    """What /metrics says of each address family, 0 where it does not tell them apart.

    Names are those of kube-proxy's pkg/proxy/metrics/metrics.go; what a release does not have stays None.
    """
    found: dict[int, dict[str, float]] = {}
    for match in _SAMPLE.finditer(data):
        field_name = _FIELDS.get(match[1])
        if field_name is not None:
            family = _FAMILIES.get(match[2], 0)
            values = found.setdefault(family, {})
            values[field_name] = values.get(field_name, 0.0) + float(match[3])
    return {family: _state(values) for family, values in sorted(found.items())}


def health(data: bytes) -> Health:
    """What /healthz says; of a body that is none, nothing."""
    try:
        said = msgspec.json.decode(data, type=_Health)
    except msgspec.DecodeError:
        return Health()
    healthy = {
        _FAMILIES[name.encode()]: state.healthy
        for name, state in said.status.items()
        if name.encode() in _FAMILIES and state.healthy is not None
    }
    if not healthy and said.healthy is not None:
        healthy = {0: said.healthy}
    return Health(_moment(said.current_time), healthy)


def state(
    mode_said: Mode | None, metrics: Mapping[int, FamilyState], health_said: Health, status: int | None = None
) -> KubeProxyState:
    """All three as one record. `status` is HTTP's of /healthz, which is all that releases before 1.33 say of it."""
    healthy = dict(health_said.healthy)
    if not healthy and status in (200, 503):
        healthy = {0: status == 200}
    both = {
        family: replace(metrics.get(family, FamilyState()), healthy=healthy.get(family))
        for family in sorted({*metrics, *healthy})
    }
    return KubeProxyState(mode=mode_said, families=both, at=health_said.at)


class _FamilyHealth(msgspec.Struct):
    healthy: bool | None = None


class _Health(msgspec.Struct, rename="camel"):
    current_time: str = ""
    healthy: bool | None = None
    status: dict[str, _FamilyHealth] = {}


_FAMILIES: Final = {b"IPv4": 4, b"IPv6": 6}
_PREFIX: Final = b"kubeproxy_"
_SYNC: Final = _PREFIX + b"sync_proxy_rules_"
_RECONCILER: Final = _PREFIX + b"conntrack_reconciler_"
_FIELDS: Final = {
    _SYNC + b"last_queued_timestamp_seconds": "last_queued",
    _SYNC + b"last_timestamp_seconds": "last_synced",
    _SYNC + b"iptables_restore_failures_total": "restore_failures",
    _SYNC + b"iptables_partial_restore_failures_total": "restore_failures",
    _SYNC + b"nftables_sync_failures_total": "restore_failures",
    _RECONCILER + b"deleted_entries_total": "deleted_entries",
    _RECONCILER + b"sync_duration_seconds_count": "reconciled",
}
# A sample without a label, or with `ip_family` alone; numbers as Go prints them.
_SAMPLE: Final = re.compile(
    rb'(?m)^(kubeproxy_\w{1,80})(?:\{ip_family="(IPv[46])"\})? (\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,2})?)\r?$'
)
_GO_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d{1,9})? ?(Z|[+-]\d\d:?\d\d)")


def _state(values: Mapping[str, float]) -> FamilyState:
    def whole(name: str) -> int | None:
        return int(values[name]) if name in values else None

    return FamilyState(
        last_queued=values.get("last_queued"),
        last_synced=values.get("last_synced"),
        restore_failures=whole("restore_failures"),
        deleted_entries=whole("deleted_entries"),
        reconciled=whole("reconciled"),
    )


def _moment(text: str) -> float | None:
    """A time as Go's Time.String or RFC 3339 writes it."""
    match = _GO_TIME.match(text)
    if match is None:
        return None
    zone = "+0000" if match[4] == "Z" else match[4].replace(":", "")
    try:
        moment = dt.datetime.strptime(f"{match[1]} {match[2]} {zone}", "%Y-%m-%d %H:%M:%S %z")
        return moment.timestamp() + float(match[3] or 0)
    except (ValueError, OverflowError):
        return None
