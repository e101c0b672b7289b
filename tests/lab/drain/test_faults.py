"""Drains under misfortune: whatever happens, the wrong pod is never evicted, no budget and no DNS floor is crossed.

A few seeds here; `nox -s faults` runs a thousand.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.drain.faultruns import run

SEEDS = range(1000) if os.environ.get("KDNSCTL_FAULTS") == "all" else range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drain_under_misfortune(seed: int, tmp_path: Path) -> None:
    assert run(seed, tmp_path) == []
