"""Scanning: find-affected over a large mix of logs, beside GNU grep looking for the same phrases in the same files.

Each variant is written, read once to warm the page cache, measured in turns, and removed. The figures are the minimum
of the rounds. Memory is sampled in a run of its own, which is not timed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kdnsctl.logs.signatures import BY_ID, PHRASES, Kind
from tests.bench import corpus
from tests.bench.measuring import RunError, measure
from tests.bench.peers import grep_phrases
from tests.bench.startup import console_script

SHARES = (0.001, 0.05)
ROUNDS = 5
SEED = 20261123
DNS = "kube-system/kube-dns"

Found = dict[tuple[str, str], tuple[int, str, str]]
"""By node and signature: count, first and last time. Other Services are counted together, as "others"."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One variant of the mix, times in seconds, sizes in bytes. `agrees`: both found exactly what was written.

    Of grep that is the number of lines; of kdnsctl, for each node and signature, the count and the first and last time.
    """

    share: float
    size: int
    lines: int
    hits: int
    wall: float
    cpu: float
    peer_wall: float
    peer_cpu: float
    anonymous: int
    agrees: bool

    @property
    def wall_ratio(self) -> float:
        """How many times as long as grep, by the wall."""
        return self.wall / self.peer_wall

    @property
    def cpu_ratio(self) -> float:
        """How many times the CPU time of grep."""
        return self.cpu / self.peer_cpu


def run(
    size: int, *, rounds: int = ROUNDS, shares: Sequence[float] = SHARES, under: str | None, tell: Callable[[str], None]
) -> list[Scan]:
    """Measure each variant of `size` bytes, written into a temporary directory under `under` (None: the system's)."""
    scans = []
    for share in shares:
        with tempfile.TemporaryDirectory(prefix="kdnsctl-bench-", dir=under) as directory:
            tell(f"writing {size / 1e6:.0f} MB with {share:.1%} hits into {directory}")
            scans.append(_scan(Path(directory), size, share, rounds, tell))
    return scans


def _scan(directory: Path, size: int, share: float, rounds: int, tell: Callable[[str], None]) -> Scan:
    written = corpus.write(directory / "logs", size, share, SEED, PHRASES)
    phrases = grep_phrases.write_phrases(directory / "phrases")
    ours = [console_script(), "find-affected", "-o", "json", "--logs", *map(str, written.files)]
    peers = grep_phrases.command(phrases, written.files)
    warm_cache(written.files)

    wall = cpu = peer_wall = peer_cpu = float("inf")
    agrees = True
    for number in range(1, rounds + 1):
        tell(f"round {number} of {rounds}")
        peer = measure(peers, environment=grep_phrases.ENVIRONMENT)
        peer_wall, peer_cpu = min(peer_wall, peer.wall), min(peer_cpu, peer.cpu)
        own = measure(ours, exit_codes=[3])  # 3: suspect nodes were found
        wall, cpu = min(wall, own.wall), min(cpu, own.cpu)
        agrees &= counted_by_grep(peer.output) == written.hits
        agrees &= found_by_us(own.output) == expected(written)
    sampled = measure(ours, exit_codes=[3], sample=True)
    return Scan(
        share, written.size, written.lines, written.hits, wall, cpu, peer_wall, peer_cpu, sampled.anonymous, agrees
    )


def warm_cache(files: Sequence[Path]) -> None:
    """Read the files once, so that no round waits for the disk."""
    for path in files:
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def counted_by_grep(output: bytes) -> int:
    """The sum of grep's `FILE:COUNT` lines."""
    return sum(int(line.rpartition(b":")[2]) for line in output.splitlines())


def found_by_us(output: bytes) -> Found:
    """What a FindReport says of failures of the DNS Service, and how many of other Services it counts."""
    found: Found = {}
    try:
        for node in json.loads(output)["nodes"]:
            for signature in node["signatures"]:
                times = signature["firstSeen"], signature["lastSeen"]
                found[node["name"], signature["id"]] = signature["count"], *times
            found[node["name"], "others"] = sum(node["otherServices"].values()), "", ""
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"find-affected printed no FindReport: {error!r}") from error
    return found


def expected(written: corpus.Corpus) -> Found:
    """What `found_by_us` should be."""
    found: Found = {}
    for (node, id_, service), record in written.records.items():
        found.setdefault((node, "others"), (0, "", ""))
        if BY_ID[id_].kind is not Kind.FAILURE:
            continue
        if service in ("", DNS):
            found[node, id_] = record.count, _moment(record.first), _moment(record.last)
        else:
            found[node, "others"] = found[node, "others"][0] + record.count, "", ""
    return found


def _moment(microseconds: int) -> str:
    return f"{datetime.fromtimestamp(microseconds // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}Z"
