"""A little of the fuzzing, with the same inputs every time, and that it would notice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kdnsctl.netfilter import flowtext
from tests.fuzz import __main__ as fuzzing
from tests.fuzz.mutating import LONGEST, MUTATIONS, mutate
from tests.fuzz.target import Target, recorded
from tests.fuzz.targets import TARGETS

SEED = 20261128
INPUTS = 150


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_damaged_recordings_do_no_harm(target: Target) -> None:
    failing, tried = fuzzing.fuzz(target, SEED, lambda tried: tried < INPUTS)
    assert failing is None, failing
    assert tried == INPUTS


def test_the_same_seed_damages_in_the_same_way_and_every_way_damages() -> None:
    seeds = TARGETS[0].seeds
    first, again, other = ([mutate(random.Random(f"{seed}/{n}"), seeds) for n in range(50)] for seed in (1, 1, 2))
    assert first == again != other
    assert all(len(data) <= LONGEST for data in first)
    for mutation in MUTATIONS:
        assert any(mutation(random.Random(seed), seeds[0], seeds) != seeds[0] for seed in range(20))
        assert isinstance(mutation(random.Random(1), b"", (b"",)), bytes)


def test_a_parser_that_fails_is_told_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("broken")

    assert fuzzing.main(["--seconds=0", "--seed=1", "--only=conntrack-counters"]) == 0
    assert "conntrack-counters: 1 inputs with seed 1: no failure" in capsys.readouterr().out
    monkeypatch.setattr(flowtext, "parse", broken)
    assert fuzzing.main(["--seconds=20", "--seed=1", "--only=conntrack-text", f"--out={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert "FAILED" in printed.out
    assert "ValueError: broken" in printed.err
    (kept,) = tmp_path.iterdir()
    assert str(kept) in printed.out


def test_a_recording_that_is_not_there_is_no_empty_seed() -> None:
    with pytest.raises(FileNotFoundError, match=r"no recording matches"):
        recorded("conntrack/*.nothing")
