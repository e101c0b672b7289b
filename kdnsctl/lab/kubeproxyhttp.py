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


class Metrics:
    """Counters and gauges as kube-proxy names them. Thread-safe."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._lock = threading.Lock()
        self._durations: list[float] = []
        self._buckets = [0] * len(_BUCKETS)
        self._count = 0
        self._sum = 0.0
        self._restore_failures = 0
        self._last_sync = 0.0
        self._last_queued = 0.0
        self._rules: Rules | None = None
        self._reconciled = (0, 0, 0.0)

    def queued(self) -> None:
        with self._lock:
            self._last_queued = time.time()

    def restore_failed(self) -> None:
        with self._lock:
            self._restore_failures += 1

    def synced(self, seconds: float, rules: Rules | None, *, good: bool) -> None:
        with self._lock:
            self._count += 1
            self._sum += seconds
            for index, limit in enumerate(_BUCKETS):
                self._buckets[index] += seconds <= limit
            if good:
                self._last_sync = time.time()
                self._rules = rules

    def reconciled(self, deleted: int, seconds: float) -> None:
        with self._lock:
            total, count, spent = self._reconciled
            self._reconciled = (total + deleted, count + 1, spent + seconds)

    def render(self) -> bytes:
        """The text exposition of all metrics."""
        family = '{ip_family="IPv4"}' if self._version.minor >= 33 else ""
        inner = 'ip_family="IPv4",' if self._version.minor >= 33 else ""
        lines: list[str] = []

        def one(name: str, kind: str, text: str, *values: tuple[str, float]) -> None:
            lines.extend((f"# HELP {name} [ALPHA] {text}", f"# TYPE {name} {kind}"))
            lines.extend(f"{name}{labels} {value!r}" for labels, value in values)

        with self._lock:
            prefix = "kubeproxy_sync_proxy_rules"
            name = f"{prefix}_duration_seconds"
            lines += [f"# HELP {name} [ALPHA] SyncProxyRules latency in seconds", f"# TYPE {name} histogram"]
            for limit, value in zip(_BUCKETS, self._buckets, strict=True):
                lines.append(f'{name}_bucket{{{inner}le="{limit:g}"}} {value}')
            lines.append(f'{name}_bucket{{{inner}le="+Inf"}} {self._count}')
            lines += [f"{name}_sum{family} {self._sum!r}", f"{name}_count{family} {self._count}"]
            one(
                f"{prefix}_iptables_restore_failures_total", "counter",
                "Cumulative proxy iptables restore failures", (family, self._restore_failures),
            )  # fmt: skip
            one(
                f"{prefix}_last_timestamp_seconds", "gauge",
                "The last time proxy rules were successfully synced", (family, self._last_sync),
            )  # fmt: skip
            one(
                f"{prefix}_last_queued_timestamp_seconds", "gauge",
                "The last time a sync of proxy rules was queued", (family, self._last_queued),
            )  # fmt: skip
            if self._rules is not None:
                counts = [("filter", self._rules.filter_rules), ("nat", self._rules.nat_rules)]
                one(
                    f"{prefix}_iptables_total", "gauge", "Total number of iptables rules owned by kube-proxy",
                    *((f'{{{inner}table="{table}"}}', count) for table, count in counts),
                )  # fmt: skip
            if self._version.minor >= 33:
                total, count, spent = self._reconciled
                one(
                    "kubeproxy_conntrack_reconciler_deleted_entries_total", "counter",
                    "Cumulative conntrack flows deleted by conntrack reconciler", (family, total),
                )  # fmt: skip
                name = "kubeproxy_conntrack_reconciler_sync_duration_seconds"
                lines += [
                    f"# HELP {name} [ALPHA] ReconcileConntrackFlowsLatency latency in seconds",
                    f"# TYPE {name} histogram",
                ]
                lines += [
                    f'{name}_bucket{{{inner}le="+Inf"}} {count}',
                    f"{name}_sum{family} {spent!r}",
                    f"{name}_count{family} {count}",
                ]
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
