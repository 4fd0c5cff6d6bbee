"""The history of checks, a JSON line each per machine class, and the page that shows how figures moved over them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass as pydantic_dataclass

from harness.common import writing
from harness.tools.regress.regression import MEMORY, TIME, WALL
from harness.tools.regress.report import BASELINE_ITSELF, HISTORY_FORMAT, MIB, described_source

Entry = Mapping[str, Any]


@pydantic_dataclass
class _Entry:
    """What the page reads of a line."""

    figures: dict[str, dict[str, float]]
    outcomes: list[list[str]]
    when: str
    code: int
    compared_with: str


ENTRY = TypeAdapter(_Entry)
WIDTH, HEIGHT, MARGIN = 240.0, 40.0, 5.0
TITLES = {TIME: "Time, in units of the calibration", MEMORY: "Memory above the start, MiB"}
HIGHER_IS_BETTER = "@"
MADE = ("●", "none", "baseline made")
ANSWERS = {0: ("✓", "good", "held"), 1: ("✗", "bad", "regressed"), 3: ("○", "none", "not compared")}


@dataclass(frozen=True)
class Point:
    """A check's figure, placed in the drawing."""

    x: float
    y: float
    tone: str
    """`bad` where it regressed in that check, else empty."""
    title: str


@dataclass(frozen=True)
class Line:
    """A figure of one subject over all checks."""

    subject: str
    first: str
    latest: str
    change: str
    tone: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """For an SVG polyline."""
        return " ".join(f"{point.x:g},{point.y:g}" for point in self.points)


@dataclass(frozen=True)
class History:
    """The checks of one machine class, in order, and how many lines could not be read."""

    machine: str
    entries: tuple[Entry, ...]
    damaged: int


def append(path: Path, machine: str, entry: Entry) -> None:
    """Add a line to the history of a machine class; a new file begins with the class. Raises WriteError."""
    with writing(path, "name another folder with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            lines = b"" if file.tell() else _line({"format": HISTORY_FORMAT, "machine": machine})
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # a check was killed as it wrote: its line must not spoil this one
                    lines = b"\n"
            file.write(lines + _line(entry))


def read(path: Path) -> History:
    """Lines that a killed check left half written are counted and left out."""
    machine, entries, damaged = path.stem, [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            if line["format"] != HISTORY_FORMAT:
                raise ValueError(line["format"])
            if "machine" in line:
                machine = str(line["machine"])
            else:
                ENTRY.validate_python(line)
                entries.append(line)
        except (ValueError, KeyError, TypeError):  # also what pydantic raises
            damaged += 1
    return History(machine, tuple(entries), damaged)


def page(histories: Sequence[History]) -> str:
    """One HTML file without any request; the same histories give the same text."""
    from harness.report.html import page_template  # jinja2 comes with it, which no other command should wait for

    return page_template("trend.html.j2").render(
        machines=[(history, _groups(history.entries), _checks(history.entries)) for history in histories],
        latest=max((check for history in histories for check in _checks(history.entries)), default=None),
        width=WIDTH,
        height=HEIGHT,
    )


def _groups(entries: Sequence[Entry]) -> list[tuple[str, list[Line]]]:
    """Per quantity the lines of all subjects."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for subject, figures in entry["figures"].items():
            for quantity in figures:
                if quantity not in (WALL, "cpu seconds"):
                    found.setdefault(quantity, {})[subject] = None
    return [
        (TITLES.get(quantity, quantity), [_drawn(entries, subject, quantity) for subject in subjects])
        for quantity, subjects in found.items()
    ]


def _drawn(entries: Sequence[Entry], subject: str, quantity: str) -> Line:
    values = [
        (number, float(entry["figures"][subject][quantity]))
        for number, entry in enumerate(entries)
        if quantity in entry["figures"].get(subject, {})
    ]
    figures = [value for _, value in values]
    low, high = min(figures), max(figures)
    # Noise must not look like a mountain: a tenth of the figure has at least half of the height.
    span = max(high - low, 0.2 * abs(high)) or 1.0
    low = (low + high - span) / 2
    points = tuple(
        Point(
            x=round(MARGIN + (WIDTH - 2 * MARGIN) * (number / max(len(entries) - 1, 1)), 1),
            y=round(HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span, 1),
            tone="bad" if _regressed(entries[number], subject, quantity) else "",
            title=f"{_figure(value, quantity)}, {described_source(entries[number])}",
        )
        for number, value in values
    )
    change = figures[-1] / figures[0] - 1 if figures[0] else 0.0
    worse = -change if HIGHER_IS_BETTER in quantity else change
    return Line(
        subject,
        _figure(figures[0], quantity),
        _figure(figures[-1], quantity),
        f"{100 * change:+z.1f} %".replace("-", "−"),
        "bad" if points[-1].tone else "more" if worse < -0.05 else "",
        points,
    )


def _checks(entries: Iterable[Entry]) -> list[tuple[str, str, str, str, str]]:
    """Date, source, mark, tone and word of each check, the latest first."""
    return [
        (
            str(entry["when"])[:16].replace("T", " "),
            described_source(entry),
            *(MADE if entry["compared_with"] == BASELINE_ITSELF else ANSWERS.get(entry["code"], ANSWERS[3])),
        )
        for entry in reversed(list(entries))
    ]


def _regressed(entry: Entry, subject: str, quantity: str) -> bool:
    return any(outcome[:3] == [subject, quantity, "regressed"] for outcome in entry["outcomes"])


def _figure(value: float, quantity: str) -> str:
    return f"{value / MIB:.1f}" if quantity == MEMORY else f"{value:.3f}" if quantity == TIME else f"{value:.4f}"


def _line(content: Entry) -> bytes:
    return (json.dumps(content) + "\n").encode()
