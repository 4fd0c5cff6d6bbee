"""What was measured of one subject on both sides, what is wanted, and the tables of it. Nothing is measured here."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from peak_memory import Memory
from sides import SIDES, Side
from tabulate import tabulate

TARGETS = Path(__file__).parent / "targets.csv"


class Target(NamedTuple):
    """Ratios textbook over ours: those wanted, and those that every run on random data must reach.

    Floors lie below what was measured on two cores (docs/performance.md): noise passes, a lost shortcut does not.
    """

    time_wanted: float | None
    time_floor: float | None
    memory_wanted: float | None
    memory_floor: float | None


def targets() -> dict[str, Target]:
    """By subject, in the order of the tables."""
    with TARGETS.open(encoding="utf-8", newline="") as file:
        return {
            row["subject"]: Target(*(float(row[name]) if row[name] else None for name in Target._fields))
            for row in csv.DictReader(file)
        }


class Seconds(NamedTuple):
    """Medians of one side. What does not apply is 0."""

    plain: float
    """A step; an evaluation of both parts where that is the subject."""
    first: float = 0
    """The first step of an epoch, where that is another one."""
    batches: float = 0
    """Making an epoch's batches."""
    state: float = 0
    """Reading the model's state after an epoch."""
    n_steps: int = 1

    @property
    def epoch(self) -> float:
        return self.batches + (self.first or self.plain) + (self.n_steps - 1) * self.plain + self.state


@dataclass(frozen=True)
class Comparison:
    """Both sides of a subject."""

    subject: str
    seconds: Mapping[Side, Seconds]
    memory: Mapping[Side, Memory]

    @property
    def time_ratio(self) -> float:
        return self.seconds["textbook"].epoch / self.seconds["ours"].epoch

    @property
    def memory_ratio(self) -> float:
        return self.memory["textbook"].peak / self.memory["ours"].peak

    @property
    def above_start_ratio(self) -> float:
        return self.memory["textbook"].above_start / self.memory["ours"].above_start

    @property
    def target(self) -> Target:
        return targets()[self.subject]

    @property
    def extra_info(self) -> dict[str, float]:
        """For pytest-benchmark's own record."""
        return {
            "textbook_over_ours": self.time_ratio,
            "memory_textbook_over_ours": self.memory_ratio,
            "memory_above_start_textbook_over_ours": self.above_start_ratio,
        }

    def check_floors(self) -> None:
        """Raises AssertionError where a ratio is below its floor."""
        assert self.time_ratio >= (self.target.time_floor or 0)
        assert self.memory_ratio >= (self.target.memory_floor or 0)


Record = Callable[[Comparison], None]
"""Takes a comparison into the tables."""


Column = tuple[str, Callable[[Comparison], str]]
"""A header, and what stands below it for a subject."""


def overview(comparisons: Sequence[Comparison]) -> str:
    """Time and memory in one table."""
    columns: list[Column] = [
        ("fast over textbook", lambda c: c.subject),
        *_both("ms", lambda side, c: _milliseconds(c.seconds[side].plain), between="\n"),
        *_both("ms for\nbatches", lambda side, c: _milliseconds(c.seconds[side].batches), between="\n"),
        *_both("s per\nepoch", lambda side, c: f"{c.seconds[side].epoch:.2f}", between="\n"),
        ("ratio", lambda c: f"{c.time_ratio:.1f}"),
        ("target", lambda c: _wanted(c.target.time_wanted)),
        *_both("peak\nGB", lambda side, c: f"{c.memory[side].peak / 1e9:.2f}", between="\n"),
        ("ratio", lambda c: f"{c.memory_ratio:.1f}"),
        ("target", lambda c: _wanted(c.target.memory_wanted)),
    ]
    return _table(comparisons, columns, "simple")


def time_section(data: str, comparisons: Sequence[Comparison]) -> str:
    """The table of time under a heading, in Markdown."""
    columns: list[Column] = [
        ("subject", lambda c: c.subject),
        *_both("ms per step", lambda side, c: _milliseconds(c.seconds[side].plain)),
        *_both("first step", lambda side, c: _milliseconds(c.seconds[side].first)),
        *_both("ms for batches", lambda side, c: _milliseconds(c.seconds[side].batches)),
        ("ours, ms for the state", lambda c: _milliseconds(c.seconds["ours"].state)),
        *_both("s per epoch", lambda side, c: f"{c.seconds[side].epoch:.2f}"),
        ("textbook / ours", lambda c: f"{c.time_ratio:.1f}"),
        ("wanted", lambda c: _wanted(c.target.time_wanted)),
    ]
    n_steps = max(c.seconds["ours"].n_steps for c in comparisons)
    return f"""# Fast over textbook: time

{data}, alternating in one process; medians.
Textbook steps project all items, copy a row for every directed edge, multiply by COO adjacencies, hold item graphs as
dense matrices and use torch's default Adam; negatives are drawn one by one, hits are looked up user by user.

An epoch is its batches, its first step where that renews something (LATTICE's item graph, DualGNN's sampled user
graph), {n_steps - 1} plain ones, and one reading of the model's state, which does what steps put off. A step of the
evaluation is validation and test of all users over all items, up to rank 50.

{_table(comparisons, columns, "github")}
"""


def memory_section(comparisons: Sequence[Comparison]) -> str:
    """The table of memory under a heading, in Markdown."""
    columns: list[Column] = [
        ("subject", lambda c: c.subject),
        *_both("peak GB", lambda side, c: f"{c.memory[side].peak / 1e9:.2f}"),
        ("textbook / ours", lambda c: f"{c.memory_ratio:.1f}"),
        ("wanted", lambda c: _wanted(c.target.memory_wanted)),
        *_both("GB above start", lambda side, c: f"{c.memory[side].above_start / 1e9:.2f}"),
        ("textbook / ours", lambda c: f"{c.above_start_ratio:.1f}"),
    ]
    return f"""# Fast over textbook: memory

Peak resident memory of building the model and 25 steps (textbooks of MMGCN, GRCN, DualGNN and LATTICE: three), or of
evaluating, each in a process of its own; start is before the model was built, with Python, torch and the data loaded.

{_table(comparisons, columns, "github")}
"""


def _both(what: str, cell: Callable[[Side, Comparison], str], between: str = ", ") -> list[Column]:
    """A column for each side, whose header is the side's name and `what`."""
    return [(f"{side}{between}{what}", partial(cell, side)) for side in SIDES]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}" if seconds else ""


def _wanted(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:g}"


def _table(comparisons: Sequence[Comparison], columns: Sequence[Column], tablefmt: str) -> str:
    """Subjects in the order of the targets; all but the first column to the right."""
    order = list(targets())
    rows = [[cell(c) for _, cell in columns] for c in sorted(comparisons, key=lambda c: order.index(c.subject))]
    right = ["right"] * (len(columns) - 1)
    headers = [header for header, _ in columns]
    return tabulate(rows, headers, tablefmt=tablefmt, disable_numparse=True, colalign=("left", *right))
