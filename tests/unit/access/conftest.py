from __future__ import annotations

from tests.unit.cluster.conftest import authority, connect_to, environment, kubeconfig, notes, silent_port, tls

__all__ = ["authority", "connect_to", "environment", "kubeconfig", "notes", "silent_port", "tls"]
