"""What others report: their figures with standing and source, one voice per group, and what these say of a published
figure. Figures of others are never what a run is judged by.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from scipy.special import gammaln

from bm3.errors import DataError
from harness.paper.published import PublishedValue, Status, canonical_cell, parse_value, read_rows
from harness.paper.verdict import Range, Word, prediction_interval

if TYPE_CHECKING:
    from harness.paper.load import Paper

SOURCES = "sources.csv"
SOURCE_COLUMNS = ("source", "group", "title", "address")
FIGURE_COLUMNS = ("dataset", "model", "metric", "value", "source", "where", "standing", "note")


class Standing(StrEnum):
    """What a figure may be used for."""

    INDEPENDENT = "independent"
    """Somebody ran the model again: evidence."""
    COPIED = "copied"
    """The digits of the paper: no evidence, since the paper would count twice."""
    COPIED_CHAIN = "copied-chain"
    """The digits of another paper that is not the first either."""
    COPYING_ERROR = "copying-error"
    """The digits of another row."""
    OTHER_PROTOCOL = "other-protocol"
    """Another split, filter or evaluation under the same name."""
    OTHER_ORIGIN = "other-origin"
    """Not known whether copied or run again."""
    AUTHORS = "authors"
    """The model's own authors, on other splits or data."""
    CONTROL = "control"
    """Inputs that are wrong on purpose, or a point that was chosen on the test part."""
    CONTEXT = "context"
    """Costs, on other hardware."""


class Position(Word):
    """Where a published figure lies among those of independent groups."""

    AMONG = "among", "≈", "good", "no higher than the highest independent figure and no lower than the lowest", None
    ABOVE_ALL = "above all", "⇑", "doubt", "above every independent figure", None
    BELOW_ALL = "below all", "⇓", "doubt", "below every independent figure", None
    TOO_FEW = "too few", "○", "none", "fewer independent groups than a run would need seeds", None


@dataclass(frozen=True)
class Origin:
    """Where figures of others are from."""

    key: str
    group: str
    """Who printed it: one voice, however many sources."""
    title: str
    address: str


@dataclass(frozen=True)
class ReportedValue:
    """One figure that somebody else prints."""

    dataset: str
    model: str
    metric: str
    value: float
    """In the unit that the metric names."""
    origin: Origin
    where: str
    """Table or file in it."""
    standing: Standing
    note: str
    at: str
    """File and line that it was read from."""

    @property
    def cell(self) -> tuple[str, str, str]:
        """Canonical (dataset, model, metric)."""
        return canonical_cell(self.dataset, self.model, self.metric)


@dataclass(frozen=True)
class Consensus:
    """What independent groups say of one cell."""

    dataset: str
    model: str
    metric: str
    """These three as printed."""
    published: PublishedValue | None
    """The value that a run is compared with."""
    voices: Mapping[str, float]
    """Group → its figure: the first of several, in the order of the file."""
    figures: tuple[ReportedValue, ...]
    """All that is reported, whatever its standing."""
    variation: float | None
    """CV* of the voices, a share; None of fewer than two."""
    interval: Range | None
    """Where one more group would be expected, by the t-distribution; None of fewer than two."""
    position: Position | None
    """None where nothing is published."""

    @property
    def mean(self) -> float | None:
        """Of the voices."""
        return fmean(self.voices.values()) if self.voices else None

    @property
    def copies(self) -> int:
        """How many figures are the paper's or another paper's digits."""
        return sum(figure.standing in (Standing.COPIED, Standing.COPIED_CHAIN) for figure in self.figures)

    @property
    def place(self) -> str:
        """Where the published figure lies, in words."""
        if self.published is None or self.published.value is None:
            return "unpublished"
        value, n = self.published.value, len(self.voices)
        if self.position is Position.AMONG:
            return f"above {sum(voice < value for voice in self.voices.values())} of {n}"
        return f"{self.position} {n}" if self.position is not Position.TOO_FEW else f"{self.position}: {n}"


def load_literature(folder: Path) -> tuple[ReportedValue, ...]:
    """All figures of the CSV files in a folder, in their order. Raises DataError naming file and line."""
    origins: dict[str, Origin] = {}
    paths = sorted(folder.glob("*.csv"))
    for where, row in read_rows(folder / SOURCES, SOURCE_COLUMNS) if paths else ():
        if not all(row) or row[0] in origins:
            raise DataError(f"{where}: source, group, title and address must be given, each source once")
        origins[row[0]] = Origin(*row)
    return tuple(
        parse_figure(row, origins, where)
        for path in paths
        if path.name != SOURCES
        for where, row in read_rows(path, FIGURE_COLUMNS)
    )


def parse_figure(row: Sequence[str], origins: Mapping[str, Origin], where: str) -> ReportedValue:
    """One line of such a file; raises DataError that begins with `where`."""
    dataset, model, metric, text, source, place, standing, note = row
    value = parse_value([dataset, model, metric, text, source, Status.AS_PRINTED, ""], where).value
    if source not in origins:
        raise DataError(f"{where}: unknown source '{source}'; describe it in {SOURCES}")
    if standing not in list(Standing):
        raise DataError(f"{where}: unknown standing '{standing}'; use one of: {', '.join(Standing)}")
    return ReportedValue(dataset, model, metric, value or 0.0, origins[source], place, Standing(standing), note, where)


def voices_of(figures: Iterable[ReportedValue]) -> dict[str, float]:
    """Group → its independent figure of a cell, the first of several: seeds and tables of one group are one voice."""
    found: dict[str, float] = {}
    for figure in figures:
        if figure.standing is Standing.INDEPENDENT:
            found.setdefault(figure.origin.group, figure.value)
    return found


def consensus(paper: "Paper", dataset: str, model: str, metric: str) -> Consensus:
    """What independent groups say of a cell; names as printed."""
    tolerance = paper.tolerances.of(metric)
    cell = canonical_cell(dataset, model, metric)
    figures = tuple(figure for figure in paper.literature if figure.cell == cell)
    published = next((value for value in paper.cell(dataset, model, metric) if value.value is not None), None)
    voices = voices_of(figures)
    values, position = [*voices.values()], None
    if published is not None and published.value is not None:
        if len(values) < tolerance.min_seeds:
            position = Position.TOO_FEW
        elif published.value > max(values):
            position = Position.ABOVE_ALL
        else:
            position = Position.BELOW_ALL if published.value < min(values) else Position.AMONG
    interval = prediction_interval(values, tolerance.confidence)
    return Consensus(dataset, model, metric, published, voices, figures, variation(values), interval, position)


def variation(values: Sequence[float]) -> float | None:
    """CV* = (1 + 1/4n) s* / |m|, s* = s / c4(n): Belz et al. 2022, for few values. A share; None of fewer than two."""
    n = len(values)
    if n < 2 or not fmean(values):
        return None
    c4 = math.sqrt(2 / (n - 1)) * math.exp(gammaln(n / 2) - gammaln((n - 1) / 2))
    return (1 + 1 / (4 * n)) * stdev(values) / c4 / abs(fmean(values))
