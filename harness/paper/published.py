"""Published values: one figure as one source prints it, the names of its cell, and the CSV files that hold it."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bm3.errors import DataError
from harness.common import read_text
from harness.evaluation.words import SHARES
from harness.evaluation.words import canonical_metric as canonical_metric
from harness.evaluation.words import short_metric as short_metric

COLUMNS = ("dataset", "model", "metric", "value", "source", "status", "note")

STATISTICS = ("users", "items", "interactions", "sparsity_percent")
"""Figures about a data set, by their names."""
COSTS = ("Memory (GB)", "Time (s/epoch)")
"""Figures about what training costs."""
# float() alone would also take "nan", "inf" and "1_000".
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII)


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


def canonical_cell(dataset: str, model: str, metric: str) -> tuple[str, str, str]:
    """The key under which all spellings of one cell meet."""
    return dataset.lower(), model.lower(), canonical_metric(metric)


def values_of_cell(
    values: Iterable[PublishedValue], dataset: str, model: str, metric: str
) -> tuple[PublishedValue, ...]:
    """All values of one cell, in the order given; names may be printed or canonical, in any case."""
    cell = canonical_cell(dataset, model, metric)
    return tuple(value for value in values if value.cell == cell)


def load_values(folder: Path, rank: Mapping[str, int]) -> tuple[PublishedValue, ...]:
    """All figures of the CSV files in a folder, by the rank of their source: the first of a cell is the one to compare.

    Raises DataError naming file and line for anything that does not fit the columns described in `expected/README.md`.
    """
    values: list[PublishedValue] = []
    first_seen: dict[tuple[str, ...], str] = {}
    for path in sorted(folder.glob("*.csv")):
        for where, row in read_rows(path, COLUMNS):
            value = parse_value(row, where)
            if value.source not in rank:
                raise DataError(f"{where}: unknown source '{value.source}'; describe it in sources.toml")
            seen_at = first_seen.setdefault((value.source, *value.cell), where)
            if seen_at != where:
                raise DataError(f"{where}: the same cell and source as {seen_at}; remove one")
            values.append(value)
    return tuple(sorted(values, key=lambda value: rank[value.source]))


def parse_value(row: Sequence[str], where: str) -> PublishedValue:
    """One line of such a file; raises DataError that begins with `where`."""
    dataset, model, metric, text, source, status_text, note = row
    if not (dataset and metric and source and (model or "@" not in metric)):
        raise DataError(f"{where}: dataset, metric and source must be given, and the model of an accuracy metric")
    if status_text not in list(Status):
        raise DataError(f"{where}: unknown status '{status_text}'; use one of: {', '.join(Status)}")
    status = Status(status_text)
    if (text == "") != (status is Status.OUT_OF_MEMORY):
        raise DataError(f"{where}: value '{text}' with status '{status}'; only '{Status.OUT_OF_MEMORY}' has no value")
    if text and (not _NUMBER.fullmatch(text) or not math.isfinite(float(text))):
        raise DataError(f"{where}: value '{text}' is not a finite number of at least 0, such as 0.0564")
    if text and canonical_metric(metric).partition("@")[0] in SHARES and float(text) > 1:
        raise DataError(f"{where}: value '{text}' of {metric} is above 1: figures are shares, such as 0.37 for 37 %")
    return PublishedValue(dataset, model, metric, float(text) if text else None, source, status, note)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each row of a CSV file with these columns, and the place it was read from; raises DataError naming the line."""
    try:
        rows = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
        head = next(rows, None)
        if head is None:
            raise DataError(f"{path}:1: empty; expected the columns {','.join(columns)}")
        if head != list(columns):
            raise DataError(f"{path}:{rows.line_num}: columns are {','.join(head)}; expected {','.join(columns)}")
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if len(row) != len(columns):
                raise DataError(f"{where}: {len(row)} fields; expected {len(columns)}: {','.join(columns)}")
            yield where, row
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
