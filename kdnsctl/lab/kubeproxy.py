"""The kube-proxy stand-in: watches Services and EndpointSlices, writes the rules, then cleans conntrack.

The order of a sync and what is lost when it fails are kube-proxy's (pkg/proxy/iptables/proxier.go): pending changes
are consumed first, a failed iptables-restore ends the sync with a retry in 30 s, and the conntrack cleanup that
belonged to those changes is never made up for. It runs as the container's process, in an image without Python, and
calls the image's own iptables and conntrack.
"""

# ruff: noqa: PLE1205 - Klog is no logger of the logging module
from __future__ import annotations

import argparse
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdnsctl.lab import kubeproxyclean as clean
from kdnsctl.lab.kubeclient import JSON, Informer, KubeClient
from kdnsctl.lab.kubeproxyhttp import Health, Metrics, serve_endpoints
from kdnsctl.lab.kubeproxylog import Klog, Version, go_duration
from kdnsctl.lab.kubeproxyrules import Endpoint, Rules, ServicePort, render, service_ports, slice_endpoints
from kdnsctl.lab.podaccess import in_cluster_access

MIN_SYNC_PERIOD = 1.0
SYNC_PERIOD = 30.0
NETLINK_FAULT = Path("/run/kdnsctl-lab-netlink-fault")
"""In the container: when it exists, deleting over netlink fails with its text (the lab's `delete-fails` from 1.32)."""

EndpointMap = dict[tuple[str, str], set[Endpoint]]


@dataclass(frozen=True, slots=True)
class Settings:
    """What of KubeProxyConfiguration the stand-in obeys."""

    profiling: bool = False
    metrics_address: str = "127.0.0.1:10249"
    as_json: bool = False
    verbosity: int | None = None


def read_settings(text: str) -> Settings:
    """Settings from config.conf. Only these keys, each on a line of its own, are looked for; it is no YAML parser."""

    def value(key: str) -> str | None:
        match = re.search(rf"^\s*{key}:\s*\"?([^\s\"]+)", text, re.MULTILINE)
        return match.group(1) if match else None

    verbosity = value("verbosity")
    return Settings(
        profiling=value("enableProfiling") == "true",
        metrics_address=value("metricsBindAddress") or "127.0.0.1:10249",
        as_json=value("format") == "json",
        verbosity=int(verbosity) if verbosity and verbosity.isdigit() else None,
    )


class Cluster:
    """What the API says now; the informers' threads write, the sync loop reads."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lock = threading.Lock()
        self._services: dict[str, list[ServicePort]] = {}
        self._slices: dict[str, EndpointMap] = {}
        self.changed = threading.Event()

    def on_service(self, key: str, obj: JSON | None) -> None:
        with self._lock:
            ports = service_ports(obj) if obj else []
            if self._services.get(key, []) != ports:
                self._services[key] = ports
                self._touch("service")

    def on_slice(self, key: str, obj: JSON | None) -> None:
        with self._lock:
            endpoints = slice_endpoints(obj) if obj else {}
            if self._slices.get(key, {}) != endpoints:
                self._slices[key] = endpoints
                self._touch("endpoint")

    def _touch(self, what: str) -> None:
        self._metrics.changed(what)
        self.changed.set()

    def snapshot(self) -> tuple[list[ServicePort], EndpointMap]:
        with self._lock:
            self.changed.clear()
            ports = [port for ports in self._services.values() for port in ports]
            merged: EndpointMap = {}
            for endpoints in self._slices.values():
                for name, members in endpoints.items():
                    merged.setdefault(name, set()).update(members)
            return ports, merged


class ToolFailedError(Exception):
    """iptables-restore (or iptables-save) ended with an error; the text is kube-proxy's."""


def _run(argv: Sequence[str], stdin: str = "") -> str:
    try:
        done = subprocess.run(argv, input=stdin.encode(), capture_output=True, env=os.environ, check=False)
    except OSError as error:
        raise ToolFailedError(f"exec: {argv[0]}: {error.strerror}") from None
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise ToolFailedError(f"exit status {done.returncode}: {output}")
    return done.stdout.decode(errors="replace")


class Proxier:
    """The sync loop with what it has applied so far."""

    def __init__(self, cluster: Cluster, log: Klog, metrics: Metrics, health: Health) -> None:
        self._cluster = cluster
        self._log = log
        self._metrics = metrics
        self._health = health
        self._family: dict[str, object] = {"ipFamily": "IPv4"} if log.version.names_family else {}
        self._applied: EndpointMap = {}

    def sync(self) -> bool:
        """One sync; False when it failed and must be retried."""
        started = time.monotonic()
        ports, endpoints = self._cluster.snapshot()
        # Consumed here, before anything can fail: kube-proxy's change tracker has no way back (kubernetes#112604).
        stale = clean.find_stale(self._applied, endpoints, ports)
        self._applied = endpoints
        self._log.info("syncing", "Syncing iptables rules", 2, **self._family)
        self._health.queued()
        self._metrics.queued()
        rules: Rules | None = None
        try:
            try:
                saved = _run(["iptables-save"])
            except ToolFailedError as error:
                saved = ""
                text = str(error)
                self._log.error(
                    "save_failed",
                    "Failed to execute iptables-save: stale chains will not be deleted",
                    text,
                    **self._family,
                )
            rules = render(ports, endpoints, saved)
            self._log.info("reloading", "Reloading service iptables data", 2, **self._family, **_numbers(rules))
            _run(["iptables-restore", "-w", "5", "--noflush", "--counters"], rules.text)
        except ToolFailedError as error:
            self._log.error("restore_failed", "Failed to execute iptables-restore", str(error), **self._family)
            self._metrics.restore_failed()
            self._log.info("sync_failed", "Sync failed", 0, **self._family, retryingTime=go_duration(SYNC_PERIOD))
            self._finish(started, rules, good=False)
            return False
        self._health.updated()
        self._clean(stale, ports, endpoints)
        self._finish(started, rules, good=True)
        return True

    def _finish(self, started: float, rules: Rules | None, *, good: bool) -> None:
        seconds = time.monotonic() - started
        self._metrics.synced(seconds, rules, good=good)
        self._log.info("complete", "SyncProxyRules complete", 2, **self._family, elapsed=go_duration(seconds))

    def _clean(self, stale: clean.Stale, ports: list[ServicePort], endpoints: EndpointMap) -> None:
        if not stale.anything:
            return
        if not self._log.version.reconciles:
            clean.delete_by_command(stale, self._log)
            return
        fault = NETLINK_FAULT.read_text(encoding="ascii").strip() if NETLINK_FAULT.exists() else None
        done = clean.reconcile(ports, endpoints, self._log, fault)
        if done is not None:
            self._metrics.reconciled(done.deleted, done.seconds)

    def loop(self) -> None:
        """Sync on changes, at most once a second; retry a failed sync after 30 s. Never returns."""
        while True:
            good = self.sync()
            rested = threading.Event()
            rested.wait(MIN_SYNC_PERIOD)  # the rate limit itself; a change meanwhile is kept in the event
            self._cluster.changed.wait(None if good else SYNC_PERIOD - MIN_SYNC_PERIOD)


def _numbers(rules: Rules) -> dict[str, object]:
    return {
        "numServices": rules.services,
        "numEndpoints": rules.endpoints,
        "numFilterChains": rules.filter_chains,
        "numFilterRules": rules.filter_rules,
        "numNATChains": rules.nat_chains,
        "numNATRules": rules.nat_rules,
    }


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run as the container's process. Flags: --config, --hostname-override, --v; the version comes with the image."""
    parser = argparse.ArgumentParser(prog="kube-proxy", add_help=False)
    parser.add_argument("--config", default="/var/lib/kube-proxy/config.conf")
    parser.add_argument("--hostname-override", default="")
    parser.add_argument("--v", type=int, default=None)
    parser.add_argument("--logging-format", default="")
    options = parser.parse_args(list(argv))
    version = Version.parse(env["KDNSCTL_LAB_IMAGE_TAG"])
    config = Path(options.config)
    settings = read_settings(config.read_text(encoding="utf-8") if config.exists() else "")
    # The flag wins over logging.verbosity (kubernetes#119863).
    verbosity = options.v if options.v is not None else (settings.verbosity or 0)
    log = Klog(version, verbosity, as_json=settings.as_json or options.logging_format == "json")
    log.flags({"config": options.config, "hostname-override": options.hostname_override, "v": str(verbosity)})
    log.info("mode", "Using iptables Proxier")
    log.info("version", "Version info", version=version.text)
    log.info("golang", "Golang settings", GOGC="", GOMAXPROCS="", GOTRACEBACK="")
    metrics, health = Metrics(version), Health(version)
    serve_endpoints(settings.metrics_address, log, metrics, health, profiling=settings.profiling)
    cluster = Cluster(metrics)
    client = KubeClient(in_cluster_access(env), f"kube-proxy/{version.text} (linux/amd64) kubernetes/lab")
    services = Informer(client, "/api/v1/services", cluster.on_service)
    slices = Informer(client, "/apis/discovery.k8s.io/v1/endpointslices", cluster.on_slice)
    for place, name in (
        ("service_controller", "service"),
        ("slice_controller", "endpoint slice"),
        ("node_controller", "node"),
    ):
        log.info(place, f"Starting {name} config controller")
    services.start()
    slices.start()
    services.synced.wait()
    _say_synced(log, "service config")
    family: dict[str, object] = {"ipFamily": "IPv4"} if version.names_family else {}
    log.info(
        "not_syncing", "Not syncing iptables until Services and Endpoints have been received from master", 2, **family
    )
    slices.synced.wait()
    _say_synced(log, "endpoint slice config")
    Proxier(cluster, log, metrics, health).loop()
    return 0


def _say_synced(log: Klog, controller: str) -> None:
    if log.version.minor >= 34:
        log.info("synced", "Caches are synced", 0, controller=controller)
    else:
        log.plain("synced", f"Caches are synced for {controller}")
