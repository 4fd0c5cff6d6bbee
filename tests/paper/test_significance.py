"""Differences between models, paired over users and over seeds, on made-up values."""

import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from harness.paper.significance import (
    EVERY_SEED,
    Difference,
    PerUser,
    compare_all,
    holm,
    over_seeds,
    relative_over_seeds,
)

Values = NDArray[np.float64]
unit = st.floats(0, 1)


def rows(*, seeds: int = 2, **values: Values) -> PerUser:
    """Each label's values, the same with each seed."""
    users = {label: np.arange(len(of_users)) for label, of_users in values.items()}
    return {label: dict.fromkeys(range(seeds), (users[label], of_users)) for label, of_users in values.items()}


def judge(*per_user: PerUser) -> tuple[Difference, ...]:
    return compare_all(dict(zip(("recall@20", "ndcg@20"), per_user, strict=False)), confidence=0.95, margin=0.01)


def compare(**values: Values) -> Difference:
    (difference,) = judge(rows(**values))
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
    assert difference.relative == pytest.approx(strong.mean() / weak.mean() - 1)
    assert difference.better == compare(weak=weak, strong=strong).better == "strong"


def test_chance_alone_wins_nothing() -> None:
    difference = compare(a=recalls(500, 0.2, 1), b=recalls(500, 0.2, 2))
    assert difference.interval[0] < 0 < difference.interval[1]
    assert (difference.better, difference.why) == (None, "not over users")


def test_what_is_sure_alone_is_not_sure_among_as_many_as_were_compared() -> None:
    """Five users gain: p is 0.026 alone, and twice that beside another metric."""
    base = recalls(800, 0.1)
    gained = rows(some=base + (np.arange(800) % 160 == 0), none=base)
    assert [one.better for one in judge(gained)] == ["some"]
    assert [(one.better, one.why) for one in judge(gained, gained)] == [(None, "not over users")] * 2


BASE = recalls(2000, 0.3)


def shifted(*shares: float) -> dict[int, tuple[NDArray[np.int64], Values]]:
    """By seed: every user's value times 1 + share."""
    return {seed: (np.arange(2000), BASE * (1 + share)) for seed, share in enumerate(shares)}


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ((0.05, 0.05), ""),
        ((0.05, 0.04, 0.06), ""),
        ((0.005, 0.005), "below the margin"),
        ((0.01005, 0.01005), ""),  # of the lower value, which counts, 1.005 %; of the higher 0.995 %
        ((0.05,), "fewer than two shared seeds"),
        ((0.01, 0.15), "not over seeds"),
        ((0.0, 0.0), "not over users"),
    ],
)
@pytest.mark.parametrize("side", [1, -1])
def test_better_is_who_is_so_over_users_over_seeds_and_by_the_margin(
    shares: tuple[float, ...], why: str, side: int
) -> None:
    pair = {"a": shifted(*shares), "b": shifted(*[0.0] * len(shares))}
    (found,) = judge(dict(list(pair.items())[::side]))
    assert (found.better, found.why) == (None if why else "a", why)


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        ((0.05, 0.05), ""),
        ((0.01, 0.15), "not over seeds"),
        ((0.05,), "fewer than two shared seeds"),
        ((0.005, 0.005), "below the margin"),
    ],
)
def test_a_row_that_draws_nothing_has_its_run_under_every_seed(shares: tuple[float, ...], why: str) -> None:
    pair = {"drawn": shifted(*shares), "fixed": {EVERY_SEED: shifted(0.0)[0]}}
    for order in (1, -1):
        (found,) = judge(dict(list(pair.items())[::order]))
        assert (found.better, found.why, found.runs) == (None if why else "drawn", why, len(shares))
        assert found.over_seeds is None or found.over_seeds.seeds == len(shares)


@pytest.mark.parametrize(("share", "why"), [(0.05, ""), (0.005, "below the margin"), (0.0, "not over users")])
def test_where_neither_draws_users_and_margin_decide(share: float, why: str) -> None:
    (found,) = judge({"a": {EVERY_SEED: shifted(share)[0]}, "b": {EVERY_SEED: shifted(0.0)[0]}})
    assert (found.better, found.why) == (None if why else "a", why)
    assert (found.over_seeds, found.draws, found.runs) == (None, False, 1)


def test_runs_are_paired_by_seed_and_as_many_of_each() -> None:
    """A mean over three runs is seldom 0: against one run, chance alone would make it better for more users."""
    users, runs = np.arange(2000), {seed: recalls(2000, 0.2, seed) for seed in (1, 2, 3, 4)}
    many = {seed: (users, runs[seed]) for seed in (1, 2, 3)}
    (same,) = judge({"many": many, "one": {2: (users, runs[2])}})
    assert (same.mean, same.p_value, same.runs) == (0, 1, 1)
    (other,) = judge({"many": many, "one": {4: (users, runs[4])}})
    assert other.mean == pytest.approx((runs[1] - runs[4]).mean())
    (three,) = judge({"many": many, "same": dict(many)})
    assert (three.mean, three.runs) == (0, 3)


def test_p_and_interval_are_those_of_the_paired_t_test() -> None:
    a, b = recalls(300, 0.3, 1), recalls(300, 0.2, 2)
    found, reference = compare(a=a, b=b), stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(reference.pvalue)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))


@pytest.mark.parametrize("n", [400, 4000])
def test_where_labels_mean_nothing_the_test_over_users_errs_as_often_as_it_says(n: int) -> None:
    """Values of two models swapped by chance for each user: no difference is true."""
    draw = np.random.default_rng(n)
    found = []
    for i in range(600):
        pair = np.stack([recalls(n, 0.08, 2 * i), recalls(n, 0.11, 2 * i + 1)])
        swapped = draw.random(n) < 0.5
        found.append(compare(a=np.where(swapped, *pair), b=np.where(swapped, *pair[::-1])).p_value)
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.07  # 600 draws: 0.032 to 0.068 in 95 of 100


@pytest.mark.parametrize("n", [1, 3, 100])
def test_identical_values_differ_by_nothing_and_warn_of_nothing(n: int) -> None:
    values = recalls(n, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        difference = compare(a=values, b=values.copy())
    assert (difference.mean, difference.p_value, difference.adjusted, difference.better) == (0, 1, 1, None)
    assert difference.interval == ((0, 0) if n > 1 else (-np.inf, np.inf))


def test_rounding_of_a_mean_over_seeds_is_no_difference() -> None:
    a, b = np.full(50, (1 / 3 + 0.25 + 1 / 7) / 3), np.full(50, (1 / 7 + 0.25 + 1 / 3) / 3)
    assert (a != b).all()
    assert compare(a=a, b=b).p_value == 1


def test_only_shared_users_count_in_whatever_order_they_come() -> None:
    users, values = np.arange(20), recalls(20, 0.5)
    shuffled = np.random.default_rng(3).permutation(20)
    per_user = {"recall@20": {"a": {1: (users[5:], values[5:])}, "b": {1: (users[shuffled], values[shuffled])}}}
    (difference,) = judge(*per_user.values())
    assert (difference.users, difference.p_value) == (15, 1)


def test_the_family_is_all_pairs_of_all_metrics() -> None:
    models = {label: recalls(200, 0.1 + 0.05 * i, i) for i, label in enumerate("abc")}
    found = judge(rows(**models), rows(**models))
    pairs = [(metric, *pair) for metric in ("recall@20", "ndcg@20") for pair in combinations("abc", 2)]
    assert [(d.metric, d.first, d.second) for d in found] == pairs
    assert [d.adjusted for d in found] == holm([d.p_value for d in found])
    assert min(d.adjusted for d in found) == pytest.approx(6 * min(d.p_value for d in found))


def test_one_row_or_none_leaves_nothing_to_compare() -> None:
    assert judge(rows(a=recalls(5, 0.5)), {}) == ()


def test_seen_from_the_other_side_everything_is_mirrored() -> None:
    difference = compare(a=recalls(300, 0.4, 1), b=recalls(300, 0.1, 2))
    mirrored = difference.seen_from("b")
    assert (mirrored.first, mirrored.second) == ("b", "a")
    assert mirrored.mean == -difference.mean
    assert mirrored.interval == (-difference.interval[1], -difference.interval[0])
    assert mirrored.better == difference.better == "a"
    assert mirrored.base == pytest.approx(difference.base + difference.mean)
    assert replace(mirrored.seen_from("a"), base=difference.base) == difference == difference.seen_from("a")


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
        judge(*per_user.values())


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


def test_the_relative_difference_is_of_logarithms_and_needs_positive_values() -> None:
    first, second = {1: 0.6, 2: 0.5, 3: 0.7}, {1: 0.5, 2: 0.5, 3: 0.4, 4: 0.1}
    logarithms = [np.log(first[seed] / second[seed]) for seed in first]
    interval = stats.ttest_1samp(logarithms, 0).confidence_interval(0.95)
    found = relative_over_seeds(first, second, 0.95)
    assert found is not None
    assert (found.mean, *found.interval) == pytest.approx(100 * np.expm1([np.mean(logarithms), *interval]))
    assert found.seeds == 3
    assert relative_over_seeds({**first, 2: 0.0}, second, 0.95) is None
