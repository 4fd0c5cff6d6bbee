"""Lines of the paper's tables, and what every table says in the same way: figures, marks, our rows. The tables are in
`paper` and `efficiency`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.paper.numbers import number
from harness.paper.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from harness.paper.study import Study, StudyRow

DISPUTED, APART = "‡", "†"

Figures = Mapping[str, float | None]
"""Column → figure; None where a dash was printed."""


@dataclass(frozen=True)
class Note:
    """Why a figure is not to be taken as it stands."""

    mark: str
    reason: str


@dataclass(frozen=True)
class Line:
    """One line of a table; `head` says which data set, which metric (not in Table 2), and whose figures."""

    head: tuple[str, ...]
    cells: Mapping[str, str]
    """By column; a column may be missing."""
    notes: Mapping[str, Note] = field(default_factory=dict)
    """By column."""
    source: str = ""
    """Key of the source; empty for ours."""


def rows_by_model(study: Study, dataset: str) -> dict[str, StudyRow]:
    """One row per model, by lower-case name: that with default settings, else the first."""
    found: dict[str, StudyRow] = {}
    for row in study.rows:
        model = row.result.model.lower()
        if row.dataset.lower() == dataset.lower() and (model not in found or row.label == row.result.model):
            found[model] = row
    return found


def number_text(metric: str, value: float | None) -> str:
    """A figure with the digits that sources print for this metric; a dash where there is none."""
    if value is None:
        return "-"
    return number(value, ".4f" if "@" in metric else ".2f" if "(" in metric or "percent" in metric else ".0f")


def floats(cells: Mapping[str, str]) -> Figures:
    """Figures with the digits that are printed, which is what a reader of the paper has."""
    return {column: None if text == "-" else float(text) for column, text in cells.items()}


def our_rows(study: Study | None, dataset: str, columns: Sequence[str]) -> dict[str, StudyRow]:
    """By column, as far as there are any: the row that stands for its model."""
    rows = rows_by_model(study, dataset) if study else {}
    return {column: rows[column.lower()] for column in columns if column.lower() in rows}


def dashes(study: Study | None, dataset: str, columns: Sequence[str]) -> dict[str, str]:
    """By column: a dash where our runs of the model ran out of memory and none has a result, as is printed."""
    rows = our_rows(study, dataset, columns)
    starved = {
        run.run["model"].lower()
        for run in (study.out_of_memory if study else ())
        if run.run["dataset"]["name"].lower() == dataset.lower()
    }
    return {column: "-" for column in columns if column.lower() in starved and column not in rows}


def apart(row: StudyRow, verdict: Verdict | None = None) -> Note | None:
    """In what our runs of a cell differ from what was published."""
    variant = row.label.removeprefix(row.result.model).strip()
    reasons = [f"run with {variant}"] if variant else []
    if verdict is not None and verdict.outcome is Outcome.NO_EVIDENCE:
        reasons.append(verdict.reason)
    elif verdict is None and row.result.surrogates:
        reasons.append(f"surrogate features ({', '.join(row.result.surrogates)})")
    return Note(APART, "; ".join(reasons)) if reasons else None
