"""Suites: models by data sets by grids by seeds by variants, as TOML; the trials that answer one, and which are next.

Grid points run with the first seed. Two of them are chosen, always: the best on validation, as the paper says, and the
best on test, as the published code did; so that the difference is known with as many seeds. Running them is `execute`.
"""

from __future__ import annotations

import itertools
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bm3 import ConfigError
from harness.common import nearest, read_toml
from harness.paper.exceptions import ExceptedCells
from harness.paper.folders import suite_path
from harness.paper.load import Paper, Scalar, field_fault, load_paper
from harness.paper.published import canonical_metric
from harness.runs.settings import configure, flatten, search_grid
from harness.runs.store import SUPERSEDED

if TYPE_CHECKING:
    import torch

    from harness.data.dataset import Dataset
    from harness.ingest.exporting import Ids
    from harness.runs.record import RunRecord
    from harness.runs.trial import Trial

Repeat = Literal["best", "all"]
KeepModel = Literal["best", "all"]
Order = Literal["rows", "interleaved"]
Outcomes = Mapping[str, "RunRecord | None"]
"""By the key of a trial that has ended: its finished run, or None where there is no result."""


def _scalar(value: Any) -> Scalar:
    if not isinstance(value, Scalar):
        raise PydanticCustomError("scalar", "needed is a text, a number, true or false")
    return value


def _distinct(values: list[Any]) -> list[Any]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise PydanticCustomError("distinct", "{value} stands there twice", {"value": repr(value)})
    return values


def _flat(value: Any) -> Any:
    """`early_stopping.patience = 5` is a table in a table for TOML and a setting with a dot in it for us."""
    return flatten(value) if isinstance(value, Mapping) else value


AnyScalar = Annotated[Scalar, PlainValidator(_scalar)]
Settings = Annotated[dict[str, AnyScalar], BeforeValidator(_flat)]
Values = Annotated[
    dict[str, Annotated[list[AnyScalar], Field(min_length=1), AfterValidator(_distinct)]], BeforeValidator(_flat)
]

Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1), AfterValidator(_distinct)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Experiment(_Checked):
    """One model: settings, and what they are varied over."""

    model: str
    label: Annotated[str, Field(min_length=1)] | None = None
    """Name of the row in reports; the model's name if None."""
    set: Settings = {}
    """Settings, as after `--set`."""
    grid: Values = {}
    """Settings with several values each; every combination is a point, of which the best are chosen. In a file
    `published` stands for those of the paper, or of a model that it does not state, for its own `Config.GRID`."""
    vary: Values = {}
    """Settings with several values each; every combination is a row of its own."""
    datasets: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)] | None = None
    """Those of the suite's data sets that it is about; all if None."""
    seeds: Seeds | None = None
    """In place of the suite's."""
    variants: Literal["each"] | None = None
    """`each`: beside every row, one more per other value of every variant of the model and of training."""

    @model_validator(mode="before")
    @classmethod
    def _searched(cls, given: Any, info: ValidationInfo) -> Any:
        """With its values in place of a published grid; the paper's grids are the context of the validation."""
        if not isinstance(given, dict) or given.get("grid") != "published":
            return given
        grid = search_grid(str(given.get("model")), info.context or {})
        if not grid:
            raise ValueError(f"no grid was published for {given['model']}: give its values as a table of lists")
        return {**given, "grid": {key: list(values) for key, values in grid.items()}}

    def points(self) -> list[dict[str, Scalar]]:
        """What each grid point adds to the settings of a row."""
        return list(_combinations(self.grid))

    def rows(self, training: Mapping[str, Scalar], *, variants: bool = True) -> Iterator[tuple[str, dict[str, Scalar]]]:
        """Label of each row, and the settings that its points share: those of training, its own, what it varies."""
        for varied in _combinations(self.vary):
            label = _labelled(self.label or self.model, varied)
            settings = {**training, **self.set, **varied}
            yield label, settings
            for other in self._variants(settings) if variants else ():
                yield _labelled(label, other), settings | other

    def _variants(self, settings: Mapping[str, Scalar]) -> Iterator[dict[str, Scalar]]:
        """The other values of each variant that is neither searched nor varied anyway."""
        if self.variants is None:
            return
        from harness.models.registry import find_model
        from harness.runs.settings import ALL_MODELS, variants

        entry = find_model(self.model)
        config, training = configure(entry.model, settings)
        for row in variants():
            if row.model in (entry.name, ALL_MODELS) and row.setting not in {*self.grid, *self.vary}:
                here = attrgetter(row.setting)(config if row.model == entry.name else training)
                yield from ({row.setting: value} for value in row.values if value != here)


class Suite(_Checked):
    """A suite file."""

    title: str
    datasets: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
    seeds: Seeds
    training: Settings = {}
    """Settings of training for every experiment."""
    repeat: Repeat = "best"
    """`best`: grid points are run with the first seed; the one that is best on validation and the one that is best on
    test run with the other seeds too. `all`: every point runs with every seed."""
    order: Order = "rows"
    """`rows`: one row after another. `interleaved`: every row with the first seed, then with the next; so that what
    drifts while a suite is measured falls on all rows alike."""
    alone: bool = False
    """Whether its trials must never run side by side, since their times are what is asked for."""
    keep_model: KeepModel | None = None
    """Whose weights are kept: `best`, those of the points that are chosen, `all`, of every run; None: of no run."""
    self_check: bool = False
    """Whether its models are held against the stored reference of the self-check, and nothing else is asked."""
    experiments: Annotated[list[Experiment], Field(min_length=1)]
    exceptions: list[ExceptedCells] = []
    """Cells that are known to lie outside their band, and where."""

    def narrowed(self, models: Sequence[str]) -> Suite:
        """Only these of its models; all if there are none. Raises ConfigError for a model that it does not have."""
        there = list(dict.fromkeys(one.model for one in self.experiments))
        wanted = {nearest(name, there, f"the suite {self.title!r} has no model") for name in models or there}
        experiments = [one for one in self.experiments if one.model in wanted]
        return self.model_copy(update={"experiments": experiments})


@dataclass(frozen=True)
class Outline:
    """A row of a suite as the file alone gives it: no data set is looked at."""

    label: str
    named: bool
    """Whether the suite gives the row a name of its own."""
    model: str
    dataset: str
    """As the suite names it."""
    points: tuple[Mapping[str, Scalar], ...]
    """All settings of each grid point."""
    seeds: tuple[int, ...]
    undeclared: tuple[int, ...]
    """Those of the seeds that the suite does not name for it."""
    repeat: Repeat

    @property
    def all_at_once(self) -> bool:
        """Whether every point runs with every seed, so that nothing is chosen between."""
        return self.repeat == "all" or len(self.points) == 1

    def to_come(self, outcomes: Outcomes) -> int:
        """How many trials follow at most from a choice: the points best on validation and on test may be the same."""
        return 0 if self.all_at_once else 2 * (len(self.seeds) - 1)

    @property
    def trials(self) -> int:
        """How many there are at most."""
        return len(self.commands) + self.to_come({})

    @property
    def commands(self) -> list[str]:
        """Those of the trials that are run in any case, with the settings as the suite gives them."""
        return [
            shlex.join(["bm3", "train", self.model, self.dataset, *assignments(point), "--seed", str(seed)])
            for seed in (self.seeds if self.all_at_once else self.seeds[:1])
            for point in self.points
        ]


@dataclass(frozen=True)
class Row:
    """One row of a suite on one data set, as trials."""

    outline: Outline
    dataset: Dataset
    points: tuple[Trial, ...]
    """Its grid points, with the first seed."""

    @property
    def label(self) -> str:
        return self.outline.label

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.outline.seeds

    def wanted(self, outcomes: Outcomes) -> list[Trial]:
        """The trials known to be needed so far, in order, whether or not they are done."""
        first, *others = self._repetitions
        if self.outline.all_at_once:
            return [trial for trials in self._repetitions for trial in trials]
        places = [self.points.index(point) for point in self.chosen(outcomes)]
        return [*first, *(trials[place] for place in places for trials in others)]

    def chosen(self, outcomes: Outcomes) -> list[Trial]:
        """The points that are best on validation and on test, once if they are the same, the earlier of equals: by the
        first seed, or by all where every point runs with every seed.

        None until every point has ended, and where none ended with a result.
        """
        from harness.paper.rows import Point, choose

        compared = None if self.outline.all_at_once else self.seeds[:1]
        repetitions = self._repetitions[: None if compared is None else 1]
        if any(trial.key not in outcomes for trials in repetitions for trial in trials):
            return []
        metric = self.points[0].training.early_stopping.metric
        ended = [
            Point({"key": trials[0].key}, {t.seed: run for t in trials if (run := outcomes[t.key])}, metric)
            for trials in zip(*repetitions, strict=True)
        ]
        if (best := choose(ended, compared)) is None:
            return []
        keys = dict.fromkeys(point.settings["key"] for point in (best.on_validation, best.on_test))
        return [point for key in keys for point in self.points if point.key == key]

    def passed_over(self, outcomes: Outcomes) -> set[str]:
        """Keys of the trials, with every seed, of points that are not chosen; none where no point is."""
        places = {self.points.index(point) for point in self.chosen(outcomes)}
        return {
            trial.key
            for trials in self._repetitions
            for place, trial in enumerate(trials)
            if places and place not in places
        }

    def to_come(self, outcomes: Outcomes) -> int:
        """How many trials follow at most from a choice that cannot be made yet."""
        return 0 if all(point.key in outcomes for point in self.points) else self.outline.to_come(outcomes)

    @cached_property
    def _repetitions(self) -> tuple[tuple[Trial, ...], ...]:
        """The points with each seed; kept, since a study asks for what is wanted again and again."""
        others = (tuple(replace(point, seed=seed) for point in self.points) for seed in self.seeds[1:])
        return self.points, *others


def assignments(settings: Mapping[str, Scalar]) -> list[str]:
    """Settings as arguments of a command."""
    return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]


def outline(
    suite: Suite,
    datasets: Sequence[str] = (),
    paper: Paper | None = None,
    seeds: Sequence[int] = (),
    *,
    variants: bool = True,
) -> list[Outline]:
    """The rows of a suite, on other data sets or with other seeds than its own if some are named.

    Those of variants can be left out. What the suite does not set is as in the paper's own runs.
    """
    paper = paper or load_paper()
    found = []
    for dataset in datasets or suite.datasets:
        for experiment in suite.experiments:
            if dataset not in (experiment.datasets or [dataset]):
                continue
            declared = experiment.seeds or suite.seeds
            undeclared = tuple(seed for seed in seeds if seed not in declared)
            own = paper.departures(experiment.model, Path(dataset).name)
            for label, settings in experiment.rows(suite.training, variants=variants):
                shared = {**own, **settings}
                points = tuple({**shared, **point} for point in experiment.points())
                named = experiment.label not in (None, experiment.model)
                with_seeds = tuple(seeds or declared), undeclared
                found.append(Outline(label, named, experiment.model, dataset, points, *with_seeds, suite.repeat))
    return found


def plan(
    suite: Suite,
    data: Path | None,
    device: torch.device,
    datasets: Sequence[str] = (),
    paper: Paper | None = None,
    seeds: Sequence[int] = (),
) -> list[Row]:
    """The rows of a suite as trials, every setting and data set checked.

    Raises ConfigError or DataError before anything runs.
    """
    from harness.ingest.exporting import own_ids
    from harness.runs.trial import dataset_for, make_trial

    loaded: dict[str, Dataset] = {}
    ids: dict[str, Ids | None] = {}
    rows = []
    for row in outline(suite, datasets, paper, seeds):
        name = row.dataset
        if name not in loaded:
            loaded[name] = dataset_for(suite.training, name, data)
            ids[name] = own_ids(name, data, loaded[name]) if suite.keep_model else None
        points = tuple(
            replace(make_trial(row.model, loaded[name], name, settings, row.seeds[0], device), keep=ids[name])
            for settings in row.points
        )
        for point in points:
            _check_modalities(point, row.label)
        if len(points) > 1 and not len(loaded[name].valid):
            raise ConfigError(f"{row.label} on {name}: without a validation part nothing chooses: vary, not grid")
        rows.append(Row(row, loaded[name], points))
    return rows


def wanted(rows: Sequence[Row], outcomes: Outcomes, order: Order = "rows") -> list[Trial]:
    """The trials of all rows that are known to be needed so far, each once, whether or not they are done.

    Interleaved, every row's trials with one seed come before those with the next.
    """
    trials = [(row.seeds.index(trial.seed), trial) for row in rows for trial in row.wanted(outcomes)]
    if order == "interleaved":
        trials.sort(key=lambda pair: pair[0])  # a stable sort: rows keep their order within a repetition
    return list({trial.key: trial for _, trial in trials}.values())


def load_suite(name: str, paper: Paper | None = None, *, check: bool = True) -> Suite:
    """A suite of a paper by name, or the suite file at a path, with models and settings checked.

    Without the check the models, and torch with them, are not imported. Raises ConfigError naming file and key.
    """
    paper = paper or load_paper()
    path = suite_path(name, paper.folder)
    if path.stem == SUPERSEDED:
        raise ConfigError(f"{path}: its study would lie in the folder of superseded runs; give the file another name")
    try:
        content = read_toml(path)
        suite = _validated(content, paper)
        if check:
            _check(suite, paper)
    except (OSError, ValueError, ConfigError) as error:  # ValueError: of UTF-8 or TOML, whose message names the line
        raise ConfigError(f"{path}: {error}") from error
    return suite


def declared_seeds(paper: Paper) -> dict[tuple[str, str], set[int]]:
    """Model and data set → the seeds that suites of the paper declare for them, as written; faults are passed over."""
    found: dict[tuple[str, str], set[int]] = {}
    for path in paper.suites.values():
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            suite = read_toml(path)
            for one in suite["experiments"]:
                for dataset in one.get("datasets", suite["datasets"]):
                    key = one["model"].lower(), Path(dataset).name
                    found.setdefault(key, set()).update(one.get("seeds", suite["seeds"]))
    return found


def _check(suite: Suite, paper: Paper) -> None:
    """Every model, setting and exception, and that no row stands there twice. Raises ConfigError naming the key."""
    from harness.models.registry import find_model  # torch, which a list of suites does not wait for

    seen: set[tuple[str, ...]] = set()
    for place, experiment in enumerate(suite.experiments):
        try:
            _check_rows(experiment, suite, seen)
            for dataset in experiment.datasets or ():
                nearest(dataset, suite.datasets, "datasets: the suite has no")
        except ConfigError as error:
            raise ConfigError(f"experiments.{place} ({experiment.model}): {error}") from error
    known = {
        "dataset": [Path(name).name for name in suite.datasets],
        "model": [find_model(experiment.model).name for experiment in suite.experiments],
        "metrics": paper.judged_by,
    }
    for place, exception in enumerate(suite.exceptions):
        for key, names in known.items():
            given = getattr(exception, key)
            for name in [given] if isinstance(given, str) else map(canonical_metric, given):
                nearest(name, names, f"exceptions.{place}.{key}: the suite has no")


def _check_rows(experiment: Experiment, suite: Suite, seen: set[tuple[str, ...]]) -> None:
    """The settings of each row, which is added to those that are `seen`. Raises ConfigError."""
    from harness.models.registry import find_model

    model = find_model(experiment.model).model
    keys = Counter(key for table in (experiment.set, experiment.grid, experiment.vary) for key in table)
    if twice := [key for key, count in keys.items() if count > 1]:
        raise ConfigError(f"{twice[0]} stands twice among set, grid and vary: keep one of them")
    for label, settings in experiment.rows(suite.training):
        row = (label, *(repr(configure(model, settings | point)) for point in experiment.points()))
        here = {(dataset, *row) for dataset in experiment.datasets or suite.datasets}
        if here & seen:
            raise ConfigError(f"row {label!r} is there already, with the same trials: remove one")
        seen |= here


def _validated(content: Mapping[str, Any], paper: Paper) -> Suite:
    """Raises ConfigError with the key's path. Unknown keys come first, since a key that is misspelt is missing too."""
    try:
        return Suite.model_validate(content, context=paper.grids)
    except ValidationError as error:
        problem: Any = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        *above, key = problem["loc"]
        if problem["type"] == "extra_forbidden":
            tables: dict[Any, type[BaseModel]] = {"experiments": Experiment, "exceptions": ExceptedCells}
            table = tables[above[0]] if above else Suite
            nearest(str(key), list(table.model_fields), f"{'.'.join(map(str, above)) or 'the file'}: no key")
        raise ConfigError(field_fault(problem)) from error


def _check_modalities(trial: Trial, label: str) -> None:
    """Whether the data set has those that the model is set to read, which no setting shows by itself.

    Raises ConfigError.
    """
    there = trial.dataset.features
    asked = {
        "modalities": getattr(trial.config, "modalities", "all") if trial.reads_features else "all",
        "vectors.modality": trial.training.vectors.modality,
    }
    for setting, value in asked.items():
        for name in value.split("+") if value != "all" else ():
            if name not in there:
                what = f"{label} on {trial.dataset_name}: {setting} is {value!r}"
                has = ", ".join(map(repr, there)) or "none at all"
                raise ConfigError(f"{what}: no {name!r} in the data set; it has {has}")


def _combinations(values: Mapping[str, list[Scalar]]) -> Iterator[dict[str, Scalar]]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _labelled(label: str, settings: Mapping[str, Scalar]) -> str:
    return " ".join([label, *(f"{key}={value}" for key, value in settings.items())])
