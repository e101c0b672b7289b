"""A connection tracking table to read: as many entries as asked for, of the kinds that a busy node really holds.

As /proc/net/nf_conntrack prints it, the longest form: IPv4 and IPv6 (in full), UDP to Services, TCP, flows out to many
addresses of the world (each a key of its own) and in from many clients, and a little of what has no ports. Columns that
depend on sysctls, SELinux and offload are there for some and not for others. The same seed makes the same bytes.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLUSH = 10_000  # lines that are held before they are written
PODS = 200
CLIENTS = 50_000
WORLD = 20_000
SERVICES = 300


@dataclass(frozen=True, slots=True)
class Table:
    """What was written: which endpoints serve which Service address, as text of the table, and what is stale."""

    path: Path
    size: int
    entries: int
    stale: int
    serving: dict[tuple[str, int], tuple[tuple[str, int], ...]]


@dataclass(frozen=True, slots=True)
class _Family:
    head: str
    pods: tuple[str, ...]
    clients: tuple[str, ...]
    world: tuple[str, ...]
    node: str
    services: tuple[tuple[str, int], ...]
    serving: dict[tuple[str, int], tuple[tuple[str, int], ...]]
    dead: dict[tuple[str, int], tuple[tuple[str, int], ...]]


def write(path: Path, entries: int, share: float, seed: int) -> Table:
    """Write a table of `entries` lines; `share` (0 to 1) of them are stale."""
    random_ = random.Random(seed)
    families = (_family(4, random_), _family(6, random_))
    stale = 0
    size = 0
    with path.open("w", encoding="ascii", newline="\n") as file:
        lines = []
        for number in range(entries):
            is_stale = stale < share * (number + 1)
            stale += is_stale
            lines.append(_line(random_, families[random_.random() < 0.2], stale=is_stale))
            if len(lines) == FLUSH:
                size += file.write("".join(lines))
                lines.clear()
        size += file.write("".join(lines))
    return Table(path, size, entries, stale, families[0].serving | families[1].serving)


def _family(version: int, random_: random.Random) -> _Family:
    def some(network: str, count: int) -> tuple[str, ...]:
        base = ipaddress.ip_network(network)
        chosen = random_.sample(range(1, min(base.num_addresses, 1 << 24) - 1), count)
        return tuple(base[number].exploded for number in chosen)

    if version == 4:
        pods, clients, world = some("10.244.1.0/24", PODS), some("100.0.0.0/8", CLIENTS), some("52.0.0.0/8", WORLD)
        addresses, endpoints, node = some("10.96.0.0/12", SERVICES), some("10.244.0.0/16", 4 * SERVICES), "192.168.7.4"
    else:
        pods, clients, world = some("fd00:10:1::/64", PODS), some("2001:db8:1::/64", CLIENTS), some("2600::/32", WORLD)
        addresses, endpoints = some("fd00:20::/108", SERVICES), some("fd00:10:2::/64", 4 * SERVICES)
        node = ipaddress.ip_address("fd00:30::4").exploded
    serving: dict[tuple[str, int], tuple[tuple[str, int], ...]] = {}
    dead: dict[tuple[str, int], tuple[tuple[str, int], ...]] = {}
    for number, address in enumerate(addresses):
        service = (address, 53 if number < 3 else random_.randint(80, 9999))
        port = service[1] if number < 3 else 8080
        one, two, three, four = endpoints[4 * number : 4 * number + 4]
        serving[service] = ((one, port), (two, port))
        dead[service] = ((three, port), (four, port), (one, port + 1), (address, service[1]))
    head = "ipv4     2" if version == 4 else "ipv6     10"
    return _Family(head, pods, clients, world, node, tuple(serving), serving, dead)


def _line(random_: random.Random, family: _Family, *, stale: bool) -> str:
    kind = random_.random()
    if stale or kind < 0.55:
        service = random_.choice(family.services[:3] if random_.random() < 0.7 else family.services)
        backend = random_.choice((family.dead if stale else family.serving)[service])
        client = random_.choice(family.pods)
        return _print(random_, family, "udp", client, service, backend, client)
    if kind < 0.75:
        service = random_.choice(family.services)
        backend = random_.choice(family.serving[service])
        return _print(random_, family, "tcp", random_.choice(family.clients), service, backend, family.node)
    if kind < 0.98:
        there = (random_.choice(family.world), 443)
        return _print(random_, family, "tcp", random_.choice(family.pods), there, there, family.node)
    one, two = random_.choice(family.pods), random_.choice(family.world)
    return (
        f"{family.head} unknown  89 {random_.randint(1, 599)} src={one} dst={two} [UNREPLIED] src={two} dst={one} "
        "mark=0 zone=0 use=2\n"
    )


def _print(
    random_: random.Random,
    family: _Family,
    protocol: str,
    client: str,
    service: tuple[str, int],
    backend: tuple[str, int],
    answered: str,
) -> str:
    drawn = random_.getrandbits(40)
    port = 1024 + drawn % 64_512
    number = 17 if protocol == "udp" else 6
    seen = drawn >> 16 & 7
    counted = drawn >> 19 & 3 != 0
    there = f" packets={drawn & 63} bytes={drawn & 0xFFFF}" if counted else ""
    back = f" packets={drawn >> 20 & 63} bytes={drawn >> 20 & 0xFFFF}" if counted else ""
    if protocol == "tcp" and seen == 0:
        timer, after = "", " [OFFLOAD]"
    else:
        timer = f" {drawn % 120}" if protocol == "udp" else f" {drawn % 86_400} ESTABLISHED"
        after = " [ASSURED]" if seen > 2 else ""
    return (
        f"{family.head} {protocol:8} {number}{timer}"
        f" src={client} dst={service[0]} sport={port} dport={service[1]}{there}"
        f"{' [UNREPLIED]' if seen in (1, 2) else ''}"
        f" src={backend[0]} dst={answered} sport={backend[1]} dport={port}{back}{after}"
        f" mark={16384 if drawn & 1024 else 0}"
        f"{' secctx=system_u:object_r:unlabeled_t:s0' if drawn >> 22 & 7 == 0 else ''}"
        f" zone=0{f' delta-time={drawn >> 30 & 1023}' if counted else ''} use=2\n"
    )


def pairs(table: Table) -> Iterator[str]:
    """`ADDRESS PORT ENDPOINT PORT`, one a line, as both programs are told what serves what."""
    for (address, port), backends in table.serving.items():
        for backend, target in backends:
            yield f"{address} {port} {backend} {target}\n"
