"""Readiness probes: one HTTP request or one connection to the pod, from the calling thread's network namespace."""

from __future__ import annotations

import http.client
import socket

from kdnsctl.lab.kubeclient import JSON


def probe(spec: JSON, container: JSON, address: str) -> bool:
    """Whether the probe succeeds. exec and gRPC probes are not known and count as failed."""
    timeout = float(spec.get("timeoutSeconds") or 1)
    if "httpGet" in spec:
        target = spec["httpGet"]
        link = http.client.HTTPConnection(
            target.get("host") or address, _port(target["port"], container), timeout=timeout
        )
        try:
            link.request("GET", target.get("path") or "/", headers={"User-Agent": "kube-probe/lab"})
            return 200 <= link.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            link.close()
    if "tcpSocket" in spec:
        try:
            with socket.create_connection((address, _port(spec["tcpSocket"]["port"], container)), timeout):
                return True
        except OSError:
            return False
    return False


def _port(value: int | str, container: JSON) -> int:
    if isinstance(value, int) or value.isdigit():
        return int(value)
    return next((int(each["containerPort"]) for each in container.get("ports") or () if each.get("name") == value), 0)
