"""Drains and quarantines under misfortune: the wrong pod is never evicted, no budget and no DNS floor is crossed,
never are more nodes in quarantine than allowed, and in the end all is as it was.

A few seeds here; `nox -s faults` runs a thousand.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.drain import faultruns, wholeruns

SEEDS = range(1000) if os.environ.get("KDNSCTL_FAULTS") == "all" else range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drain_under_misfortune(seed: int, tmp_path: Path) -> None:
    assert faultruns.run(seed, tmp_path) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quarantine_under_misfortune(seed: int, tmp_path: Path) -> None:
    assert wholeruns.run(seed, tmp_path) == []
