"""The model of Services on a node: address and port → chain → endpoints, whichever program wrote the rules.

iptables, nftables and ipvs dumps are all brought into this shape by their parsers; nothing is parsed or judged here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kdnsctl.model import Reason
from kdnsctl.netfilter.dump import Completeness


class Mode(enum.StrEnum):
    """How kube-proxy programs Services, in its own words (kube-proxy's /proxyMode)."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"
    IPVS = "ipvs"


class Backing(enum.StrEnum):
    """Which of the kernel's two iptables holds the rules; for nftables and ipvs there is only one."""

    NFT = "nf_tables"
    LEGACY = "legacy"
    NATIVE = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule sends a flow. `probability` is of this target alone, of all flows that reach the Service's rules
    (0 to 1), None where the rules do not say. `chain` is the endpoint's chain, "" where it has none. `weight` is ipvs'.
    `packets` counts first packets of flows only, None without counters.
    """

    address: str
    port: int | None
    probability: float | None = None
    chain: str = ""
    weight: int | None = None
    packets: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """What happens to flows to one address and port.

    `address` is None for a NodePort (any address of the node). `service` is what comment or chain name say, as
    kube-proxy spells it ("kube-system/kube-dns:dns"), "" when they say nothing: large clusters have no comments
    (proxier.go largeClusterMode), so nothing may depend on it. `rejected` is set when flows are refused or dropped
    instead. `problems` has what about these rules could not be read or does not fit together.
    """

    protocol: str
    port: int
    address: str | None = None
    chain: str = ""
    service: str = ""
    targets: tuple[Target, ...] = ()
    rejected: bool = False
    affinity: bool = False
    problems: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeRules:
    """All Service rules of one dump: one backend of one address family.

    `family` is 4 or 6, None when the dump does not tell. `unreachable` are endpoint chains that no packet can reach;
    `jumps` the hooks (`PREROUTING`, `OUTPUT`) from which the Services' chain is reached, `obstacles` what stands before
    such a jump and can take packets away. `canary` and `hint` tell that kube-proxy's, or the kubelet's, own marks are
    there. `notrack` are the addresses that raw rules exempt from connection tracking (node-local-dns).
    """

    mode: Mode
    completeness: Completeness
    backing: Backing = Backing.NATIVE
    family: int | None = None
    services: tuple[ServiceRules, ...] = ()
    unreachable: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    canary: bool = False
    hint: bool = False
    notrack: tuple[str, ...] = ()
    problems: tuple[Reason, ...] = ()
