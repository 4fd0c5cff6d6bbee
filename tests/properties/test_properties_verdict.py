"""What must hold of the verdict rule whatever the runs, the published figures and the tolerances are; its order, its
band and its exit codes are in `tests/paper/test_verdict.py`.

Deviations are multiples of 1/1024 around a published 0.5, so that mirroring and scaling by powers of two are exact and
no test depends on how a sum is rounded.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given
from hypothesis import strategies as st

from harness.paper.load import Tolerance
from harness.paper.published import PublishedValue, Status
from harness.paper.verdict import Outcome, judge

TARGET = 0.5
RANK = {Outcome.REPRODUCED: 0, Outcome.CLOSE: 1, Outcome.ABOVE: 2, Outcome.BELOW: 2}
MIRRORED = {Outcome.ABOVE: Outcome.BELOW, Outcome.BELOW: Outcome.ABOVE}

units = st.integers(-200, 200)  # of 1/1024
deviations = st.lists(units, min_size=2, max_size=6)
tolerances = st.builds(
    Tolerance,
    relative=st.integers(1, 300).map(lambda k: k / 1024),
    confidence=st.sampled_from([0.5, 0.8, 0.95, 0.99]),
    min_seeds=st.just(2),
)
statuses = st.sampled_from([Status.AS_PRINTED, Status.DISPUTED])
any_value = st.one_of(st.floats(0, 1), st.just(math.nan))


def source(value: float, name: str = "paper", status: Status = Status.AS_PRINTED) -> PublishedValue:
    return PublishedValue("D", "M", "R@10", value, name, status, "")


PAPER = source(TARGET)
sources = st.lists(st.builds(source, st.floats(0.001, 1), st.just("any"), statuses), max_size=3)


def runs(deviations: Sequence[float]) -> list[float]:
    return [TARGET + deviation / 1024 for deviation in deviations]


def outcome(deviations: Sequence[float], tolerance: Tolerance) -> Outcome:
    return judge(runs(deviations), [PAPER], tolerance).outcome


@given(deviations, tolerances)
def test_runs_below_are_judged_as_runs_above_but_for_the_word(spread: list[int], tolerance: Tolerance) -> None:
    above, below = outcome(spread, tolerance), outcome([-deviation for deviation in spread], tolerance)
    assert below is MIRRORED.get(above, above)


@given(deviations, tolerances)
def test_only_a_mean_above_the_band_is_above_and_only_one_below_is_below(
    spread: list[int], tolerance: Tolerance
) -> None:
    mean = Fraction(sum(spread), len(spread) * 1024)
    width = Fraction(TARGET) * Fraction(tolerance.relative)
    found = outcome(spread, tolerance)
    assert (found is Outcome.ABOVE) == (mean > width)
    assert (found is Outcome.BELOW) == (mean < -width)


@given(deviations, st.integers(2, 8), tolerances)
def test_more_spread_about_the_same_mean_never_improves_the_outcome_nor_moves_it_across_the_band(
    spread: list[int], factor: int, tolerance: Tolerance
) -> None:
    centred = [len(spread) * deviation - sum(spread) for deviation in spread]
    centre = sum(spread)
    narrow, wide = (
        outcome([(centre + scale * deviation) / 8 for deviation in centred], tolerance) for scale in (1, factor)
    )
    assert RANK[narrow] <= RANK[wide]
    assert (RANK[narrow] == 2) == (RANK[wide] == 2)


@given(deviations, tolerances, st.floats(0.01, 0.98))
def test_asking_for_more_confidence_never_improves_the_outcome(
    spread: list[int], tolerance: Tolerance, confidence: float
) -> None:
    assume(confidence < tolerance.confidence)
    lax = outcome(spread, replace(tolerance, confidence=confidence))
    assert RANK[lax] <= RANK[outcome(spread, tolerance)]


@given(st.lists(any_value, max_size=6), sources, tolerances)
def test_inputs_that_cannot_be_compared_are_never_judged(
    values: list[float], published: list[PublishedValue], tolerance: Tolerance
) -> None:
    assert judge(values, published, tolerance, comparable=False).outcome.held is None


@given(deviations, tolerances, st.integers(-8, 8))
def test_the_unit_of_the_metric_changes_nothing(spread: list[int], tolerance: Tolerance, exponent: int) -> None:
    unit = 2.0**exponent
    scaled = judge([unit * value for value in runs(spread)], [source(unit * TARGET)], tolerance)
    assert scaled.outcome is outcome(spread, tolerance)


@given(st.floats(0.001, 1), st.integers(2, 6), tolerances)
def test_runs_at_the_published_value_reproduce_it(value: float, seeds: int, tolerance: Tolerance) -> None:
    assert judge([value] * seeds, [source(value)], tolerance).outcome is Outcome.REPRODUCED


@given(deviations, tolerances, st.integers(-400, 400), statuses)
def test_a_second_source_either_changes_nothing_or_makes_the_cell_disputed(
    spread: list[int], tolerance: Tolerance, apart: int, status: Status
) -> None:
    second = source(TARGET + apart / 1024, "second", status)
    found = judge(runs(spread), [PAPER, second], tolerance).outcome
    agrees = abs(Fraction(apart, 1024)) <= Fraction(TARGET) * Fraction(tolerance.relative)
    disputed = status is Status.DISPUTED or not agrees
    assert found is (Outcome.DISPUTED if disputed else outcome(spread, tolerance))


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.integers(0, 5),
    tolerances,
    st.sampled_from([math.nan, math.inf]),
)
def test_a_run_that_diverged_is_a_finding_wherever_it_stands(
    values: list[float], place: int, tolerance: Tolerance, broken: float
) -> None:
    values.insert(place, broken)
    assert judge(values, [PAPER], tolerance).outcome is Outcome.DIVERGED
