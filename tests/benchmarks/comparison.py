"""What was measured of one subject on both sides, what is wanted, and the tables of it. Nothing is measured here."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from peak_memory import Memory
from processes import markdown
from sides import SIDES, Side

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
    def target(self) -> Target:
        return targets()[self.subject]

    @property
    def time_ratio(self) -> float:
        return self.seconds["textbook"].epoch / self.seconds["ours"].epoch

    def memory_ratio(self, of: str = "peak") -> float:
        """Of peaks, or of what is `above_start`."""
        textbook, ours = (float(getattr(self.memory[side], of)) for side in SIDES)
        return textbook / ours

    def check_floors(self) -> None:
        """Raises AssertionError where a ratio is below its floor."""
        assert self.time_ratio >= (self.target.time_floor or 0)
        assert self.memory_ratio() >= (self.target.memory_floor or 0)


Record = Callable[[Comparison], None]
"""Takes a comparison into the tables."""


def tables(comparisons: Sequence[Comparison]) -> str:
    """Time, then memory, in Markdown."""
    heads = ["subject", *_both("ms per step"), *_both("first step"), *_both("ms for batches"), "ours, ms for the state"]
    heads += [*_both("s per epoch"), "textbook / ours", "wanted"]
    ordered = sorted(comparisons, key=lambda one: list(targets()).index(one.subject))
    time = [
        [
            one.subject,
            *(_milliseconds(getattr(one.seconds[side], what)) for what in Seconds._fields[:3] for side in SIDES),
            _milliseconds(one.seconds["ours"].state),
            *(f"{one.seconds[side].epoch:.2f}" for side in SIDES),
            f"{one.time_ratio:.1f}",
            one.target.time_wanted,
        ]
        for one in ordered
    ]
    memory = [
        [
            one.subject,
            *(f"{one.memory[side].peak / 1e9:.2f}" for side in SIDES),
            f"{one.memory_ratio():.1f}",
            one.target.memory_wanted,
            *(f"{one.memory[side].above_start / 1e9:.2f}" for side in SIDES),
            f"{one.memory_ratio('above_start'):.1f}",
        ]
        for one in ordered
    ]
    of_memory = ["subject", *_both("peak GB"), "textbook / ours", "wanted", *_both("GB above start"), "textbook / ours"]
    return f"{markdown(heads, time)}\n\n{markdown(of_memory, memory)}"


def _both(what: str) -> list[str]:
    return [f"{side}, {what}" for side in SIDES]


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}" if seconds else ""
