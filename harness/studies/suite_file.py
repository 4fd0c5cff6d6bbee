"""Suite files: models by data sets by grids by seeds by variants, as TOML, and what is refused in one, with its line.

What trials follow from a suite is `suite`.
"""

import difflib
import itertools
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
from harness.paper.expected import Scalar
from harness.paper.folders import suite_path
from harness.paper.load import Paper, load_paper
from harness.runs.settings import configure, flatten, search_grid
from harness.studies.toml_lines import Location, line_of

PUBLISHED = "published"

Repeat = Literal["best", "all"]
Order = Literal["rows", "interleaved"]


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
Table = Annotated[
    dict[str, Annotated[list[AnyScalar], Field(min_length=1), AfterValidator(_distinct)]], BeforeValidator(_flat)
]
IN_TABLE, IN_WORD = "<table>", "<word>"  # what pydantic's locations call the two forms of a grid
Grid = Annotated[
    Annotated[Table, Tag(IN_TABLE)] | Annotated[Literal["published"], Tag(IN_WORD)],
    Discriminator(lambda value: IN_WORD if isinstance(value, str) else IN_TABLE),
]


class Experiment(BaseModel):
    """One model: settings, and what they are varied over."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    label: Annotated[str, Field(min_length=1)] | None = None
    """Name of the row in reports; the model's name if None."""
    set: Settings = {}
    """Settings, as after `--set`."""
    grid: Grid = {}
    """Settings with several values each; every combination is a point, of which the best are chosen. `published`: those
    of the paper's `grids.toml`, or of a model that it does not state, its own `Config.GRID`; `load_suite` puts them
    in place."""
    vary: Table = {}
    """Settings with several values each; every combination is a row of its own."""
    variants: Literal["each"] | None = None
    """`each`: beside every row, one more per other value of every variant of the model and of training."""

    @property
    def values(self) -> Mapping[str, list[Scalar]]:
        """The grid, once a published one is in its place."""
        return {} if isinstance(self.grid, str) else self.grid

    def searching(self, grids: Mapping[str, Mapping[str, Sequence[Scalar]]]) -> "Experiment":
        """With the values of a published grid in its place. Raises ConfigError where the model has none."""
        if self.grid != PUBLISHED:
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
        from harness.runs.variants import ALL_MODELS, variants

        entry = find_model(self.model)
        config, training = configure(entry.model, settings)
        for row in variants():
            if row.model in (entry.name, ALL_MODELS) and row.setting not in {*self.values, *self.vary}:
                here = _value(config if row.model == entry.name else training, row.setting)
                yield from ({row.setting: value} for value in row.values if value != here)


class Suite(BaseModel):
    """A suite file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

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

    def narrowed(self, models: Sequence[str], seeds: Sequence[int]) -> "Suite":
        """Only these of its models, and these seeds in place of its own; all of what is empty.

        Raises ConfigError for a model that it does not have.
        """
        there = list(dict.fromkeys(one.model for one in self.experiments))
        wanted = {nearest(name, there, f"the suite {self.title!r} has no model") for name in models or there}
        experiments = [one for one in self.experiments if one.model in wanted]
        return self.model_copy(update={"experiments": experiments, "seeds": list(seeds) or self.seeds})


TABLES: Mapping[str, type[BaseModel]] = {"experiments": Experiment, "exceptions": ExceptedCells}
"""What the lists of tables in a suite file hold."""


@dataclass(frozen=True)
class Outline:
    """A row of a suite as the file alone gives it: no data set is looked at."""

    label: str
    model: str
    dataset: str
    """As the suite names it."""
    settings: Mapping[str, Scalar]
    """Those that its points share."""
    points: tuple[Mapping[str, Scalar], ...]
    """All settings of each grid point."""
    seeds: tuple[int, ...]
    repeat: Repeat

    @property
    def trials(self) -> tuple[int, int]:
        """How many at least and at most: the points that are best on validation and on test may be the same one."""
        points, more = len(self.points), len(self.seeds) - 1
        if self.repeat == "all" or points == 1:
            return points * (1 + more), points * (1 + more)
        return points + more, points + 2 * more

    @property
    def commands(self) -> list[str]:
        """Those of the trials that are run in any case, with the settings as the suite gives them."""
        seeds = self.seeds if self.repeat == "all" or len(self.points) == 1 else self.seeds[:1]
        return [
            shlex.join(["bm3", "train", self.model, self.dataset, *assignments(point), "--seed", str(seed)])
            for seed in seeds
            for point in self.points
        ]


def assignments(settings: Mapping[str, Scalar]) -> list[str]:
    """Settings as arguments of a command."""
    return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]


def outline(
    suite: Suite, datasets: list[str] | None = None, paper: Paper | None = None, *, variants: bool = True
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
                found.append(Outline(label, experiment.model, dataset, shared, points, seeds, suite.repeat))
    return found


def load_suite(name: str, paper: Paper | None = None, *, check: bool = True) -> Suite:
    """A suite of a paper by name, or the suite file at a path, with models and settings checked.

    Without the check the models, and torch with them, are not imported. Raises ConfigError naming file, line and key.
    """
    paper = paper or load_paper()
    path = suite_path(name, paper.folder)
    try:
        text = path.read_text(encoding="utf-8")
        suite = _searching(Suite.model_validate(tomllib.loads(text)), paper)
        if check:
            _check(suite)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        problem = _first(text, error.errors())
        raise ConfigError(f"{_place(path, text, problem['loc'])}: {_problem(problem)}") from error
    except _Misplaced as error:
        raise ConfigError(f"{_place(path, text, error.location)}: {error}") from error
    return suite


def _searching(suite: Suite, paper: Paper) -> Suite:
    """With published grids in their places."""
    experiments = []
    for place, experiment in enumerate(suite.experiments):
        try:
            experiments.append(experiment.searching(paper.grids))
        except ConfigError as error:
            part = "grid" if "grid" in str(error) else "model"
            raise _Misplaced(("experiments", place, part), str(error)) from error
    return suite.model_copy(update={"experiments": experiments})


class _Misplaced(Exception):  # noqa: N818 - it only carries the place to where the text is at hand
    def __init__(self, location: Location, message: str) -> None:
        super().__init__(message)
        self.location = location


def _check(suite: Suite) -> None:
    """Every model and setting, and that no row stands there twice."""
    from harness.models.registry import find_model  # torch, which a list of suites does not wait for

    seen: set[tuple[str, ...]] = set()
    for place, experiment in enumerate(suite.experiments):
        here: Location = ("experiments", place)
        try:
            model = find_model(experiment.model).model
        except ConfigError as error:
            raise _Misplaced((*here, "model"), str(error)) from error
        for one, other in itertools.combinations(({*experiment.set}, {*experiment.values}, {*experiment.vary}), 2):
            for key in sorted(one & other):
                raise _Misplaced(here, f"{key} stands twice among set, grid and vary: keep one of them")
        try:
            rows = [
                (label, *(repr(configure(model, settings | point)) for point in experiment.points()))
                for label, settings in experiment.rows(suite.training)
            ]
        except ConfigError as error:
            raise _Misplaced(*_culprit(model, suite, place, str(error))) from error
        for row in rows:
            if row in seen:
                raise _Misplaced(here, f"row {row[0]!r} is there already, with the same trials: remove one")
            seen.add(row)
    known = {
        "dataset": sorted({Path(name).name for name in suite.datasets}),
        "model": sorted({find_model(experiment.model).name for experiment in suite.experiments}),
    }
    for place, exception in enumerate(suite.exceptions):
        for key, names in known.items():
            if (name := getattr(exception, key)) not in names:
                message = f"{key}: {name!r} is none of this suite's: {', '.join(names)}"
                raise _Misplaced(("exceptions", place, key), message)


def _culprit(model: type[Any], suite: Suite, place: int, message: str) -> tuple[Location, str]:
    """Where the first setting stands that is refused by itself, and why; else the experiment, for all together."""
    experiment, here = suite.experiments[place], ("experiments", place)
    tables: list[tuple[Location, Mapping[str, Any]]] = [
        (("training",), suite.training),
        ((*here, "set"), experiment.set),
        ((*here, "grid"), experiment.values),
        ((*here, "vary"), experiment.vary),
    ]
    for table, settings in tables:
        for key, values in settings.items():
            for index, value in enumerate(values if isinstance(values, list) else [values]):
                try:
                    configure(model, {key: value})
                except ConfigError as error:
                    return (*table, key, *key.split("."), index), str(error)
    return here, message


def _place(path: Path, text: str, location: Location) -> str:
    line = line_of(text, location)
    return f"{path}:{line}" if line else str(path)


def _first(text: str, errors: Sequence[Any]) -> Any:
    """The problem to tell: an unknown key before others, since a key that is misspelt is missing too."""
    return min(errors, key=lambda error: (error["type"] != "extra_forbidden", line_of(text, error["loc"]) or 0))


def _problem(error: Any) -> str:
    """What pydantic found, in our words: the key within its table, and what is wrong."""
    location = [part for part in error["loc"] if part not in (IN_TABLE, IN_WORD)]
    table = TABLES.get(str(location[0]), Suite) if len(location) > 1 else Suite
    inside = location[2:] if table is not Suite else location
    key = ".".join(map(str, inside)) or str(location[0])
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "extra_forbidden":
        known = sorted(table.model_fields)
        return f"no key {key!r}; nearest: {', '.join(difflib.get_close_matches(key, known, n=3, cutoff=0.5) or known)}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if key in TABLES and error["type"] in ("list_type", "model_type"):
        return f"{key}: needed is a list of tables: [[{key}]], each with a model"
    if error["type"] == "dict_type":
        return f"{key}: needed is a table"
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _combinations(values: Mapping[str, list[Scalar]]) -> Iterator[dict[str, Scalar]]:
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _labelled(label: str, settings: Mapping[str, Scalar]) -> str:
    return " ".join([label, *(f"{key}={value}" for key, value in settings.items())])


def _value(config: Any, setting: str) -> Any:
    for part in setting.split("."):
        config = getattr(config, part)
    return config
