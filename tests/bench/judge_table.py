"""Reads a connection tracking table and judges it, as analyze does, for the bench.

    python -m tests.bench.judge_table SERVING TABLE

SERVING has lines `ADDRESS PORT ENDPOINT PORT`. Prints STALE ENTRIES UNREADABLE, as the awk program beside it does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kdnsctl.diagnosis.evidence import Evidence, Terms
from kdnsctl.diagnosis.flows import Collector
from kdnsctl.diagnosis.index import Index
from kdnsctl.diagnosis.stale import stale_groups
from kdnsctl.diagnosis.truth import Backend, ServicePort, Truth
from kdnsctl.netfilter.addresses import shortest
from kdnsctl.netfilter.conntrack import ConntrackReader

BLOCK = 256 * 1024


def truth_of(serving: Path) -> Truth:
    """One Service for each address and port, of UDP and of TCP."""
    backends: dict[tuple[str, int], list[Backend]] = {}
    for line in serving.read_text(encoding="ascii").splitlines():
        address, port, endpoint, target = line.split()
        place = (shortest(address) or address, int(port))
        backends.setdefault(place, []).append(Backend(shortest(endpoint) or endpoint, int(target)))
    return Truth(
        services=tuple(
            ServicePort("bench", f"service-{number}", protocol, protocol, port, (address,), backends=tuple(endpoints))
            for number, ((address, port), endpoints) in enumerate(backends.items())
            for protocol in ("udp", "tcp")
        )
    )


def main(arguments: Sequence[str]) -> None:
    truth = truth_of(Path(arguments[0]))
    index = Index(truth)
    reader, collector = ConntrackReader(index.wanted), Collector()
    with Path(arguments[1]).open("rb") as table:
        while block := table.read(BLOCK):
            for entry in reader.feed(block):
                collector.add(entry)
    summary = reader.finish()
    for entry in summary.last:
        collector.add(entry)
    evidence = Evidence(conntrack=collector.reading(summary.completeness, entries=summary.entries))
    stale = sum(group.count for group in stale_groups(evidence, truth, Terms(), index) if group.counts)
    print(stale, summary.entries, summary.unreadable)


if __name__ == "__main__":
    main(sys.argv[1:])
