"""Other names and addresses for those in a bundle: the same for the same, everywhere, and as useful to a judgement.

Addresses keep their prefixes: two that share n leading bits share exactly n leading bits afterwards, so that pods of
one node, Service ranges and subnets stay what they are (the scheme of Crypto-PAn: Xu, Fan, Ammar, Moon, 2002, here
with HMAC-SHA-256). And they keep their roles: private, link-local, loopback and multicast ranges map onto themselves,
and nothing else maps into them. Names keep their kind and lose the rest.

Without the key nothing can be turned back, other than by who has both copies; with it everybody who has the key can
make the same pseudonyms again. Nothing is read or written here.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import ipaddress
import re
import uuid
from collections.abc import Iterable
from typing import Final

# What an address is must show: whether it is private, and what a node uses for itself. RFC 6890 and its updates.
ROLES_V4: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
ROLES_V6: Final = ("::/16", "fc00::/7", "fe80::/10", "ff00::/8")

# Nobody's in particular, and a judgement or its reader looks for them: they stay as they are, all of them.
KEPT: Final = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.20.10/32", "224.0.0.0/4", "240.0.0.0/4", "::/127", "ff00::/8",
)  # fmt: skip

# Names that every cluster has. What is called so says nothing of whose cluster it is.
COMMON: Final = frozenset(
    {
        "kube-system", "kube-public", "kube-node-lease", "default", "kubernetes", "kube-dns", "coredns", "kube-proxy",
        "node-local-dns", "dns", "dns-tcp", "metrics", "openshift-dns", "dns-default", "openshift-kube-proxy", "",
    }
)  # fmt: skip

_KEY_SIZE: Final = 16  # bytes at the least
_POD_SUFFIX: Final = re.compile(r"-[a-z0-9]{5}\Z|-[a-f0-9]{8,10}-[a-z0-9]{5}\Z")


class Pseudonyms:
    """One set of pseudonyms, made from one key. Safe to use from several threads: it holds nothing but caches."""

    def __init__(self, key: bytes) -> None:
        if len(key) < _KEY_SIZE:
            raise ValueError(f"a key has at least {_KEY_SIZE} bytes")
        self._key = key
        self._v4 = _Trie(key, 32, (*ROLES_V4, *map(str, _KEPT[4])))
        self._v6 = _Trie(key, 128, (*ROLES_V6, *map(str, _KEPT[6])))
        self.address = functools.lru_cache(maxsize=1 << 16)(self._address)

    def name(self, kind: str, name: str) -> str:
        """The pseudonym of a name of that kind (`node`, `pod`, `namespace`, `service`…): as a name of Kubernetes' is.

        What every cluster has keeps its name. Pods keep that they are one workload's: only what the workload is called
        changes, and the generated rest, which makes them unique, with it.
        """
        if name in COMMON:
            return name
        if kind == "pod" and (suffix := _POD_SUFFIX.search(name)):
            workload = name[: suffix.start()]
            return f"{self.name('workload', workload)}-{self._short('suffix', name)[:5]}"
        return f"{kind}-{self._short(kind, name)}"

    def uid(self, uid: str) -> str:
        """The pseudonym of a UID; still a UID."""
        return str(uuid.UUID(bytes=self._digest("uid", uid.lower())[:16], version=4))

    def token(self, text: str) -> str:
        """16 letters and digits for something that is neither, such as the hash in a chain's name. Base32, as there."""
        return base64.b32encode(self._digest("token", text))[:16].decode()

    def _address(self, text: str) -> str:
        """The pseudonym of an IPv4 or IPv6 address, in its short form. Raises ValueError for what is none."""
        address = ipaddress.ip_address(text)
        if any(address in network for network in _KEPT[address.version]):
            return str(address)
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped:
                return f"::ffff:{self.address(str(address.ipv4_mapped))}"
            return str(ipaddress.IPv6Address(self._v6.mapped(int(address))))
        return str(ipaddress.IPv4Address(self._v4.mapped(int(address))))

    def _short(self, kind: str, name: str) -> str:
        """Lower-case letters and digits: 40 bits, so that among a million names two alike are unlikely."""
        return base64.b32encode(self._digest(kind, name))[:8].decode().lower()

    def _digest(self, kind: str, name: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{name}".encode("utf-8", "surrogateescape"), "sha256")


_KEPT: Final = {
    version: tuple(network for network in map(ipaddress.ip_network, KEPT) if network.version == version)
    for version in (4, 6)
}


class _Trie:
    """A bijection of the addresses of one family that keeps prefixes, and the roles given as networks.

    At each bit the one that follows is flipped or not, as the key and the bits before say. On the ways to the networks
    of roles nothing is flipped, so each of them maps onto itself.
    """

    def __init__(self, key: bytes, bits: int, roles: Iterable[str]) -> None:
        self._key = hashlib.sha256(key + bits.to_bytes(1, "big")).digest()
        self._bits = bits
        self._fixed = frozenset(
            (length, int(network.network_address) >> (bits - length))
            for network in map(ipaddress.ip_network, roles)
            for length in range(network.prefixlen)
        )
        self._flips = functools.lru_cache(maxsize=1 << 16)(self._flips_of)

    def mapped(self, address: int) -> int:
        result = address
        for length in range(self._bits):
            prefix = address >> (self._bits - length)
            if (length, prefix) in self._fixed:
                continue
            block, place = length - length % 8, length % 8
            if self._flips(block, address >> (self._bits - block))[(prefix & ((1 << place) - 1)) + (1 << place)]:
                result ^= 1 << (self._bits - 1 - length)
        return result

    def _flips_of(self, length: int, prefix: int) -> tuple[bool, ...]:
        """Whether the next bit is flipped, for the up to 8 bits after a prefix: one bit for each place in a tree."""
        message = length.to_bytes(1, "big") + prefix.to_bytes(16, "big")
        digest = int.from_bytes(hmac.digest(self._key, message, "sha256"), "big")
        return tuple(bool(digest >> place & 1) for place in range(256))
