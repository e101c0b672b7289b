from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdnsctl.probe.queries import (
    DETECTION,
    FEWEST,
    MOST,
    Attempt,
    detected_by,
    is_name,
    queries_for,
    tally,
)


@pytest.mark.parametrize(("backends", "queries"), [(2, 7), (3, 12), (5, 21), (10, 44), (20, 90), (50, 228)])
def test_the_number_of_queries_is_that_of_the_known_examples(backends: int, queries: int) -> None:
    assert queries_for(backends) == queries


@given(st.integers(0, 10_000))
def test_it_is_the_least_that_detects_within_its_bounds(backends: int) -> None:
    queries = queries_for(backends)
    assert FEWEST <= queries <= MOST
    if FEWEST < queries < MOST:
        assert detected_by(queries, backends) >= DETECTION > detected_by(queries - 1, backends)
    assert queries_for(backends + 1) >= queries


@given(st.integers(2, 12), st.randoms(use_true_random=False))
def test_it_is_the_probability_that_a_draw_has(backends: int, chance: random.Random) -> None:
    # By counting: of all sequences of one draw after another, the share that meets the dead one.
    queries = chance.randint(1, 20)
    missed = math.prod((backends - 1) / backends for _ in range(queries))
    assert detected_by(queries, backends) == pytest.approx(1 - missed)


@given(st.text(max_size=300))
def test_what_passes_for_a_name_can_be_no_option_and_no_shell(text: str) -> None:
    if is_name(text):
        assert text[0] not in "-."
        assert all(character.isascii() and (character.isalnum() or character in "-_.") for character in text)
        assert all(0 < len(label) <= 63 for label in text.removesuffix(".").split("."))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_the_least_time_within_which_that_share_came(times: list[float], share: float) -> None:
    told = tally(Attempt(1, ms, rcode=0) for ms in times)
    found = told.percentile(share)
    assert found is not None
    assert sum(ms <= found for ms in times) >= share * len(times) - 1e-6
    assert sum(ms < found for ms in times) < share * len(times) + 1e-6


def test_what_was_lost_has_no_part_in_the_times() -> None:
    told = tally([Attempt(1, 1000, error="timeout"), Attempt(2, 3, rcode=2, truncated=True), Attempt(3, 1, rcode=0)])
    assert (told.sent, told.answered, told.lost, told.truncated) == (3, 2, 1, 1)
    assert (told.rcodes, told.errors, told.times) == (((0, 1), (2, 1)), (("timeout", 1),), (1, 3))
    assert tally([]).percentile(0.5) is None
