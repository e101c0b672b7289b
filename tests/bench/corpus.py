"""Log files to scan: as large as asked for, in klog text, klog JSON and CRI, with as many hits as asked for.

A hit is a line that holds a phrase of the catalogue. Four nodes of each format; each file looks like a day of one
kube-proxy at -v=4. The same seed and catalogue make the same bytes.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.records import Failures, Record, noise_json, noise_text, start

NODES_PER_FORMAT = 4
FORMATS = ("text", "json", "cri")
FRAGMENT = 16 * 1024  # bytes at which a container runtime splits a line (containerd, Docker)
BEGIN = 1_793_836_800_000_000  # microseconds: 2026-11-05T00:00:00Z
STEP = 500_000  # microseconds between lines at most: a file of 50 MB then covers a day
FLUSH = 5_000  # lines that are held before they are written


@dataclass(slots=True)
class Written:
    """How often a node logged one signature; times in microseconds since 1970."""

    count: int = 0
    first: int = 0
    last: int = 0

    def add(self, moment: int) -> None:
        """Count one more, later than all before."""
        self.first = self.first or moment
        self.last = moment
        self.count += 1


@dataclass(slots=True)
class Corpus:
    """What was written. `hits` are lines with a phrase; `records` by node, catalogue id and Service."""

    files: list[Path] = field(default_factory=list)
    size: int = 0
    lines: int = 0
    hits: int = 0
    records: dict[tuple[str, str, str], Written] = field(default_factory=lambda: defaultdict(Written))


def write(directory: Path, size: int, share: float, seed: int, phrases: Sequence[str]) -> Corpus:
    """Write about `size` bytes into `directory`, of whose lines `share` (0 to 1) are hits."""
    corpus = Corpus()
    each = size // (len(FORMATS) * NODES_PER_FORMAT)
    for number, format_ in enumerate(sorted(FORMATS * NODES_PER_FORMAT, key=FORMATS.index), start=1):
        node = f"knode{number}"
        release = "v1.20.15" if format_ != "json" and number % NODES_PER_FORMAT == 0 else "v1.30.3"
        path = directory / _path(format_, node)
        path.parent.mkdir(parents=True, exist_ok=True)
        _Writer(corpus, format_, random.Random(f"{seed}/{node}"), phrases).write(path, each, share, node, release)
        corpus.files.append(path)
    return corpus


def _path(format_: str, node: str) -> str:
    if format_ == "cri":  # as /var/log/pods is copied from a node
        return f"{node}/var/log/pods/kube-system_kube-proxy-x7x2p_2f6b6a4e-0000-4000-8000-000000000000/kube-proxy/0.log"
    return f"{format_}/{node}.log"


class _Writer:
    """Writes one file."""

    def __init__(self, corpus: Corpus, format_: str, random_: random.Random, phrases: Sequence[str]) -> None:
        self._corpus = corpus
        self._format = format_
        self._random = random_
        self._phrases = phrases
        self._noise = (noise_json if format_ == "json" else noise_text)(phrases, random_)
        self._steps = [random_.randint(1, STEP) for _ in range(4099)]  # drawn once: drawing is slow
        self._now = BEGIN + random_.randint(0, 60_000_000)
        self._second = -1
        self._header = self._stamp = ""

    def write(self, path: Path, size: int, share: float, node: str, release: str) -> None:
        failures = Failures(self._random, structured=not release.startswith("v1.20."))
        lines: list[str] = []
        for record in start(node, release):
            lines += self._lines_of(record)
        hits = sum(any(phrase in line for phrase in self._phrases) for line in lines)
        count = 0
        written = 0
        steps = self._steps
        noise = self._noise
        with path.open("w", encoding="utf-8", newline="\n") as file:
            while written < size:
                while len(lines) < FLUSH:
                    if hits < share * (count + len(lines)):
                        for record in failures.burst():
                            lines += self._lines_of(record)
                            hits += 1
                            self._corpus.records[node, record.id, record.service].add(self._now)
                    drawn = self._random.getrandbits(30)
                    self._now += steps[drawn % 4099]
                    lines.append(self._noise_line(noise[drawn % len(noise)]))
                count += len(lines)
                text = "\n".join(lines) + "\n"
                written += len(text)
                file.write(text)
                lines.clear()
        self._corpus.size += written
        self._corpus.lines += count
        self._corpus.hits += hits

    def _noise_line(self, noise: str) -> str:
        if self._format == "json":
            return f'{{"ts":{self._json_time()},{noise}'
        severity, _, rest = noise.partition("|")
        line = self._klog(severity, rest)
        return line if self._format == "text" else self._cri(line)

    def _lines_of(self, record: Record) -> Iterator[str]:
        """The physical lines of a record, which begins a little later than the line before."""
        self._now += self._random.randint(20, 900)
        if self._format == "json":
            yield f'{{"ts":{self._json_time()},{record.json()}'
            return
        first, *rest = record.text().split("\n")
        first = self._klog(record.severity, f"{record.place.rpartition('/')[2]}] {first}")
        for line in (first, *rest):
            if self._format == "text":
                yield line
                continue
            for begin in range(0, len(line) - FRAGMENT, FRAGMENT):
                yield self._cri(line[begin : begin + FRAGMENT], "P")
            yield self._cri(line[(len(line) - 1) // FRAGMENT * FRAGMENT :])

    def _klog(self, severity: str, rest: str) -> str:
        self._tick()
        return f"{severity}{self._header}.{self._now % 1_000_000:06d}       1 {rest}"

    def _cri(self, line: str, tag: str = "F") -> str:
        return f"{self._stamp}.{self._now % 1_000_000:06d}417Z stderr {tag} {line}"

    def _tick(self) -> None:
        """Work out the time to the second only once a second."""
        second = self._now // 1_000_000
        if second != self._second:
            self._second = second
            moment = time.gmtime(second)
            self._header = time.strftime("%m%d %H:%M:%S", moment)
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", moment)

    def _json_time(self) -> str:
        return f"{self._now // 1000}.{self._now % 1000 * 10:04d}"
