"""kube-proxy's own words, from the records that their parsers make to the one that checks P1 to P3 work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdnsctl.diagnosis.evidence import FamilyState, KubeProxyState
from kdnsctl.netfilter.kubeproxy import Health, Metric, Metrics
from kdnsctl.netfilter.rules import Mode

_QUEUED = "sync_proxy_rules_last_queued_timestamp_seconds"
_SYNCED = "sync_proxy_rules_last_timestamp_seconds"
_FAILURES = (
    "sync_proxy_rules_iptables_restore_failures_total",
    "sync_proxy_rules_iptables_partial_restore_failures_total",
    "sync_proxy_rules_nftables_sync_failures_total",
)
_DELETED = "conntrack_reconciler_deleted_entries_total"
_RECONCILED = "conntrack_reconciler_sync_duration_seconds_count"
_USED = frozenset({_QUEUED, _SYNCED, *_FAILURES, _DELETED, _RECONCILED})


def state_of(
    mode: Mode | None = None,
    metrics: Metrics | None = None,
    health: Health | None = None,
    *,
    configured: Mode | None = None,
) -> KubeProxyState:
    """What kube-proxy said, by address family; family 0 has what releases before 1.33 say of both together."""
    samples = metrics.samples if metrics else ()
    told = {each.family or 0 for each in samples if each.name in _USED}
    healthy = {each.family: each.healthy for each in health.families} if health else {}
    if not healthy and health is not None and health.healthy is not None:
        healthy = {0: health.healthy}
    families = {
        family: replace(_state([each for each in samples if (each.family or 0) == family]), healthy=healthy.get(family))
        for family in sorted(told | healthy.keys())
    }
    return KubeProxyState(mode, configured, families=families, at=health.current_time if health else None)


def _state(samples: Sequence[Metric]) -> FamilyState:
    def value(*names: str) -> float | None:
        values = [each.value for each in samples if each.name in names]
        return sum(values) if values else None

    def whole(*names: str) -> int | None:
        number = value(*names)
        return None if number is None else int(number)

    return FamilyState(value(_QUEUED), value(_SYNCED), whole(*_FAILURES), whole(_DELETED), whole(_RECONCILED))
