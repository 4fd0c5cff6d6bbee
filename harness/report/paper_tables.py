"""The paper's own tables: what was published, what other sources print, and ours beneath.

Which tables there are and what is computed from their figures is the paper's to say; ours come from a study.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from bm3 import ConfigError
from harness.common import number
from harness.paper import costs
from harness.paper.load import Paper, PublishedTable, Source
from harness.paper.published import PublishedValue, Status, canonical_metric
from harness.paper.rows import Row, representatives
from harness.paper.study import Study
from harness.paper.verdict import Outcome, Verdict, judge
from harness.report.tables import Cell, Table, ranked, table

DISPUTED, APART = "‡", "†"
DASH = "-"
"""Printed where a model ran out of memory."""
PUBLISHED, OURS = "published", "ours"
IMPROVEMENT = "Improv. (%)"
WHOSE = "figures"
Figures = Mapping[str, float]
"""By column."""
ABOUT_COSTS = (
    "Ours: the first seed's run; the time is the median over epochs after the warm-up (the first epoch at least), "
    "evaluation excluded. Our ratios stand beneath the published ones.",
    "Memory of ours: peaks of the process on the GPU, of what torch reserved and allocated there, and process less "
    "reserved, the CUDA context; main memory (RAM), where no GPU was used. 1 GB is 2^30 bytes.",
)


@dataclass(frozen=True)
class Line:
    """A line of a table before it is laid out."""

    whose: str
    cells: Mapping[str, Cell]
    """By column; a column may be missing."""
    figures: Figures = field(default_factory=dict)
    """By column: what may be divided by each other."""
    machines: Mapping[str, str] = field(default_factory=dict)
    """By column: what a figure was measured on; empty where all are of one machine."""
    source: str = ""
    """Its key; empty for ours."""


def paper_table(
    paper: Paper,
    layout: PublishedTable,
    *,
    study: Study | None = None,
    statistics: Mapping[str, Figures | None] | None = None,
    dataset: str | None = None,
) -> Table:
    """A table of the paper, of all its data sets or of one.

    `study` gives our figures, and `statistics` those of data sets by printed name, None for one that was not found.
    Raises ConfigError for a data set that the table does not have.
    """
    values = [value for value in paper.values if value.source == layout.source]
    names = list(layout.rows or dict.fromkeys(value.dataset for value in values))
    if dataset is not None:
        chosen = [name for name in names if name.lower() == dataset.lower()]
        if not chosen:
            raise ConfigError(f"Table {layout.number} has no data set {dataset!r}; it has {', '.join(names)}")
        names = chosen
    of_models = layout.kind != "datasets"
    columns = list(layout.columns or dict.fromkeys(_column(value) for value in values))
    lines: list[tuple[tuple[str, ...], Line]] = []
    for name in names:
        for metric in dict.fromkeys(value.metric for value in values) if of_models else [""]:
            printed = {
                _column(value): value for value in values if value.dataset == name and metric in ("", value.metric)
            }
            found = [*_published(paper, layout, printed)]
            match layout.kind:
                case "datasets":
                    found += _counted(study, statistics or {}, name, columns)
                case "accuracy":
                    found += _measured(study, name, metric, columns)
                    found = [_compared(line, paper.proposed if layout.improvement else None) for line in found]
                case _:
                    own = _costs(study, name, metric, columns)
                    apart = costs.ALLOCATED, costs.CONTEXT
                    divided = [found[0], *(one for one in own if not one.whose.endswith(apart))]
                    beyond = _beyond(paper, study, name, printed) if metric == costs.MEMORY else ()
                    ratios = (_ratio(model, one) for model in layout.ratios for one in divided)
                    found += [*own, *beyond, *chain.from_iterable(ratios)]
            lines += [((name, metric) if of_models else (name,), line) for line in found]
    columns += [IMPROVEMENT] if layout.improvement else []
    about = {
        key: f"{one.title} ({one.citation}), {one.table}; date: {one.date}; hardware: {one.hardware}"
        for key, one in paper.sources.items()
    }
    title = f"The paper's {paper.sources[layout.source].table}: as published"
    return table(
        title + (", with ours" if study or statistics else ""),
        ["data set", *(["metric"] if of_models else []), WHOSE, *map(_heading, columns)],
        [
            [*head, Cell(line.whose, note=about.get(line.source, "")), *(line.cells.get(column) for column in columns)]
            for head, line in lines
        ],
        "l" * (3 if of_models else 2) + "r" * len(columns),
        notes=[
            *_footnotes(lines),
            *["A dash: out of memory."] * any(cell.text == DASH for _, one in lines for cell in one.cells.values()),
            *_remarks(paper, layout, names, columns, study),
            *(f"Source {key}: {about[key]}." for key in dict.fromkeys(one.source for _, one in lines) if key),
        ],
        groups=2 if of_models else 1,
    )


def statistics_of(users: int, items: int, interactions: int) -> dict[str, float]:
    """Counts of a data set by the names that published ones have."""
    sparsity = 100 * (1 - interactions / (users * items))
    return {"users": users, "items": items, "interactions": interactions, "sparsity_percent": sparsity}


def published_figures(key: str, source: Source, values: Iterable[PublishedValue]) -> Table:
    """Figures as one source gives them."""
    about = {"citation": source.citation, "date": source.date, "hardware": source.hardware}
    return table(
        f"{key}: {source.title}, {source.table}",
        ("data set", "model", "metric", "value", "status", "note"),
        [(v.dataset, v.model, v.metric, figure_text(v.metric, v.value), v.status.value, v.note) for v in values],
        "lllrll",
        lead="\n".join(f"  {name:<9}  {text}" for name, text in about.items() if text),
    )


def improvement(figures: Mapping[str, float], proposed: str) -> float | None:
    """By how many per cent a model exceeds the best of the others; None where either is missing or not finite."""
    known = {model: value for model, value in figures.items() if math.isfinite(value)}
    best = max((value for model, value in known.items() if model != proposed), default=0)
    return 100 * (known[proposed] / best - 1) if proposed in known and best > 0 else None


def figure_text(metric: str, value: float | None) -> str:
    """A figure with the digits that sources print for this metric; a dash where there is none."""
    if value is None:
        return DASH
    return number(value, ".4f" if "@" in metric else ".2f" if "(" in metric or "percent" in metric else ".0f")


def _column(value: PublishedValue) -> str:
    return value.model or value.metric


def _heading(column: str) -> str:
    return column.replace("_percent", " (%)")


def _published(paper: Paper, layout: PublishedTable, printed: Mapping[str, PublishedValue]) -> Iterator[Line]:
    """The table's own line, then one for each other source, with only the figures that differ."""
    cells, others = {}, defaultdict[str, dict[str, Cell]](dict)
    for column, value in printed.items():
        known = paper.cell(value.dataset, value.model, value.metric)
        rest = [other for other in known if other.source != layout.source]
        reason = _dispute(paper, [value, *rest])
        cells[column] = Cell(figure_text(value.metric, value.value), DISPUTED if reason else "", reason)
        for other in rest:
            if other.value != value.value:
                others[other.source][column] = Cell(figure_text(other.metric, other.value))
    figures = {column: value.value for column, value in printed.items() if value.value is not None}
    yield Line(PUBLISHED, cells, figures, source=layout.source)
    for source, differing in others.items():
        yield Line(source, differing, source=source)


def _dispute(paper: Paper, values: Sequence[PublishedValue]) -> str:
    """Why no run is judged by the cell, if so; of accuracy the verdict rule says it, for a run that hits the figure."""
    value = values[0]
    if value.status is Status.DISPUTED:
        return f"disputed: {value.note}"
    if "@" not in value.metric or value.value is None:
        return ""
    tolerance = paper.tolerances.of(value.metric)
    if judge([value.value] * tolerance.min_seeds, values, tolerance).outcome is not Outcome.DISPUTED:
        return ""
    return f"disputed: sources differ by more than {100 * tolerance.relative:g} %"


def _counted(
    study: Study | None, statistics: Mapping[str, Figures | None], dataset: str, columns: Sequence[str]
) -> Iterator[Line]:
    """Counts of our data set, of `statistics` or as a run recorded them."""
    known: dict[str, Figures | None] = dict(statistics)
    for run in study.runs if study else ():
        about = run.dataset
        if about.name.lower() == dataset.lower():
            known.setdefault(dataset, statistics_of(about.users, about.items, sum(about.interactions.values())))
    if dataset in known:
        ours = known[dataset]
        yield Line(OURS, {c: Cell(figure_text(c, ours[c]) if ours else "not found") for c in columns})


def _measured(study: Study | None, dataset: str, metric: str, columns: Sequence[str]) -> Iterator[Line]:
    """Our means, half of their intervals, and how many seeds they are of."""
    rows, dashes = _ours(study, dataset, columns)
    if study is None or not (rows or dashes) or canonical_metric(metric) not in study.paper.judged_by:
        return
    found = {column: row.verdicts[canonical_metric(metric)] for column, row in rows.items()}
    means = {column: math.nan if verdict.mean is None else verdict.mean for column, verdict in found.items()}
    cells = {
        column: _noted(figure_text(metric, means[column]), _apart(row, found[column])) for column, row in rows.items()
    }
    halves = {column: (v.interval[1] - v.interval[0]) / 2 for column, v in found.items() if v.interval}
    yield Line(OURS, cells | dashes, means if _one_content(rows) else {})
    share = f"± {100 * study.paper.tolerances.confidence:g} %"
    yield Line(share, {column: Cell(f"{half:.4f}") for column, half in halves.items()})
    yield Line("seeds", {column: Cell(str(verdict.seeds)) for column, verdict in found.items()})


def _compared(line: Line, proposed: str | None) -> Line:
    """The line with its best figures told, and with the improvement of the proposed model, which stands no firmer than
    that model's figure."""
    told = dict(zip(line.figures, ranked(list(line.figures.values())), strict=True))
    cells = {column: replace(cell, emphasis=told.get(column)) for column, cell in line.cells.items()}
    gain = improvement(line.figures, proposed) if proposed else None
    if gain is not None and proposed:
        cells[IMPROVEMENT] = replace(line.cells[proposed], text=number(gain, "+.2f"))
    return replace(line, cells=cells)


def _costs(study: Study | None, dataset: str, metric: str, columns: Sequence[str]) -> list[Line]:
    """Our seconds or memory: a line for each way of reading."""
    rows, dashes = _ours(study, dataset, columns) if metric in (costs.TIME, costs.MEMORY) else ({}, {})
    read = costs.memory_readings if metric == costs.MEMORY else costs.epoch_seconds
    readings = {column: read(row.runs[0]) for column, row in rows.items()}
    lines = []
    for way in dict.fromkeys(way for of_column in readings.values() for way in of_column):
        found = {column: of_column[way] for column, of_column in readings.items() if way in of_column}
        shared = {c for c in found if read is costs.epoch_seconds and study and study.time_mark(rows[c])}
        cells = {c: _cost(metric, rows[c], reading, c in shared) for c, reading in found.items()}
        alike = found if _one_content(rows) else ()
        figures = {column: found[column].value for column in alike if column not in shared}
        machines = {column: costs.measured_on(rows[column].runs[0]) for column in found}
        lines.append(Line(", ".join(filter(None, (OURS, way))), cells | dashes, figures, machines))
    return lines


def _cost(metric: str, row: Row, reading: costs.Reading, shared: bool) -> Cell:
    """A figure with in what it differs from the published one, how it was found if not simply read, and whether its
    time is one of a `shared` machine."""
    reasons = [_apart(row), reading.how, costs.SHARED_NOTE if shared else ""]
    mark = costs.SHARED if shared else APART
    return _noted(figure_text(metric, reading.value), "; ".join(filter(None, reasons)), mark)


def _beyond(paper: Paper, study: Study | None, dataset: str, printed: Mapping[str, PublishedValue]) -> Iterator[Line]:
    """What models need beyond the reference model, as printed and ours, and the verdict on it."""
    rule = paper.tolerances.memory
    if rule is None:
        return
    differences = {column: costs.printed_beyond(paper.values, value, rule) for column, value in printed.items()}
    yield Line(
        f"{PUBLISHED}, beyond {rule.reference}",
        {column: Cell(figure_text(costs.MEMORY, value.value)) for column, value in differences.items()},
    )
    verdicts = costs.memory_verdicts(study.of(dataset), paper) if study else {}
    known = {column: verdicts[column.lower()] for column in printed if column.lower() in verdicts}
    if found := {column: verdict for column, verdict in known.items() if verdict.mean is not None}:
        means = {column: Cell(figure_text(costs.MEMORY, verdict.mean)) for column, verdict in found.items()}
        yield Line(f"{OURS}, beyond {rule.reference}", means)
        reasons = {column: v.reason if v.outcome is Outcome.NO_EVIDENCE else "" for column, v in found.items()}
        words = {c: replace(_noted(v.outcome.value, reasons[c]), word=v.outcome) for c, v in found.items()}
        yield Line("verdict", words)


def _ratio(model: str, line: Line) -> Iterator[Line]:
    """The figures over those of `model`, of the same machine; nothing where it has none."""
    base = line.figures.get(model)
    if base:
        alike = [c for c in line.figures if line.machines.get(c) == line.machines.get(model)]
        cells = {column: Cell(f"{line.figures[column] / base:.2f}") for column in alike}
        yield Line(f"{line.whose} / {model}", cells)


def _ours(study: Study | None, dataset: str, columns: Sequence[str]) -> tuple[dict[str, Row], dict[str, Cell]]:
    """By column: the row that stands for its model, and a dash where our runs of the model ran out of memory and none
    has a result, as is printed."""
    if study is None:
        return {}, {}
    standing = {row.model.lower(): row for row in representatives(study.of(dataset))}
    lost = {run.model.lower() for run in study.out_of_memory if run.dataset.name.lower() == dataset.lower()}
    dashes = {column: Cell(DASH) for column in columns if column.lower() in lost - standing.keys()}
    return {column: standing[column.lower()] for column in columns if column.lower() in standing}, dashes


def _one_content(rows: Mapping[str, Row]) -> bool:
    """Whether all are on one content of a data set, so that their figures can be compared."""
    return len({row.data for row in rows.values()}) == 1


def _apart(row: Row, verdict: Verdict | None = None) -> str:
    """In what our runs of a cell differ from what was published."""
    reasons = [f"run with {' '.join(row.departures)}"] if row.departures else []
    if verdict is not None and verdict.outcome is Outcome.NO_EVIDENCE:
        reasons.append(verdict.reason)
    elif verdict is None and row.surrogates:
        reasons.append(f"surrogate features ({', '.join(row.surrogates)})")
    return "; ".join(reasons)


def _noted(text: str, reason: str, mark: str = APART) -> Cell:
    return Cell(text, mark if reason else "", reason)


def _footnotes(lines: Iterable[tuple[tuple[str, ...], Line]]) -> Iterator[str]:
    """What the marks mean, and whose they are."""
    marked: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (dataset, *metric), line in lines:
        for column, cell in line.cells.items():
            if cell.mark:
                marked[cell.mark, cell.note][f"{dataset} {_heading(column)}"] += metric
    for (mark, reason), cells in marked.items():
        places = (" ".join((place, *dict.fromkeys(metrics))) for place, metrics in cells.items())
        yield f"{mark} {', '.join(places)}: {reason}."


def _remarks(
    paper: Paper, layout: PublishedTable, datasets: Sequence[str], columns: Sequence[str], study: Study | None
) -> Iterator[str]:
    """What is to be known about the whole table."""
    ours = {f"{name} {c}": row.runs[0] for name in datasets for c, row in _ours(study, name, columns)[0].items()}
    if layout.improvement:
        yield f"{IMPROVEMENT}: {paper.proposed} over the best other model of the line, computed from its figures."
    if layout.kind == "accuracy":
        yield "The line of another source has only the figures that differ from the published ones."
    if study is not None and not ours:
        yield f"Ours: no finished run below {study.folder} is of a model and data set of this table."
    if layout.ratios:
        yield (
            "Lines with a slash: the figures over those of that model. Absolute figures depend on the machine, ratios "
            "less so."
        )
    if layout.kind == "cost" and ours:
        yield from ABOUT_COSTS
        if rule := paper.tolerances.memory:
            yield (
                f"Memory is judged beyond {rule.reference}, within {100 * rule.relative:g} % and {rule.absolute:g} GB, "
                "since the context is in every figure but in no difference. Main memory and ratios are not judged."
            )
        blocks = {cell: run.training.evaluation.block_users for cell, run in ours.items()}
        yield from _alike("Users scored at a time: ", {cell: str(n) if n else None for cell, n in blocks.items()})
        yield from _alike("Warm-up of ours: ", {cell: run.outcome.timing.warm_up_note for cell, run in ours.items()})
        yield from _alike("Ours on ", {cell: costs.measured_on(run) for cell, run in ours.items()})


def _alike(lead: str, texts: Mapping[str, str | None]) -> Iterator[str]:
    """Each text once, with the cells that it is about."""
    for text in dict.fromkeys(filter(None, texts.values())):
        yield f"{lead}{text}: {', '.join(cell for cell, of_cell in texts.items() if of_cell == text)}."
