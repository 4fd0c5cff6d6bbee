"""Exponents fitted to measured points, and judged by what is published.

Points come as plain numbers; how they are measured is `measure`, how they are shown `report`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from harness.paper.growth import Complexity
from harness.paper.verdict import Word

Floats = NDArray[np.float64]

POWERS: Floats = np.arange(-100, 201) / 50  # k that are tried: −2 to 4 in steps of 0.02
SAMPLES = 1000
SAMPLES_AT_A_TIME = 250  # bounds memory
FEWEST_SIZES = 4  # a, b and k are three numbers
FEWEST_REPETITIONS = 5  # with three, intervals that should hold 95 % of exponents held 80 %


@dataclass(frozen=True)
class Fit:
    """y = a + b x^k, a ≥ 0 and b ≥ 0, fitted to the medians at several sizes x by least relative squares."""

    exponent: float
    """k: how the part grows that is not constant."""
    low: float
    high: float
    """Ends of its bootstrap interval."""
    constant: float
    """a as a share of y at the largest size."""
    misfit: float
    """The largest distance of a median from the fit, as a share of the median."""


def fit(sizes: Sequence[float], values: Sequence[Sequence[float]], confidence: float, *, seed: int = 0) -> Fit | None:
    """Fit to repetitions [sizes][repetitions], sizes ascending; None where they are too few or a value is not positive.

    A constant (what calls, users or other sizes cost) would hold the slope of log y over log x below the exponent that
    large sizes show, so it is a term of its own. Medians make one slow repetition harmless; relative squares let small
    sizes count as much as large ones. The interval is from bootstrap samples of repetitions, which are drawn together
    for all sizes, since they were measured in turn; its level is expanded for few repetitions (Hesterberg, The American
    Statistician 2015, section 5.2: percentiles of t with n − 1 degrees of freedom, widened by √(n/(n − 1))).
    """
    n = min(map(len, values), default=0)
    if len(sizes) < FEWEST_SIZES or n < FEWEST_REPETITIONS:
        return None
    x: Floats = np.asarray(sizes, dtype=np.float64)
    y: Floats = np.array([row[:n] for row in values], dtype=np.float64)  # [sizes, n]
    if not (np.isfinite(y).all() and (y > 0).all()):
        return None
    medians = np.median(y, axis=1)
    (exponent,), (constant,), (scale,) = _fitted(x, medians[None, :])
    curve = constant + scale * (x / x[-1]) ** exponent
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(SAMPLES // SAMPLES_AT_A_TIME):
        chosen = draw.integers(n, size=(SAMPLES_AT_A_TIME, n))
        found.append(_fitted(x, np.median(y[:, chosen], axis=2).T)[0])
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + confidence) / 2)))
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    # Samples of few repetitions can all lie on one side of the fit to all of them.
    ends = min(float(low), float(exponent)), max(float(high), float(exponent))
    return Fit(float(exponent), *ends, float(constant / medians[-1]), float(np.abs(curve / medians - 1).max()))


def _fitted(x: Floats, y: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """(k, a, b) of y [samples, sizes], x relative to the largest, [samples] each.

    For each k of POWERS the best a and b in closed form, and of these the best k.
    """
    y = np.asarray(y, dtype=np.float64)
    one = 1 / y  # [samples, sizes]: the constant, relative to y
    power = (x / x[-1])[None, :] ** POWERS[:, None]  # [powers, sizes]
    aa, a1 = (one**2).sum(axis=1)[:, None], one.sum(axis=1)[:, None]
    bb = one**2 @ (power**2).T  # [samples, powers]
    ab, b1 = one**2 @ power.T, one @ power.T
    determinant = aa * bb - ab**2
    sound = determinant > 1e-9 * aa * bb  # not so for k near 0, where both terms are constant
    safe = np.where(sound, determinant, 1)
    a, b = (bb * a1 - ab * b1) / safe, (aa * b1 - ab * a1) / safe
    no_a = ~sound | (a < 0)
    a, b = np.where(no_a, 0, a), np.where(no_a, b1 / bb, b)
    a, b = np.where(b < 0, a1 / aa, a), np.maximum(b, 0)
    squares = -2 * (a * a1 + b * b1) + a**2 * aa + b**2 * bb + 2 * a * b * ab
    best = squares.argmin(axis=1)
    of_best = (np.arange(len(y)), best)
    return POWERS[best], a[of_best], b[of_best]


class Verdict(Word):
    """What a measured exponent says about a published one."""

    CONSISTENT = "consistent", "✓", "good", "the published exponent is in the interval or above it", True
    ABOVE = "above", "↑", "bad", "it grows faster than published", False
    NO_EVIDENCE = "no evidence", "○", "none", "not measured, too noisy or too small, or a constant hides it", None
    OPEN = "open", "–", "none", "the sources do not say", None


@dataclass(frozen=True)
class Cell:
    """One quantity of a model while one size grows."""

    model: str
    factor: str
    quantity: str
    sizes: tuple[int, ...]
    medians: tuple[float, ...]
    """Seconds or bytes, one per size."""
    fit: Fit | None
    published: float | None
    """The exponent published, None where the sources leave it open."""
    verdict: Verdict
    reason: str


UNDETERMINED = "the interval is too wide: too noisy, or too little grows"
ILL_FITTING = "the medians do not follow a constant and a power"


def judge(
    complexity: Complexity,
    model: str,
    factor: Any,
    quantity: str,
    sizes: Sequence[int],
    values: Sequence[Sequence[float]],
) -> Cell:
    """The cell of repetitions [sizes][repetitions] at ascending sizes."""
    known = [(size, row) for size, row in zip(sizes, values, strict=True) if row]
    kept, rows = tuple(size for size, _ in known), [row for _, row in known]
    found = fit(kept, rows, complexity.confidence)
    cost = complexity.cost(model, quantity)
    published = None if cost is None else cost.exponents.get(factor)
    if found is None:
        verdict, reason = Verdict.NO_EVIDENCE, "a value is not positive"
        if len(kept) < FEWEST_SIZES:
            reason = f"{len(kept)} of at least {FEWEST_SIZES} sizes were measured"
        elif min(map(len, rows)) < FEWEST_REPETITIONS:
            reason = f"fewer than {FEWEST_REPETITIONS} repetitions were measured"
    elif cost is None or published is None:
        unsaid = "no cost of it is published in the sources used here"
        if cost is not None:
            unsaid = cost.open.get(factor, f"not in the published expression {cost.expression}")
        verdict, reason = Verdict.OPEN, _unclear(complexity, found) or unsaid
    else:
        # What log x adds to the slope of x log x: 1 / ln x, at the geometric mean of the sizes.
        logarithm = 1 / float(np.log(np.asarray(kept, dtype=np.float64)).mean()) if factor in cost.logarithms else 0.0
        verdict, reason = _verdict(complexity, found, published, logarithm)
    medians = tuple(float(np.median(row)) for row in rows)
    return Cell(model, factor, quantity, kept, medians, found, published, verdict, reason)


def _unclear(complexity: Complexity, found: Fit) -> str:
    """Why the exponent is not known well enough to tell it from the next whole number; empty where it is."""
    if found.misfit > complexity.misfit or found.exponent in (POWERS[0], POWERS[-1]):
        return ILL_FITTING
    return UNDETERMINED if found.high - found.low > complexity.widest else ""


def _verdict(complexity: Complexity, found: Fit, published: float, logarithm: float) -> tuple[Verdict, str]:
    unclear, bound = _unclear(complexity, found), published + logarithm + complexity.tolerance
    if unclear == ILL_FITTING:
        return Verdict.NO_EVIDENCE, unclear
    if found.low > bound:
        return Verdict.ABOVE, f"grows faster than published, by more than {bound - published:.2f} in the exponent"
    if found.high < published:
        return Verdict.CONSISTENT, "cheaper than published"
    if unclear:
        return Verdict.NO_EVIDENCE, unclear
    return Verdict.CONSISTENT, "as published" if found.low <= published else "within the tolerance"
