"""What a fuzz target is, and what its check can use."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

RECORDINGS = Path(__file__).parents[1] / "recordings"


@dataclass(frozen=True, slots=True)
class Target:
    """A parser to fuzz.

    `check` gets an input, and random numbers for all else that it needs. It raises when something is not as it must be
    for any input whatever; that the parser raises is a failure too.
    """

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes, random.Random], None]


def recorded(*patterns: str, lines: int | None = None) -> tuple[bytes, ...]:
    """The recordings that match, of each no more than so many lines: short inputs are tried more often."""
    paths = sorted(path for pattern in patterns for path in RECORDINGS.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"no recording matches {patterns}")
    return tuple(b"".join(path.read_bytes().splitlines(keepends=True)[:lines]) for path in paths)


def in_blocks(data: bytes, random_: random.Random) -> Iterable[bytes]:
    """The bytes in blocks of any size, also empty ones."""
    position = 0
    while position < len(data):
        size = random_.choice([0, 1, 7, 100, 4_096, 70_000])
        yield data[position : position + size]
        position += size
