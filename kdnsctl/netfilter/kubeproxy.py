"""What the kube-proxy of a node says of itself: /metrics, /healthz, /proxyMode and /configz, from bodies to records.

It is in this room because it belongs to the same evidence: whether the rules in the kernel are those that kube-proxy
wants. Nothing is fetched and nothing is judged; bodies are bounded, and what is not known in them is skipped. Only
metrics that say something about stale rules or entries are kept. Times are seconds since the epoch.

Sources: pkg/proxy/metrics/metrics.go (`ip_family` on most metrics from 1.33 on, kubernetes#129173),
pkg/proxy/healthcheck/proxy_health.go (1.27 and older; `nodeEligible` from 1.28; status per family from 1.33,
kubernetes#129271), cmd/kube-proxy/app/server.go.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kdnsctl.model import Reason
from kdnsctl.netfilter.dump import Completeness, Proof
from kdnsctl.netfilter.lines import lines_of, shown
from kdnsctl.netfilter.rules import Mode

PREFIX = "kubeproxy_"
_TIMES = ("sync_proxy_rules_last_timestamp_seconds", "sync_proxy_rules_last_queued_timestamp_seconds")
_COUNTS = (
    "sync_proxy_rules_endpoint_changes_pending", "sync_proxy_rules_endpoint_changes_total",
    "sync_proxy_rules_service_changes_pending", "sync_proxy_rules_service_changes_total",
    "sync_proxy_rules_iptables_restore_failures_total", "sync_proxy_rules_iptables_partial_restore_failures_total",
    "sync_proxy_rules_iptables_total", "sync_proxy_rules_iptables_last",
    "sync_proxy_rules_nftables_sync_failures_total", "sync_proxy_rules_nftables_cleanup_failures_total",
    "sync_proxy_rules_no_local_endpoints_total", "conntrack_reconciler_deleted_entries_total",
    "proxy_healthz_total", "proxy_livez_total",
)  # fmt: skip
_DURATIONS = (
    "sync_proxy_rules_duration_seconds", "sync_full_proxy_rules_duration_seconds",
    "sync_partial_proxy_rules_duration_seconds", "network_programming_duration_seconds",
    "conntrack_reconciler_sync_duration_seconds",
)  # fmt: skip
KEPT = frozenset((*_TIMES, *_COUNTS, *(f"{name}_{part}" for name in _DURATIONS for part in ("sum", "count"))))
"""The metrics that are kept, without the prefix `kubeproxy_`."""

LONGEST_LINE = 4 * 1024
MOST_SAMPLES = 1_000
CONFIG_GROUP = "kubeproxy.config.k8s.io"
LARGEST_CONFIG = 256 * 1024  # bytes of /configz
LARGEST_BODY = 64 * 1024  # bytes of /healthz and /proxyMode

_SAMPLE = re.compile(r"kubeproxy_([a-z0-9_]{1,100})(?:\{(.*)\})? +(\S{1,40})(?: +-?[0-9]{1,20})?\s*")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]{0,99})="((?:[^"\\]|\\.)*)"\s*(?:,|\Z)')
_LABEL_ESCAPE = re.compile(r"\\(.)")
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z| ?([+-])(\d\d):?(\d\d))(?: .{0,60})?", re.ASCII
)
_FAMILIES = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True)
class Metric:
    """One sample. `name` is without `kubeproxy_`; `family` is 4 or 6, None where the metric has no such label."""

    name: str
    value: float
    family: int | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Metrics:
    """The kept samples of one /metrics body, in its order."""

    samples: tuple[Metric, ...]
    completeness: Completeness

    def value(self, name: str, family: int | None = None) -> float | None:
        """The sum of a metric's samples of one family; those of older versions, without a family, count for each.

        Without `family` all are summed, which makes sense for counts only. None when there is no sample: absent is not
        zero.
        """
        values = [
            each.value
            for each in self.samples
            if each.name == name and (family is None or each.family is None or each.family == family)
        ]
        return math.fsum(values) if values else None


@dataclass(frozen=True, slots=True)
class FamilyHealth:
    """What /healthz says of one family, from 1.33 on."""

    family: int
    healthy: bool
    last_updated: float | None


@dataclass(frozen=True, slots=True)
class Health:
    """A /healthz body. `healthy` is None before 1.33, where only the HTTP status said so.

    A healthy kube-proxy gives its current time as `last_updated`. All of it stays healthy through a conntrack
    blackhole: it only tells whether queued changes were written in time.
    """

    last_updated: float | None
    current_time: float | None
    healthy: bool | None = None
    node_eligible: bool | None = None
    families: tuple[FamilyHealth, ...] = ()


def parse_metrics(chunks: Iterable[bytes], trailer: Completeness | None = None) -> Metrics:
    """The kept samples of a Prometheus text body. Infinite and undefined values are no evidence, and are skipped.

    The format has no end of its own: `# EOF` (OpenMetrics) or a trailer proves that it was all.
    """
    samples: list[Metric] = []
    problem: Reason | None = None
    ended = False
    for line in lines_of(chunks, LONGEST_LINE):
        text = line.text.decode("utf-8", "replace")
        ended = ended or text == "# EOF"
        if not text.startswith(PREFIX):
            continue
        if not line.whole:
            problem = problem or Reason("unreadable", f"a line is cut off: {shown(text, 80)}")
        elif len(samples) >= MOST_SAMPLES:
            problem = problem or Reason("tooLarge", f"more than {MOST_SAMPLES} samples of kube-proxy's")
        elif (sample := _sample(text)) is not None:
            samples.append(sample)
    if trailer is not None:
        return Metrics(tuple(samples), Completeness(trailer.proof, trailer.problem or problem))
    if problem is None and not ended:
        problem = Reason("noTrailer", "the format has no end of its own, and the node did not say that it was all")
    return Metrics(tuple(samples), Completeness(Proof.CLOSED if problem is None else Proof.NONE, problem))


def _sample(text: str) -> Metric | None:
    match = _SAMPLE.fullmatch(text)
    if match is None or match[1] not in KEPT:
        return None
    try:
        value = float(match[3])
    except ValueError:
        return None
    labels = _labels(match[2] or "")
    if labels is None or not math.isfinite(value):
        return None
    family = _FAMILIES.get(dict(labels).get("ip_family", ""))
    return Metric(match[1], value, family, tuple(each for each in labels if each[0] != "ip_family"))


def _labels(text: str) -> list[tuple[str, str]] | None:
    """`a="b",c="d"`, None when it is anything else."""
    found = []
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if match is None:
            return None
        value = _LABEL_ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], match[2])
        found.append((match[1], value))
        position = match.end()
    return found


def parse_health(body: bytes) -> Health | None:
    """A /healthz or /livez body of any version; None for what is none (`ok` is the metrics server's)."""
    if len(body) > LARGEST_BODY:
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or "currentTime" not in content:
        return None
    status = content.get("status")
    families = tuple(
        FamilyHealth(_FAMILIES[name], each["healthy"], _time(each.get("lastUpdated")))
        for name, each in (status.items() if isinstance(status, dict) else ())
        if name in _FAMILIES and isinstance(each, dict) and isinstance(each.get("healthy"), bool)
    )
    return Health(
        _time(content.get("lastUpdated")),
        _time(content.get("currentTime")),
        _flag(content.get("healthy")),
        _flag(content.get("nodeEligible")),
        families,
    )


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _time(value: Any) -> float | None:
    """RFC 3339, or how Go prints a time (`2026-11-23 03:02:39.1 +0000 UTC m=+1.2`); None for Go's zero time too."""
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    decimals, sign, hours, minutes = match.groups()[6:]
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    if moment.year < 1970:
        return None
    offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return moment.timestamp() - offset + float(decimals or 0)


def parse_proxy_mode(body: bytes) -> Mode | None:
    """The mode that /proxyMode tells, None for others (`userspace`, up to 1.25) and for what is none."""
    try:
        return Mode(body[:LARGEST_BODY].decode("ascii", "replace").strip())
    except ValueError:
        return None


def parse_config_mode(body: bytes) -> Mode | None:
    """The mode that /configz names: what kube-proxy was told, not what it does. None for what is none, or names none.

    kube-proxy sets its internal type, so names of fields are Go's (cmd/kube-proxy/app/server.go, newProxyServer, as far
    as the releases with flagz); those of the API's type are taken, too. There is no recording of it.
    """
    if len(body) > LARGEST_CONFIG:
        return None
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    config = content.get(CONFIG_GROUP) if isinstance(content, dict) else None
    mode = (config.get("Mode") or config.get("mode")) if isinstance(config, dict) else None
    try:
        return Mode(str(mode))
    except ValueError:
        return None
