"""Suites: models by data sets by grids by seeds by variants, as TOML; the trials that answer one, and which are next.

Grid points run with the first seed. Two of them are chosen, always: the best on validation, as the paper says, and the
best on test, as the published code did; so that the difference is known with as many seeds. Running them is `execute`.
"""

from __future__ import annotations

import difflib
import itertools
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from bm3 import ConfigError
from harness.common import nearest
from harness.paper.exceptions import ExceptedCells
from harness.paper.folders import suite_path
from harness.paper.load import Paper, Scalar, load_paper
from harness.paper.published import canonical_metric, short_metric
from harness.runs.settings import configure, flatten, search_grid

if TYPE_CHECKING:
    import torch

    from harness.data import Dataset
    from harness.runs.record import RunRecord
    from harness.runs.trial import Trial

Repeat = Literal["best", "all"]
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
IN_TABLE, IN_WORD = "<table>", "<word>"  # what pydantic's locations call the two forms of a grid
Grid = Annotated[
    Annotated[Values, Tag(IN_TABLE)] | Annotated[Literal["published"], Tag(IN_WORD)],
    Discriminator(lambda value: IN_WORD if isinstance(value, str) else IN_TABLE),
]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Experiment(_Checked):
    """One model: settings, and what they are varied over."""

    model: str
    label: Annotated[str, Field(min_length=1)] | None = None
    """Name of the row in reports; the model's name if None."""
    set: Settings = {}
    """Settings, as after `--set`."""
    grid: Grid = {}
    """Settings with several values each; every combination is a point, of which the best are chosen. `published`: those
    of the paper, or of a model that it does not state, its own `Config.GRID`, as `load_suite` puts in place."""
    vary: Values = {}
    """Settings with several values each; every combination is a row of its own."""
    variants: Literal["each"] | None = None
    """`each`: beside every row, one more per other value of every variant of the model and of training."""

    @property
    def values(self) -> Mapping[str, list[Scalar]]:
        """The grid, once a published one is in its place."""
        return {} if isinstance(self.grid, str) else self.grid

    def searching(self, grids: Mapping[str, Mapping[str, Sequence[Scalar]]]) -> Experiment:
        """With the values of a published grid in its place. Raises ConfigError where the model has none."""
        if not isinstance(self.grid, str):
            return self
        published = search_grid(self.model, grids)
        if not published:
            raise ConfigError(f"no grid was published for {self.model}: give its values as a table of lists")
        return self.model_copy(update={"grid": {key: list(values) for key, values in published.items()}})

    def points(self) -> list[dict[str, Scalar]]:
        """What each grid point adds to the settings of a row."""
        return list(_combinations(self.values))

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
            if row.model in (entry.name, ALL_MODELS) and row.setting not in {*self.values, *self.vary}:
                here = _value(config if row.model == entry.name else training, row.setting)
                yield from ({row.setting: value} for value in row.values if value != here)


class Suite(_Checked):
    """A suite file."""

    title: str
    datasets: Annotated[list[str], Field(min_length=1), AfterValidator(_distinct)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_distinct)]
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
    self_check: bool = False
    """Whether its models are held against the stored reference of the self-check, and nothing else is asked."""
    experiments: Annotated[list[Experiment], Field(min_length=1)]
    exceptions: list[ExceptedCells] = []
    """Cells that are known to lie outside their band, and where."""

    def narrowed(self, models: Sequence[str], seeds: Sequence[int]) -> Suite:
        """Only these of its models, and these seeds in place of its own; all of what is empty.

        Raises ConfigError for a model that it does not have.
        """
        there = list(dict.fromkeys(one.model for one in self.experiments))
        wanted = {nearest(name, there, f"the suite {self.title!r} has no model") for name in models or there}
        experiments = [one for one in self.experiments if one.model in wanted]
        return self.model_copy(update={"experiments": experiments, "seeds": list(seeds) or self.seeds})


class Counts(NamedTuple):
    """So many trials at least and at most: the points best on validation and on test may be the same one."""

    fewest: int
    most: int

    def __str__(self) -> str:
        return f"{self.most:,}" if self.fewest == self.most else f"{self.fewest:,} to {self.most:,}"


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of both."""
    fewest, most = [0], [0]
    for one in counts:
        fewest.append(one.fewest)
        most.append(one.most)
    return Counts(sum(fewest), sum(most))


@dataclass(frozen=True)
class Outline:
    """A row of a suite as the file alone gives it: no data set is looked at."""

    label: str
    model: str
    dataset: str
    """As the suite names it."""
    points: tuple[Mapping[str, Scalar], ...]
    """All settings of each grid point."""
    seeds: tuple[int, ...]
    repeat: Repeat

    @property
    def all_at_once(self) -> bool:
        """Whether every point runs with every seed, so that nothing is chosen between."""
        return self.repeat == "all" or len(self.points) == 1

    @property
    def trials(self) -> Counts:
        """Those that are run in any case, and those that follow."""
        points, more = len(self.points), len(self.seeds) - 1
        if self.all_at_once:
            return Counts(points * (1 + more), points * (1 + more))
        return Counts(points + more, points + 2 * more)

    def to_come(self, outcomes: Outcomes) -> Counts:
        """How many trials follow from a choice."""
        return Counts(self.trials.fewest - len(self.commands), self.trials.most - len(self.commands))

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
        """The points that are best on validation and on test, once if they are the same, the earlier of equals.

        None until every point has ended, and where none ended with a result.
        """
        from harness.paper.rows import Point, choose

        if any(point.key not in outcomes for point in self.points):
            return []
        first, metric = self.seeds[0], self.points[0].training.early_stopping.metric
        ended = [
            Point({"key": point.key}, {first: run} if (run := outcomes[point.key]) else {}, metric)
            for point in self.points
        ]
        if (best := choose(ended, [first])) is None:
            return []
        keys = dict.fromkeys(point.settings["key"] for point in (best.on_validation, best.on_test))
        return [point for key in keys for point in self.points if point.key == key]

    def to_come(self, outcomes: Outcomes) -> Counts:
        """How many trials follow from a choice that cannot be made yet."""
        more = len(self.seeds) - 1
        ended = self.outline.all_at_once or all(point.key in outcomes for point in self.points)
        return Counts(0, 0) if ended else Counts(more, 2 * more)

    @cached_property
    def _repetitions(self) -> tuple[tuple[Trial, ...], ...]:
        """The points with each seed; kept, since a study asks for what is wanted again and again."""
        others = (tuple(replace(point, seed=seed) for point in self.points) for seed in self.seeds[1:])
        return self.points, *others


def assignments(settings: Mapping[str, Scalar]) -> list[str]:
    """Settings as arguments of a command."""
    return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]


def outline(
    suite: Suite, datasets: Sequence[str] = (), paper: Paper | None = None, *, variants: bool = True
) -> list[Outline]:
    """The rows of a suite, on other data sets than its own if some are named; those of variants can be left out.

    What the suite does not set is as in the paper's own runs.
    """
    paper = paper or load_paper()
    found = []
    for dataset in datasets or suite.datasets:
        for experiment in suite.experiments:
            own = paper.departures(experiment.model, Path(dataset).name)
            for label, settings in experiment.rows(suite.training, variants=variants):
                shared = {**own, **settings}
                points = tuple({**shared, **point} for point in experiment.points())
                seeds = tuple(suite.seeds)
                found.append(Outline(label, experiment.model, dataset, points, seeds, suite.repeat))
    return found


def plan(
    suite: Suite,
    data: Path | None,
    device: torch.device,
    datasets: Sequence[str] = (),
    paper: Paper | None = None,
) -> list[Row]:
    """The rows of a suite as trials, every setting and data set checked.

    Raises ConfigError or DataError before anything runs.
    """
    from harness.runs.trial import dataset_for, make_trial

    loaded: dict[str, Dataset] = {}
    rows = []
    for row in outline(suite, datasets, paper):
        name = row.dataset
        if name not in loaded:
            loaded[name] = dataset_for(suite.training, name, data)
        points = tuple(
            make_trial(row.model, loaded[name], name, settings, row.seeds[0], device) for settings in row.points
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
    try:
        suite = _searching(Suite.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))), paper)
        if check:
            _check(suite, paper)
    except ValidationError as error:
        # An unknown key before others, since a key that is misspelt is missing too.
        problem = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise ConfigError(f"{path}: {_problem(problem)}") from error
    except (OSError, ValueError, ConfigError) as error:  # ValueError: of UTF-8 or TOML, whose message names the line
        raise ConfigError(f"{path}: {error}") from error
    return suite


@contextmanager
def _named(place: int, experiment: Experiment) -> Iterator[None]:
    """An error of the block says which experiment it is about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"experiments.{place} ({experiment.model}): {error}") from error


def _searching(suite: Suite, paper: Paper) -> Suite:
    """With published grids in their places. Raises ConfigError."""
    experiments = []
    for place, experiment in enumerate(suite.experiments):
        with _named(place, experiment):
            experiments.append(experiment.searching(paper.grids))
    return suite.model_copy(update={"experiments": experiments})


def _check(suite: Suite, paper: Paper) -> None:
    """Every model and setting, and that no row stands there twice. Raises ConfigError naming the key."""
    from harness.models.registry import find_model  # torch, which a list of suites does not wait for

    seen: set[tuple[str, ...]] = set()
    for place, experiment in enumerate(suite.experiments):
        with _named(place, experiment):
            model = find_model(experiment.model).model
            tables = [set(table) for table in (experiment.set, experiment.values, experiment.vary)]
            for one, other in itertools.combinations(tables, 2):
                for key in sorted(one & other):
                    raise ConfigError(f"{key} stands twice among set, grid and vary: keep one of them")
            for label, settings in experiment.rows(suite.training):
                row = (label, *(repr(configure(model, settings | point)) for point in experiment.points()))
                if row in seen:
                    raise ConfigError(f"row {label!r} is there already, with the same trials: remove one")
                seen.add(row)
    known = {
        "dataset": sorted({Path(name).name for name in suite.datasets}),
        "model": sorted({find_model(experiment.model).name for experiment in suite.experiments}),
    }
    metrics = [canonical_metric(name) for name in paper.metrics]
    for place, exception in enumerate(suite.exceptions):
        for name in exception.metrics:
            if canonical_metric(name) not in metrics:
                choice = ", ".join(map(short_metric, metrics))
                raise ConfigError(f"exceptions.{place}.metrics: {name!r} is not judged; choose from {choice}")
        for key, names in known.items():
            if (name := getattr(exception, key)) not in names:
                raise ConfigError(f"exceptions.{place}.{key}: {name!r} is none of this suite's: {', '.join(names)}")


def _problem(error: Any) -> str:
    """What pydantic found, in our words: the key's path, and what is wrong."""
    *above, key = [part for part in error["loc"] if part not in (IN_TABLE, IN_WORD)]
    tables: dict[Any, type[BaseModel]] = {"experiments": Experiment, "exceptions": ExceptedCells}
    place = ".".join(map(str, [*above, key]))
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        known = sorted((tables[above[0]] if above else Suite).model_fields)
        near = difflib.get_close_matches(str(key), known, n=3, cutoff=0.5) or known
        return f"no key {place!r}; nearest: {', '.join(near)}"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    for table in tables:
        if table in (key, *above[-1:]) and error["type"] in ("list_type", "model_type"):
            return f"{place}: needed is a list of tables: [[{table}]], each with a model"
    message = "needed is a table" if error["type"] == "dict_type" else error["msg"]
    return f"{place}: {message[0].lower()}{message[1:]}"


def _check_modalities(trial: Trial, label: str) -> None:
    """Whether the data set has those that the model is set to read, which no setting shows by itself.

    Raises ConfigError.
    """
    config, there = trial.config, trial.dataset.features
    asked = getattr(config, "modalities", "all") if getattr(config, "reads_features", True) else "all"
    for name in asked.split("+") if asked != "all" else ():
        if name not in there:
            has = ", ".join(map(repr, there)) or "none at all"
            raise ConfigError(
                f"{label} on {trial.dataset_name}: modalities is {asked!r}: no {name!r} in the data set; it has {has}"
            )


def _combinations(values: Mapping[str, list[Scalar]]) -> Iterator[dict[str, Scalar]]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _labelled(label: str, settings: Mapping[str, Scalar]) -> str:
    return " ".join([label, *(f"{key}={value}" for key, value in settings.items())])


def _value(config: Any, setting: str) -> Any:
    for part in setting.split("."):
        config = getattr(config, part)
    return config
