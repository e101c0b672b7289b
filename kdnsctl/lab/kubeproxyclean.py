"""How the kube-proxy stand-in cleans conntrack: by the `conntrack` program up to 1.31, by netlink from 1.32 on.

Up to 1.31 it deletes for the endpoints that went away and for Services that got their first endpoint; a failure is
logged and forgotten (pkg/proxy/conntrack/cleanup.go@1.28-1.31). From 1.32 on it compares all UDP entries with the
Services and deletes what points nowhere, except for Services without any serving endpoint (kubernetes#139628).
"""

# ruff: noqa: PLE1205, TRY400 - Klog is no logger of the logging module
from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdnsctl.lab import netlink
from kdnsctl.lab.kubeproxylog import Klog, go_duration, go_quote
from kdnsctl.lab.kubeproxyrules import Endpoint, ServicePort

Endpoints = Mapping[tuple[str, str], Iterable[Endpoint]]
_EXPIRED = b"such conntrack doesn't exist"
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Stale:
    """What the changes of one sync leave to clean: endpoints that stopped serving, Services newly with endpoints."""

    endpoints: tuple[tuple[ServicePort, Endpoint], ...]
    services: tuple[ServicePort, ...]

    @property
    def anything(self) -> bool:
        return bool(self.endpoints or self.services)


def find_stale(old: Endpoints, new: Endpoints, ports: Iterable[ServicePort]) -> Stale:
    """Compare what was applied with what is now. A UDP endpoint that served and does not any more is stale."""
    endpoints: list[tuple[ServicePort, Endpoint]] = []
    services: list[ServicePort] = []
    for port in sorted(ports):
        if port.protocol != "UDP":
            continue
        key = (port.name, port.protocol)
        before, after = set(old.get(key, ())), set(new.get(key, ()))
        alive = {(each.ip, each.port) for each in after if each.serving}
        endpoints += [(port, each) for each in sorted(before) if each.serving and (each.ip, each.port) not in alive]
        if alive and not any(each.serving for each in before):
            services.append(port)
    return Stale(tuple(endpoints), tuple(services))


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run it, again if an entry expired under its hands. Up to 1.4.7 `conntrack -D` then stops where it is.

    In life that is how an incident begins, for kube-proxy does not run it again. A node of the lab is to break when it
    is told to, and not by chance; the injected fault fails each time.
    """
    left = _TRIES
    while True:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ, check=False)
        left -= 1
        if not left or done.returncode == 0 or _EXPIRED not in done.stdout:
            return done


def _conntrack(arguments: Sequence[str], log: Klog) -> str | None:
    """Run `conntrack` in the container; None when it did its work, else the error as kube-proxy words it."""
    log.info("clearing", "Clearing conntrack entries", 4, parameters=list(arguments))
    try:
        done = _run(["conntrack", *arguments])
    except FileNotFoundError:
        return 'error looking for path of conntrack: exec: "conntrack": executable file not found in $PATH'
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0 and "0 flow entries have been deleted" not in output:
        return f"conntrack command returned: {go_quote(output)}, error message: exit status {done.returncode}"
    log.info("cleared", "Conntrack entries deleted", 4, output=output)
    return None


def delete_by_command(stale: Stale, log: Klog) -> None:
    """What kube-proxy up to 1.31 does after it has written the rules."""
    for port in stale.services:
        log.info(
            "new_service", "Newly-active UDP service may have stale conntrack entries", 4, servicePortName=port.name
        )
        error = _conntrack(["-D", "--orig-dst", port.cluster_ip, "-p", "udp"], log)
        if error is not None:
            text = f"error deleting connection tracking state for UDP service IP: {port.cluster_ip}, error: {error}"
            log.error("delete_service_failed", "Failed to delete stale service connections", text, IP=port.cluster_ip)
        if port.node_port:
            error = _conntrack(["-D", "-p", "udp", "--dport", str(port.node_port)], log)
            if error is not None:
                text = f"error deleting conntrack entries for UDP port: {port.node_port}, error: {error}"
                log.error("delete_port_failed", "Failed to clear udp conntrack", text, nodePort=port.node_port)
    for port, endpoint in stale.endpoints:
        error = _conntrack(["-D", "--orig-dst", port.cluster_ip, "--dst-nat", endpoint.ip, "-p", "udp"], log)
        if error is not None:
            peer = f"{{{port.cluster_ip}, {endpoint.ip}}}"
            text = f"error deleting conntrack entries for UDP peer {peer}, error: {error}"
            log.error(
                "delete_endpoint_failed", "Failed to delete endpoint connections", text, servicePortName=port.name
            )


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What one reconciliation did, for the metrics."""

    deleted: int
    seconds: float


def is_stale(entry: netlink.Entry, ports: Iterable[ServicePort], endpoints: Endpoints) -> bool:
    """Whether kube-proxy 1.34+ would delete the entry: its Service port has serving endpoints, but not this one."""
    for port in ports:
        if port.protocol != "UDP":
            continue
        by_address = (entry.original.destination, entry.original.destination_port) == (port.cluster_ip, port.port)
        by_node_port = bool(port.node_port) and entry.original.destination_port == port.node_port
        if by_address or by_node_port:
            serving = {(each.ip, each.port) for each in endpoints.get((port.name, port.protocol), ()) if each.serving}
            return bool(serving) and (entry.reply.source, entry.reply.source_port) not in serving
    return False


def reconcile(ports: Sequence[ServicePort], endpoints: Endpoints, log: Klog, fault: str | None) -> Reconciled | None:
    """What kube-proxy from 1.32 on does after a sync with a UDP endpoint change; None when it could not list.

    `fault` is the error of an injected failure: netlink calls cannot be made to fail from outside the process.
    """
    started = time.monotonic()
    log.info("reconciling", "Started to reconcile conntrack entries", 4, ipFamily="IPv4")
    try:
        entries = netlink.list_udp()
    except OSError as error:
        log.error("list_failed", "Failed to list conntrack entries", error.strerror or str(error))
        return None
    deleted, failures = 0, []
    for entry in entries:
        if is_stale(entry, ports, endpoints):
            if fault is not None:
                failures.append(fault)
                continue
            try:
                deleted += netlink.delete(entry)
            except OSError as error:
                failures.append(error.strerror or str(error))
    seconds = time.monotonic() - started
    values = {"ipFamily": "IPv4", "entriesDeleted": deleted, "took": go_duration(seconds)}
    if failures:
        text = f"error deleting conntrack entries, error: {failures[0]}"
        log.error("clear_failed", "Failed to clear all conntrack entries", text, **values)
    else:
        log.info("reconciled", "Finished reconciling conntrack entries", 4, **values)
    return Reconciled(deleted, seconds)
