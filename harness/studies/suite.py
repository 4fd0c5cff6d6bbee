"""The trials that answer a suite's question, and which of them are needed next. How trials are run is `execution`.

Grid points run with the first seed. Two of them are chosen, always: the best on validation, as the paper says, and the
best on test, as the published code did; so that the difference is known with as many seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from bm3 import BM3Config, ConfigError
from harness.data import Dataset
from harness.paper.load import Paper
from harness.paper.rows import Point, choose
from harness.runs.store import StoredRun
from harness.runs.trial import Trial, dataset_for, make_trial
from harness.studies.suite_file import Experiment, Order, Outline, Repeat, Suite, load_suite, outline
from harness.training.config import STOPPING_METRIC

__all__ = [
    "Experiment",
    "Outcomes",
    "Outline",
    "Row",
    "Suite",
    "load_suite",
    "outline",
    "plan",
    "wanted",
]

Outcomes = Mapping[str, StoredRun | None]
"""By the trial's key: its finished run, or None where it ended without a result."""


@dataclass(frozen=True)
class Row:
    """One row of a suite on one data set."""

    label: str
    dataset: Dataset
    points: tuple[Trial, ...]
    """Its grid points, with the first seed."""
    seeds: tuple[int, ...]
    repeat: Repeat = "best"

    def wanted(self, outcomes: Outcomes) -> list[Trial]:
        """The trials known to be needed so far, in order, whether or not they are done."""
        first, *others = self._repetitions
        if self.repeat == "all" or len(self.points) == 1:
            return [trial for trials in self._repetitions for trial in trials]
        places = [self.points.index(point) for point in self.chosen(outcomes)]
        return [*first, *(trials[place] for place in places for trials in others)]

    def chosen(self, outcomes: Outcomes) -> list[Trial]:
        """The points that are best on validation and on test R@20, once if they are the same, the earlier of equals.

        None until every point has ended, and where none ended with a result.
        """
        if any(point.key not in outcomes for point in self.points):
            return []
        first = self.seeds[0]
        points = [
            Point({"key": point.key}, {first: run} if (run := outcomes[point.key]) else {}, STOPPING_METRIC)
            for point in self.points
        ]
        if (best := choose(points, [first])) is None:
            return []
        keys = dict.fromkeys(point.settings["key"] for point in (best.on_validation, best.on_test))
        return [point for key in keys for point in self.points if point.key == key]

    def to_come(self, outcomes: Outcomes) -> tuple[int, int]:
        """How many trials, at least and at most, follow from a choice that cannot be made yet."""
        more = len(self.seeds) - 1
        settled = self.repeat == "all" or len(self.points) == 1 or all(point.key in outcomes for point in self.points)
        return (0, 0) if settled else (more, 2 * more)

    @cached_property
    def _repetitions(self) -> tuple[tuple[Trial, ...], ...]:
        """The points with each seed; kept, since a study asks for what is wanted again and again."""
        others = (tuple(replace(point, seed=seed) for point in self.points) for seed in self.seeds[1:])
        return self.points, *others


def plan(
    suite: Suite,
    data: Path | None,
    device: torch.device,
    datasets: Sequence[str] | None = None,
    paper: Paper | None = None,
) -> list[Row]:
    """The rows of a suite, on other data sets than its own if some are named, every setting and data set checked.

    Raises ConfigError or DataError before anything runs.
    """
    loaded: dict[str, Dataset] = {}
    rows = []
    for row in outline(suite, list(datasets) if datasets else None, paper):
        name = row.dataset
        if name not in loaded:
            loaded[name] = dataset_for(suite.training, name, data)
        points = tuple(
            make_trial(row.model, loaded[name], name, settings, row.seeds[0], device) for settings in row.points
        )
        for point in points:
            _check_modalities(point, row.label)
        rows.append(Row(row.label, loaded[name], points, row.seeds, row.repeat))
    return rows


def wanted(rows: Sequence[Row], outcomes: Outcomes, order: Order = "rows") -> list[Trial]:
    """The trials of all rows that are known to be needed so far, each once, whether or not they are done.

    Interleaved, every row's trials with one seed come before those with the next.
    """
    trials = [(row.seeds.index(trial.seed), trial) for row in rows for trial in row.wanted(outcomes)]
    if order == "interleaved":
        trials.sort(key=lambda pair: pair[0])  # a stable sort: rows keep their order within a repetition
    return list({trial.key: trial for _, trial in trials}.values())


def _check_modalities(trial: Trial, label: str) -> None:
    """Whether the data set has those that BM3 is set to read, which no setting shows by itself. Raises ConfigError."""
    config, there = trial.config, trial.dataset.features
    if not isinstance(config, BM3Config) or not config.reads_features or config.modalities == "all":
        return
    for name in config.modalities.split("+"):
        if name not in there:
            has = ", ".join(map(repr, there)) or "none at all"
            raise ConfigError(
                f"{label} on {trial.dataset_name}: modalities is {config.modalities!r}: no {name!r} in the data set, "
                f"which has {has}"
            )
