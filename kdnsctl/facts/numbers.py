"""Connection tracking in numbers, from text: how full the table is, its timeouts, its counters. Pure.

Text that says nothing gives None, or nothing: who read it knows whether it was all there was.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from kdnsctl.diagnosis.evidence import Fill, Timeouts

GLOBAL: Final = "entries"  # each CPU's line repeats it (net/netfilter/nf_conntrack_standalone.c)

# As `grep -H` prints the files, and as sysctl prints the names.
_SETTING: Final = re.compile(rb"(?m)^(?:/proc/sys/)?net[/.]netfilter[/.](nf_conntrack_\w{1,60}) ?[:=] ?(\d{1,18})\r?$")
_PORTS: Final = re.compile(rb"\s*(?:net\.ipv4\.ip_local_port_range ?= ?)?(\d{1,5})\s+(\d{1,5})\s*\Z")
_PAIR: Final = re.compile(r"(\w+)=(\d{1,18})(?:\s|$)")
_HEX: Final = re.compile(r"[0-9a-f]{1,16}\Z")


def settings(data: bytes) -> dict[str, int]:
    """The settings of connection tracking by name, `nf_conntrack_max` for one."""
    return {name.decode(): int(value) for name, value in _SETTING.findall(data)}


def fill(data: bytes) -> Fill | None:
    """How full the table is; None without count and maximum."""
    known = settings(data)
    if "nf_conntrack_count" not in known or "nf_conntrack_max" not in known:
        return None
    return Fill(known["nf_conntrack_count"], known["nf_conntrack_max"], known.get("nf_conntrack_buckets"))


def timeouts(data: bytes) -> Timeouts | None:
    """The timeouts of UDP entries; None unless both are there."""
    known = settings(data)
    if "nf_conntrack_udp_timeout" not in known or "nf_conntrack_udp_timeout_stream" not in known:
        return None
    return Timeouts(known["nf_conntrack_udp_timeout"], known["nf_conntrack_udp_timeout_stream"])


def local_ports(data: bytes) -> int | None:
    """How many ports net.ipv4.ip_local_port_range has; None when it is not that."""
    match = _PORTS.match(data)
    if match is None:
        return None
    count = int(match[2]) - int(match[1]) + 1
    return count if count > 0 else None


def counters(data: bytes) -> Mapping[str, int] | None:
    """The counters since boot, summed over the CPUs; None for text that has none.

    From /proc/net/stat/nf_conntrack, in hexadecimal below a heading that differs between kernels, or from
    `conntrack -S`, as `name=value` in decimal.
    """
    lines = data.decode("ascii", "replace").splitlines()
    if lines and lines[0].split()[:1] == [GLOBAL]:
        return _of_columns(lines[0].split(), lines[1:])
    total: Counter[str] = Counter()
    for line in lines:
        if line.startswith("cpu="):
            total.update({name: int(value) for name, value in _PAIR.findall(line) if name != "cpu"})
    return dict(total) or None


def _of_columns(names: list[str], lines: list[str]) -> Mapping[str, int] | None:
    total: Counter[str] = Counter()
    entries = 0
    read = 0
    for line in lines:
        values = line.split()
        if len(values) != len(names) or not all(_HEX.match(value) for value in values):
            continue
        row = {name: int(value, 16) for name, value in zip(names, values, strict=True)}
        entries = row[GLOBAL]
        total.update(row)
        read += 1
    return {**total, GLOBAL: entries} if read else None
