"""Counts the stale entries of a table with kdnsctl's reader, for the bench; what the awk program beside it counts.

    python -m tests.bench.count_stale SERVING TABLE

Prints STALE ENTRIES UNREADABLE. The definition is the bench's own, a set of keys, so that reading is what is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from kdnsctl.netfilter.addresses import shortest
from kdnsctl.netfilter.conntrack import ConntrackReader
from kdnsctl.netfilter.entries import Key

BLOCK = 256 * 1024


def main(arguments: Sequence[str]) -> None:
    services: dict[tuple[str | None, int | None], set[tuple[str | None, int | None]]] = {}
    for line in Path(arguments[0]).read_text(encoding="ascii").splitlines():
        address, port, endpoint, target = line.split()
        services.setdefault((shortest(address), int(port)), set()).add((shortest(endpoint), int(target)))

    def stale(key: Key) -> bool:
        serving = services.get((key.destination, key.destination_port))
        return (
            key.protocol == "udp" and serving is not None and (key.reply_source, key.reply_source_port) not in serving
        )

    reader = ConntrackReader(stale)
    found = 0
    with Path(arguments[1]).open("rb") as table:
        while block := table.read(BLOCK):
            found += len(reader.feed(block))
    summary = reader.finish()
    print(found + len(summary.last), summary.entries, summary.unreadable)


if __name__ == "__main__":
    main(sys.argv[1:])
