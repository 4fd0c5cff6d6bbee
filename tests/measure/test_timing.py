"""Which seconds are counted and which epochs are warm-up, over a clock that is set by hand. Nothing here waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.timing import MATERIAL, MIN_EPOCHS, EpochClock, warm_up

CPU = torch.device("cpu")


def _timed(epochs: list[float], evaluations: list[float], resumed: tuple[list[Any], ...] = ()) -> EpochClock:
    hand = [1000.0]
    clock = EpochClock(CPU, clock=lambda: hand[0])
    if resumed:
        clock.resume(*resumed)
    for seconds in epochs:
        clock.start()
        hand[0] += seconds
        assert clock.stop() == seconds
        hand[0] += 77  # between epochs, belongs to nobody
    for seconds in evaluations:
        with clock.evaluation():
            hand[0] += seconds
        hand[0] += 77
    return clock


def test_the_summary_leaves_out_the_first_epoch_and_keeps_evaluation_apart() -> None:
    summary = _timed([100.0, 4.0, 1.0, 2.0, 3.0], [8.0, 6.0, 64.0]).summary()
    assert summary == {
        "warmup_s": 100.0,
        "median_s": 2.5,
        "q1_s": 1.75,
        "q3_s": 3.25,
        "epochs": 5,
        "evaluation_median_s": 8.0,
        "note": None,
        "warm_up_epochs": 1,
        "warm_up_note": "fewer than 20 epochs: the first one counts as warm-up, no change was looked for",
    }
    longer = _timed([100.0, 50.0, 25.0, *[4.0, 1.0, 2.0, 3.0] * 6], [8.0]).summary()
    assert (longer["warm_up_epochs"], longer["warm_up_note"]) == (3, None)
    assert (longer["warmup_s"], longer["median_s"], longer["epochs"]) == (100.0, 2.5, 27)


@pytest.mark.parametrize(
    ("epochs", "evaluations", "warmup", "note"),
    [
        ([100.0], [8.0], 100.0, "only the warm-up epoch was timed"),
        ([], [], None, "no epoch was timed; no evaluation was timed"),
    ],
)
def test_what_was_not_timed_is_said_and_not_zero(
    epochs: list[float], evaluations: list[float], warmup: float | None, note: str
) -> None:
    summary = _timed(epochs, evaluations).summary()
    assert (summary["warmup_s"], summary["epochs"], summary["note"]) == (warmup, len(epochs), note)
    assert summary["median_s"] is summary["q1_s"] is summary["q3_s"] is None


def test_queued_gpu_work_is_waited_for_before_each_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = [1000.0]

    def finish_queued_work(device: torch.device) -> None:
        assert device.index == 2
        hand[0] += 10

    monkeypatch.setattr(torch.cuda, "synchronize", finish_queued_work)
    clock = EpochClock(torch.device("cuda", 2), clock=lambda: hand[0])
    clock.start()
    assert hand[0] == 1010.0
    hand[0] += 1
    assert clock.stop() == 11.0
    with clock.evaluation():
        hand[0] += 3
    assert clock.evaluations_s == [13.0]


def test_a_resumed_training_has_a_warm_up_in_each_process() -> None:
    summary = _timed([80.0, 4.0], [], resumed=([100.0, 1.0, 2.0, 90.0, 3.0], [8.0], [0, 3])).summary()
    assert (summary["epochs"], summary["warmup_s"], summary["median_s"]) == (7, 100.0, 2.5)
    assert summary["warm_up_epochs"] == 3
    assert "3 of 3 processes" in str(summary["warm_up_note"])


# --- warm-up ---

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
    assert warm_up([level] * number)[0] == {0}


@given(SEEDS, LEVELS, st.floats(0.5, 20), st.integers(1, 25), st.integers(60, 200))
def test_slow_epochs_at_the_start_are_left_out_and_no_others(
    seed: int, level: float, excess: float, slow: int, number: int
) -> None:
    seconds = level * (1 + np.random.default_rng(seed).uniform(-0.02, 0.02, size=number))
    seconds[:slow] *= 1 + excess
    assert warm_up(seconds)[0] == epochs(slow)


@given(SEEDS, st.floats(0.2, 10), st.floats(0.5, 5), st.integers(60, 200))
def test_a_decaying_start_is_left_out_until_noise_hides_it(seed: int, excess: float, fall: float, number: int) -> None:
    decay = excess * np.exp(-np.arange(number) / fall)
    noise = np.random.default_rng(seed).normal(0, 0.01, size=number)
    found, _ = warm_up(1 + decay + noise)
    assert found == epochs(len(found))
    assert set(np.flatnonzero(decay > 0.12)) <= found
    assert not set(np.flatnonzero(decay < 0.001)) & found - {0}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=120), st.sets(st.integers(0, 130), max_size=5))
def test_never_more_than_half_of_a_process_is_left_out_and_always_its_first(
    seconds: list[float], begun_after: set[int]
) -> None:
    found, _ = warm_up(seconds, begun_after)
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


NOISE = [1.0, 1.01, 0.99, 1.02]
SHORT = f"fewer than {MIN_EPOCHS} epochs"


@pytest.mark.parametrize(
    ("seconds", "begun_after", "found", "note"),
    [
        ([0.8] * 7 + NOISE * 15, [0], epochs(7), None),  # faster is a warm-up too
        (NOISE * 2 + [40.0] + NOISE * 13, [0], epochs(1), None),  # one slow epoch is no change
        ([1 + MATERIAL / 2] * 10 + [1.0] * 50, [0], epochs(1), None),
        ([1 + MATERIAL * 2] * 10 + [1.0] * 50, [0], epochs(10), None),
        ([1.0], [0], epochs(1), SHORT),
        ([9.0] * 9 + [1.0] * (MIN_EPOCHS - 10), [0], epochs(1), SHORT),
        ([1.0] * MIN_EPOCHS, [0], epochs(1), None),
        ([], [0, 3], epochs(0), None),
        ([5.0] * 42 + [1.0] * 18, [0], epochs(30), "no steady level"),
        ([5.0] * 30 + [1.0] * 30, [0], epochs(30), None),
        ([8.0] * 3 + [1.0] * 47 + [5.0] * 6 + [1.0] * 44, [0, 50], {*range(3), *range(50, 56)}, None),
        ([1.0] * 45, [0, 40], {0, 40}, f"{SHORT} in 1 of 2 processes"),
    ],
)
def test_warm_up_is_what_differs_from_the_steady_level_of_its_process(
    seconds: list[float], begun_after: list[int], found: set[int], note: str | None
) -> None:
    left_out, said = warm_up(seconds, begun_after)
    assert left_out == found
    assert said is None if note is None else str(said).startswith(note)
