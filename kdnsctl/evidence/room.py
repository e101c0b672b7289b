"""Whether a disk has room for what is about to be collected: an estimate from above, made before anything is written.

A table can have as many entries as kube-proxy allows it, which follows from the node's CPUs. Most are far from full, so
too little room for all of it is told and no reason to stop: what does not fit is a gap, and the bundle says so. Where
not even the records of a bundle fit, there is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from kdnsctl.cluster.objects import Node
from kdnsctl.model import RefusedError

PER_CORE: Final = 32 * 1024  # entries: kube-proxy's --conntrack-max-per-core, by default
AT_LEAST: Final = 128 * 1024  # entries: its --conntrack-min, by default
PER_ENTRY: Final = 34  # bytes of an entry, packed at level 1, at the most that was measured
READ: Final = 2  # times that the table is read
REST: Final = 4 << 20  # bytes of a node's rules, logs and small files, packed
NEEDED: Final = 1 << 20  # bytes below which nothing of use can be written
CPUS: Final = 8  # of a node that does not say how many it has


def most_of(nodes: Iterable[Node | None]) -> int:
    """Bytes that the evidence of these nodes can have; None: a node of which nothing is known."""
    return sum(READ * PER_ENTRY * max(AT_LEAST, PER_CORE * _cpus(node)) + REST for node in nodes)


def check_room(directory: Path, most: int, *, free: Callable[[Path], int] | None = None) -> str:
    """What to tell of the room in `directory`, which need not be there yet; "" when it is enough for `most` bytes.

    Raises RefusedError when there is none.
    """
    left = (free or free_bytes)(directory)
    if left < NEEDED:
        raise RefusedError(
            f"there is no room in {directory}: {_size(left)} are free; nothing was collected",
            hint="name a directory on another disk with -O DIR",
        )
    if left >= most:
        return ""
    return (
        f"{directory} has {_size(left)} free, and full tables would take {_size(most)}: what does not fit will be "
        "missing, and said to be. Name a directory on a larger disk with -O DIR."
    )


def free_bytes(directory: Path) -> int:
    """Bytes that may be written where a directory is, or is going to be."""
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        status = os.statvfs(place)
    except OSError as error:
        raise RefusedError(f"{directory} cannot be used: {error.strerror}; nothing was collected") from error
    return status.f_bavail * status.f_frsize


def _cpus(node: Node | None) -> int:
    said = str(node.status.capacity.get("cpu", "")) if node is not None else ""
    return min(int(said), 1024) if said.isascii() and said.isdigit() else CPUS


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"
