"""How sure a difference between two models is: paired over users, and paired over the seeds of their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.paper.verdict import Range, mean_and_interval

T = TypeVar("T")
UserValues = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Users [n], and their values [n]."""
PerUser = Mapping[str, Mapping[int, UserValues]]
"""Label of a row → seed → values of that run."""

_BLOCK = 2**21  # counts in memory at a time, 16 MiB as float64
_DECIMALS = 12  # equal values differ by the rounding of their means, and a signed-rank test sees every sign


@dataclass(frozen=True)
class Difference:
    """Two models on one data set and metric, paired over users."""

    metric: str
    first: str
    """Label of a row, like `second`."""
    second: str
    mean: float
    """Of first − second over users, in the unit of the metric."""
    interval: Range
    """Bootstrap percentile interval of the mean: users are drawn with replacement."""
    p_value: float
    """Two-sided Wilcoxon signed-rank test over users; users without a difference take part in the ranking (Pratt)."""
    adjusted: float
    """`p_value` after Holm over everything that was compared together."""
    runs: int
    """Of each row, whose mean is a user's value."""
    users: int
    """Users that all compared rows of this metric share."""
    ranks: float
    """Effect size of the test, from -1 to 1: the share of the rank sum where `first` is better, minus the other."""

    def seen_from(self, label: str) -> "Difference":
        """The same difference with the row `label`, which is one of the two, as the first."""
        if label == self.first:
            return self
        low, high = (-end for end in reversed(self.interval))
        sides = replace(self, first=self.second, second=self.first)
        return replace(sides, mean=-self.mean, interval=(low, high), ranks=-self.ranks)

    def winner(self, level: float) -> str | None:
        """The label that is significantly better, or None.

        Two things must agree: the test, with an adjusted p below `level`, and the interval, with 0 outside on the same
        side. The test alone asks on which side more users are, weighted by rank; the mean can be on the other one.
        """
        agree = min(self.ranks * end for end in self.interval) > 0
        if self.adjusted >= level or not agree:
            return None
        return self.first if self.mean > 0 else self.second


def compare_all(
    per_user: Mapping[str, PerUser], *, confidence: float, resamples: int = 2000, seed: int = 2023
) -> tuple[Difference, ...]:
    """Every pair of rows on every metric of one data set, which together are the family of Holm's correction.

    `per_user`: metric → rows. Pairs come in the order given. The bootstrap draws the same `resamples` samples of users
    for all pairs of a metric, from a generator of its own with this `seed`: the same values give the same result.
    Raises ValueError if the rows of a metric share no user, a row names a user twice or has a value that is not finite.
    """
    compared = []
    for metric, rows in per_user.items():
        if len(rows) < 2:
            continue
        table = _shared_users(metric, rows)  # by row and seed
        means = _resampled_means(table, resamples, np.random.default_rng(seed))
        for first, second in combinations(rows, 2):
            runs = paired(*({seed: (label, seed) for seed in rows[label]} for label in (first, second)))
            difference, resampled = (
                np.asarray(
                    np.round(np.mean([values[a] - values[b] for a, b in runs], axis=0), _DECIMALS), dtype=np.float64
                )
                for values in (table, means)
            )
            tails = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
            low, high = (float(end) for end in np.round(tails, _DECIMALS))
            p_value, ranks = _wilcoxon(difference)
            mean, users = float(difference.mean()), len(difference)
            compared.append(
                Difference(metric, first, second, mean, (low, high), p_value, p_value, len(runs), users, ranks)
            )
    adjusted = holm([difference.p_value for difference in compared])
    return tuple(replace(difference, adjusted=p) for difference, p in zip(compared, adjusted, strict=True))


def paired(first: Mapping[int, T], second: Mapping[int, T]) -> list[tuple[T, T]]:
    """Runs by seed of two rows, as pairs of the same seed, or where none is shared one after another.

    Always as many of each: a user's mean over more runs is 0 less often, so with unequal numbers the row with more of
    them would seem to be better for more users.
    """
    shared = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
    return shared or [(first[a], second[b]) for a, b in zip(sorted(first), sorted(second), strict=False)]


class SeedDifference(NamedTuple):
    """Two models paired over the seeds that both were run with."""

    mean: float
    """Of first − second, in the unit of the values."""
    interval: Range
    """Two-sided t-interval of the mean."""
    seeds: int


def over_seeds(first: Mapping[int, float], second: Mapping[int, float], confidence: float) -> SeedDifference | None:
    """Values by seed of two models, paired.

    None with fewer than two shared seeds, or where one of them has a value that is not finite.
    """
    differences = [round(first[seed] - second[seed], _DECIMALS) for seed in sorted(first.keys() & second.keys())]
    mean, interval = mean_and_interval(differences, confidence)
    return None if mean is None or interval is None else SeedDifference(mean, interval, len(differences))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down method, in the order given (Holm 1979, Scand. J. Statist. 6:65)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def _shared_users(metric: str, rows: PerUser) -> dict[tuple[str, int], NDArray[np.float64]]:
    """(Label, seed) → values [users] of the users that all runs share."""
    runs = {(label, seed): values for label, seeds in rows.items() for seed, values in seeds.items()}
    for (label, _), (users, values) in runs.items():
        if len(users) != len(values) or len(np.unique(users)) != len(users) or not np.isfinite(values).all():
            raise ValueError(f"{label}, {metric}: users must be distinct, with a finite value each")
    shared = reduce(np.intersect1d, (users for users, _ in runs.values()))
    if len(shared) == 0:
        raise ValueError(f"{metric}: no user is in all of {', '.join(rows)}")
    table = {}
    for run, (users, values) in runs.items():
        order = np.argsort(users)
        table[run] = values[order[np.searchsorted(users, shared, sorter=order)]]
    return table


def _resampled_means(
    table: Mapping[tuple[str, int], NDArray[np.float64]], resamples: int, generator: np.random.Generator
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Means [resamples] of each run's values [users]; the same users are drawn, with replacement, for all runs."""
    values = np.stack(list(table.values()))
    n = values.shape[1]
    means = np.empty((len(values), resamples))
    for start in range(0, resamples, step := max(1, _BLOCK // n)):
        draws = (generator.integers(n, size=n) for _ in range(start, min(start + step, resamples)))
        counts = np.stack([np.bincount(draw, minlength=n) for draw in draws])  # [block, users]
        means[:, start : start + len(counts)] = values @ counts.T.astype(np.float64) / n
    return dict(zip(table, means, strict=True))


def _wilcoxon(difference: NDArray[np.float64]) -> tuple[float, float]:
    """The p-value and the effect size."""
    from scipy import stats  # most of a second, which only comparisons over users wait for

    if not difference.any():
        return 1.0, 0.0  # scipy gives NaN or a warning where no difference is left
    weights = stats.rankdata(abs(difference))
    signed = weights @ np.sign(difference) / weights[difference != 0].sum()
    return float(stats.wilcoxon(difference, zero_method="pratt").pvalue), float(signed)
