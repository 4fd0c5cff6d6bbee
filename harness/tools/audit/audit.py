"""Audits: each variant of each model beside the published value, with the same seeds and all else equal.

A difference and the word for it are in `effects`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.common import write_whole, writing
from harness.data import Dataset, load_dataset
from harness.models.registry import find_model, models
from harness.paper.load import Paper
from harness.paper.published import canonical_metric, short_metric
from harness.report.markdown import environment_table
from harness.report.tables import markdown, table
from harness.runs.record import RunRecord
from harness.runs.settings import ALL_MODELS, VariantRow, variants
from harness.runs.trial import Trial, make_trial
from harness.studies.execute import metric_of
from harness.studies.suite import load_suite
from harness.tools.audit.effects import AUDIT, Change, Effect, effects_csv, known_effects, paired_effect, signed


@dataclass(frozen=True)
class Comparison:
    """A model with another value of one variant, beside the model as published."""

    variant: VariantRow
    value: Any
    """The other value."""
    base: tuple[Trial, ...]
    """The published value with each seed; the comparisons of a model share them."""
    trials: tuple[Trial, ...]
    """The other value with the same seeds, in the same order."""


@dataclass(frozen=True)
class Audit:
    """What was asked and what came of it."""

    dataset: Dataset
    comparisons: tuple[Comparison, ...]
    runs: Mapping[str, RunRecord]
    """Finished runs by the trial's key."""
    failed: tuple[str, ...]
    """Commands of trials that failed."""
    paper: Paper

    @property
    def metrics(self) -> list[str]:
        """The paper's metrics at the cut-off that ends trainings, canonical."""
        cutoff = self.paper.stopping.partition("@")[2]
        return [canonical_metric(metric) for metric in self.paper.metrics if metric.partition("@")[2] == cutoff]

    @property
    def effects(self) -> list[Effect]:
        """Of every comparison on every metric, in order, from the seeds that finished with both values."""
        found = []
        for comparison in self.comparisons:
            base, other = (self._finished(side) for side in (comparison.base, comparison.trials))
            shared = base.keys() & other.keys()
            same = all(_outcome(base[seed]) == _outcome(other[seed]) for seed in shared)
            model = comparison.base[0].entry.name
            code = "numerics {model}.{training}".format(**comparison.base[0].identity["numerics"])
            for metric in self.metrics:
                key = self.dataset.name, model, comparison.variant.setting, str(comparison.value), metric
                values = [{seed: metric_of(run, "test", metric) for seed, run in s.items()} for s in (base, other)]
                found.append(paired_effect(key, values[0], values[1], self.paper.tolerances, same, code))
        return found

    def _finished(self, trials: Sequence[Trial]) -> dict[int, RunRecord]:
        return {trial.seed: self.runs[trial.key] for trial in trials if trial.key in self.runs}

    @property
    def code(self) -> int:
        """Exit code: 1 if a trial failed, else 0 if an effect has evidence, else 3."""
        known = any(effect.effect is not Change.NO_EVIDENCE for effect in self.effects)
        return 1 if self.failed else 0 if known else 3


def plan_audit(
    paper: Paper, name: str, data: Path | None, wanted: Sequence[str], seeds: Sequence[int], device: torch.device
) -> tuple[Dataset, tuple[Comparison, ...]]:
    """The data set called `name` and the comparisons of the `wanted` models there, of all models if none is.

    Variants of training are compared with each of them: what they change depends on the model. Training is that of the
    paper's suite that has the data set's name; without such a suite the published one. Raises ConfigError or DataError
    before anything runs.
    """
    chosen = dict.fromkeys(find_model(model).name for model in wanted) or sorted(models())
    dataset, training = load_dataset(name, data), load_suite(name, paper).training if name in paper.suites else {}

    def trials(model: str, settings: Mapping[str, Any]) -> tuple[Trial, ...]:
        return tuple(make_trial(model, dataset, name, {**training, **settings}, seed, device) for seed in seeds)

    comparisons = []
    for model in chosen:
        base = trials(model, {})
        comparisons += [
            Comparison(row, value, base, trials(model, {row.setting: value}))
            for row in variants()
            if row.model in (model, ALL_MODELS)
            for value in row.values[1:]
        ]
    return dataset, tuple(comparisons)


def trials_of(comparisons: Sequence[Comparison]) -> list[Trial]:
    """Every trial once: those of a model together, the published values first."""
    ordered = [trial for comparison in comparisons for trial in (*comparison.base, *comparison.trials)]
    return list({trial.key: trial for trial in ordered}.values())


def audit_markdown(audit: Audit) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    effects, rule = audit.effects, audit.paper.tolerances
    counts = Counter(effect.effect for effect in effects).most_common()
    lines = [
        f"- Data set: {audit.dataset.name}, content hash {audit.dataset.content_hash[:10]}",
        f"- Seeds: {', '.join(str(seed) for seed in dict.fromkeys(t.seed for t in trials_of(audit.comparisons)))}",
        "- Effects: " + ", ".join(f"{n} {change}" for change, n in counts),
    ]
    surrogates = {run.model for run in audit.runs.values() if run.reads_features}
    if audit.dataset.surrogates and surrogates:
        lines.append(f"- Trained on surrogate features, not on the original vectors: {', '.join(sorted(surrogates))}")
    lines += [f"- Failed: `{command}`" for command in audit.failed]
    published = {(c.variant.setting, str(c.value)): c.variant.values[0] for c in audit.comparisons}
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
    figures = table("Paired differences", [*head, "interval", "effect"], rows, "llllrrrrll", lead=legend, groups=3)
    return (
        "\n\n".join(
            [
                f"# What the variants change on {audit.dataset.name}",
                "Every setting in which text and published code disagree, with its other value beside the published "
                "one, all else equal.",
                "\n".join(lines),
                markdown(figures).rstrip(),
                *environment_table(list(audit.runs.values())),
            ]
        )
        + "\n"
    )


def write_audit(audit: Audit, folder: Path, paper: Path | None = None) -> list[Path]:
    """Write `report.md` and `audit.csv` into the folder, each whole or not at all. Raises WriteError.

    Into the folder `paper`, where given, the effects go too, as `audit/<data set>.csv`; those of models that were not
    audited stay. Raises ValueError if not everything was measured then.
    """
    effects = audit.effects
    contents = {folder / "report.md": audit_markdown(audit), folder / "audit.csv": effects_csv(effects)}
    if paper is not None:
        if audit.code != 0:
            raise ValueError("not everything was measured")
        measured = {effect.model for effect in effects}
        kept = [e for e in known_effects(paper) if e.dataset == audit.dataset.name and e.model not in measured]
        known = sorted([*kept, *effects], key=lambda effect: effect.model)
        contents[paper / AUDIT / f"{audit.dataset.name}.csv"] = effects_csv(known)
    for path, content in contents.items():
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content.encode())
    return list(contents)


def _outcome(run: RunRecord) -> list[Any]:
    """The epoch that was best, and all its metrics: the same in runs that ended with the same bits."""
    return [run.outcome.best_epoch, run.outcome.valid, run.outcome.test]
