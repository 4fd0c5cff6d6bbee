"""Differences between models, paired over users and over seeds, on made-up values."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.paper.significance import Difference, PerUser, compare_all, holm, over_seeds

Values = NDArray[np.float64]
unit = st.floats(0, 1)


def rows(**values: Values) -> PerUser:
    return {label: {1: (np.arange(len(of_users)), of_users)} for label, of_users in values.items()}


def compare(**values: Values) -> Difference:
    (difference,) = compare_all({"recall@20": rows(**values)}, confidence=0.95)
    return difference


def recalls(n: int, level: float, seed: int = 0) -> Values:
    """Like a recall per user: mostly 0, else one of few fractions."""
    draw = np.random.default_rng(seed)
    return np.where(draw.random(n) < level, draw.choice([1, 1 / 2, 1 / 3], n), 0.0)


def test_a_model_that_helps_many_users_wins_whichever_comes_first() -> None:
    weak = recalls(800, 0.1)
    strong = np.where(np.arange(800) % 10 == 0, 1, weak)
    difference = compare(strong=strong, weak=weak)
    assert difference.mean == pytest.approx((strong - weak).mean())
    assert 0 < difference.interval[0] < difference.mean < difference.interval[1]
    assert difference.adjusted == difference.p_value < 1e-10
    assert difference.users == 800
    assert difference.winner(0.05) == compare(weak=weak, strong=strong).winner(0.05) == "strong"


def test_runs_are_paired_by_seed_and_as_many_of_each() -> None:
    """A mean over three runs is seldom 0: against one run, chance alone would make it better for more users."""
    users, runs = np.arange(2000), {seed: recalls(2000, 0.2, seed) for seed in (1, 2, 3, 4)}
    many = {seed: (users, runs[seed]) for seed in (1, 2, 3)}
    (same,) = compare_all({"recall@20": {"many": many, "one": {2: (users, runs[2])}}}, confidence=0.95)
    assert (same.mean, same.p_value, same.runs) == (0, 1, 1)
    (other,) = compare_all({"recall@20": {"many": many, "one": {4: (users, runs[4])}}}, confidence=0.95)
    assert other.mean == pytest.approx((runs[1] - runs[4]).mean())
    assert other.winner(0.05) is None
    (three,) = compare_all({"recall@20": {"many": many, "same": dict(many)}}, confidence=0.95)
    assert (three.mean, three.runs) == (0, 3)


def test_nobody_wins_where_the_test_and_the_mean_point_to_different_sides() -> None:
    """Half the users lose a little, a few gain much: the ranks say one thing, the mean the other."""
    base = np.full(1000, 0.5)
    other = base.copy()
    other[:500] -= 0.001
    other[900:] += 0.4
    difference = compare(base=base, other=other)
    assert difference.adjusted < 0.001
    assert difference.mean < 0 < difference.ranks
    assert difference.interval[1] < 0
    assert difference.winner(0.05) is None


def test_p_is_that_of_the_signed_rank_test_and_the_interval_that_of_the_bootstrap() -> None:
    a, b = recalls(300, 0.3, 1), recalls(300, 0.2, 2)
    found = compare(a=a, b=b)
    assert found.p_value == pytest.approx(stats.wilcoxon(a, b, zero_method="pratt").pvalue)
    means = np.random.default_rng(5).choice(a - b, (4000, 300)).mean(axis=1)
    assert found.interval == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.003)


def test_confidence_decides_how_wide_the_interval_is_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    per_user = {"recall@20": rows(a=recalls(300, 0.3, 1), b=recalls(300, 0.3, 2))}
    (narrow,), (wide,) = (compare_all(per_user, confidence=confidence) for confidence in (0.5, 0.99))
    assert wide.interval[0] < narrow.interval[0] < narrow.interval[1] < wide.interval[1]
    monkeypatch.setattr("harness.paper.significance._BLOCK", 1)  # of resamples
    assert compare_all(per_user, confidence=0.99) == (wide,)


@pytest.mark.parametrize("n", [1, 3, 100])
def test_identical_values_differ_by_nothing_and_warn_of_nothing(n: int) -> None:
    values = recalls(n, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        difference = compare(a=values, b=values.copy())
    assert (difference.mean, difference.interval, difference.p_value, difference.adjusted) == (0, (0, 0), 1, 1)
    assert difference.winner(0.05) is None


def test_rounding_of_a_mean_over_seeds_is_no_difference() -> None:
    a, b = np.full(50, (1 / 3 + 0.25 + 1 / 7) / 3), np.full(50, (1 / 7 + 0.25 + 1 / 3) / 3)
    assert (a != b).all()
    assert compare(a=a, b=b).p_value == 1


def test_only_shared_users_count_in_whatever_order_they_come() -> None:
    users, values = np.arange(20), recalls(20, 0.5)
    shuffled = np.random.default_rng(3).permutation(20)
    per_user = {"recall@20": {"a": {1: (users[5:], values[5:])}, "b": {1: (users[shuffled], values[shuffled])}}}
    (difference,) = compare_all(per_user, confidence=0.95)
    assert (difference.users, difference.p_value) == (15, 1)


def test_the_family_is_all_pairs_of_all_metrics() -> None:
    models = {label: recalls(200, 0.1 + 0.05 * i, i) for i, label in enumerate("abc")}
    found = compare_all({"recall@20": rows(**models), "ndcg@20": rows(**models)}, confidence=0.95)
    pairs = [(metric, *pair) for metric in ("recall@20", "ndcg@20") for pair in combinations("abc", 2)]
    assert [(d.metric, d.first, d.second) for d in found] == pairs
    assert [d.adjusted for d in found] == holm([d.p_value for d in found])
    assert min(d.adjusted for d in found) == pytest.approx(6 * min(d.p_value for d in found))


def test_one_row_or_none_leaves_nothing_to_compare() -> None:
    assert compare_all({"recall@20": rows(a=recalls(5, 0.5)), "ndcg@20": {}}, confidence=0.95) == ()


def test_seen_from_the_other_side_everything_is_mirrored() -> None:
    difference = compare(a=recalls(300, 0.4, 1), b=recalls(300, 0.1, 2))
    mirrored = difference.seen_from("b")
    assert (mirrored.first, mirrored.second) == ("b", "a")
    assert mirrored.mean == -difference.mean
    assert mirrored.interval == (-difference.interval[1], -difference.interval[0])
    assert mirrored.winner(0.05) == difference.winner(0.05) == "a"
    assert mirrored.seen_from("a") == difference == difference.seen_from("a")


@pytest.mark.parametrize(
    ("users", "values", "complaint"),
    [
        ([0, 0], [0.1, 0.2], "distinct"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([0, 1], [0.1], "a finite value each"),
        ([7, 8], [0.1, 0.2], "no user is in all of a, b"),
    ],
)
def test_values_that_cannot_be_paired_are_refused(users: list[int], values: list[float], complaint: str) -> None:
    per_user = {"recall@20": {"a": {1: (np.arange(2), np.zeros(2))}, "b": {1: (np.array(users), np.array(values))}}}
    with pytest.raises(ValueError, match=complaint):
        compare_all(per_user, confidence=0.95)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1, 1]
    assert holm([]) == []


@given(st.lists(unit, min_size=1, max_size=12))
def test_holm_raises_every_p_keeps_their_order_and_stays_below_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= min(1, len(p_values) * p) for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_over_seeds_is_the_paired_t_interval_of_the_shared_seeds() -> None:
    first = {1: 0.30, 2: 0.32, 3: 0.31, 7: 0.9}
    second = {3: 0.29, 1: 0.27, 2: 0.30, 8: 0.1}
    found = over_seeds(first, second, 0.95)
    reference = stats.ttest_rel([0.30, 0.32, 0.31], [0.27, 0.30, 0.29]).confidence_interval(0.95)
    assert found is not None
    assert found[0] == pytest.approx(0.07 / 3)
    assert found[1] == pytest.approx((reference.low, reference.high))
    assert found[2] == 3


def test_over_seeds_needs_two_shared_seeds_with_finite_values() -> None:
    for first, second in (
        ({1: 0.1}, {1: 0.2}),
        ({1: 0.1, 2: 0.1}, {2: 0.2, 3: 0.2}),
        ({1: np.nan, 2: 0}, {1: 0, 2: 0}),
    ):
        assert over_seeds(first, second, 0.95) is None
