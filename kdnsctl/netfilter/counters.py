"""What the kernel has counted of connection tracking: numbers by name.

Read from `conntrack -S` (two sets of keys: over netlink, and without the capability for it over /proc) and from
/proc/net/stat/nf_conntrack. Counters are since boot, so one reading alone says little; that is for others to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

MOST_NAMES = 64
"""Counters that are told apart; kernels have 17."""

# /proc has other names for three of them (kernel, net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show).
_NAMES = {"clashres": "clash_resolve", "chainlength": "chaintoolong", "icmp_error": "error"}
_LINE_OF_CPU = re.compile(r"cpu=[0-9]{1,6}\s+(.*)")
_COUNTER = re.compile(r"([a-z_]{1,32})=([0-9]{1,20})")
_NAME_AND_NUMBER = re.compile(r"([a-z_]{1,32})\s+([0-9]{1,20})")
_NAME = re.compile(r"[a-z_]{1,32}")
_HEXADECIMAL = re.compile(r"[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True)
class Counters:
    """`totals` are sums over all CPUs, named as `conntrack -S` names them; `entries` is the fill, where it was printed.

    `unreadable` counts lines that were no counters of a CPU: with any, the sums are too low.
    """

    cpus: int
    totals: Mapping[str, int]
    entries: int | None = None
    unreadable: int = 0


@dataclass(slots=True)
class _Sums:
    cpus: int = 0
    totals: dict[str, int] = field(default_factory=dict)
    entries: int | None = None
    unreadable: int = 0

    def add(self, counters: Iterable[tuple[str, int]]) -> None:
        """Add one CPU's line. Every line repeats how many entries there are in all."""
        self.cpus += 1
        for name, value in counters:
            known = _NAMES.get(name, name)
            if known == "entries":
                self.entries = value
            elif known in self.totals or len(self.totals) < MOST_NAMES:
                self.totals[known] = self.totals.get(known, 0) + value


def read_counters(dump: bytes) -> Counters | None:
    """The counters in a dump of any of the forms, or None when it is none of them."""
    lines = [line for text in dump.decode("ascii", "replace").splitlines() if (line := text.strip())]
    if not lines:
        return None
    sums = _Sums()
    first, *rest = lines
    if first.startswith("cpu="):
        _read(lines, _of_list, sums)
    elif _NAME_AND_NUMBER.fullmatch(first):
        _read_column(lines, sums)
    elif first.split()[0] == "entries" and all(map(_NAME.fullmatch, names := first.split())):
        _read(rest, lambda line: _of_table(names, line), sums)
    return Counters(sums.cpus, sums.totals, sums.entries, sums.unreadable) if sums.cpus else None


def _read(lines: Iterable[str], parse: Callable[[str], list[tuple[str, int]]], sums: _Sums) -> None:
    for line in lines:
        if counters := parse(line):
            sums.add(counters)
        else:
            sums.unreadable += 1


def _of_list(line: str) -> list[tuple[str, int]]:
    """One line of `conntrack -S`: `cpu=0 found=0 invalid=0 …`."""
    match = _LINE_OF_CPU.fullmatch(line)
    found = [_COUNTER.fullmatch(token) for token in match[1].split()] if match else []
    return [(counter[1], int(counter[2])) for counter in found if counter] if all(found) else []


def _of_table(names: list[str], line: str) -> list[tuple[str, int]]:
    """One line of /proc/net/stat/nf_conntrack: hexadecimal, and what each column is only the header tells."""
    values = line.split()
    if len(values) != len(names) or not all(map(_HEXADECIMAL.fullmatch, values)):
        return []
    return [(name, int(value, 16)) for name, value in zip(names, values, strict=True)]


def _read_column(lines: Iterable[str], sums: _Sums) -> None:
    """`conntrack -S` of old releases without netlink: one CPU only, and a name and a number on each line (1.4.2)."""
    found = [_NAME_AND_NUMBER.fullmatch(line) for line in lines]
    sums.add((match[1], int(match[2])) for match in found if match)
    sums.unreadable += found.count(None)
