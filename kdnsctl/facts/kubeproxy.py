"""Facts that kube-proxy tells of itself over HTTP on the node's loopback address: mode, health, metrics."""

from __future__ import annotations

from typing import Final

from kdnsctl.model import Endpoint, Fact, Privilege, Proof

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
# Its configuration as it came to be; the group names it (cmd/kube-proxy/app/server.go, configz).
CONFIG: Final = _endpoint("config", "kube-proxy's configuration", METRICS_PORT, "/configz", 256 << 10)
METRICS: Final = _endpoint("metrics", "kube-proxy's metrics", METRICS_PORT, "/metrics", 16 << 20)
