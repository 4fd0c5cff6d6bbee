"""The rule that judges a cell, on made-up figures only. The figures that ship are tested in `test_load`."""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from harness.common import exit_status
from harness.paper.load import Tolerance, load_paper
from harness.paper.published import PublishedValue, Status
from harness.paper.verdict import Outcome, judge, mean_and_interval, power

DOCUMENTED = (Path(__file__).parents[2] / "docs/verdicts.md").read_text()
TOLERANCE = load_paper().tolerances.of("recall@20")
TEN_PERCENT = Tolerance(relative=0.1, confidence=0.95, min_seeds=2)
accuracies = st.floats(0, 1)
printed = st.floats(0.001, 1)


def source(
    value: float | None, name: str = "paper", status: Status = Status.AS_PRINTED, note: str = ""
) -> PublishedValue:
    return PublishedValue("D", "M", "R@10", value, name, status, note)


PAPER = source(0.5)
DASH = source(None, status=Status.OUT_OF_MEMORY)


@pytest.mark.parametrize(
    ("values", "published", "expected"),
    [
        ([0.50, 0.501, 0.499], [PAPER], Outcome.REPRODUCED),  # the interval inside
        ([0.46, 0.54], [PAPER], Outcome.CLOSE),  # the mean inside, the interval wide
        ([0.60, 0.61], [PAPER], Outcome.ABOVE),
        ([0.40, 0.39], [PAPER], Outcome.BELOW),
        ([0.2, 0.6], [PAPER], Outcome.BELOW),  # a wide interval does not excuse a low mean
        # the edge is inside: 0.3 * 1.1 rounds to 0.33000000000000002, 0.7 * 1.1 to 0.77
        *(([round(v * f, 4)] * 2, [source(v)], Outcome.REPRODUCED) for v in (0.1, 0.3, 0.7) for f in (0.9, 1.1)),
        # sources apart by more than the band are disputed
        ([0.5, 0.5], [PAPER, source(0.54, "toolbox")], Outcome.REPRODUCED),
        ([0.5, 0.5], [PAPER, source(0.55, "toolbox")], Outcome.REPRODUCED),
        ([0.5, 0.5], [PAPER, source(0.56, "toolbox")], Outcome.DISPUTED),
        # no value is unpublished, however often it was run; one that is 0 has no relative difference
        ([0.5, 0.5], [], Outcome.UNPUBLISHED),
        ([0.5, 0.5], [DASH], Outcome.UNPUBLISHED),
        ([0.1, 0.1], [source(0.0)], Outcome.ABOVE),
        *(([0.5, broken, 0.5], [PAPER], Outcome.DIVERGED) for broken in (math.nan, math.inf, -math.inf)),
    ],
)
def test_the_outcome_of_a_cell(values: list[float], published: list[PublishedValue], expected: Outcome) -> None:
    verdict = judge(values, published, TEN_PERCENT)
    assert (verdict.outcome, verdict.seeds) == (expected, len(values))
    known = published and published[0].value is not None
    assert (verdict.published, verdict.band is None) == ((published[0], False) if known else (None, True))
    if expected is Outcome.DIVERGED:
        assert (verdict.mean, verdict.interval, verdict.difference) == (None, None, None)
    else:
        assert verdict.mean == pytest.approx(math.fsum(values) / len(values))
        assert (verdict.difference is None) == (not known or published[0].value == 0)


@pytest.mark.parametrize("seeds", [2, 3, 20, 200])
def test_the_interval_is_the_t_interval_of_the_mean(seeds: int) -> None:
    values = [0.5 + place / 1000 for place in range(seeds)]
    mean, interval = mean_and_interval(values, 0.95)
    reference = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(0.5 + (seeds - 1) / 2000)
    assert interval == pytest.approx((reference.low, reference.high), rel=1e-12)
    assert judge(values, [PAPER], TEN_PERCENT).interval == interval


def test_confidence_decides_how_wide_the_interval_is() -> None:
    values = [0.48, 0.50, 0.52]
    assert judge(values, [PAPER], replace(TEN_PERCENT, confidence=0.5)).outcome is Outcome.REPRODUCED
    assert judge(values, [PAPER], replace(TEN_PERCENT, confidence=0.999)).outcome is Outcome.CLOSE


def test_what_stands_against_a_comparison_is_the_reason() -> None:
    inputs = judge([0.5, 0.5], [PAPER], TEN_PERCENT, comparable=False)
    assert (inputs.outcome, inputs.mean, inputs.published) == (Outcome.NO_EVIDENCE, 0.5, PAPER)
    assert "inputs" in inputs.reason
    apart = judge([0.5, 0.5], [PAPER, source(0.56, "toolbox")], TEN_PERCENT)
    assert "paper 0.5, toolbox 0.56" in apart.reason
    noted = judge([0.5, 0.5], [PAPER, source(0.5, "toolbox", Status.DISPUTED, "a slip")], TEN_PERCENT)
    assert noted.outcome is Outcome.DISPUTED
    assert "a slip" in noted.reason


def test_what_keeps_a_cell_from_being_reproduced_is_the_reason() -> None:
    assert judge([0.46, 0.54], [PAPER], TEN_PERCENT).reason.endswith("the interval of 2 seeds does not")
    assert judge([0.5], [PAPER], replace(TEN_PERCENT, min_seeds=1)).reason.endswith("one run has no interval")


def test_the_first_source_with_a_value_is_compared_with() -> None:
    second = source(0.54, "toolbox")
    assert judge([0.5, 0.5], [PAPER, second], TEN_PERCENT).published == PAPER
    assert judge([0.5, 0.5], [DASH, second], TEN_PERCENT).published == second


def test_what_only_rounding_makes_is_no_difference() -> None:
    for sign in (1, -1):
        verdict = judge([0.3 * (1 + 4e-13 * sign)] * 2, [source(0.3)], TEN_PERCENT)
        assert verdict.mean != 0.3
        assert str(verdict.difference) == "0.0"


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="different cells"):
        judge([0.5, 0.5], [PAPER, replace(PAPER, model="other")], TEN_PERCENT)


EXAMPLES = re.findall(
    r"^\| `([a-z ]+)` \| ([\d., na]+) \| ([\d.]+) \| (\S+) \| (.+?) \| (.+?) \|$", DOCUMENTED, re.MULTILINE
)
TESTED = re.findall(
    r"^\| ([\d., ]+) \| ([\d.]+) \| p = ([\d.]+): (passes|rejected)(.*?) \| `([a-z]+)`, (\S+) % \|$",
    DOCUMENTED,
    re.MULTILINE,
)


def test_the_examples_in_the_documentation_are_what_the_rule_gives() -> None:
    def told(figures: Sequence[float] | None) -> str:
        return " to ".join(f"{figure:.4f}" for figure in figures) if figures else "–"

    assert (len(EXAMPLES), len(TESTED)) == (6, 3)
    for outcome, runs, published, mean, interval, band in EXAMPLES:
        found = judge([*map(float, runs.split(", "))], [source(float(published))], TOLERANCE)
        figures = (told(None if found.mean is None else [found.mean]), told(found.interval), told(found.band))
        assert (found.outcome, *figures) == (outcome, mean, interval, band)
    for runs, published, p_value, word, passing, outcome, difference in TESTED:
        values = [*map(float, runs.split(", "))]
        found, p = (
            judge(values, [source(float(published))], TOLERANCE),
            stats.ttest_1samp(values, float(published)).pvalue,
        )
        assert (f"{p:.2f}", "passes" if p >= 0.05 else "rejected") == (p_value, word)
        assert found.difference is not None
        assert (found.outcome, f"{100 * found.difference:+.1f}") == (outcome, difference)
        assert not passing or passing.endswith(told(found.interval))


def test_the_table_of_power_in_the_documentation_is_what_the_rule_gives() -> None:
    rows = re.findall(r"^\| (\d) % \| (0\.\d\d) \| (\S+) \| (\S+) \| (\S+) \|$", DOCUMENTED, re.MULTILINE)
    assert len(rows) == 3
    for spread, *told in rows:
        found = [power(int(spread) / 100, seeds, TOLERANCE) for seeds in (2, 3, 5, 10)]
        assert told == [f"{share:.2f}" for share in found]


@pytest.mark.parametrize("seeds", [2, 5])
def test_power_is_how_often_cells_are_reproduced_and_at_most_its_error_where_they_are_not(seeds: int) -> None:
    for off, spread in ((0.0, 0.01), (0.02, 0.01), (0.03, 0.005)):
        draws = np.random.default_rng(seeds).normal(1 + off, spread, (4000, seeds))
        verdicts = [judge(list(draw), [source(1.0)], TOLERANCE).outcome for draw in draws]
        share = verdicts.count(Outcome.REPRODUCED) / len(verdicts)
        assert power(spread, seeds, TOLERANCE, off) == pytest.approx(share, abs=0.025)
    assert power(0.005, seeds, TOLERANCE, 0.03) == pytest.approx(0.025, abs=0.001)


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize(("spread", "off"), [(0.03, 0.0), (0.05, 0.02)])
def test_power_is_the_mean_over_the_distribution_of_standard_deviations(seeds: int, spread: float, off: float) -> None:
    error, half = spread / math.sqrt(seeds), stats.t.ppf(0.975, seeds - 1) / math.sqrt(seeds - 1)

    def inside(x: float) -> float:
        room = 0.1 - half * error * math.sqrt(x)
        return float(np.diff(stats.norm.cdf([-room, room], off, error))[0] * stats.chi2.pdf(x, seeds - 1))

    expected, _ = quad(inside, 0, (0.1 / half / error) ** 2)
    assert power(spread, seeds, TEN_PERCENT, off) == pytest.approx(expected, abs=1e-4)


def test_one_more_run_falls_in_the_prediction_interval_and_enough_seeds_reproduce() -> None:
    values = [0.0566, 0.0575, 0.0604]
    verdict = judge(values, [source(0.0575)], TOLERANCE)
    half = stats.t.ppf(0.975, 2) * np.std(values, ddof=1) * np.sqrt(1 + 1 / 3)
    assert verdict.prediction == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    needed = verdict.seeds_needed(TOLERANCE.confidence)
    assert needed == 16
    spread = np.std(values, ddof=1)
    for seeds, outcome in ((needed, Outcome.REPRODUCED), (needed - 1, Outcome.CLOSE)):
        draw = np.arange(seeds) - (seeds - 1) / 2
        as_seen = np.mean(values) + spread * draw / draw.std(ddof=1)
        assert judge(list(as_seen), [source(0.0575)], TOLERANCE).outcome is outcome
    assert judge([0.07, 0.071], [source(0.0575)], TOLERANCE).seeds_needed(0.95) is None
    assert judge([0.0575], [source(0.0575)], TOLERANCE).prediction is None
    wide = judge([1.0, 2.0], [source(1.5)], TEN_PERCENT)
    for most, found in ((1000, 1000), (1001, None)):
        half = stats.t.ppf(0.975, most - 1) * math.sqrt(0.5 / most) + 1e-9
        assert replace(wide, band=(1.5 - half, 1.5 + half)).seeds_needed(0.95) == found
    edge = replace(TEN_PERCENT, relative=0.25)
    assert judge([0.625, 0.625], [PAPER], edge).seeds_needed(0.95) == 2


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


@pytest.mark.parametrize(("outcomes", "code"), [("", 3), ("○–≠", 3), ("✓≈○", 0), ("✓↑", 1), ("↓○", 1), ("∞", 1)])
def test_the_exit_code_is_1_for_what_did_not_hold_0_for_held_cells_3_for_none(outcomes: str, code: int) -> None:
    assert exit_status(word.held for word in Outcome if word.mark in outcomes) == code
