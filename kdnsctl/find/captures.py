"""Bundles hold several captures; one of them is what counts: the latest. Told by names alone; nothing is opened.

A node's tables can only be judged by what was true when they were read, so captures are never mixed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

JOURNAL: Final = "journal.jsonl"
_OWN: Final = re.compile(r"(?:manifest\.json|SHA256SUMS|journal\.jsonl|cluster/\d{2,}/endpointslices-watch\.jsonl)\Z")
_CAPTURE: Final = re.compile(r"(?:cluster|nodes/[^/]+)/(\d{2,})/[^/]+\Z")


def latest_captures(arguments: Iterable[str]) -> dict[str, int]:
    """The number of the latest capture of every bundle that is a directory among `arguments`, by that argument."""
    found: dict[str, int] = {}
    for argument in arguments:
        place = Path(argument)
        if (place / JOURNAL).is_file():
            folders = [*place.glob("cluster/[0-9]*"), *place.glob("nodes/*/[0-9]*")]
            numbers = [int(folder.name) for folder in folders if folder.name.isdigit()]
            if numbers:
                found[argument] = max(numbers)
    return found


def is_earlier(path: str, latest: Mapping[str, int]) -> bool:
    """Whether a file is of a capture before the latest one of its bundle."""
    for inside, number in _inside(path, latest):
        match = _CAPTURE.fullmatch(inside)
        if match is not None and int(match[1]) < number:
            return True
    return False


def is_record(path: str, latest: Mapping[str, int]) -> bool:
    """Whether a file is a bundle's record of how it came about, or of what changed meanwhile, and no evidence here."""
    return any(_OWN.fullmatch(inside) for inside, _ in _inside(path, latest))


def _inside(path: str, latest: Mapping[str, int]) -> Iterable[tuple[str, int]]:
    """What a path is called inside the bundles that it lies in, and their latest captures."""
    for bundle, number in latest.items():
        base = os.path.normpath(bundle)
        plain = os.path.normpath(path)
        if base == ".":
            yield plain, number
        elif plain.startswith(base + "/"):
            yield plain[len(base) + 1 :], number
