"""The rule that judges a cell, on made-up figures only. The figures that ship are tested in `test_expected`."""

import math
import random
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.common import exit_status
from harness.paper.load import Tolerance
from harness.paper.published import PublishedValue, Status
from harness.paper.verdict import Outcome, judge, mean_and_interval

TEN_PERCENT = Tolerance(relative=0.1, confidence=0.95, min_seeds=2)
accuracies = st.floats(0, 1)
printed = st.floats(0.001, 1)


def source(
    value: float | None, name: str = "paper", status: Status = Status.AS_PRINTED, note: str = ""
) -> PublishedValue:
    return PublishedValue("D", "M", "R@10", value, name, status, note)


PAPER = source(0.5)


def outcome(values: list[float], *published: PublishedValue, comparable: bool = True) -> Outcome:
    return judge(values, published or (PAPER,), TEN_PERCENT, comparable).outcome


def test_interval_inside_the_band_is_reproduced() -> None:
    assert outcome([0.50, 0.501, 0.499]) is Outcome.REPRODUCED


def test_mean_inside_with_a_wide_interval_is_close() -> None:
    assert outcome([0.46, 0.54]) is Outcome.CLOSE


def test_a_mean_outside_the_band_is_above_or_below() -> None:
    assert outcome([0.60, 0.61]) is Outcome.ABOVE
    assert outcome([0.40, 0.39]) is Outcome.BELOW


def test_a_wide_interval_does_not_excuse_a_low_mean() -> None:
    verdict = judge([0.2, 0.6], [PAPER], TEN_PERCENT)
    assert verdict.interval is not None
    assert verdict.interval[0] < 0.5 < verdict.interval[1]
    assert verdict.outcome is Outcome.BELOW


def test_values_on_the_edge_are_inside() -> None:
    # 0.3 * 1.1 rounds to 0.33000000000000002, 0.7 * 1.1 to 0.77; neither may depend on that
    for value in (0.1, 0.3, 0.7):
        assert outcome([round(value * 1.1, 4)] * 2, source(value)) is Outcome.REPRODUCED
        assert outcome([round(value * 0.9, 4)] * 2, source(value)) is Outcome.REPRODUCED


def test_interval_is_the_t_interval_of_the_mean() -> None:
    values = [0.48, 0.50, 0.53, 0.49]
    verdict = judge(values, [PAPER], TEN_PERCENT)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert verdict.interval == pytest.approx((reference.low, reference.high))
    assert verdict.mean == pytest.approx(0.5)
    assert verdict.difference == pytest.approx(0)
    assert verdict.band == pytest.approx((0.45, 0.55))
    assert verdict.seeds == 4


@pytest.mark.parametrize("seeds", [2, 3, 20, 200])
def test_the_quantile_is_that_of_students_t(seeds: int) -> None:
    values = [0.5 + place / 1000 for place in range(seeds)]
    mean, interval = mean_and_interval(values, 0.95)
    assert mean is not None
    assert interval is not None
    half = stats.t.ppf(0.975, seeds - 1) * stats.sem(values)
    assert interval == pytest.approx((mean - half, mean + half), rel=1e-12)


def test_confidence_decides_how_wide_the_interval_is() -> None:
    strict = replace(TEN_PERCENT, confidence=0.999)
    values = [0.48, 0.50, 0.52]
    assert judge(values, [PAPER], replace(TEN_PERCENT, confidence=0.5)).outcome is Outcome.REPRODUCED
    assert judge(values, [PAPER], strict).outcome is Outcome.CLOSE


@pytest.mark.parametrize("published", [[], [source(None, status=Status.OUT_OF_MEMORY)]])
def test_no_value_is_unpublished_however_often_it_was_run(published: list[PublishedValue]) -> None:
    verdict = judge([0.5, 0.5], published, TEN_PERCENT)
    assert verdict.outcome is Outcome.UNPUBLISHED
    assert (verdict.published, verdict.difference, verdict.band) == (None, None, None)
    assert verdict.mean == 0.5


def test_inputs_that_cannot_be_compared_are_no_evidence_but_the_mean_is_shown() -> None:
    verdict = judge([0.5, 0.5], [PAPER], TEN_PERCENT, comparable=False)
    assert verdict.outcome is Outcome.NO_EVIDENCE
    assert "inputs" in verdict.reason
    assert verdict.mean == 0.5
    assert verdict.published == PAPER


def test_sources_apart_by_more_than_the_band_are_disputed() -> None:
    assert outcome([0.5, 0.5], source(0.5), source(0.54, "toolbox")) is Outcome.REPRODUCED
    assert outcome([0.5, 0.5], source(0.5), source(0.55, "toolbox")) is Outcome.REPRODUCED
    verdict = judge([0.5, 0.5], [source(0.5), source(0.56, "toolbox")], TEN_PERCENT)
    assert verdict.outcome is Outcome.DISPUTED
    assert "paper 0.5" in verdict.reason
    assert "toolbox 0.56" in verdict.reason


def test_one_disputed_source_is_enough_and_its_note_is_the_reason() -> None:
    verdict = judge([0.5, 0.5], [PAPER, source(0.5, "toolbox", Status.DISPUTED, "a slip")], TEN_PERCENT)
    assert verdict.outcome is Outcome.DISPUTED
    assert "a slip" in verdict.reason


def test_the_first_source_with_a_value_is_compared_with() -> None:
    dash, second = source(None, status=Status.OUT_OF_MEMORY), source(0.54, "toolbox")
    assert judge([0.5, 0.5], [PAPER, second], TEN_PERCENT).published == PAPER
    assert judge([0.5, 0.5], [dash, second], TEN_PERCENT).published == second


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_run_without_a_finite_value_diverged(broken: float) -> None:
    verdict = judge([0.5, broken, 0.5], [PAPER], TEN_PERCENT)
    assert verdict.outcome is Outcome.DIVERGED
    assert (verdict.mean, verdict.interval, verdict.difference) == (None, None, None)
    assert verdict.seeds == 3


def test_what_only_rounding_makes_is_no_difference() -> None:
    verdict = judge([0.1 + 0.2, 0.3], [source(0.3)], TEN_PERCENT)
    assert verdict.mean != 0.3
    assert str(verdict.difference) == "0.0"


def test_a_published_zero_has_no_relative_difference() -> None:
    verdict = judge([0.1, 0.1], [source(0.0)], TEN_PERCENT)
    assert verdict.outcome is Outcome.ABOVE
    assert verdict.difference is None


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="different cells"):
        judge([0.5, 0.5], [PAPER, replace(PAPER, model="other")], TEN_PERCENT)
    with pytest.raises(ValueError, match="not an accuracy metric"):
        judge([0.5, 0.5], [replace(PAPER, metric="Memory (GB)")], TEN_PERCENT)


def test_a_verdict_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        judge([], [PAPER], TEN_PERCENT).outcome = Outcome.REPRODUCED  # type: ignore[misc]


@given(st.lists(accuracies, max_size=8), st.integers(2, 9), printed, st.booleans())
def test_too_few_seeds_are_always_no_evidence_and_enough_never_are(
    values: list[float], min_seeds: int, value: float, nan: bool
) -> None:
    values = [math.nan, *values] if nan else values
    verdict = judge(values, [source(value)], replace(TEN_PERCENT, min_seeds=min_seeds))
    assert (verdict.outcome is Outcome.NO_EVIDENCE) == (len(values) < min_seeds)
    if verdict.outcome is Outcome.NO_EVIDENCE:
        assert str(min_seeds) in verdict.reason


@given(st.lists(accuracies, min_size=2, max_size=8), st.randoms(), printed)
def test_the_order_of_the_runs_changes_nothing(values: list[float], shuffler: random.Random, value: float) -> None:
    shuffled = list(values)
    shuffler.shuffle(shuffled)
    assert judge(shuffled, [source(value)], TEN_PERCENT) == judge(values, [source(value)], TEN_PERCENT)


@given(
    st.lists(st.floats(-0.2, 0.2), min_size=2, max_size=6),
    st.floats(0, 1),
    st.floats(0.001, 1),
    st.sampled_from([-1, 1]),
)
def test_moving_away_from_the_published_value_never_improves_the_outcome(
    spread: list[float], near: float, step: float, side: int
) -> None:
    centre = math.fsum(spread) / len(spread)
    rank = [Outcome.REPRODUCED, Outcome.CLOSE, Outcome.ABOVE if side > 0 else Outcome.BELOW]

    def at(distance: float) -> int:
        return rank.index(outcome([0.5 + side * distance + offset - centre for offset in spread]))

    # at a distance of 0 the mean may round to either side, which is inside the band all the same
    assert at(near) <= at(near + step)


@given(st.lists(accuracies, min_size=2, max_size=6), printed, st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_a_wider_band_never_turns_an_agreement_into_a_disagreement(
    values: list[float], value: float, first: float, second: float
) -> None:
    narrow, wide = (
        judge(values, [source(value)], replace(TEN_PERCENT, relative=relative)).outcome
        for relative in sorted((first, second))
    )
    rank = {Outcome.REPRODUCED: 0, Outcome.CLOSE: 1, Outcome.ABOVE: 2, Outcome.BELOW: 2}
    assert rank[wide] <= rank[narrow]


@given(st.lists(accuracies, max_size=6), st.lists(printed, max_size=3), st.booleans())
def test_what_is_reported_belongs_to_the_outcome(values: list[float], figures: list[float], comparable: bool) -> None:
    verdict = judge(values, [source(f, f"s{i}") for i, f in enumerate(figures)], TEN_PERCENT, comparable)
    assert verdict.seeds == len(values)
    assert verdict.reason
    assert "\n" not in verdict.reason
    if verdict.outcome.held is not None:
        assert comparable
        assert verdict.published is not None
        assert verdict.published.value == figures[0]
        assert verdict.mean is not None
        assert verdict.band is not None
        if verdict.outcome is Outcome.ABOVE:
            assert verdict.mean > verdict.band[1]
            assert verdict.difference is not None
            assert verdict.difference > 0


@given(st.lists(st.sampled_from(Outcome)))
def test_exit_code_is_1_for_what_did_not_hold_0_for_held_cells_3_for_none(outcomes: list[Outcome]) -> None:
    failing = {Outcome.ABOVE, Outcome.BELOW, Outcome.DIVERGED}
    passing = {Outcome.REPRODUCED, Outcome.CLOSE}
    expected = 1 if failing.intersection(outcomes) else 0 if passing.intersection(outcomes) else 3
    assert exit_status(value.held for value in outcomes) == expected


def test_nothing_measured_is_never_a_pass() -> None:
    assert exit_status([]) == 3
    few = [judge(values, [PAPER], TEN_PERCENT) for values in ([], [0.5])]
    assert exit_status(verdict.outcome.held for verdict in few) == 3
