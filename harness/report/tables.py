"""A table as one value: what stands in it is decided where it is built, how it looks by renderers that compute nothing.

The renderers for terminals and Markdown are here; `html`, `latex` and `flat` have the others.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tabulate import tabulate

from harness.paper.verdict import Word


class Emphasis(StrEnum):
    """Of figures that compete with each other."""

    BEST = "best"
    SECOND = "second"


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str = ""
    mark: str = ""
    """Stands beside the text; what it means is among the notes of the table."""
    note: str = ""
    """Why the text is not to be taken as it stands; what `mark` means here."""
    emphasis: Emphasis | None = None
    stars: str = ""
    """How sure it is that the best is better than the second, where that was tested."""
    word: Word | None = None
    """What became of it, where it was judged."""
    beside: str = ""
    """A figure that goes with the word."""
    details: tuple["Table", ...] = ()
    """All that the cell rests on."""

    @property
    def marked(self) -> str:
        return self.text + self.mark


@dataclass(frozen=True)
class Table:
    """Rows under one head, as long as it each."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str
    """`l` (text) or `r` (figures) per column."""
    lead: str = ""
    """What stands above it."""
    notes: tuple[str, ...] = ()
    """What stands below it, a line each."""
    groups: int = 0
    """How many columns say to what group a row belongs: printed where they change."""

    def only(self, *names: str) -> "Table":
        """The table with these columns, in its own order."""
        kept = [place for place, name in enumerate(self.head) if name in names]
        return replace(
            self,
            head=tuple(self.head[place] for place in kept),
            rows=tuple(tuple(row[place] for place in kept) for row in self.rows),
            align="".join(self.align[place] for place in kept),
            groups=sum(place < self.groups for place in kept),
        )

    @property
    def unfolds(self) -> bool:
        """Whether there is more to some cell than it shows."""
        return any(cell.details for row in self.rows for cell in row)

    @property
    def grid(self) -> list[list[Cell]]:
        """The rows as they are printed: a group's name is empty where it is that of the row above."""
        printed: list[list[Cell]] = []
        above: tuple[Cell, ...] = ()
        for row in self.rows:
            same = [above[: place + 1] == row[: place + 1] for place in range(self.groups)]
            printed.append([Cell() if repeated else cell for repeated, cell in zip(same, row, strict=False)])
            printed[-1] += row[self.groups :]
            above = row
        return printed


def table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    align: str = "",
    *,
    lead: str = "",
    notes: Iterable[str] = (),
    groups: int = 0,
) -> Table:
    """A table of cells and plain texts; None is an empty cell, and without `align` all columns are text."""
    cells = tuple(tuple(_cell(value) for value in row) for row in rows)
    align = align or "l" * len(head)
    if any(len(row) != len(head) for row in (align, *cells)):
        raise ValueError(f"{title}: rows, head and alignment differ in length")
    return Table(title, tuple(head), cells, align, lead, tuple(notes), groups)


def ranked(values: Sequence[float | None]) -> list[Emphasis | None]:
    """The best and the second of values of which the highest is best, the earlier of equals first; a value alone has
    nothing to be better than."""
    finite = [place for place, value in enumerate(values) if value is not None and math.isfinite(value)]
    best = sorted(finite, key=lambda place: -(values[place] or 0))[:2] if len(finite) > 1 else []
    told = dict(zip(best, Emphasis, strict=False))
    return [told.get(place) for place in range(len(values))]


def text(table: Table, title: bool = True) -> str:
    """For a terminal, with what stands above and below the table."""
    rows = [[cell.marked for cell in row] for row in table.grid]
    return _blocks([table.title if title else "", table.lead, _laid_out(table, rows, "simple"), "\n".join(table.notes)])


def markdown(table: Table, level: int = 2) -> str:
    """For a page, under a heading of this level; 0 leaves the heading out. The best figures are bold."""
    rows = [
        [f"**{cell.text}**{cell.mark}" if cell.emphasis is Emphasis.BEST else cell.marked for cell in row]
        for row in table.grid
    ]
    heading = f"{'#' * level} {table.title}" if level and table.title else ""
    notes = "\n".join(f"- {note}" for note in table.notes)
    return _blocks([heading, table.lead, _laid_out(table, rows, "pipe"), notes])


def _laid_out(table: Table, rows: Iterable[Sequence[str]], form: str) -> str:
    """Head and rows as tabulate lays them out; in Markdown's form no character breaks a cell."""
    texts = [list(table.head), *rows]
    if form == "pipe":
        texts = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in texts]
    align = ["right" if letter == "r" else "left" for letter in table.align] if texts[1:] else None
    return tabulate(texts[1:], texts[0], tablefmt=form, disable_numparse=True, colalign=align)


def _cell(value: object) -> Cell:
    return value if isinstance(value, Cell) else Cell("" if value is None else str(value))


def _blocks(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
