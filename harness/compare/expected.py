"""Reads the folder `expected`: published values, their sources and the tolerances.

Judging a run against them is in `verdict`; no figure and no band is written in code, here or there.
"""

import csv
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

import harness
from bm3.errors import DataError

T = TypeVar("T")
Scalar = bool | int | float | str
Values = Annotated[list[Scalar], Field(min_length=1)]

COLUMNS = ("dataset", "model", "metric", "value", "source", "status", "note")

_RANKING_METRICS = {"R": "recall", "N": "ndcg", "P": "precision"}
# float() alone would also take "nan", "inf" and "1_000".
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Status(StrEnum):
    """What is known about one printed figure; sources that merely differ stay `AS_PRINTED`."""

    AS_PRINTED = "as printed"
    DISPUTED = "disputed"
    OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class PublishedValue:
    """One figure as one source gives it."""

    dataset: str
    """Name as printed, such as `Baby`."""
    model: str
    """Name as printed; empty for a figure about a data set."""
    metric: str
    """Name as printed: `R@10` (a fraction), `Memory (GB)`, `Time (s/epoch)`, `users`, `sparsity_percent`, …"""
    value: float | None
    """In the unit that the metric names; None if and only if the status is `OUT_OF_MEMORY`."""
    source: str
    """Key of `sources.toml`."""
    status: Status
    note: str

    @property
    def cell(self) -> tuple[str, str, str]:
        """Canonical (dataset, model, metric)."""
        return canonical_cell(self.dataset, self.model, self.metric)


@validated(frozen=True, config=STRICT)
class Source:
    """Where figures come from; all fields are text for readers."""

    title: str
    table: str
    date: str
    hardware: str
    citation: str


Share = Annotated[float, Field(gt=0, lt=1, strict=True)]
Seeds = Annotated[int, Field(ge=2, strict=True)]


@validated(frozen=True, config=STRICT)
class Tolerance:
    """What the verdict of one cell needs to know."""

    relative: Share
    """Half-width of the band as a share of the published value."""
    confidence: Share
    """Level of the two-sided t-interval over seeds."""
    min_seeds: Seeds
    """Fewer runs than this are no evidence; one run has no interval, hence at least 2."""


@validated(frozen=True, config=STRICT)
class Bands:
    """The relative bands around published values."""

    relative: Share
    justification: Annotated[str, Field(min_length=1)]
    metrics: dict[Annotated[str, Field(pattern=r"^[a-z]+@[1-9][0-9]*$")], Share] = Field(default_factory=dict)
    """Bands of their own, by canonical metric."""


@validated(frozen=True, config=STRICT)
class ReplayTolerance:
    """How near a repeated run must come where its bits may differ."""

    relative: Share
    """Of test R@20."""
    justification: Annotated[str, Field(min_length=1)]


@validated(frozen=True, config=STRICT)
class SelfCheckRule:
    """How sure the self-check must be."""

    error: Share
    """Probability that some model is called inconsistent although all are as they were, over all models together."""
    justification: Annotated[str, Field(min_length=1)]


@validated(frozen=True, config=STRICT)
class Tolerances:
    """The file `tolerances.toml`."""

    confidence: Share
    min_seeds: Seeds
    published: Bands
    replay: ReplayTolerance
    selfcheck: SelfCheckRule

    def of(self, metric: str) -> Tolerance:
        """The tolerance of one metric, by its printed or canonical name."""
        relative = self.published.metrics.get(canonical_metric(metric), self.published.relative)
        return Tolerance(relative=relative, confidence=self.confidence, min_seeds=self.min_seeds)


def canonical_metric(name: str) -> str:
    """`R@10` → `recall@10`, `N@20` → `ndcg@20`; names without a cut-off are returned as they are."""
    metric, at, cutoff = name.partition("@")
    return _RANKING_METRICS.get(metric.upper(), metric.lower()) + at + cutoff if at else name


def short_metric(name: str) -> str:
    """`recall@10` → `R@10`: the printed name, the inverse of `canonical_metric`."""
    metric, at, cutoff = canonical_metric(name).partition("@")
    short = {long: letter for letter, long in _RANKING_METRICS.items()}
    return short.get(metric, metric) + at + cutoff


def canonical_cell(dataset: str, model: str, metric: str) -> tuple[str, str, str]:
    """The key under which all spellings of one cell meet."""
    return dataset.lower(), model.lower(), canonical_metric(metric)


def expected_dir() -> Path:
    """The folder `expected`: inside the installed package, or beside it in a checkout.

    Raises DataError if neither is there.
    """
    package = Path(harness.__file__).parent
    for directory in (package / "expected", package.parent / "expected"):
        if directory.is_dir():
            return directory
    raise DataError(f"{package / 'expected'}: no such folder; reinstall the package")


def load_expected(directory: Path) -> tuple[PublishedValue, ...]:
    """All figures of `published/*.csv`.

    They come in the order of `sources.toml`, so the first value of a cell is the one to compare with. Raises DataError
    naming file and line for anything that does not fit the columns described in `expected/README.md`.
    """
    rank = {key: position for position, key in enumerate(load_sources(directory))}
    files = sorted((directory / "published").glob("*.csv"))
    if not files:
        raise DataError(f"{directory / 'published'}: no CSV file; reinstall the package")
    values: list[PublishedValue] = []
    first_seen: dict[tuple[str, ...], str] = {}
    for path in files:
        for where, row in read_rows(path, COLUMNS):
            value = _parse(row, where)
            if value.source not in rank:
                raise DataError(f"{where}: unknown source '{value.source}'; describe it in sources.toml")
            seen_at = first_seen.setdefault((value.source, *value.cell), where)
            if seen_at != where:
                raise DataError(f"{where}: the same cell and source as {seen_at}; remove one")
            values.append(value)
    return tuple(sorted(values, key=lambda value: rank[value.source]))


def values_of_cell(
    values: Iterable[PublishedValue], dataset: str, model: str, metric: str
) -> tuple[PublishedValue, ...]:
    """All values of one cell, in the order given; names may be printed or canonical, in any case."""
    cell = canonical_cell(dataset, model, metric)
    return tuple(value for value in values if value.cell == cell)


def load_sources(directory: Path) -> dict[str, Source]:
    """`sources.toml`, in its order; raises DataError."""
    return validated_toml(directory / "sources.toml", TypeAdapter(dict[str, Source]))


def load_grids(directory: Path) -> dict[str, dict[str, list[Scalar]]]:
    """`grids.toml`: model → setting → the values that a search tries; raises DataError."""
    return validated_toml(directory / "grids.toml", TypeAdapter(dict[str, dict[str, Values]]))


def load_tolerances(path: Path) -> Tolerances:
    """A file such as `expected/tolerances.toml`; raises DataError naming the file and the field."""
    return validated_toml(path, TypeAdapter(Tolerances))


def validated_toml(path: Path, adapter: TypeAdapter[T]) -> T:
    try:
        return adapter.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {field}: {first['msg']}") from error
    except (OSError, ValueError) as error:  # ValueError: not TOML, not UTF-8
        raise DataError(f"{path}: {error}") from error


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each row of a CSV file with these columns, and the place it was read from; raises DataError naming the line."""
    header_seen = False
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if not header_seen and row != list(columns):
                    raise DataError(f"{where}: columns are {','.join(row)}; expected {','.join(columns)}")
                if len(row) != len(columns):
                    raise DataError(f"{where}: {len(row)} fields; expected {len(columns)}: {','.join(columns)}")
                if header_seen:
                    yield where, row
                header_seen = True
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    if not header_seen:
        raise DataError(f"{path}:1: empty; expected the columns {','.join(columns)}")


def _parse(row: Sequence[str], where: str) -> PublishedValue:
    dataset, model, metric, text, source, status_text, note = row
    if not (dataset and metric and source and (model or "@" not in metric)):
        raise DataError(f"{where}: dataset, metric and source must be given, and the model of an accuracy metric")
    if status_text not in list(Status):
        raise DataError(f"{where}: unknown status '{status_text}'; use one of: {', '.join(Status)}")
    status = Status(status_text)
    if (text == "") != (status is Status.OUT_OF_MEMORY):
        raise DataError(f"{where}: value '{text}' with status '{status}'; only '{Status.OUT_OF_MEMORY}' has no value")
    value = None
    if text:
        if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
            raise DataError(f"{where}: value '{text}' is not a finite number of at least 0, such as 0.0564")
        value = float(text)
    return PublishedValue(dataset, model, metric, value, source, status, note)
