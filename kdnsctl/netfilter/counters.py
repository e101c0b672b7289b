"""How full a connection tracking table is, its timeouts, and what the kernel has counted: numbers by name.

Read from `conntrack -S` (two sets of keys: over netlink, and without the capability for it over /proc), from
/proc/net/stat/nf_conntrack and from the files of /proc/sys/net/netfilter. Counters are since boot, so one reading alone
says little; that, and whether a table is too full, is for others to say.
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
_SETTING = re.compile(r"(?:[A-Za-z0-9_./-]*[./])?([a-z][a-z0-9_]{0,63})(?::| *= *)([0-9]{1,20})")


@dataclass(frozen=True, slots=True)
class Counters:
    """`totals` are sums over all CPUs, named as `conntrack -S` names them; `entries` is the fill, where it was printed.

    `unreadable` counts lines that were no counters of a CPU: with any, the sums are too low.
    """

    cpus: int
    totals: Mapping[str, int]
    entries: int | None = None
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class TableNumbers:
    """The sysctls net.netfilter.nf_conntrack_*; timeouts in seconds. None is what was not there to read."""

    count: int | None = None
    maximum: int | None = None
    buckets: int | None = None
    udp_timeout: int | None = None
    udp_timeout_stream: int | None = None


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


def read_settings(output: bytes) -> dict[str, int]:
    """Whole numbers by the last part of their name.

    Lines are `PATH:NUMBER`, as `grep -H ''` prints them, or `NAME = NUMBER`, as sysctl does. Other
    lines, and settings that are no number, are passed over: who needs one finds that it is not there.
    """
    found = map(_SETTING.fullmatch, output.decode("ascii", "replace").splitlines())
    return {match[1]: int(match[2]) for match in found if match}


def read_number(content: bytes) -> int | None:
    """The number that is all of a file of /proc/sys, or None."""
    match = re.fullmatch(rb"\s*([0-9]{1,20})\s*", content)
    return int(match[1]) if match else None


def table_numbers(settings: Mapping[str, int]) -> TableNumbers:
    """The numbers of the table among settings, by the names of their files."""
    return TableNumbers(
        count=settings.get("nf_conntrack_count"),
        maximum=settings.get("nf_conntrack_max"),
        buckets=settings.get("nf_conntrack_buckets"),
        udp_timeout=settings.get("nf_conntrack_udp_timeout"),
        udp_timeout_stream=settings.get("nf_conntrack_udp_timeout_stream"),
    )
