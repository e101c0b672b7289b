"""Connection tracking in numbers, from text: how full the table is, its timeouts, its counters. Pure.

Text that says nothing gives None, or nothing: who read it knows whether it was all there was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kdnsctl.diagnosis.evidence import Fill, Timeouts
from kdnsctl.netfilter.counters import read_counters

GLOBAL: Final = "entries"  # not a counter: how many there are now

# As `grep -H` prints the files, and as sysctl prints the names.
_SETTING: Final = re.compile(rb"(?m)^(?:/proc/sys/)?net[/.]netfilter[/.](nf_conntrack_\w{1,60}) ?[:=] ?(\d{1,18})\r?$")
_PORTS: Final = re.compile(rb"\s*(?:net\.ipv4\.ip_local_port_range ?= ?)?(\d{1,5})\s+(\d{1,5})\s*\Z")


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


def local_ports(data: bytes) -> tuple[int, int] | None:
    """The first and the last port of net.ipv4.ip_local_port_range; None when it is not that."""
    match = _PORTS.match(data)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    return (first, last) if first <= last else None


def counters(data: bytes) -> Mapping[str, int] | None:
    """The counters since boot, summed over the CPUs and named as `conntrack -S` names them, with `entries`, the fill.

    None for text that has none. Lines that were cut off count for nothing.
    """
    read = read_counters(data)
    if read is None:
        return None
    return read.totals if read.entries is None else {**read.totals, GLOBAL: read.entries}
