"""`bm3 audit`: what does each variant change, the settings in which a paper's text and the published code disagree?

The trials are those of a suite with `variants = "each"`; the effects are paired differences over seeds, with a word for
each, and are kept as data in the paper's `audit/*.csv`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bm3.errors import DataError
from harness.common import number, write_files
from harness.models.registry import find_model, trained_in_steps
from harness.paper.load import Paper, Tolerances, field_fault
from harness.paper.published import canonical_metric, read_rows, short_metric
from harness.paper.significance import over_seeds
from harness.report.flat import csv_text
from harness.report.markdown import environment_table
from harness.report.tables import markdown, table
from harness.runs.record import RunRecord
from harness.runs.settings import ALL_MODELS, VariantRow, flatten
from harness.studies.suite import Experiment, Outcomes, Row, Suite, load_suite, plan

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


class Comparison(NamedTuple):
    """A model with another value of one variant, beside the model as published, as rows of the suite."""

    base: Row
    other: Row
    setting: str
    """The only one in which they differ."""
    published: Any
    value: Any
    """The other one."""


def compared(base: Row, other: Row) -> Comparison:
    """Two rows of one point that differ in one setting."""
    trials = (row.points[0] for row in (base, other))
    before, now = (flatten({**asdict(trial.config), **asdict(trial.training)}) for trial in trials)
    (setting,) = (key for key, value in now.items() if before[key] != value)
    return Comparison(base, other, setting, before[setting], now[setting])


def plan_audit(
    paper: Paper, name: str, data: Path | None, wanted: Sequence[str], seeds: Sequence[int], device: torch.device
) -> list[Row]:
    """The rows on the data set `name` of the `wanted` models, of all if none is: each as published, then its variants.

    Variants of training are compared with each model: what they change depends on it. Training is that of the paper's
    suite that has the data set's name; without such a suite the published one. Raises ConfigError or DataError before
    anything runs.
    """
    chosen = dict.fromkeys(find_model(model).name for model in wanted) or trained_in_steps()
    suite = Suite(
        title="audit",
        datasets=[name],
        seeds=list(seeds),
        training=load_suite(name, paper).training if name in paper.suites else {},
        experiments=[Experiment(model=model, variants="each") for model in chosen],
    )
    return plan(suite, data, device, paper=paper)


class Audit:
    """What was asked and what came of it."""

    def __init__(self, rows: Sequence[Row], outcomes: Outcomes, paper: Paper) -> None:
        self.paper, self.dataset = paper, rows[0].dataset
        base = {row.label: row for row in rows if row.label == row.outline.model}
        self.comparisons = [compared(base[row.outline.model], row) for row in rows if row.label not in base]
        self.seeds = rows[0].seeds
        self.runs = {key: run for key, run in outcomes.items() if run is not None}
        """Finished runs by the trial's key."""
        trials = {trial.key: trial for row in rows for trial in row.wanted({})}
        self.without_result = [trial.command for key, trial in trials.items() if key not in self.runs]
        """Commands of trials without a result."""

    @cached_property
    def effects(self) -> list[Effect]:
        """Of every comparison on the paper's metrics at the cut-off that ends trainings, in order."""
        at = self.paper.stopping.partition("@")[2]
        metrics = [canonical_metric(metric) for metric in self.paper.metrics if metric.partition("@")[2] == at]
        found = []
        for comparison in self.comparisons:
            base, other = (
                {trial.seed: self.runs[trial.key] for trial in row.wanted({}) if trial.key in self.runs}
                for row in (comparison.base, comparison.other)
            )
            same = all(_ended(base[seed]) == _ended(other[seed]) for seed in base.keys() & other.keys())
            point = comparison.base.points[0]
            code = "numerics {model}.{training}".format(**point.identity["numerics"])
            for metric in metrics:
                key = self.dataset.name, point.entry.name, comparison.setting, str(comparison.value), metric
                values = [
                    {seed: value for seed, run in runs.items() if (value := run.value(metric)) is not None}
                    for runs in (base, other)
                ]
                found.append(paired_effect(key, values[0], values[1], self.paper.tolerances, same, code))
        return found

    @property
    def measured(self) -> list[Effect]:
        """Those with evidence, to which every seed contributes."""
        return [e for e in self.effects if e.effect is not Change.NO_EVIDENCE and e.seeds == len(self.seeds)]

    @property
    def code(self) -> int:
        """Exit code: 1 if a trial has no result, else 0 if an effect has evidence, else 3."""
        known = any(effect.effect is not Change.NO_EVIDENCE for effect in self.effects)
        return 1 if self.without_result else 0 if known else 3


def _ended(run: RunRecord) -> list[Any]:
    """The epoch that was best, and all its metrics: the same in runs that ended with the same bits."""
    return [run.outcome.best_epoch, run.outcome.valid, run.outcome.test]


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
    moved = Change.WITHIN_NOISE if low <= 0 <= high else Change.LOWER if high < 0 else Change.HIGHER
    change = Change.NONE if same else moved
    return replace(nothing, difference_percent=percent, low_percent=low, high_percent=high, effect=change)


def effects_csv(effects: Iterable[Effect]) -> str:
    """The effects as a CSV file with COLUMNS, figures with six digits."""

    def written(name: str, value: Any) -> Any:
        return number(value, ".6g", "") if name in FIGURES else value

    return csv_text(COLUMNS, ([written(name, getattr(effect, name)) for name in COLUMNS] for effect in effects))


def known_effects(paper: Path) -> tuple[Effect, ...]:
    """The measured effects in `audit/*.csv` of a paper's folder.

    Raises DataError naming file and line for anything that does not fit the columns or is there twice.
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
            if effect.key in effects:
                raise DataError(f"{where}: this effect is there already; remove one")
            effects[effect.key] = effect
    return tuple(effects.values())


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


def audit_markdown(audit: Audit) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    effects, rule = audit.effects, audit.paper.tolerances
    counts = Counter(effect.effect for effect in effects).most_common()
    lines = [
        f"- Data set: {audit.dataset.name}, content hash {audit.dataset.content_hash[:10]}",
        f"- Seeds: {', '.join(map(str, audit.seeds))}",
        "- Effects: " + ", ".join(f"{n} {change}" for change, n in counts),
    ]
    surrogates = {run.model for run in audit.runs.values() if run.reads_features}
    if audit.dataset.surrogates and surrogates:
        lines.append(f"- Trained on surrogate features, not on the original vectors: {', '.join(sorted(surrogates))}")
    lines += [f"- Without a result: `{command}`" for command in audit.without_result]
    published = {(c.setting, str(c.value)): c.published for c in audit.comparisons}
    rows = [
        [
            effect.model,
            effect.setting,
            f"{published[effect.setting, effect.value]} → {effect.value}",
            short_metric(effect.metric),
            effect.seeds,
            *("" if mean is None else f"{mean:.4f}" for mean in (effect.base, effect.variant)),
            signed(effect.difference_percent, 2),
            " to ".join(filter(None, (signed(effect.low_percent, 2), signed(effect.high_percent, 2)))),
            effect.effect.value,
        ]
        for effect in effects
    ]
    head = ["model", "setting", "published → other value", "metric", "seeds", "published", "other", "diff. %"]
    legend = (
        "Published and other value: mean over seeds. The difference is taken seed by seed, in percent of the published "
        f"value's mean; its interval is a t-interval over seeds, {100 * rule.confidence:g} %. *none*: all runs are the "
        f"same to the last bit; *within noise*: the interval contains 0; *no evidence*: fewer than {rule.min_seeds} "
        "seeds finished with both values. Each interval stands alone: of many, some miss 0 by chance. `bm3 variants` "
        "says what text and code say."
    )
    title = f"# What the variants change on {audit.dataset.name}"
    lead = (
        "Every setting in which text and published code disagree, with its other value beside the published one, all "
        "else equal."
    )
    figures = table("Paired differences", [*head, "interval", "effect"], rows, "llllrrrrll", lead=legend, groups=3)
    environment = environment_table(list(audit.runs.values()))
    return "\n\n".join([title, lead, "\n".join(lines), markdown(figures).rstrip(), *environment]) + "\n"


def write_audit(audit: Audit, folder: Path, paper: Path | None = None) -> list[Path]:
    """Write `report.md` and `audit.csv` into the folder, each whole or not at all. Raises WriteError.

    Into the folder `paper`, where given, those that are measured go too, as `audit/<data set>.csv`. What is known of
    the others, and of models that were not audited, stays.
    """
    effects = audit.effects
    contents = {folder / "report.md": audit_markdown(audit), folder / "audit.csv": effects_csv(effects)}
    if paper is not None and (measured := audit.measured):
        models, open_ones = {e.model for e in effects}, {e.key for e in effects} - {e.key for e in measured}
        here = (effect for effect in known_effects(paper) if effect.dataset == audit.dataset.name)
        kept = [effect for effect in here if effect.model not in models or effect.key in open_ones]
        known = sorted([*kept, *measured], key=lambda effect: effect.model)
        contents[paper / AUDIT / f"{audit.dataset.name}.csv"] = effects_csv(known)
    return write_files(contents, "name another folder with --out")
