"""Reading a connection tracking table and judging it, beside a tokenising mawk program with the same definition.

The table is written, read once to warm the page cache, read by both in turns, and removed. The figures are the minimum
of the rounds. Memory is sampled in a run of its own, which is not timed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import tables
from tests.bench.measuring import measure
from tests.bench.scanning import warm_cache

ROOT = Path(__file__).parents[2]
PEER = Path(__file__).parent / "peers" / "stale_entries.awk"
SHARE = 0.01
SEED = 20261128


@dataclass(frozen=True, slots=True)
class TableRun:
    """One table, times in seconds, sizes in bytes. `agrees`: both found exactly what was written, and nothing else."""

    share: float
    size: int
    entries: int
    stale: int
    wall: float
    cpu: float
    peer_wall: float
    peer_cpu: float
    anonymous: int
    agrees: bool

    @property
    def wall_ratio(self) -> float:
        """How many times as long as mawk, by the wall."""
        return self.wall / self.peer_wall

    @property
    def cpu_ratio(self) -> float:
        """How many times the CPU time of mawk."""
        return self.cpu / self.peer_cpu


def run(entries: int, *, rounds: int, under: str | None, tell: Callable[[str], None]) -> TableRun:
    """Measure a table of so many entries, written into a temporary directory under `under` (None: the system's)."""
    with tempfile.TemporaryDirectory(prefix="kdnsctl-bench-", dir=under) as directory:
        tell(f"writing a table of {entries:,} entries into {directory}")
        table = tables.write(Path(directory) / "nf_conntrack", entries, SHARE, SEED)
        serving = Path(directory) / "serving"
        serving.write_text("".join(tables.pairs(table)), encoding="ascii")
        ours = [sys.executable, "-m", "tests.bench.judge_table", str(serving), str(table.path)]
        peers = ["mawk", "-f", str(PEER), str(serving), str(table.path)]
        environment = {"PYTHONPATH": str(ROOT), "LC_ALL": "C"}
        expected = f"{table.stale} {table.entries} 0\n".encode()
        warm_cache([table.path])
        wall = cpu = peer_wall = peer_cpu = float("inf")
        agrees = True
        for number in range(1, rounds + 1):
            tell(f"round {number} of {rounds}")
            peer = measure(peers, environment=environment)
            peer_wall, peer_cpu = min(peer_wall, peer.wall), min(peer_cpu, peer.cpu)
            own = measure(ours, environment=environment)
            wall, cpu = min(wall, own.wall), min(cpu, own.cpu)
            agrees &= peer.output == own.output == expected
        anonymous = measure(ours, environment=environment, sample=True).anonymous
    return TableRun(SHARE, table.size, table.entries, table.stale, wall, cpu, peer_wall, peer_cpu, anonymous, agrees)
