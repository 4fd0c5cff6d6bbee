"""Which seconds are counted, and their summary, over a clock that is set by hand. Nothing here waits."""

from __future__ import annotations

import pytest
import torch

from harness.measure import EpochClock

CPU = torch.device("cpu")


class HandClock:
    """A clock that shows what it was last set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _timed(epochs: list[float], evaluations: list[float]) -> EpochClock:
    hand = HandClock()
    clock = EpochClock(CPU, clock=hand)
    for seconds in epochs:
        clock.start()
        hand.now += seconds
        assert clock.stop() == seconds
        hand.now += 77  # between epochs, belongs to nobody
    for seconds in evaluations:
        with clock.evaluation():
            hand.now += seconds
        hand.now += 77
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


def test_the_summary_leaves_out_a_longer_start_and_says_how_long_it_is() -> None:
    summary = _timed([100.0, 50.0, 25.0, *[4.0, 1.0, 2.0, 3.0] * 6], [8.0]).summary()
    assert (summary["warm_up_epochs"], summary["warm_up_note"]) == (3, None)
    assert (summary["warmup_s"], summary["median_s"], summary["epochs"]) == (100.0, 2.5, 27)


def test_a_lone_warm_up_epoch_gives_a_note_and_no_median() -> None:
    summary = _timed([100.0], [8.0]).summary()
    assert (summary["warmup_s"], summary["epochs"]) == (100.0, 1)
    assert summary["median_s"] is summary["q1_s"] is summary["q3_s"] is None
    assert summary["note"] == "only the warm-up epoch was timed"


def test_nothing_timed_is_said_and_not_zero() -> None:
    summary = _timed([], []).summary()
    assert summary["warmup_s"] is summary["median_s"] is summary["evaluation_median_s"] is None
    assert summary["epochs"] == 0
    assert summary["note"] == "no epoch was timed; no evaluation was timed"


def test_queued_gpu_work_is_waited_for_before_each_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = HandClock()

    def finish_queued_work(device: torch.device) -> None:
        assert device.index == 2
        hand.now += 10

    monkeypatch.setattr(torch.cuda, "synchronize", finish_queued_work)
    clock = EpochClock(torch.device("cuda", 2), clock=hand)
    clock.start()
    assert hand.now == 1010.0
    hand.now += 1
    assert clock.stop() == 11.0
    with clock.evaluation():
        hand.now += 3
    assert clock.evaluations_s == [13.0]


def test_an_evaluation_that_fails_is_not_counted() -> None:
    clock = EpochClock(CPU)
    with pytest.raises(KeyError), clock.evaluation():
        raise KeyError
    assert clock.evaluations_s == []


def test_calls_out_of_order_are_refused() -> None:
    clock = EpochClock(CPU)
    with pytest.raises(RuntimeError, match="no epoch"):
        clock.stop()
    clock.start()
    with pytest.raises(RuntimeError, match="already"):
        clock.start()
    with pytest.raises(RuntimeError, match="inside"), clock.evaluation():
        pass
    clock.stop()
    with pytest.raises(RuntimeError, match="no epoch"):
        clock.stop()


def test_real_seconds_are_measured_by_default() -> None:
    clock = EpochClock(CPU)
    clock.start()
    assert 0 < clock.stop() < 60


def test_a_resumed_training_has_a_warm_up_in_each_process() -> None:
    hand = HandClock()
    clock = EpochClock(CPU, clock=hand)
    clock.resume([100.0, 1.0, 2.0, 90.0, 3.0], [8.0], begun_after=[0, 3])
    for seconds in (80.0, 4.0):
        clock.start()
        hand.now += seconds
        clock.stop()
    summary = clock.summary()
    assert (summary["epochs"], summary["warmup_s"], summary["median_s"]) == (7, 100.0, 2.5)
    assert summary["warm_up_epochs"] == 3
    assert "3 of 3 processes" in str(summary["warm_up_note"])
