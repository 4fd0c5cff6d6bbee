"""Exponents fitted to measured points, and judged by what is published (`expected/bm3/complexity.toml`).

Points come as plain numbers; how they are measured is `measure.scaling`, how they are shown `report.scaling`.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from scipy.special import ndtr, stdtrit

from bm3.errors import DataError
from harness.paper.claims import Exponent
from harness.paper.expected import STRICT, validated_toml

Factor = Literal["E", "I", "d_m", "d", "B", "L"]
Quantity = Literal["epoch", "step", "call", "memory"]
Text = Annotated[str, Field(min_length=1)]
Figure = Annotated[float, Field(strict=True)]
Floats = NDArray[np.float64]

JSON_FILE = "scaling.json"
FORMAT = 2

POWERS: Floats = np.arange(-100, 201) / 50  # k that are tried: −2 to 4 in steps of 0.02
SAMPLES = 1000
SAMPLES_AT_A_TIME = 250  # bounds memory
FEWEST_SIZES = 4  # a, b and k are three numbers
FEWEST_REPETITIONS = 5  # with three, intervals that should hold 95 % of exponents held 80 %


@validated(frozen=True, kw_only=True, config=STRICT)
class Cost:
    """What is published of one quantity of a model or of a part of one."""

    model: Text
    part: str = ""
    quantity: Quantity
    expression: Text
    exponents: Annotated[dict[Factor, Figure], Field(min_length=1)]
    logarithms: tuple[Factor, ...] = ()
    open: dict[Factor, Text] = Field(default_factory=dict)
    """Size → why the sources do not say how the cost grows with it."""
    source: Text
    note: str = ""


@validated(frozen=True, config=STRICT)
class Complexity:
    """The file `complexity.toml`."""

    confidence: Annotated[float, Field(gt=0, lt=1, strict=True)]
    tolerance: Annotated[float, Field(ge=0, strict=True)]
    """What an exponent may exceed the published one by."""
    widest: Annotated[float, Field(gt=0, strict=True)]
    """Wider intervals decide nothing unless they lie on one side."""
    misfit: Annotated[float, Field(gt=0, strict=True)]
    """A fit that misses a median by more than this share decides nothing."""
    costs: Annotated[tuple[Cost, ...], Field(min_length=1)]

    def cost(self, model: str, part: str, quantity: str) -> Cost | None:
        """The entry of a model (any case), its part, and a quantity."""
        for cost in self.costs:
            if (cost.model.lower(), cost.part, cost.quantity) == (model.lower(), part, quantity):
                return cost
        return None


def load_complexity(path: Path) -> Complexity:
    """A file such as `expected/bm3/complexity.toml`; raises DataError naming the file and the field."""
    complexity = validated_toml(path, TypeAdapter(Complexity))
    seen = set()
    for cost in complexity.costs:
        key = (cost.model.lower(), cost.part, cost.quantity)
        if key in seen:
            raise DataError(f"{path}: costs: {cost.model} {cost.part} {cost.quantity} is there twice; keep one")
        seen.add(key)
        if both := set(cost.open).intersection(cost.exponents):
            raise DataError(
                f"{path}: costs: {cost.model} {cost.part} {cost.quantity}: {', '.join(both)} is given and open"
            )
        if bare := set(cost.logarithms).difference(cost.exponents):
            raise DataError(
                f"{path}: costs: {cost.model} {cost.part} {cost.quantity}: {', '.join(bare)} has no exponent"
            )
    return complexity


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
    slope: float
    """Of log y over log x between the middle size and the largest: how y grows as a whole, at most k."""
    misfit: float
    """The largest distance of a median from the fit, as a share of the median."""
    repetitions: int
    """At the size that has the fewest."""


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
    misfit = float(np.abs(curve / medians - 1).max())
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(SAMPLES // SAMPLES_AT_A_TIME):
        chosen = draw.integers(n, size=(SAMPLES_AT_A_TIME, n))
        found.append(_fitted(x, np.median(y[:, chosen], axis=2).T)[0])
    tail = float(ndtr(-math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 + confidence) / 2)))
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    upper = slice(len(x) // 2, None)
    slope = np.polyfit(np.log(x[upper]), np.log(medians[upper]), 1)[0]
    # Samples of few repetitions can all lie on one side of the fit to all of them.
    ends = min(float(low), float(exponent)), max(float(high), float(exponent))
    return Fit(float(exponent), *ends, float(constant / medians[-1]), float(slope), misfit, n)


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


class Verdict(StrEnum):
    """What a measured exponent says about a published one."""

    CONSISTENT = "consistent"
    """The published exponent is in the interval, or above it: then it is cheaper than published."""
    ABOVE = "above"
    """It costs more than published."""
    NO_EVIDENCE = "no evidence"
    """Not measured, too noisy or too small, or a constant hides what grows."""
    OPEN = "open"
    """The sources do not say."""


@dataclass(frozen=True)
class Cell:
    """One quantity of a model or part while one size grows."""

    model: str
    part: str
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
UNPUBLISHED = "no cost of it is published in the sources used here"


def judge(
    complexity: Complexity,
    model: str,
    part: str,
    factor: str,
    quantity: str,
    sizes: Sequence[int],
    values: Sequence[Sequence[float]],
) -> Cell:
    """The cell of repetitions [sizes][repetitions] at ascending sizes."""
    known = [(size, row) for size, row in zip(sizes, values, strict=True) if row]
    kept, rows = tuple(size for size, _ in known), [row for _, row in known]
    found = fit(kept, rows, complexity.confidence)
    cost = complexity.cost(model, part, quantity)
    published = None if cost is None else cost.exponents.get(factor)  # type: ignore[call-overload]
    unclear = "" if found is None else _unclear(complexity, found)
    if found is None:
        few = len(kept) < FEWEST_SIZES
        what = (
            f"{len(kept)} of at least {FEWEST_SIZES} sizes" if few else f"fewer than {FEWEST_REPETITIONS} repetitions"
        )
        fewest = min(map(len, rows), default=0)
        reason = f"{what} were measured" if few or fewest < FEWEST_REPETITIONS else "a value is not positive"
        verdict = Verdict.NO_EVIDENCE
    elif published is None:
        verdict = Verdict.OPEN
        reason = unclear or _why_open(cost, factor)
    else:
        verdict, reason = _verdict(complexity, found, published, _of_logarithm(cost, factor, kept), unclear)
    medians = tuple(float(np.median(row)) for row in rows)
    return Cell(model, part, factor, quantity, kept, medians, found, published, verdict, reason)


def _unclear(complexity: Complexity, found: Fit) -> str:
    """Why the exponent is not known well enough to tell it from the next whole number; empty where it is."""
    if found.misfit > complexity.misfit or found.exponent in (POWERS[0], POWERS[-1]):
        return ILL_FITTING
    return UNDETERMINED if found.high - found.low > complexity.widest else ""


def _verdict(
    complexity: Complexity, found: Fit, published: float, logarithm: float, unclear: str
) -> tuple[Verdict, str]:
    bound = published + logarithm + complexity.tolerance
    if unclear == ILL_FITTING:
        return Verdict.NO_EVIDENCE, unclear
    if found.low > bound:
        return Verdict.ABOVE, f"grows faster than published, by more than {bound - published:.2f} in the exponent"
    if found.high < published:
        return Verdict.CONSISTENT, "cheaper than published"
    if unclear:
        return Verdict.NO_EVIDENCE, unclear
    return Verdict.CONSISTENT, "as published" if found.low <= published else "within the tolerance"


def _of_logarithm(cost: Cost | None, factor: str, sizes: Sequence[int]) -> float:
    """What log x adds to the slope of x log x: 1 / ln x, at the geometric mean of the sizes."""
    if cost is None or factor not in cost.logarithms:
        return 0.0
    return 1 / float(np.log(np.asarray(sizes, dtype=np.float64)).mean())


def _why_open(cost: Cost | None, factor: str) -> str:
    if cost is None:
        return UNPUBLISHED
    for size, reason in cost.open.items():
        if size == factor:
            return reason
    return f"not in the published expression {cost.expression}"


def exponents_of(cells: Iterable[Cell]) -> dict[tuple[str, str], Exponent]:
    """(model, size) → how the seconds of an epoch grow, as `claims_of_runs` takes it. Ill-fitting ones are left out."""
    return {
        (cell.model, cell.factor): (cell.fit.exponent, cell.fit.low, cell.fit.high)
        for cell in cells
        if cell.fit is not None and not cell.part and cell.quantity == "epoch" and cell.reason != ILL_FITTING
    }


def stored_exponents(folder: Path) -> dict[tuple[str, str], Exponent]:
    """(model, size) → fitted exponent of an epoch's seconds with its interval, from the `scaling.json` in a folder.

    Only of models that it says are complete; empty where there is no file. Raises DataError when the file is damaged.
    """
    path = folder / JSON_FILE
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(
                f"{path}: format {content['format']!r} is not known; measure again with bm3 scaling, or remove it"
            )
        complete = TypeAdapter(set[str]).validate_python(content["complete"])
        cells = TypeAdapter(tuple[Cell, ...]).validate_python(content["cells"])
    except (OSError, ValueError, ValidationError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); measure again with bm3 scaling, or remove it") from error
    return exponents_of(cell for cell in cells if cell.model in complete)


def exit_code(cells: Sequence[Cell]) -> int:
    """1 where something costs more than published, 0 where something is consistent and nothing above, else 3."""
    verdicts = {cell.verdict for cell in cells}
    return 1 if Verdict.ABOVE in verdicts else 0 if Verdict.CONSISTENT in verdicts else 3
