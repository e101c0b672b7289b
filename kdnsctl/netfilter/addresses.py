"""Addresses in the one form in which they are compared: the shortest standard form (RFC 5952).

/proc/net/nf_conntrack prints IPv6 addresses in full, conntrack, iptables and the API server in short; a port is 0 to
65535. Nothing else about an address is known here, and nothing is looked up.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

LONGEST = 45  # bytes of an address in text, INET6_ADDRSTRLEN without its NUL
MOST_REMEMBERED = 50_000
"""Addresses whose form is remembered at a time; a table has more entries than clients."""


def shortest(address: str) -> str | None:
    """The address in its shortest form; None when it is none. Zones (`fe80::1%eth0`) are no part of an address here.

    IPv4 inside IPv6 (`::ffff:10.0.0.1`) stays what it is to the kernel, an IPv6 address, and is written as conntrack
    writes it, with dots (RFC 5952, section 5).
    """
    if len(address) > LONGEST or "%" in address:
        return None
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return f"::ffff:{parsed.ipv4_mapped}"
    return str(parsed)


class Addresses:
    """Remembers the shortest forms of addresses that were read, since working one out is slow."""

    def __init__(self) -> None:
        self._known: dict[bytes, str | None] = {}

    def shortest(self, address: bytes) -> str | None:
        """As `shortest`, from the bytes of a dump."""
        try:
            return self._known[address]
        except KeyError:
            pass
        if len(address) > LONGEST:
            return None
        found = shortest(address.decode("ascii", "replace"))
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[address] = found
        return found


@lru_cache(maxsize=65_536)
def address_of(text: str) -> str | None:
    """One IPv4 or IPv6 address, or None for anything else, such as a network or a range."""
    if len(text) > 45 or "%" in text:
        return None
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def host_of(network: str) -> str | None:
    """The address of `10.96.0.10/32` or `10.96.0.10`, None for a network with more than one address."""
    host, slash, length = network.partition("/")
    if slash and length != ("128" if ":" in host else "32"):
        return None
    return address_of(host)


def port_of(text: str) -> int | None:
    """A port, or None for anything else, such as a range."""
    if not (0 < len(text) <= 5 and text.isascii() and text.isdigit()):
        return None
    port = int(text)
    return port if port <= 65_535 else None


def host_and_port(text: str) -> tuple[str, int | None] | None:
    """`10.244.1.2:53`, `[fd00::a]:53`, or either without a port; None for ranges and for what is no address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port_text = rest[1:] if rest else None
    elif text.count(":") == 1:
        host, _, port_text = text.partition(":")
    else:
        host, port_text = text, None
    address = address_of(host)
    if address is None:
        return None
    if port_text is None:
        return address, None
    port = port_of(port_text)
    return (address, port) if port is not None else None


def family_of(address: str) -> int:
    """4 or 6, of an address or network."""
    return 6 if ":" in address else 4
