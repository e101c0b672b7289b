"""What the API server itself checks before it asks a kubelet: the pod, the container, and what a kubelet's no becomes.

The texts are those of `api/log-*.json`; where nothing was recorded, those of Kubernetes 1.36,
pkg/registry/core/pod/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdnsctl.lab.api.exchange import Exchange
from kdnsctl.lab.kinds import PODS
from kdnsctl.lab.replies import JSON, Refused, bad_request
from kdnsctl.lab.runtime import ContainerNotRunning, PreviousNotFound, RuntimeRefusal


def pod_of(exchange: Exchange) -> JSON:
    """The pod of the request. Raises Refused (404)."""
    return exchange.backend.store.get(PODS, exchange.target.name, exchange.target.namespace)


def container_of(pod: Mapping[str, Any], asked: str) -> str:
    """The container asked for, or the only one there is. Raises Refused (400)."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    main = [container["name"] for container in spec.get("containers", [])]
    init = [container["name"] for container in spec.get("initContainers") or []]
    if not asked:
        if len(main) == 1:
            return str(main[0])
        choice = f"choose one of: [{' '.join(main)}]"
        if init:
            choice += f" or one of the init containers: [{' '.join(init)}]"
        raise bad_request(f"a container name must be specified for pod {name}, {choice}")
    if asked not in main + init:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def require_node(pod: Mapping[str, Any]) -> None:
    """Raises Refused (400) for a pod that no node runs."""
    name = pod["metadata"]["name"]
    if not pod["spec"].get("nodeName"):
        raise bad_request(f"pod {name} does not have a host assigned")


def refusal_of(error: RuntimeRefusal, pod: str, container: str) -> Refused:
    """The reply for what a kubelet refused before any stream began."""
    if isinstance(error, PreviousNotFound):
        return bad_request(f'previous terminated container "{container}" in pod "{pod}" not found')
    if isinstance(error, ContainerNotRunning):
        return bad_request(f'container "{container}" in pod "{pod}" is waiting to start: {error.reason}')
    # An error that is no API status passes through with its text alone.
    return Refused(500, None, str(error))
