"""Which epochs are left out as warm-up: the start of each process, for as long as it differs from what follows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.warmup import MATERIAL, MIN_EPOCHS, warm_up

SEEDS = st.integers(0, 2**32 - 1)
LEVELS = st.floats(1e-3, 1e3)


def epochs(count: int) -> frozenset[int]:
    return frozenset(range(count))


@given(SEEDS, LEVELS, st.integers(60, 300), st.floats(0, 0.2))
def test_on_constant_noise_only_the_first_epoch_is_left_out(
    seed: int, level: float, number: int, spread: float
) -> None:
    noise = np.random.default_rng(seed).uniform(-spread, spread, size=number)
    assert warm_up(level * (1 + noise)) == warm_up([level] * number)
    assert warm_up([level] * number).epochs == {0}


@given(SEEDS, LEVELS, st.floats(0.5, 20), st.integers(1, 25), st.integers(60, 200))
def test_slow_epochs_at_the_start_are_left_out_and_no_others(
    seed: int, level: float, excess: float, slow: int, number: int
) -> None:
    seconds = level * (1 + np.random.default_rng(seed).uniform(-0.02, 0.02, size=number))
    seconds[:slow] *= 1 + excess
    assert warm_up(seconds).epochs == epochs(slow)


@given(SEEDS, st.floats(0.2, 10), st.floats(0.5, 5), st.integers(60, 200))
def test_a_decaying_start_is_left_out_until_noise_hides_it(seed: int, excess: float, fall: float, number: int) -> None:
    decay = excess * np.exp(-np.arange(number) / fall)
    noise = np.random.default_rng(seed).normal(0, 0.01, size=number)
    found = warm_up(1 + decay + noise).epochs
    assert found == epochs(len(found))
    assert set(np.flatnonzero(decay > 0.12)) <= found
    assert not set(np.flatnonzero(decay < 0.001)) & found - {0}


def test_a_start_that_is_faster_is_a_warm_up_too() -> None:
    seconds = [0.8] * 7 + [1.0, 1.01, 0.99] * 20
    assert warm_up(seconds).epochs == epochs(7)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=120), st.sets(st.integers(0, 130), max_size=5))
def test_never_more_than_half_of_a_process_is_left_out_and_always_its_first(
    seconds: list[float], begun_after: set[int]
) -> None:
    found = warm_up(seconds, begun_after).epochs
    begins = sorted({place for place in (0, *begun_after) if place < len(seconds)})
    assert set(begins) <= found
    assert found <= set(range(len(seconds)))
    for begin, end in zip(begins, [*begins[1:], len(seconds)], strict=True):
        assert len(found & set(range(begin, end))) <= max(1, (end - begin) // 2)


@given(st.lists(st.floats(0.01, 100), min_size=40, max_size=60), st.floats(0.01, 100))
def test_the_unit_of_time_does_not_matter(seconds: list[float], factor: float) -> None:
    # Powers of two, which scale without rounding.
    power = 2.0 ** round(np.log2(factor))
    assert warm_up([power * value for value in seconds]) == warm_up(seconds)


def test_one_slow_epoch_amid_steady_ones_is_no_change() -> None:
    seconds = [1.0, 1.01, 0.99, 1.02] * 15
    seconds[9] = 40.0
    assert warm_up(seconds).epochs == {0}


def test_a_difference_too_small_to_matter_is_none() -> None:
    assert warm_up([1 + MATERIAL / 2] * 10 + [1.0] * 50).epochs == {0}
    assert warm_up([1 + MATERIAL * 2] * 10 + [1.0] * 50).epochs == epochs(10)


@pytest.mark.parametrize("number", [1, 2, MIN_EPOCHS - 1])
def test_a_short_series_falls_back_to_its_first_epoch_and_says_so(number: int) -> None:
    found = warm_up([9.0] * (number // 2) + [1.0] * (number - number // 2))
    assert found.epochs == {0}
    assert f"fewer than {MIN_EPOCHS} epochs" in str(found.note)
    assert warm_up([1.0] * MIN_EPOCHS).note is None


def test_nothing_timed_has_no_warm_up() -> None:
    assert warm_up([]).epochs == frozenset()
    assert warm_up([], [0, 3]).note is None


def test_a_start_without_an_end_is_cut_at_half_and_said() -> None:
    found = warm_up([5.0] * 42 + [1.0] * 18)
    assert found.epochs == epochs(30)
    assert "no steady level" in str(found.note)
    assert warm_up([5.0] * 30 + [1.0] * 30).note is None


def test_each_process_has_a_warm_up_of_its_own_length() -> None:
    first, second = [8.0] * 3 + [1.0] * 47, [5.0] * 6 + [1.0] * 44
    found = warm_up(first + second, begun_after=[0, 50])
    assert found.epochs == {*range(3), *range(50, 56)}
    assert found.note is None


def test_the_note_says_of_how_many_processes_it_is() -> None:
    assert "in 1 of 2 processes" in str(warm_up([1.0] * 45, begun_after=[0, 40]).note)
