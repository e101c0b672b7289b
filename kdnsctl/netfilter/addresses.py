"""Addresses in the one form in which they are compared: the shortest standard form (RFC 5952).

/proc/net/nf_conntrack prints IPv6 addresses in full, conntrack and the API server in short; nothing else about an
address is known here.
"""

from __future__ import annotations

import ipaddress
import re

LONGEST = 45  # bytes of an address in text, INET6_ADDRSTRLEN without its NUL
MOST_REMEMBERED = 100_000
"""Addresses whose form is remembered at a time; a table has more entries than addresses."""


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


_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_PLAIN = re.compile(rb"(?:%b\.){3}%b\Z|((?:[0-9a-f]{4}:){7}[0-9a-f]{4})\Z" % (_OCTET, _OCTET))
"""Addresses as the kernel prints them: they need no further look to be known as such."""


class Addresses:
    """Remembers what is known of addresses that were read, since working it out is slow."""

    def __init__(self) -> None:
        self._known: dict[bytes, str | None] = {}
        self.families: dict[bytes, int] = {}
        """What `family` remembers, for who asks a million times and cannot afford a call."""

    def family(self, address: bytes) -> int:
        """4 or 6, and 0 for what is no address."""
        found = self.families.get(address)
        if found is None:
            if plain := _PLAIN.match(address):
                found = 6 if plain[1] else 4
            else:
                shortest_ = self.shortest(address)
                found = 0 if shortest_ is None else 6 if ":" in shortest_ else 4
            if len(self.families) >= MOST_REMEMBERED:
                self.families.clear()
            self.families[address] = found
        return found

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
