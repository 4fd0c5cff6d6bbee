"""Audits: each variant of each model beside the published value, with the same seeds and all else equal.

A difference and the word for it are in `harness.tools.audit.effects`, the report is `harness.tools.audit.report`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from harness.data import Dataset, load_dataset
from harness.models.registry import find_model, models
from harness.paper.load import Paper, Tolerances
from harness.runs.store import StoredRun
from harness.runs.trial import Trial, make_trial
from harness.runs.variants import ALL_MODELS, VariantRow, variants
from harness.studies.execution import Outcomes, metric_of
from harness.studies.suite import load_suite
from harness.tools.audit.effects import Change, Effect, paired_difference

AUDIT_METRICS = ("recall@20", "ndcg@20")


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

    @property
    def model(self) -> str:
        """Name of the model; a variant of training has one comparison per model."""
        return self.base[0].entry.name


@dataclass(frozen=True)
class Audit:
    """What was asked and what came of it."""

    dataset: Dataset
    training: Mapping[str, Any]
    """Settings of training that are not the published ones."""
    seeds: tuple[int, ...]
    comparisons: tuple[Comparison, ...]
    runs: Mapping[str, StoredRun]
    """Finished runs by the trial's key."""
    failed: tuple[str, ...]
    """Commands of trials that failed."""
    tolerances: Tolerances

    @property
    def effects(self) -> list[Effect]:
        """Of every comparison on every metric, in order."""
        return [effect for comparison in self.comparisons for effect in self.effects_of(comparison)]

    def effects_of(self, comparison: Comparison) -> list[Effect]:
        """One effect per metric, from the seeds that finished with both values."""
        pairs = [
            (self.runs[base.key], self.runs[trial.key])
            for base, trial in zip(comparison.base, comparison.trials, strict=True)
            if base.key in self.runs and trial.key in self.runs
        ]
        identical = all(_same(base, run) for base, run in pairs)
        return [
            Effect(
                dataset=self.dataset.name,
                model=comparison.model,
                setting=comparison.variant.setting,
                value=str(comparison.value),
                metric=metric,
                difference=paired_difference(
                    [metric_of(base, "test", metric) for base, _ in pairs],
                    [metric_of(run, "test", metric) for _, run in pairs],
                    self.tolerances,
                    identical=identical,
                ),
                code="numerics {model}.{training}".format(**comparison.base[0].identity["numerics"]),
            )
            for metric in AUDIT_METRICS
        ]

    @property
    def code(self) -> int:
        """Exit code: 1 if a trial failed, else 0 if an effect has evidence, else 3."""
        if self.failed:
            return 1
        return 0 if any(effect.difference.change is not Change.NO_EVIDENCE for effect in self.effects) else 3


def plan_audit(
    paper: Paper, name: str, data: Path | None, wanted: Sequence[str], seeds: Sequence[int], device: torch.device
) -> tuple[Dataset, tuple[Comparison, ...]]:
    """The data set called `name` and the comparisons of the `wanted` models there, of all models if none is.

    Variants of training are compared with each of them: what they change depends on the model. Raises ConfigError or
    DataError before anything runs.
    """
    chosen = dict.fromkeys(find_model(model).name for model in wanted) or sorted(models())
    rows = variants()
    dataset, training = load_dataset(name, data), training_settings(paper, name)

    def trials(model: str, settings: Mapping[str, Any]) -> tuple[Trial, ...]:
        return tuple(make_trial(model, dataset, name, {**training, **settings}, seed, device) for seed in seeds)

    comparisons = []
    for model in chosen:
        base = trials(model, {})
        comparisons += [
            Comparison(row, value, base, trials(model, {row.setting: value}))
            for row in rows
            if row.model in (model, ALL_MODELS)
            for value in row.values[1:]
        ]
    return dataset, tuple(comparisons)


def training_settings(paper: Paper, dataset: str) -> Mapping[str, Any]:
    """Those of the suite that has the data set's name; without such a suite the published ones, so none."""
    return load_suite(dataset, paper).training if dataset in paper.suites else {}


def trials_of(comparisons: Sequence[Comparison]) -> list[Trial]:
    """Every trial once: those of a model together, the published values first."""
    ordered = [trial for comparison in comparisons for trial in (*comparison.base, *comparison.trials)]
    return list({trial.key: trial for trial in ordered}.values())


def results_of(trials: Sequence[Trial], outcomes: Outcomes) -> tuple[dict[str, StoredRun], tuple[str, ...]]:
    """Finished runs by the trial's key, and the commands of trials without one."""
    finished = {key: run for key, run in outcomes.items() if run is not None}
    return finished, tuple(trial.command for trial in trials if trial.key not in finished)


def _same(one: StoredRun, other: StoredRun) -> bool:
    """Whether two runs ended with the same bits: the epoch that was best, and all its metrics."""
    return _outcome(one) == _outcome(other)


def _outcome(run: StoredRun) -> list[Any]:
    return [(run.result or {})[part] for part in ("best_epoch", "valid", "test")]
