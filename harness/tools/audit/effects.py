"""What a variant changes: paired differences over seeds, a word for each, and effects as data (`audit/*.csv`).

Which trials show it is planned in `audit`; nothing here knows a model or a run.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, NonNegativeFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bm3.errors import DataError
from harness.paper.load import Tolerances, field_fault
from harness.paper.published import read_rows, short_metric
from harness.paper.significance import over_seeds
from harness.runs.settings import ALL_MODELS, VariantRow

AUDIT = "audit"
KEYS = ("dataset", "model", "setting", "value", "metric")
FIGURES = ("base", "variant", "difference_percent", "low_percent", "high_percent")
COLUMNS = (*KEYS, *FIGURES, "seeds", "effect", "code")
Text = Annotated[str, Field(min_length=1)]


class Change(StrEnum):
    """What a variant does to a metric, the first in the order of `paired_effect` that applies."""

    NO_EVIDENCE = "no evidence"
    """Too few seeds, or a mean of 0 to compare with."""
    NONE = "none"
    """All runs are those of the published value to the last bit."""
    WITHIN_NOISE = "within noise"
    """The interval over seeds contains 0."""
    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False))
class Effect:
    """What a value of a variant does to one metric of a model on a data set; figures are None where there is none."""

    dataset: Text
    model: Text
    setting: Text
    value: Text
    metric: Annotated[str, Field(pattern=r"^[a-z]+@[1-9]\d*$")]
    """Canonical name, such as `recall@20`."""
    base: NonNegativeFloat | None
    """Mean over seeds with the published value, as is `variant` with the other one."""
    variant: NonNegativeFloat | None
    difference_percent: float | None
    """Mean of the differences per seed, in percent of `base`."""
    low_percent: float | None
    """Ends of its t-interval over seeds."""
    high_percent: float | None
    seeds: Annotated[int, Field(ge=0)]
    """Seeds that finished with both values."""
    effect: Change
    code: str
    """Version of the source that decided the model's numbers."""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is the effect of, and on which metric."""
        return self.dataset, self.model, self.setting, self.value, self.metric


EFFECT = TypeAdapter(Effect)


def paired_effect(
    key: Sequence[str], base: Mapping[int, float], variant: Mapping[int, float], rule: Tolerances, same: bool, code: str
) -> Effect:
    """Compare values by seed, of the seeds that both have; `same` says that the runs are alike to the last bit."""
    seeds = sorted(base.keys() & variant.keys())
    means = [sum(side[seed] for seed in seeds) / len(seeds) if seeds else None for side in (base, variant)]
    named: Any = dict(zip(KEYS, key, strict=True))
    figures: Any = dict(zip(FIGURES, [*means, None, None, None], strict=True))
    nothing = Effect(**named, **figures, seeds=len(seeds), effect=Change.NO_EVIDENCE, code=code)
    if not means[0]:
        return nothing
    found = over_seeds(variant, base, rule.confidence)
    if found is None or len(seeds) < rule.min_seeds:
        return replace(nothing, difference_percent=100 * ((means[1] or 0) / means[0] - 1))
    percent, low, high = (100 * value / means[0] for value in (found.mean, *found.interval))
    change = Change.NONE if same else _change(low, high)
    return replace(nothing, difference_percent=percent, low_percent=low, high_percent=high, effect=change)


def _change(low: float, high: float) -> Change:
    return Change.WITHIN_NOISE if low <= 0 <= high else Change.LOWER if high < 0 else Change.HIGHER


def effects_csv(effects: Iterable[Effect]) -> str:
    """The effects as a CSV file with COLUMNS, figures with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for effect in effects:
        values = asdict(effect)
        for name in FIGURES:
            values[name] = "" if values[name] is None else f"{values[name] + 0.0:.6g}"  # + 0.0: no minus before zero
        writer.writerow([str(values[name]) for name in COLUMNS])
    return text.getvalue()


def known_effects(paper: Path) -> tuple[Effect, ...]:
    """The measured effects in `audit/*.csv` of a paper's folder.

    Raises DataError naming file and line for anything that does not fit the columns, is there twice, or contradicts
    itself.
    """
    effects: dict[tuple[str, ...], Effect] = {}
    for path in sorted((paper / AUDIT).glob("*.csv")):
        for where, row in read_rows(path, COLUMNS):
            values = dict(zip(COLUMNS, row, strict=True))
            try:
                effect = EFFECT.validate_python({k: v or None if k in FIGURES else v for k, v in values.items()})
            except ValidationError as error:
                raise DataError(f"{where}: {field_fault(error.errors()[0])}") from error
            if effect.dataset != path.stem:
                raise DataError(f"{where}: data set '{effect.dataset}' does not belong in {path.name}")
            if not _consistent(effect):
                raise DataError(f"{where}: effect '{effect.effect}' contradicts the figures; write it with bm3 audit")
            if effect.key in effects:
                raise DataError(f"{where}: this effect is there already; remove one")
            effects[effect.key] = effect
    return tuple(effects.values())


def _consistent(e: Effect) -> bool:
    if e.low_percent is None or e.high_percent is None or e.difference_percent is None:
        return e.effect is Change.NO_EVIDENCE and e.low_percent is None and e.high_percent is None
    if e.effect is Change.NONE:
        return e.base == e.variant and e.difference_percent == e.low_percent == e.high_percent == 0
    inside = e.low_percent <= e.difference_percent <= e.high_percent
    return e.base is not None and inside and e.effect is _change(e.low_percent, e.high_percent)


def effect_lines(variant: VariantRow, effects: Iterable[Effect], model: str | None = None) -> list[str]:
    """A line per data set and other value: what it changes, with `model` or over all that it was measured with."""
    wanted = variant.model if variant.model != ALL_MODELS else model
    groups: dict[tuple[str, str], dict[str, list[Effect]]] = {}
    for effect in effects:
        of_variant = effect.setting == variant.setting and effect.value in map(str, variant.values[1:])
        if of_variant and wanted in (None, effect.model):
            by_metric = groups.setdefault((effect.dataset, effect.value), {})
            by_metric.setdefault(effect.metric, []).append(effect)
    return [
        f"{dataset}, {value}: " + ", ".join(_changes(metric, group) for metric, group in by_metric.items())
        for (dataset, value), by_metric in groups.items()
    ]


def _changes(metric: str, effects: Sequence[Effect]) -> str:
    """`R@20 -0.4 % (lower)`; of several models the range and how many there are of each word."""
    percents = [effect.difference_percent for effect in effects if effect.difference_percent is not None]
    ends = dict.fromkeys(signed(end) for end in (min(percents), max(percents))) if percents else ()
    counts = Counter(effect.effect.value for effect in effects).most_common()
    words = ", ".join(word if len(effects) == 1 else f"{word} with {n}" for word, n in counts)
    return f"{short_metric(metric)} {' to '.join(ends) + ' % ' if ends else ''}({words})"


def signed(percent: Any, digits: int = 1) -> str:
    """With its sign, and no minus before zero; empty for None."""
    return "" if percent is None else f"{round(percent, digits) + 0.0:+.{digits}f}"
