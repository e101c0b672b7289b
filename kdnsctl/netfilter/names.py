"""The names that kube-proxy gives its chains, computed from what they are for. Nothing is parsed here.

Large clusters have no comments in their rules (kube-proxy's iptables/proxier.go, largeClusterMode), so the name of a
chain is the only thing that says which Service it belongs to. A Service port is named as kube-proxy does,
`namespace/service:port`, or `namespace/service` when the port has no name. Protocols are lower case in the hash.
Sources: pkg/proxy/iptables/proxier.go, the same from 1.9 to 1.36; pkg/proxy/nftables/proxier.go, 1.29 to 1.36.
"""

from __future__ import annotations

import base64
import hashlib

ENDPOINT = "KUBE-SEP-"
SERVICE_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-")
"""All endpoints · the node's own · traffic from outside · load-balancer source ranges · outside, before 1.24."""

NFT_ENDPOINT = "endpoint-"
NFT_SERVICE_PREFIXES = ("service-", "local-", "external-", "firewall-")
NFT_LONGEST = 240  # characters after the prefix; longer names are cut and end in "..." (hashAndTruncate)


def _hash(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode("utf-8", "replace")).digest()).decode()[:length]


def host_port(address: str, port: int) -> str:
    """`address:port`, with brackets around IPv6, as Go's net.JoinHostPort writes it."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def service_hash(service: str, protocol: str) -> str:
    """The 16 characters that end the name of every iptables chain of a Service port, whatever its prefix."""
    return _hash(service + protocol.lower(), 16)


def service_chain(service: str, protocol: str) -> str:
    """The chain of all endpoints: kube-system/kube-dns:dns, udp → KUBE-SVC-TCOU7JCQXEZGVUNU."""
    return "KUBE-SVC-" + service_hash(service, protocol)


def local_chain(service: str, protocol: str) -> str:
    """The chain of the endpoints on the node itself, for Services with a Local traffic policy."""
    return "KUBE-SVL-" + service_hash(service, protocol)


def external_chain(service: str, protocol: str) -> str:
    """The chain that NodePorts, external and load-balancer addresses lead to."""
    return "KUBE-EXT-" + service_hash(service, protocol)


def firewall_chain(service: str, protocol: str) -> str:
    """The chain that holds load-balancer source ranges."""
    return "KUBE-FW-" + service_hash(service, protocol)


def endpoint_chain(service: str, protocol: str, address: str, port: int) -> str:
    """The chain of one endpoint: with 10.244.1.5 and 53, kube-dns:dns-tcp's is KUBE-SEP-CEYPGFB7VCORONY3."""
    return ENDPOINT + _hash(service + protocol.lower() + host_port(address, port), 16)


def _nft_path(service: str, protocol: str) -> str:
    name, _, port = service.partition(":")
    return f"{name}/{protocol.lower()}/{port}"


def _nft_name(prefix: str, path: str) -> str:
    name = f"{_hash(path, 8)}-{path}"
    return prefix + (name if len(name) <= NFT_LONGEST else name[: NFT_LONGEST - 3] + "...")


def nft_service_chain(service: str, protocol: str, prefix: str = "service-") -> str:
    """A Service port's chain in nftables mode; `prefix` is one of NFT_SERVICE_PREFIXES.

    kube-system/kube-dns:dns, udp → service-FY5PMXPG-kube-system/kube-dns/udp/dns.
    """
    return _nft_name(prefix, _nft_path(service, protocol))


def nft_endpoint_chain(service: str, protocol: str, address: str, port: int) -> str:
    """The chain of one endpoint in nftables mode; colons of IPv6 become dots."""
    return _nft_name(NFT_ENDPOINT, f"{_nft_path(service, protocol)}__{address.replace(':', '.')}/{port}")


def service_of_nft_chain(chain: str) -> str:
    """The Service port that a chain's name tells, "" when the name is cut off, or is none of kube-proxy's."""
    for prefix in NFT_SERVICE_PREFIXES:
        if chain.startswith(prefix):
            path = chain[len(prefix) + 9 :]
            parts = path.split("/")
            if len(parts) != 4 or chain.endswith("..."):
                return ""
            namespace, name, _, port = parts
            return f"{namespace}/{name}:{port}" if port else f"{namespace}/{name}"
    return ""


def nft_chain_is_genuine(chain: str) -> bool:
    """Whether the hash in a chain's name is that of the rest of the name; a name that was cut off passes."""
    prefix, _, rest = chain.partition("-")
    given, _, path = rest.partition("-")
    return path.endswith("...") or _nft_name(f"{prefix}-", path) == chain or not given
