"""What rules say a packet is sent to: networks, ports, `address:port`. Nothing is looked up.

Addresses come out in the form of `addresses`; a port is 0 to 65535.
"""

from __future__ import annotations

from functools import lru_cache

from kdnsctl.netfilter.addresses import MOST_REMEMBERED, shortest

address_of = lru_cache(maxsize=MOST_REMEMBERED)(shortest)
"""`shortest`, remembered: the addresses of a dump repeat."""


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
