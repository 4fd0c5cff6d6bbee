"""The one rule that turns runs and published values of a cell into a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from scipy.special import chdtri, ndtr, stdtrit

from harness.paper.load import Tolerance
from harness.paper.published import PublishedValue, Status

Range = tuple[float, float]
_QUANTILES = 4096


class Word(StrEnum):
    """What may become of something that is judged: the base of each question's few words."""

    mark: str
    """One character, so that nothing is told by colour alone."""
    tone: str
    """Colour in reports."""
    meaning: str
    """When it is said, in one sentence."""
    held: bool | None
    """Whether it counts as held; None where there was nothing to judge by."""

    def __new__(cls, word: str, mark: str, tone: str, meaning: str, held: bool | None) -> Self:
        member = str.__new__(cls, word)
        member._value_ = word
        member.mark, member.tone, member.meaning, member.held = mark, tone, meaning, held
        return member


class Outcome(Word):
    """Each cell gets exactly one, the first in the order of `judge` that applies."""

    REPRODUCED = "reproduced", "✓", "good", "the interval over seeds lies inside the band", True
    CLOSE = "close", "≈", "near", "the mean lies inside the band, the interval does not", True
    ABOVE = "above", "↑", "bad", "the mean lies above the band", False
    BELOW = "below", "↓", "bad", "the mean lies below the band", False
    DIVERGED = "diverged", "∞", "bad", "a run gave a value that is not finite", False
    DISPUTED = "disputed", "≠", "doubt", "the sources contradict each other, so there is nothing to compare with", None
    NO_EVIDENCE = "no evidence", "○", "none", "not run, too few seeds, or inputs that cannot be compared", None
    UNPUBLISHED = "unpublished", "–", "none", "no source gives a figure", None


@dataclass(frozen=True)
class Verdict:
    """What became of one cell; everything that could be computed is filled in, whatever the outcome."""

    outcome: Outcome
    mean: float | None
    """Of the runs; None without runs, or if one gave no finite value."""
    interval: Range | None
    """Two-sided t-interval of the mean at the tolerance's confidence; None below two finite runs."""
    seeds: int
    """Number of runs."""
    published: PublishedValue | None
    """The value compared with: that of the first source that has one."""
    difference: float | None
    """(mean - published) / published; None where either is missing or the published value is 0."""
    band: Range | None
    """Published value ± the tolerance, in the unit of the metric."""
    reason: str
    """One short sentence for readers."""

    @property
    def prediction(self) -> Range | None:
        """Where one more run falls, at the same confidence; a published figure is such a run."""
        return _one_more(self.mean, self.interval, self.seeds)

    def seeds_needed(self, confidence: float) -> int | None:
        """The number of seeds with which the interval would lie in the band if mean and spread stayed as they are.

        None where the mean does not, there is no interval, or more than 1,000 were needed.
        """
        if self.mean is None or self.interval is None or self.band is None:
            return None
        room = min(self.mean - self.band[0], self.band[1] - self.mean)
        spread = (self.interval[1] - self.mean) * math.sqrt(self.seeds) / _quantile(self.seeds, confidence)
        enough = (n for n in range(2, 1001) if _quantile(n, confidence) * spread / math.sqrt(n) <= room)
        return next(enough, None) if room >= 0 else None


def judge(
    values: Sequence[float],
    published: Sequence[PublishedValue],
    tolerance: Tolerance,
    comparable: bool = True,
) -> Verdict:
    """Judge one cell.

    `values` has one value per seed, in any order, in the unit of the metric; `published` has the cell's sources in
    order of precedence; `comparable` is False where the inputs are not those of the published figure, such as
    surrogate features. The first of these that applies is the outcome: unpublished, no evidence, disputed, diverged
    (a finding, not a gap), and then by the place of mean and interval relative to the band.

    Raises ValueError if `published` mixes cells.
    """
    if len({value.cell for value in published}) > 1:
        raise ValueError("the published values belong to different cells")
    mean, interval = mean_and_interval(values, tolerance.confidence)
    target = next((value for value in published if value.value is not None), None)
    if target is None or target.value is None:
        reason = f"published as {published[0].status}" if published else "no source gives a value"
        return Verdict(Outcome.UNPUBLISHED, mean, interval, len(values), None, None, None, reason)
    half = abs(target.value) * tolerance.relative + tolerance.absolute
    band = (target.value - half, target.value + half)
    # 12 decimals: what only the rounding of the mean makes is no difference.
    difference = round(mean / target.value - 1, 12) + 0.0 if mean is not None and target.value else None
    width = f"{100 * tolerance.relative:g} %" + (f" and {tolerance.absolute:g}" if tolerance.absolute else "")
    if len(values) < tolerance.min_seeds:
        outcome, reason = Outcome.NO_EVIDENCE, f"{len(values)} of at least {tolerance.min_seeds} seeds were run"
    elif not comparable:
        outcome, reason = Outcome.NO_EVIDENCE, "the inputs are not those of the published figure"
    elif dispute := _dispute(published, band):
        outcome, reason = Outcome.DISPUTED, dispute
    elif mean is None:
        outcome, reason = Outcome.DIVERGED, "a run gave a value that is not finite"
    elif interval is not None and all(_inside(end, band) for end in interval):
        outcome, reason = Outcome.REPRODUCED, f"the interval of {len(values)} seeds lies within {width}"
    elif _inside(mean, band):
        beside = f"the interval of {len(values)} seeds does not" if interval else "one run has no interval"
        outcome, reason = Outcome.CLOSE, f"the mean lies within {width}, {beside}"
    elif mean > band[1]:
        outcome, reason = Outcome.ABOVE, f"the mean lies more than {width} above"
    else:
        outcome, reason = Outcome.BELOW, f"the mean lies more than {width} below"
    return Verdict(outcome, mean, interval, len(values), target, difference, band, reason)


def power(spread: float, seeds: int, tolerance: Tolerance, off: float = 0.0) -> float:
    """The probability, 0 to 1, that a cell is `reproduced`: the power of two one-sided t-tests (docs/verdicts.md).

    `spread` is the standard deviation over seeds and `off` the difference of the true mean to the published value, both
    as shares of it. Runs are taken to be normal, so mean and standard deviation are independent: the probability is the
    mean over quantiles of the latter.
    """
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    deviations = spread * np.sqrt(chdtri(seeds - 1, 1 - quantiles) / (seeds - 1))
    room = tolerance.relative - _quantile(seeds, tolerance.confidence) * deviations / math.sqrt(seeds)
    error = spread / math.sqrt(seeds)
    inside = ndtr((room - off) / error) - ndtr((-room - off) / error)
    return float(np.where(room > 0, inside, 0.0).mean())


def mean_and_interval(values: Sequence[float], confidence: float) -> tuple[float | None, Range | None]:
    """The mean and its two-sided t-interval, which two values are needed for; nothing where one is not finite."""
    # fsum rounds once, so the order of the seeds cannot change a bit of the result.
    n = len(values)
    if n == 0 or not all(math.isfinite(value) for value in values):
        return None, None
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    variance = math.fsum((value - mean) * (value - mean) for value in values) / (n - 1)
    half = _quantile(n, confidence) * math.sqrt(variance / n)
    return mean, (mean - half, mean + half)


def prediction_interval(values: Sequence[float], confidence: float) -> Range | None:
    """Where one more value of the same normal distribution is expected, m ± t s √(1 + 1/n); two values are needed."""
    return _one_more(*mean_and_interval(values, confidence), len(values))


def _one_more(mean: float | None, interval: Range | None, n: int) -> Range | None:
    """The prediction interval that goes with a t-interval of n values."""
    if mean is None or interval is None:
        return None
    half = (interval[1] - mean) * math.sqrt(n + 1)
    return mean - half, mean + half


def _quantile(n: int, confidence: float) -> float:
    """Of Student's t for n runs, two-sided."""
    return float(stdtrit(n - 1, (1 + confidence) / 2))


def _inside(value: float, band: Range) -> bool:
    # Printed figures have few digits and do land on the edge, where rounding of the product must not decide.
    low, high = band
    return low <= value <= high or math.isclose(value, low) or math.isclose(value, high)


def _dispute(published: Sequence[PublishedValue], band: Range) -> str | None:
    """Why nothing can be compared with the sources of this cell, or None."""
    for value in published:
        if value.status is Status.DISPUTED:
            return f"{value.source} is disputed" + (f": {value.note}" if value.note else "")
    printed = [(value.source, value.value) for value in published if value.value is not None]
    if all(_inside(figure, band) for _, figure in printed):
        return None
    return "sources disagree: " + ", ".join(f"{source} {figure:g}" for source, figure in printed)
