"""What a paper is, as data: a folder, loaded once by `load_paper`. `expected/README.md` describes its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from bm3.errors import ConfigError, DataError
from harness.common import folder_name, read_file, read_toml
from harness.paper.folders import DEFAULT, PAPER_FILE, paper_folder, suite_files
from harness.paper.published import PublishedValue, Status, canonical_metric, load_values, values_of_cell

if TYPE_CHECKING:
    from harness.paper.claims import Claim
    from harness.paper.literature import ReportedValue

T = TypeVar("T")
Scalar = bool | int | float | str
Text = Annotated[str, Field(min_length=1)]
Values = Annotated[tuple[Scalar, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Seeds = Annotated[int, Field(ge=2, strict=True)]
MetricName = Annotated[str, Field(pattern=r"^[a-z]+@[1-9][0-9]*$")]
TestPart = Literal["test", "valid"]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Grids = TypeAdapter(dict[str, dict[str, Values]])
STOPPING = "early_stopping.metric"
SOURCES, TOLERANCES, GRIDS, CLAIMS = (f"{name}.toml" for name in ("sources", "tolerances", "grids", "claims"))
LITERATURE = "literature"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, **STRICT)


class Source(_Part):
    """Where figures come from; all fields are text for readers."""

    title: str
    table: str
    date: str
    hardware: str
    citation: str


@dataclass(frozen=True)
class Tolerance:
    """What the verdict of one cell needs to know."""

    relative: float
    """Half-width of the band as a share of the published value."""
    confidence: float
    """Level of the two-sided t-interval over seeds."""
    min_seeds: int
    """Fewer runs than this are no evidence; one run has no interval, hence at least 2."""
    absolute: float = 0.0
    """What the half-width has besides, in the unit of the metric."""


class Band(_Part):
    """How near is near enough, or how far apart is a difference."""

    relative: Share
    """Of the published value, or of the worse of two models."""
    justification: Text


class Bands(Band):
    """The bands around published values."""

    metrics: dict[MetricName, Share] = {}
    """Bands of their own, by canonical metric."""


class MemoryRule(Band):
    """How memory is compared: as what a model needs beyond a reference model, in which no constant is left."""

    reference: Text
    """The reference model, as printed."""
    absolute: Annotated[float, Field(ge=0, strict=True)]
    """GB of the band besides its share: what rounding of printed figures makes."""
    context: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
    """GB of a printed figure that may be CUDA context, at least and at most."""
    context_source: Text


class SelfCheckRule(_Part):
    """How sure the self-check must be."""

    error: Share
    """Probability that some model is called inconsistent although all are as they were, over all models together."""
    justification: Text


class Tolerances(_Part):
    """The file `tolerances.toml`."""

    confidence: Share
    min_seeds: Seeds
    published: Bands
    models: Band | None = None
    """What counts as a difference between models; None: any."""
    memory: MemoryRule | None = None
    """None where no memory is published."""
    replay: Band
    """Around the stopping metric of a run that is repeated where its bits may differ."""
    selfcheck: SelfCheckRule

    @property
    def margin(self) -> float:
        """Share that a difference between models must reach."""
        return self.models.relative if self.models else 0.0

    def of(self, metric: str) -> Tolerance:
        """The tolerance of one metric, by its printed or canonical name."""
        relative = self.published.metrics.get(canonical_metric(metric), self.published.relative)
        return Tolerance(relative=relative, confidence=self.confidence, min_seeds=self.min_seeds)


class PublishedTable(_Part):
    """A table of the paper: which figures it has, and what is computed from them."""

    number: Annotated[int, Field(ge=1)]
    kind: Literal["datasets", "accuracy", "cost"]
    """Statistics of data sets, or accuracy or cost of models."""
    source: Text
    """Key of `sources.toml`; the table has all figures of this source and, beneath, what other sources print."""
    rows: tuple[str, ...] = ()
    """Data sets, as printed; empty: those of the source, in its order."""
    columns: tuple[str, ...] = ()
    """Models, or statistics of a data set, as printed; empty: those of the source, in its order."""
    improvement: bool = False
    """Whether a column says by how much the proposed model exceeds the best of the others."""
    ratios: tuple[str, ...] = ()
    """Models that the figures are also given as multiples of."""


class OwnSettings(_Part):
    """Settings of some of the paper's runs."""

    models: tuple[str, ...] = ()
    """As printed; empty: all."""
    datasets: tuple[str, ...] = ()
    set: dict[str, Scalar]

    def of(self, model: str, dataset: str) -> bool:
        """Whether a row of this model and data set is meant; names in any case."""
        asked = ((self.models, model), (self.datasets, dataset))
        return all(not names or name.lower() in {one.lower() for one in names} for names, name in asked)


class PaperFile(_Part):
    """The file `paper.toml`."""

    title: Text
    citation: Text
    question: Text
    """What a study of this paper answers."""
    proposed: str | None = None
    """The model that the paper proposes, if any."""
    models: Annotated[tuple[Text, ...], Field(min_length=1)]
    """As printed, in the paper's order."""
    datasets: Annotated[tuple[Text, ...], Field(min_length=1)]
    metrics: Annotated[tuple[Text, ...], Field(min_length=1)]
    """As printed (`R@10`): what cells are judged by."""
    cutoffs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    """Lengths of the lists that metrics are of."""
    stopping: Text
    """The validation metric that ends training and chooses grid points."""
    splits: dict[str, str] = {}
    """Data set, as printed → the rule that divided it, as `bm3 data import --split` names it."""
    test_parts: dict[str, TestPart] = {}
    """Data sets whose test part is another than the one called `test` here."""
    training: dict[str, Scalar]
    """Settings of training, dotted where nested; what is not stated is as by default."""
    settings: tuple[OwnSettings, ...] = ()
    """What differs from that, and from a model's defaults, by model and data set."""
    tables: tuple[PublishedTable, ...]
    also: tuple[str, ...] = ()
    """Further models and data sets that a source prints figures of."""


class Paper(PaperFile):
    """What was published and what is asked: a folder, loaded."""

    name: str
    folder: Path
    sources: dict[str, Source]
    """In order of precedence between sources."""
    values: tuple[PublishedValue, ...]
    """All published figures, those of the first source first."""
    tolerances: Tolerances
    grids: dict[str, dict[str, Values]]
    """Model, in lower case → setting → the values that a search tries."""

    @cached_property
    def claims(self) -> "tuple[Claim, ...]":
        """What the paper says in words; raises DataError."""
        from harness.paper.claims import load_claims

        path = self.folder / CLAIMS
        return load_claims(path) if path.is_file() else ()

    @cached_property
    def literature(self) -> "tuple[ReportedValue, ...]":
        """What others report of the same cells; raises DataError naming file and line."""
        from harness.paper.literature import load_literature

        return load_literature(self.folder / LITERATURE)

    @property
    def judged_by(self) -> list[str]:
        """What cells are judged by: `metrics` by their canonical names."""
        return [canonical_metric(name) for name in self.metrics]

    @property
    def suites(self) -> dict[str, Path]:
        """What to run for which question: suite files by name."""
        return suite_files(self.folder)

    def file(self, name: str) -> Path:
        """A file or folder that the harness keeps beside a paper, by its path there: this paper's, else that of bm3."""
        own = self.folder / name
        return own if own.exists() else paper_folder(DEFAULT) / name

    def cell(self, dataset: str, model: str, metric: str) -> tuple[PublishedValue, ...]:
        """What is published of a cell, the value to compare with first; names in any spelling."""
        return values_of_cell(self.values, dataset, model, metric)

    def counts(self, dataset: str) -> dict[str, PublishedValue]:
        """The published statistics of a data set by name (`users`, …), of the first source that has them."""
        known = [value for value in self.values if (value.dataset.lower(), value.model) == (dataset.lower(), "")]
        return {value.metric: value for value in reversed(known)}

    def other_data(self, dataset: str, users: int, items: int, interactions: int) -> str:
        """Which counts are not those published for a data set of this name, in words.

        Empty where all are, or none is published; what sources dispute says nothing.
        """
        ours = {"users": users, "items": items, "interactions": interactions}
        return ", ".join(
            f"{ours[name]:,} {name}, published {known.value:,.0f}"
            for name, known in self.counts(dataset).items()
            if name in ours and known.status is not Status.DISPUTED and known.value != ours[name]
        )

    def table(self, number: int) -> PublishedTable:
        """Raises ConfigError where the paper has no table of this number."""
        for table in self.tables:
            if table.number == number:
                return table
        there = ", ".join(str(table.number) for table in self.tables)
        raise ConfigError(f"the paper {self.name} has no table {number}; it has {there}")

    def own_settings(self, model: str, dataset: str) -> dict[str, Scalar]:
        """The settings of the paper's own runs that it states; names in any case."""
        stated = {**self.training, STOPPING: canonical_metric(self.stopping)}
        for own in self.settings:
            if own.of(model, dataset):
                stated |= own.set
        return stated

    def departures(self, model: str, dataset: str) -> dict[str, Scalar]:
        """Those of `own_settings` that are not as by default: the paper bm3 states the defaults of training in full."""
        stated, defaults = self.own_settings(model, dataset), _defaults()
        return {key: value for key, value in stated.items() if key not in defaults or defaults[key] != value}

    def test_part(self, dataset: str) -> TestPart:
        """Which part, as called here, the paper's figures of a data set are of."""
        return _by_name(self.test_parts).get(dataset.lower(), "test")

    def split(self, dataset: str) -> str | None:
        """The rule that the paper divided a data set by; None where it does not say."""
        return _by_name(self.splits).get(dataset.lower())


def load_paper(name: str | Path = DEFAULT) -> Paper:
    """A paper by name or folder. Raises ConfigError where there is none, DataError naming file and line or field."""
    folder = paper_folder(name)
    about = validated_file(folder / PAPER_FILE, TypeAdapter(PaperFile))
    sources = validated_file(folder / SOURCES, TypeAdapter(dict[str, Source]))
    grids = folder / GRIDS
    return Paper.model_construct(
        **dict(about),
        name=folder_name(folder),
        folder=folder,
        sources=sources,
        values=load_values(folder / "published", {key: place for place, key in enumerate(sources)}),
        tolerances=validated_file(folder / TOLERANCES, TypeAdapter(Tolerances)),
        grids={name.lower(): grid for name, grid in validated_file(grids, Grids).items()} if grids.is_file() else {},
    )


@cache
def _defaults() -> Mapping[str, Scalar]:
    file = validated_file(paper_folder(DEFAULT) / PAPER_FILE, TypeAdapter(PaperFile))
    return {**file.training, STOPPING: canonical_metric(file.stopping)}


def _by_name(values: Mapping[str, T]) -> dict[str, T]:
    return {name.lower(): value for name, value in values.items()}


def validated_file(path: Path, adapter: TypeAdapter[T]) -> T:
    """A TOML or JSON file as a value; raises DataError naming the file and the first field that does not fit."""
    try:
        if path.suffix == ".json":
            return adapter.validate_json(read_file(path))
        return adapter.validate_python(read_toml(path))
    except ValidationError as error:
        raise DataError(f"{path}: {field_fault(error.errors()[0])}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not TOML, not UTF-8
        raise DataError(f"{path}: {error}") from error


def field_fault(problem: Mapping[str, Any] | Any) -> str:
    """What pydantic found, after the key path; beside what was wanted, what is there, if that is short."""
    said = "is missing: add it" if problem["type"] == "missing" else problem["msg"]
    if said.startswith("Input should") and len(found := repr(problem["input"])) <= 40:
        said += f", not {found}"
    return f"{'.'.join(str(part) for part in problem['loc'])}: {said}"
