"""Reading dumps in tests, in any blocks, and the recordings."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from kdnsctl.netfilter.conntrack import ConntrackReader, Summary, everything
from kdnsctl.netfilter.entries import Entry, Wanted
from kdnsctl.netfilter.trailer import Trailer

RECORDINGS = Path(__file__).parents[2] / "recordings"
NODE = RECORDINGS / "node"
FORMS = RECORDINGS / "conntrack"


def read(
    dump: bytes | Iterable[bytes],
    *,
    wanted: Wanted = everything,
    errors: bytes = b"",
    trailer: Trailer | None = None,
) -> tuple[list[Entry], Summary]:
    """All wanted entries of a dump, also the last, and the summary without it."""
    reader = ConntrackReader(wanted)
    entries = [entry for block in ([dump] if isinstance(dump, bytes) else dump) for entry in reader.feed(block)]
    summary = reader.finish(errors=errors, trailer=trailer)
    return [*entries, *summary.last], replace(summary, last=())


def blocks(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]
