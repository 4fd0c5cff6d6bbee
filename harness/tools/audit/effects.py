"""What a variant changes: paired differences over seeds, one word for each, and effects as data (`expected/bm3/audit`).

Which trials show it is planned in `harness.tools.audit.audit`; nothing here knows a model or a run.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bm3.errors import DataError
from harness.paper.expected import Tolerances, read_rows

# The same rule for means and differences; it rounds once, whatever the order of the seeds.
from harness.paper.verdict import mean_and_interval

AUDIT = "audit"
COLUMNS = (
    "dataset",
    "model",
    "setting",
    "value",
    "metric",
    "base",
    "variant",
    "difference_percent",
    "low_percent",
    "high_percent",
    "seeds",
    "effect",
    "code",
)
# float() alone would also take "nan", "inf" and "1_000".
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)
_METRIC = re.compile(r"[a-z]+@[1-9]\d*", re.ASCII)


class Change(StrEnum):
    """What a variant does to a metric, the first in the order of `paired_difference` that applies."""

    NO_EVIDENCE = "no evidence"
    """Too few seeds, or a mean of 0 to compare with."""
    NONE = "none"
    """All runs are those of the published value to the last bit."""
    WITHIN_NOISE = "within noise"
    """The interval over seeds contains 0."""
    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True)
class Difference:
    """A metric with the published value (`base`) and with another one; None where it could not be computed."""

    base: float | None
    """Mean over seeds, as is `variant`."""
    variant: float | None
    percent: float | None
    """Mean of the differences per seed, in percent of `base`."""
    low_percent: float | None
    """Ends of the t-interval of `percent` over seeds."""
    high_percent: float | None
    seeds: int
    """Seeds that finished with both values."""
    change: Change


@dataclass(frozen=True)
class Effect:
    """What a value of a variant does to one metric of a model on a data set."""

    dataset: str
    model: str
    setting: str
    value: str
    metric: str
    """Canonical name, such as `recall@20`."""
    difference: Difference
    code: str
    """Hash of the source that decided the model's numbers."""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is the effect of, and on which metric."""
        return self.dataset, self.model, self.setting, self.value, self.metric


def paired_difference(
    base: Sequence[float], variant: Sequence[float], tolerances: Tolerances, *, identical: bool
) -> Difference:
    """Compare a metric seed by seed; `identical` says that the runs are the same to the last bit.

    Both have the same seeds in the same order. Raises ValueError when they differ in length.
    """
    mean, _ = mean_and_interval(base, tolerances.confidence)
    other, _ = mean_and_interval(variant, tolerances.confidence)
    if not mean:
        return Difference(mean, other, None, None, None, len(base), Change.NO_EVIDENCE)
    percents = [100 * (after - before) / mean for before, after in zip(base, variant, strict=True)]
    percent, interval = mean_and_interval(percents, tolerances.confidence)
    if len(base) < tolerances.min_seeds or interval is None:
        return Difference(mean, other, percent, None, None, len(base), Change.NO_EVIDENCE)
    low, high = interval
    return Difference(mean, other, percent, low, high, len(base), Change.NONE if identical else _change(low, high))


def effects_csv(effects: Iterable[Effect]) -> str:
    """The effects as a CSV file with COLUMNS, figures with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for effect in effects:
        d = effect.difference
        figures = [
            "" if figure is None else f"{figure + 0.0:.6g}"  # + 0.0: no minus before zero
            for figure in (d.base, d.variant, d.percent, d.low_percent, d.high_percent)
        ]
        writer.writerow([*effect.key, *figures, d.seeds, d.change.value, effect.code])
    return text.getvalue()


def known_effects(directory: Path) -> tuple[Effect, ...]:
    """The measured effects in `audit/*.csv` of a paper's folder.

    Raises DataError naming file and line for anything that does not fit the columns, is there twice, or contradicts
    itself.
    """
    effects: list[Effect] = []
    first_seen: dict[tuple[str, ...], str] = {}
    for path in sorted((directory / AUDIT).glob("*.csv")):
        for where, row in read_rows(path, COLUMNS):
            effect = _parse(row, where)
            if effect.dataset != path.stem:
                raise DataError(f"{where}: data set '{effect.dataset}' does not belong in {path.name}")
            seen_at = first_seen.setdefault(effect.key, where)
            if seen_at != where:
                raise DataError(f"{where}: the same effect as {seen_at}; remove one")
            effects.append(effect)
    return tuple(effects)


def merged(known: Iterable[Effect], measured: Sequence[Effect]) -> list[Effect]:
    """The measured effects and, of other models, the known ones on the same data sets; by model."""
    models, datasets = {effect.model for effect in measured}, {effect.dataset for effect in measured}
    kept = [effect for effect in known if effect.dataset in datasets and effect.model not in models]
    return sorted([*kept, *measured], key=lambda effect: effect.model)


def _change(low: float, high: float) -> Change:
    if low <= 0 <= high:
        return Change.WITHIN_NOISE
    return Change.LOWER if high < 0 else Change.HIGHER


def _parse(row: Sequence[str], where: str) -> Effect:
    dataset, model, setting, value, metric, *figures, seeds, word, code = row
    if not (dataset and model and setting and value and code):
        raise DataError(f"{where}: dataset, model, setting, value and code must be given")
    if not _METRIC.fullmatch(metric):
        raise DataError(f"{where}: metric '{metric}' is not of the form recall@20")
    if not (seeds.isascii() and seeds.isdecimal() and int(seeds) >= 1):
        raise DataError(f"{where}: seeds '{seeds}' is not a whole number of at least 1")
    if word not in list(Change):
        raise DataError(f"{where}: unknown effect '{word}'; use one of: {', '.join(Change)}")
    base, variant, percent, low, high = (_figure(text, where) for text in figures)
    difference = Difference(base, variant, percent, low, high, int(seeds), Change(word))
    if not _consistent(difference):
        raise DataError(f"{where}: effect '{word}' contradicts the figures; write the file with bm3 audit")
    return Effect(dataset, model, setting, value, metric, difference, code)


def _figure(text: str, where: str) -> float | None:
    if text == "":
        return None
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise DataError(f"{where}: '{text}' is not a finite number, such as -0.0564")
    return float(text)


def _consistent(d: Difference) -> bool:
    if d.base is None or d.variant is None or min(d.base, d.variant) < 0:
        return False
    if d.low_percent is None or d.high_percent is None or d.percent is None:
        return d.change is Change.NO_EVIDENCE and d.low_percent is None and d.high_percent is None
    if d.change is Change.NONE:
        return d.base == d.variant and d.percent == d.low_percent == d.high_percent == 0
    return d.low_percent <= d.percent <= d.high_percent and d.change is _change(d.low_percent, d.high_percent)
