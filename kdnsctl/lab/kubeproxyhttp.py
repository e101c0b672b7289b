"""kube-proxy's HTTP endpoints: /metrics, /proxyMode and /debug/flags/v on 10249, /healthz and /livez on 10256.

Names, bodies and status codes are kube-proxy's; the metrics are those the stand-in has a true value for. No version
has a metric for failed conntrack deletions, and neither has this one. /debug/flags/v is there only with
`enableProfiling: true`, since 1.22.
"""

# ruff: noqa: S104 - "all interfaces" are those of a node in the lab
from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime

from kdnsctl.lab.kubeproxylog import Klog, Version
from kdnsctl.lab.kubeproxyrules import Rules
from kdnsctl.lab.webserver import Answer, Request, serve_http

_BUCKETS = tuple(0.001 * 2**power for power in range(15))


class _Histogram:
    """Durations in seconds, counted as Prometheus does."""

    def __init__(self) -> None:
        self._buckets = [0] * len(_BUCKETS)
        self._count = 0
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._count += 1
        self._sum += seconds
        for index, limit in enumerate(_BUCKETS):
            self._buckets[index] += seconds <= limit

    def lines(self, name: str, labels: str) -> list[str]:
        """Its samples; `labels` without braces."""
        inner, outer = (f"{labels},", f"{{{labels}}}") if labels else ("", "")
        counts = [*zip((f"{limit:g}" for limit in _BUCKETS), self._buckets, strict=True), ("+Inf", self._count)]
        buckets = [f'{name}_bucket{{{inner}le="{limit}"}} {value}' for limit, value in counts]
        return [*buckets, f"{name}_sum{outer} {self._sum!r}", f"{name}_count{outer} {self._count}"]


class Metrics:
    """Counters and gauges as kube-proxy names them. Thread-safe."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._syncs = _Histogram()
        self._reconciliations = _Histogram()
        self._restore_failures = 0
        self._last_sync = 0.0
        self._last_queued = 0.0
        self._rules: Rules | None = None
        self._deleted: int | None = None
        self._changes = {"endpoint": 0, "service": 0}
        self._pending = {"endpoint": 0, "service": 0}

    def changed(self, what: str) -> None:
        """A Service or an EndpointSlice (`service`, `endpoint`) is not as it was."""
        with self._lock:
            self._changes[what] += 1
            self._pending[what] += 1

    def queued(self) -> None:
        """A sync begins, and takes the changes until now with it."""
        with self._lock:
            self._last_queued = time.time()
            self._pending = dict.fromkeys(self._pending, 0)

    def restore_failed(self) -> None:
        with self._lock:
            self._restore_failures += 1

    def synced(self, seconds: float, rules: Rules | None, *, good: bool) -> None:
        with self._lock:
            self._syncs.observe(seconds)
            if good:
                self._last_sync = time.time()
                self._rules = rules

    def reconciled(self, deleted: int, seconds: float) -> None:
        with self._lock:
            self._deleted = (self._deleted or 0) + deleted
            self._reconciliations.observe(seconds)

    def render(self) -> bytes:
        """The text exposition of all metrics: those of the release, with its labels."""
        by_family = self._version.minor >= 33  # kubernetes#129173
        family = 'ip_family="IPv4"' if by_family else ""
        outer = f"{{{family}}}" if family else ""
        inner = f"{family}," if family else ""
        prefix = "kubeproxy_sync_proxy_rules"
        lines: list[str] = []

        def head(name: str, kind: str, text: str) -> None:
            lines.extend((f"# HELP {name} [ALPHA] {text}", f"# TYPE {name} {kind}"))

        def one(name: str, kind: str, text: str, *values: tuple[str, float]) -> None:
            head(name, kind, text)
            lines.extend(f"{name}{labels} {value!r}" for labels, value in values)

        def histogram(name: str, text: str, values: _Histogram) -> None:
            head(name, "histogram", text)
            lines.extend(values.lines(name, family))

        with self._lock:
            histogram(f"{prefix}_duration_seconds", "SyncProxyRules latency in seconds", self._syncs)
            # Every sync of the stand-in is a full one.
            full = "kubeproxy_sync_full_proxy_rules_duration_seconds"
            histogram(full, "SyncProxyRules latency in seconds for full resyncs", self._syncs)
            for what in ("endpoint", "service"):
                title, total, left = what.title(), self._changes[what], self._pending[what]
                one(f"{prefix}_{what}_changes_pending", "gauge", f"Pending proxy rules {title} changes", ("", left))
                one(f"{prefix}_{what}_changes_total", "counter", f"Cumulative proxy rules {title} changes", ("", total))
            # With a label there is no sample before the first failure, as recorded of 1.36.2.
            for name, text, value in (
                ("restore_failures_total", "Cumulative proxy iptables restore failures", self._restore_failures),
                ("partial_restore_failures_total", "Cumulative proxy iptables partial restore failures", 0),
            ):
                if value or not by_family:
                    one(f"{prefix}_iptables_{name}", "counter", text, (outer, value))
            one(
                f"{prefix}_last_timestamp_seconds", "gauge",
                "The last time proxy rules were successfully synced", (outer, self._last_sync),
            )  # fmt: skip
            one(
                f"{prefix}_last_queued_timestamp_seconds", "gauge",
                "The last time a sync of proxy rules was queued", (outer, self._last_queued),
            )  # fmt: skip
            if self._rules is not None:
                counts = [("filter", self._rules.filter_rules), ("nat", self._rules.nat_rules)]
                samples = [(f'{{{inner}table="{table}"}}', count) for table, count in counts]
                one(
                    f"{prefix}_iptables_last", "gauge",
                    "Number of iptables rules written by kube-proxy in last sync", *samples,
                )  # fmt: skip
                one(f"{prefix}_iptables_total", "gauge", "Total number of iptables rules owned by kube-proxy", *samples)
            if by_family and self._deleted is not None:
                one(
                    "kubeproxy_conntrack_reconciler_deleted_entries_total", "counter",
                    "Cumulative conntrack flows deleted by conntrack reconciler", (outer, self._deleted),
                )  # fmt: skip
                histogram(
                    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
                    "ReconcileConntrackFlowsLatency latency in seconds", self._reconciliations,
                )  # fmt: skip
        return ("\n".join(lines) + "\n").encode()


class Health:
    """What /healthz says: 200 unless a queued change waits for more than two sync periods. Thread-safe.

    It stays 200 through a conntrack blackhole; that is one reason for the tool this lab is for.
    """

    _TIMEOUT = 60.0

    def __init__(self, version: Version) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._updated = time.time()
        self._oldest_queued: float | None = None

    def queued(self) -> None:
        with self._lock:
            if self._oldest_queued is None:
                self._oldest_queued = time.time()

    def updated(self) -> None:
        with self._lock:
            self._updated = time.time()
            self._oldest_queued = None

    def answer(self) -> Answer:
        now = time.time()
        with self._lock:
            healthy = self._oldest_queued is None or now - self._oldest_queued < self._TIMEOUT
            body: dict[str, object] = {
                "lastUpdated": _go_time(now if healthy else self._updated),
                "currentTime": _go_time(now),
            }
        body["nodeEligible"] = True
        if self._version.minor >= 33:
            state = {"lastUpdated": body["lastUpdated"], "healthy": healthy}
            body = {**body, "healthy": healthy, "status": {"IPv4": state}}
        return Answer(200 if healthy else 503, json.dumps(body).encode(), "application/json")


def _go_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S.%f") + " +0000 UTC"


def serve_endpoints(metrics_address: str, log: Klog, metrics: Metrics, health: Health, *, profiling: bool) -> None:
    """Start both servers in threads. Raises OSError when an address is taken."""

    def admin(request: Request) -> Answer:
        if request.path == "/metrics":
            return Answer(200, metrics.render(), "text/plain; version=0.0.4; charset=utf-8; escaping=underscores")
        if request.path == "/proxyMode":
            return Answer(200, b"iptables")
        if request.path == "/healthz":
            return Answer(200, b"ok")
        if request.path == "/debug/flags/v" and profiling:
            return _set_verbosity(request, log)
        return Answer(404, b"404 page not found\n")

    host, _, port = metrics_address.rpartition(":")
    serve_http(host.strip("[]") or "0.0.0.0", int(port), admin)

    def probes(request: Request) -> Answer:
        if request.path == "/healthz" or (request.path == "/livez" and log.version.minor >= 28):
            return health.answer()
        return Answer(404, b"404 page not found\n")

    serve_http("0.0.0.0", 10256, probes)


def _set_verbosity(request: Request, log: Klog) -> Answer:
    if request.method != "PUT":
        return Answer(406, b"unsupported http method")
    text = request.body.decode(errors="replace")
    try:
        log.verbosity = int(text)
    except ValueError:
        return Answer(400, f"strconv.ParseInt: parsing {json.dumps(text)}: invalid syntax".encode())
    return Answer(200, f"successfully set klog.logging.verbosity to {text}".encode())
