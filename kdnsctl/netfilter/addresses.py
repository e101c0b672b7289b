"""Addresses in the one form in which they are compared: the shortest standard form (RFC 5952).

/proc/net/nf_conntrack prints IPv6 addresses in full, conntrack and the API server in short; nothing else about an
address is known here.
"""

from __future__ import annotations

import ipaddress

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
