"""How sure a difference between two models is: paired over users, and paired over the seeds of their runs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from harness.paper.verdict import Range, mean_and_interval

T = TypeVar("T")
UserValues = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Users [n], and their values [n]."""
PerUser = Mapping[str, Mapping[int, UserValues]]
"""Label of a row → seed → values of that run."""

EVERY_SEED = -1
"""In place of the seed of a run that draws nothing: it stands under every seed of another row."""
_DECIMALS = 12  # equal values differ by the rounding of their means


class SeedDifference(NamedTuple):
    """Two models paired over the seeds that both were run with."""

    mean: float
    """Of first − second, in the unit of the values."""
    interval: Range
    """Two-sided t-interval of the mean."""
    seeds: int


@dataclass(frozen=True)
class Difference:
    """Two models on one data set and metric, paired over users and over seeds."""

    metric: str
    first: str
    """Label of a row, like `second`."""
    second: str
    mean: float
    """Of first − second over users, in the unit of the metric."""
    interval: Range
    """Two-sided t-interval of the mean over users."""
    p_value: float
    """Two-sided paired t-test over users."""
    adjusted: float
    """`p_value` after Holm over everything that was compared together."""
    base: float
    """Mean of `second` over the same users and runs."""
    runs: int
    """Of each row, whose mean is a user's value."""
    users: int
    """Users that all compared rows of this metric share."""
    over_seeds: SeedDifference | None
    """Over the same users; None with fewer than two shared seeds."""
    better: str | None = None
    """The label that is better by the rule of `compare_all`, or None."""
    why: str = ""
    """What it lacks where neither is better."""
    draws: bool = True
    """Whether the seed takes part in either; where it does not, there is nothing to repeat."""

    @property
    def relative(self) -> float | None:
        """The effect: the mean as a share of the second's; None where that is 0."""
        return self.mean / self.base if self.base else None

    def seen_from(self, label: str) -> "Difference":
        """The same difference with the row `label`, which is one of the two, as the first."""
        if label == self.first:
            return self
        seeds = self.over_seeds and self.over_seeds._replace(
            mean=-self.over_seeds.mean, interval=_mirrored(self.over_seeds.interval)
        )
        return replace(
            self,
            first=self.second,
            second=self.first,
            mean=-self.mean,
            interval=_mirrored(self.interval),
            base=self.base + self.mean,
            over_seeds=seeds,
        )


def compare_all(per_user: Mapping[str, PerUser], *, confidence: float, margin: float) -> tuple[Difference, ...]:
    """Every pair of rows on every metric of one data set, which together are the family of Holm's correction.

    `per_user`: metric → rows. Pairs come in the order given. A row is better where three things agree: the test over
    users, with an adjusted p below 1 − `confidence`; the effect, of at least `margin` as a share of the worse; and the
    interval over shared seeds, without 0 and on the same side, if either draws. The test over users alone takes the
    trained models as given, so chance in training would win.

    Raises ValueError if the rows of a metric share no user, a row names a user twice or has a value that is not finite.
    """
    compared = []
    for metric, rows in per_user.items():
        if len(rows) < 2:
            continue
        table = _shared_users(metric, rows)  # by row and seed
        means = {run: float(values.mean()) for run, values in table.items()}
        for first, second in combinations(rows, 2):
            runs = paired(*({seed: (label, seed) for seed in rows[label]} for label in (first, second)))
            gains = np.stack([table[a] - table[b] for a, b in runs]).mean(axis=0).round(_DECIMALS)
            mean, interval, p = _t_test(gains, confidence)
            base = float(np.mean([means[b] for _, b in runs]))
            ours, theirs = ({seed: means[label, seed] for seed in rows[label]} for label in (first, second))
            seeds = over_seeds(ours, theirs, confidence)
            draws = any(EVERY_SEED not in side for side in (ours, theirs))
            numbers = mean, interval, p, p, base, len(runs), len(gains)
            compared.append(Difference(metric, first, second, *numbers, seeds, draws=draws))
    adjusted = holm([difference.p_value for difference in compared])
    found = (replace(difference, adjusted=p) for difference, p in zip(compared, adjusted, strict=True))
    return tuple(_judged(difference, 1 - confidence, margin) for difference in found)


def _judged(found: Difference, level: float, margin: float) -> Difference:
    """With who is better, or what that lacks."""
    effect = abs(found.mean) / max(min(found.base, found.base + found.mean), np.finfo(float).tiny)
    if found.adjusted >= level:
        return replace(found, why="not over users")
    if effect < margin:
        return replace(found, why="below the margin")
    if found.over_seeds is None and found.draws:
        return replace(found, why="fewer than two shared seeds")
    if found.over_seeds and min(found.mean * end for end in found.over_seeds.interval) <= 0:
        return replace(found, why="not over seeds")
    return replace(found, better=found.first if found.mean > 0 else found.second)


def _mirrored(interval: Range) -> Range:
    low, high = interval
    return -high, -low


def paired(first: Mapping[int, T], second: Mapping[int, T]) -> list[tuple[T, T]]:
    """Runs by seed of two rows, as pairs of the same seed, or where none is shared one after another.

    Always as many of each: a user's mean over more runs is 0 less often, so with unequal numbers the row with more of
    them would seem to be better for more users.
    """
    return _shared(first, second) or [
        (first[a], second[b]) for a, b in zip(sorted(first), sorted(second), strict=False)
    ]


def _shared(first: Mapping[int, T], second: Mapping[int, T]) -> list[tuple[T, T]]:
    """Pairs of the same seed; the run of a row that draws nothing is there for every seed of the other."""
    if EVERY_SEED in first:
        first = dict.fromkeys(second, first[EVERY_SEED])
    if EVERY_SEED in second:
        second = dict.fromkeys(first, second[EVERY_SEED])
    return [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]


def over_seeds(first: Mapping[int, float], second: Mapping[int, float], confidence: float) -> SeedDifference | None:
    """Values by seed of two models, paired.

    None with fewer than two shared seeds, or where one of them has a value that is not finite.
    """
    differences = [round(a - b, _DECIMALS) for a, b in _shared(first, second)]
    mean, interval = mean_and_interval(differences, confidence)
    return None if mean is None or interval is None else SeedDifference(mean, interval, len(differences))


def relative_over_seeds(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float
) -> SeedDifference | None:
    """By how many percent the first model is above the second: the mean of log ratios of seeds, and its interval.

    None where `over_seeds` has none.
    """
    logarithms = [{seed: math.log(v) if v > 0 else -math.inf for seed, v in one.items()} for one in (first, second)]
    paired = over_seeds(logarithms[0], logarithms[1], confidence)
    if paired is None:
        return None
    mean, low, high = (100 * math.expm1(value) for value in (paired.mean, *paired.interval))
    return SeedDifference(mean, (low, high), paired.seeds)


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


def _t_test(difference: NDArray[np.float64], confidence: float) -> tuple[float, Range, float]:
    """The mean of differences [users], its two-sided t-interval, and the p-value of 0."""
    n, mean = len(difference), float(difference.mean())
    if n < 2:
        return mean, (-np.inf, np.inf), 1.0
    error = float(difference.std(ddof=1)) / np.sqrt(n)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * error
    p_value = 2 * float(stdtr(n - 1, -abs(mean) / error)) if error else float(mean == 0)
    return mean, (mean - half, mean + half), p_value
