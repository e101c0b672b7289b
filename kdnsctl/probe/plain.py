"""A place as plain data, for `-o json`."""

from __future__ import annotations

from typing import Any

from kdnsctl.cluster.dns import DnsService
from kdnsctl.model import Reason
from kdnsctl.probe import verdict
from kdnsctl.probe.measure import Measured, Place

PERCENTILES = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max"))


def place(one: Place) -> dict[str, Any]:
    """One place with its measurements. Times are in milliseconds."""
    return {
        **({"name": one.name} if one.name else {}),
        "via": one.via or None,
        "result": one.result.value,
        "message": one.message,
        "reason": _reason(one.problem),
        "findings": [
            {"result": found.result.value, "about": found.about, "message": found.message} for found in one.findings
        ],
        "measurements": [measurement(measured) for measured in one.measured],
    }


def measurement(one: Measured) -> dict[str, Any]:
    """One address, asked over one protocol, from fresh or from held ports."""
    told, batch, backend = one.told, one.target.batch, one.target.backend
    return {
        "target": one.target.kind.value,
        "service": one.target.service or None,
        "pod": backend.pod or None if backend else None,
        "podNode": backend.node or None if backend else None,
        "address": batch.address,
        "port": batch.port,
        "protocol": batch.over.value,
        "ports": "held" if batch.ports else "fresh",
        "planned": batch.count,
        "sent": told.sent,
        "answered": told.answered,
        "lost": told.lost,
        "unsent": told.unsent,
        "rcodes": {str(rcode): count for rcode, count in told.rcodes},
        "errors": dict(told.errors),
        "truncated": told.truncated,
        "edns": told.edns if batch.edns else None,
        "ms": {name: _rounded(told.percentile(share)) for share, name in PERCENTILES},
        "detects": _rounded(one.detects),
        "heldPorts": [
            {
                "port": port,
                "state": verdict.held_state(attempts).value,
                "sent": sum(not attempt.unsent for attempt in attempts),
                "answered": sum(attempt.answered for attempt in attempts),
            }
            for port, attempts in one.by_port().items()
        ],
        "reason": _reason(one.problem),
    }


def service(one: DnsService) -> dict[str, Any]:
    """What was to be asked."""
    return {
        "namespace": one.namespace,
        "name": one.name,
        "vips": list(one.vips),
        "backends": [
            {
                "address": backend.address,
                "port": backend.port,
                "protocol": backend.protocol,
                "pod": backend.pod or None,
                "node": backend.node or None,
            }
            for backend in one.backends
        ],
    }


def _reason(problem: Reason | None) -> dict[str, str] | None:
    return None if problem is None else {"code": problem.code, "message": problem.message}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
