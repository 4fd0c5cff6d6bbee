"""The paper's Tables 2, 3 and 4 as values: what was published, what other sources print, and ours beneath.

Only the layout is here: no figure of the paper is typed, and ours come from a study. What a line is stands in `lines`,
Table 4 in `efficiency`, LaTeX in `latex`.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate

from bm3 import ConfigError
from harness.paper.expected import (
    PublishedValue,
    Source,
    Status,
    Tolerances,
    canonical_metric,
    values_of_cell,
)
from harness.paper.numbers import number
from harness.paper.study import PROPOSED, Study
from harness.paper.verdict import Outcome, judge
from harness.report.efficiency import efficiency_lines, efficiency_remarks
from harness.report.lines import (
    DISPUTED,
    Figures,
    Line,
    Note,
    apart,
    dashes,
    floats,
    number_text,
    our_rows,
    rows_by_model,
)

__all__ = [
    "IMPROVEMENT",
    "Figures",
    "Line",
    "Note",
    "PaperTable",
    "Statistics",
    "as_csv",
    "as_markdown",
    "as_text",
    "grid",
    "header",
    "improvement",
    "number_text",
    "paper_table",
    "printed_models",
    "rows_by_model",
]

IMPROVEMENT = "Improv. (%)"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, ready to be laid out."""

    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]
    """On the whole table."""
    sources: Mapping[str, str]
    """Key of each source that a line comes from -> its description."""

    @property
    def footnotes(self) -> list[str]:
        """What the marks mean and whose they are, then the remarks."""
        marked: dict[Note, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for line in self.lines:
            for column, note in line.notes.items():
                marked[note][f"{line.head[0]} {header(column)}"] += line.head[1:-1]
        texts = [
            f"{note.mark} {', '.join(' '.join((place, *metrics)) for place, metrics in cells.items())}: {note.reason}."
            for note, cells in marked.items()
        ]
        return [*texts, *self.remarks]

    @property
    def notes(self) -> list[str]:
        """What stands below the table: footnotes, then sources."""
        return [*self.footnotes, *(f"Source {key}: {text}." for key, text in self.sources.items())]


@dataclass(frozen=True)
class Statistics:
    """What Table 2 says about a data set."""

    users: int
    items: int
    interactions: int

    def figures(self) -> Figures:
        """By metric as the published figures name it."""
        sparsity = 100 * (1 - self.interactions / (self.users * self.items))
        whole = {"users": self.users, "items": self.items, "interactions": self.interactions}
        return {**whole, "sparsity_percent": sparsity}


def paper_table(
    number: int,
    expected: Sequence[PublishedValue],
    sources: Mapping[str, Source],
    tolerances: Tolerances,
    *,
    study: Study | None = None,
    statistics: Mapping[str, Statistics | None] | None = None,
    dataset: str | None = None,
) -> PaperTable:
    """Table 2, 3 or 4 of the paper, of all its data sets or of one.

    `study` gives our figures, and in Table 2 `statistics` by data set as printed, None for one that was not found.
    Raises ConfigError for a data set that the table does not have.
    """
    source = f"paper-table{number}"
    table = [value for value in expected if value.source == source]
    names = list(dict.fromkeys(value.dataset for value in table))
    if dataset is not None:
        chosen = [name for name in names if name.lower() == dataset.lower()]
        if not chosen:
            raise ConfigError(f"Table {number} has no data set {dataset!r}; it has {', '.join(names)}")
        names = chosen
    make = {2: _statistics_lines, 3: _accuracy_lines, 4: _efficiency_lines}[number]
    columns = tuple(dict.fromkeys(_column(value) for value in table))
    metrics = [""] if number == 2 else list(dict.fromkeys(value.metric for value in table))
    lines: list[Line] = []
    for name in names:
        for metric in metrics:
            cells = {}
            for value in table:
                if value.dataset == name and metric in ("", value.metric):
                    others = values_of_cell(expected, name, value.model, value.metric)
                    cells[_column(value)] = (value, *(other for other in others if other.source != source))
            head = (name, metric) if metric else (name,)
            lines += make(list(_published_lines(head, cells, tolerances)), head, study, dict(statistics or {}))
    return PaperTable(
        title=f"The paper's {sources[source].table}: as published" + (", with ours" if study or statistics else ""),
        heads=("data set", "figures") if number == 2 else ("data set", "metric", "figures"),
        columns=(*columns, IMPROVEMENT) if number == 3 else columns,
        lines=tuple(lines),
        remarks=tuple(_remarks(number, names, columns, study)),
        sources={line.source: _described(sources[line.source]) for line in lines if line.source},
    )


def as_text(table: PaperTable) -> str:
    """For a terminal."""
    return "\n".join([table.title, "", _tabulated(table, "simple"), "", *table.notes]) + "\n"


def as_markdown(table: PaperTable) -> str:
    """For a page."""
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", _tabulated(table, "github"), "", *notes]) + "\n"


def as_csv(table: PaperTable) -> str:
    """For a spreadsheet: figures without marks; what the marks say is in the column `notes`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*table.heads, *table.columns, "notes", "source"])
    for line in table.lines:
        notes = "; ".join(f"{column}: {note.reason}" for column, note in line.notes.items())
        cells = [line.cells.get(column, "") for column in table.columns]
        writer.writerow([*line.head, *cells, notes, table.sources.get(line.source, "")])
    return text.getvalue()


def grid(table: PaperTable) -> list[list[str]]:
    """Rows of marked cells; data set and metric stand only where they change."""
    rows, above = [], ("",) * len(table.heads)
    for line in table.lines:
        same = [line.head[: i + 1] == above[: i + 1] for i in range(len(line.head) - 1)]
        head = ["" if repeated else text for repeated, text in zip(same, line.head[:-1], strict=True)]
        marks = {column: note.mark for column, note in line.notes.items()}
        cells = [line.cells.get(column, "") + marks.get(column, "") for column in table.columns]
        rows.append([*head, line.head[-1], *cells])
        above = line.head
    return rows


def header(column: str) -> str:
    """How a column is called in print."""
    return column.replace("_percent", " (%)")


def improvement(figures: Figures) -> float | None:
    """By how many per cent BM3 exceeds the best of the other models; None where either is missing or not finite."""
    known = {model: value for model, value in figures.items() if value is not None and math.isfinite(value)}
    best = max((value for model, value in known.items() if model != PROPOSED), default=0)
    return 100 * (known[PROPOSED] / best - 1) if PROPOSED in known and best > 0 else None


def printed_models(expected: Sequence[PublishedValue]) -> list[str]:
    """The nine models as the paper prints and orders them."""
    return list(dict.fromkeys(value.model for value in expected if value.source == "paper-table3"))


def _column(value: PublishedValue) -> str:
    return value.model or value.metric


def _published_lines(
    head: tuple[str, ...], cells: Mapping[str, Sequence[PublishedValue]], tolerances: Tolerances
) -> Iterator[Line]:
    """The table's own line, then one for each other source, with only the figures that differ."""
    first = {column: values[0] for column, values in cells.items()}
    notes = {column: note for column, values in cells.items() if (note := _dispute(values, tolerances))}
    texts = {column: number_text(value.metric, value.value) for column, value in first.items()}
    yield Line((*head, "published"), texts, notes, next(iter(first.values())).source)
    others: dict[str, dict[str, str]] = defaultdict(dict)
    for column, values in cells.items():
        for value in values[1:]:
            if value.value != first[column].value:
                others[value.source][column] = number_text(value.metric, value.value)
    for source, figures in others.items():
        yield Line((*head, source), figures, source=source)


def _dispute(values: Sequence[PublishedValue], tolerances: Tolerances) -> Note | None:
    """Whether no run is judged by this cell. For accuracy the verdict rule says so, of a run that hits the figure."""
    value = values[0]
    if value.status is Status.DISPUTED:
        return Note(DISPUTED, f"disputed: {value.note}")
    if "@" not in value.metric or value.value is None:
        return None
    tolerance = tolerances.of(value.metric)
    if judge([value.value] * tolerance.min_seeds, values, tolerance).outcome is not Outcome.DISPUTED:
        return None
    return Note(DISPUTED, f"disputed: sources differ by more than {100 * tolerance.relative:g} %")


Statistic = dict[str, Statistics | None]


def _statistics_lines(
    published: list[Line], head: tuple[str, ...], study: Study | None, statistics: Statistic
) -> list[Line]:
    (dataset,) = head
    counts = [run.run["dataset"] for run in study.runs] if study else []
    for found in counts:
        if found["name"].lower() == dataset.lower():
            total = sum(found["interactions"].values())
            statistics.setdefault(dataset, Statistics(found["users"], found["items"], total))
    if dataset not in statistics:
        return published
    ours = statistics[dataset]
    figures = ours.figures() if ours else {}
    cells = {c: number_text(c, figures[c]) if ours else "not found" for c in published[0].cells}
    return [*published, Line((dataset, "ours"), cells)]


def _accuracy_lines(
    published: list[Line], head: tuple[str, ...], study: Study | None, statistics: Statistic
) -> list[Line]:
    dataset, metric = head
    lines = [_improved(published[0], floats(published[0].cells)), *published[1:]]
    columns = list(published[0].cells)
    rows, starved = our_rows(study, dataset, columns), dashes(study, dataset, columns)
    if study is None or not (rows or starved):
        return lines
    found = {column: row.verdicts[canonical_metric(metric)] for column, row in rows.items()}
    means = {column: verdict.mean for column, verdict in found.items()}
    notes = {column: note for column, row in rows.items() if (note := apart(row, found[column]))}
    cells = {column: number_text(metric, math.nan if mean is None else mean) for column, mean in means.items()}
    halves = {column: (v.interval[1] - v.interval[0]) / 2 for column, v in found.items() if v.interval}
    return [
        *lines,
        _improved(Line((*head, "ours"), cells | starved, notes), means),
        Line((*head, f"± {100 * study.tolerances.confidence:g} %"), {c: f"{half:.4f}" for c, half in halves.items()}),
        Line((*head, "seeds"), {column: str(verdict.seeds) for column, verdict in found.items()}),
    ]


def _efficiency_lines(
    published: list[Line], head: tuple[str, ...], study: Study | None, statistics: Statistic
) -> list[Line]:
    return efficiency_lines(published, head, study)


def _improved(line: Line, figures: Figures) -> Line:
    """The line with BM3's improvement, which stands no firmer than BM3's figure."""
    gain = improvement(figures)
    if gain is None:
        return line
    notes = {**line.notes, IMPROVEMENT: line.notes[PROPOSED]} if PROPOSED in line.notes else line.notes
    return replace(line, cells={**line.cells, IMPROVEMENT: number(gain, "+.2f")}, notes=notes)


def _remarks(number: int, datasets: Sequence[str], columns: Sequence[str], study: Study | None) -> Iterator[str]:
    if number in (3, 4):
        yield "A dash: out of memory."
    if number == 3:
        yield f"{IMPROVEMENT}: {PROPOSED} over the best other model of the line, computed from its figures."
        yield "The line of another source has only the figures that differ from the published ones."
    if study is not None and not any(our_rows(study, dataset, columns) for dataset in datasets):
        yield f"Ours: no finished run below {study.folder} is of a model and data set of this table."
    if number == 4:
        yield from efficiency_remarks(study, datasets, columns)


def _described(source: Source) -> str:
    return f"{source.title} ({source.citation}), {source.table}; date: {source.date}; hardware: {source.hardware}"


def _tabulated(table: PaperTable, form: str) -> str:
    heads = [*table.heads, *(header(column) for column in table.columns)]
    align = ["left"] * len(table.heads) + ["right"] * len(table.columns)
    return tabulate(grid(table), heads, tablefmt=form, disable_numparse=True, colalign=align)
