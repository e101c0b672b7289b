"""What the cluster says is true at a moment: Services, their serving endpoints, pods and nodes by address.

Nothing is read from an API here; `find` fills these records from lists and watches, or from files. Endpoints that
terminate but still serve are alive (kube-proxy keeps them too).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PodRef:
    """A pod by name, and the node it is on."""

    namespace: str
    name: str
    node: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One serving endpoint of a Service's port: address and target port."""

    address: str
    port: int
    node: str = ""
    pod: PodRef | None = None
    terminating: bool = False


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service with everything flows can be sent to, and the endpoints that serve it.

    `addresses` are ClusterIPs, external IPs and load-balancer IPs, each in its shortest form (RFC 5952), without those
    of load balancers with `ipMode: Proxy`, which kube-proxy does not program; `node_port` is 0 when there is none.
    `protocol` is lower case. `local_only` when a traffic policy or topology may leave endpoints out.
    """

    namespace: str
    name: str
    port_name: str
    protocol: str
    port: int
    addresses: tuple[str, ...] = ()
    node_port: int = 0
    backends: tuple[Backend, ...] = ()
    local_only: bool = False

    def __str__(self) -> str:
        """As kube-proxy spells it: NAMESPACE/NAME:PORT."""
        return f"{self.namespace}/{self.name}:{self.port_name}" if self.port_name else f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Truth:
    """Services and endpoints as they were at `at`; None when the time is not known.

    `gone` has, for a (Service port, address, port) that served earlier, since when it does not: known only from a
    watch, which began at `since` (None: there was none), so that what does not serve and is not in `gone` has not
    served since then at least. `unchanged` has, by NAMESPACE/NAME of a Service, since when none of its endpoints has
    come or gone, where that is known. Times are by the clock that readings are timed by. `pods` are by address and
    leave out those on the host's network. `nodes` are the addresses of all nodes by name. `service_ranges` are CIDRs
    of ClusterIPs where known. `others` are the addresses of Services that kube-proxy leaves to somebody: nothing is
    said of flows to them. `services_known` and `endpoints_known` are False when the list is missing: then nothing
    may be concluded from an absence.
    """

    services: tuple[ServicePort, ...] = ()
    pods: Mapping[str, PodRef] = field(default_factory=dict)
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    service_ranges: tuple[str, ...] = ()
    at: datetime | None = None
    gone: Mapping[tuple[str, str, int], datetime] = field(default_factory=dict)
    services_known: bool = True
    endpoints_known: bool = True
    since: datetime | None = None
    unchanged: Mapping[str, datetime] = field(default_factory=dict)
    others: frozenset[str] = frozenset()
