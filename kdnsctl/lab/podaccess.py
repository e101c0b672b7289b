"""How a stand-in inside a pod finds the API and its credentials: the files and variables a kubelet gives every pod."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kdnsctl.lab.kubeclient import Access

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def in_cluster_access(env: Mapping[str, str]) -> Access:
    """The pod's own way to the API. Raises OSError when the token was not mounted."""
    host = env.get("KUBERNETES_SERVICE_HOST", "10.88.0.1")
    port = env.get("KUBERNETES_SERVICE_PORT", "6443")
    return Access(f"https://{host}:{port}", str(ACCOUNT / "ca.crt"), (ACCOUNT / "token").read_text(encoding="ascii"))
