"""Measured growth as files: `scaling.md`, `scaling.json` and pictures.

What is measured is `harness.measure.scaling`, what it means `harness.compare.scaling`, the pictures `plots.scaling`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from harness.compare.scaling import FORMAT, JSON_FILE, Cell, Complexity, Verdict, exit_code, judge
from harness.files import write_json, write_whole, writing
from harness.measure.scaling import Plan, Point
from harness.report.pictures import files
from harness.report.plots.scaling import scaling_picture

MARKDOWN_FILE = "scaling.md"
ANSWERS = {
    0: "Nothing that could be judged grows faster than published.",
    1: "Something grows faster than published.",
    3: "Nothing could be judged.",
}


@dataclass(frozen=True)
class Scaling:
    """Everything that the report says."""

    plan: Plan
    environment: Mapping[str, object]
    points: tuple[Point, ...]
    complexity: Complexity
    cells: tuple[Cell, ...]
    command: str
    """What repeats it."""

    @property
    def code(self) -> int:
        """The exit code that goes with it."""
        return exit_code(self.cells)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(cell.model for cell in self.cells))


def make_scaling(
    plan: Plan, environment: Mapping[str, object], points: Sequence[Point], complexity: Complexity, command: str
) -> Scaling:
    """Judge the points, of one model after the other, sizes ascending."""
    series: dict[tuple[str, str, str], list[Point]] = {}
    for point in points:
        series.setdefault((point.model, point.part, point.factor), []).append(point)
    cells = [
        judge(complexity, *key, quantity, [p.size for p in of], [p.values(quantity) for p in of])
        for key, of in series.items()
        for quantity in of[0].quantities
    ]
    return Scaling(plan, environment, tuple(points), complexity, tuple(cells), command)


def write_scaling(scaling: Scaling, folder: Path, json_file: Path | None = None) -> list[Path]:
    """The report, the points and the pictures below `folder`, the points also in `json_file`; gives the paths.

    Raises WriteError where that is not possible.
    """
    pictures = [scaling_picture(model, scaling.cells) for model in scaling.models]
    contents = {MARKDOWN_FILE: markdown(scaling).encode(), **files(pictures)}
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        with writing(path, "name another folder with --to"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    for path in filter(None, (folder / JSON_FILE, json_file)):
        with writing(path, "name another one with --to or --json"):
            write_json(path, values(scaling))
        paths.append(path)
    return paths


def values(scaling: Scaling) -> dict[str, Any]:
    """All points with every repetition, and what follows from them, fit for JSON; seconds and bytes."""
    return {
        "format": FORMAT,
        "command": scaling.command,
        "environment": dict(scaling.environment),
        "plan": asdict(scaling.plan),
        "points": [{**asdict(point), "size": point.size} for point in scaling.points],
        "cells": [asdict(cell) for cell in scaling.cells],
    }


def markdown(scaling: Scaling) -> str:
    """The whole report; its first part, up to the first `## `, is the summary."""
    sections = [
        "# How time and memory grow",
        summary(scaling),
        *(_of_model(scaling, model) for model in scaling.models),
        *_unmeasured(scaling.points),
        _published(scaling.complexity, scaling.models),
        _method(scaling),
        _environment(scaling.environment),
        f"## Command that repeats it\n\n```\n{scaling.command}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def summary(scaling: Scaling) -> str:
    """The answer, how many cells have which verdict, and which cost more than published."""
    counts = Counter(cell.verdict for cell in scaling.cells)
    lines = [f"**{ANSWERS[scaling.code]}**", ""]
    lines.append("- Exponents: " + (", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v]) or "none"))
    for cell in scaling.cells:
        if cell.verdict is Verdict.ABOVE:
            what = f"{_label(cell)} in {cell.factor}: {_exponent(cell)}, published {_published_exponent(cell)}"
            lines.append(f"- Above: {what}")
    return "\n".join(lines)


def _of_model(scaling: Scaling, model: str) -> str:
    cells = [cell for cell in scaling.cells if cell.model == model]
    rows = [
        [
            f"{cell.part or 'model'}, {cell.quantity}",
            cell.factor,
            f"{cell.sizes[0]:,} to {cell.sizes[-1]:,}" if cell.sizes else "",
            " to ".join(_amount(cell.quantity, value) for value in (cell.medians[0], cell.medians[-1]))
            if cell.medians
            else "",
            _exponent(cell),
            f"{cell.fit.slope:.2f}" if cell.fit else "",
            f"{cell.fit.constant:.0%}" if cell.fit else "",
            _published_exponent(cell),
            cell.verdict.value,
            cell.reason.replace("|", "\\|"),
        ]
        for cell in cells
    ]
    head = ["what", "size", "from, to", "medians", "exponent", "slope", "constant", "published", "verdict", "why"]
    picture = f"![Growth of {model}](pictures/scaling-{model}.png)"
    return f"## {model}\n\n{_table(rows, head)}\n\n{picture}"


def _exponent(cell: Cell) -> str:
    return f"{cell.fit.exponent:.2f} [{cell.fit.low:.2f}, {cell.fit.high:.2f}]" if cell.fit else ""


def _published_exponent(cell: Cell) -> str:
    return "" if cell.published is None else f"{cell.published:g}"


def _label(cell: Cell) -> str:
    return f"{cell.model} {cell.part}".strip() + f", {cell.quantity}"


def _amount(quantity: str, value: float) -> str:
    return f"{value / 1e6:.3g} MB" if quantity == "memory" else f"{1e3 * value:.3g} ms"


def _unmeasured(points: Iterable[Point]) -> list[str]:
    lines = [f"- {p.model} {p.part} {p.factor} = {p.size:,}: {p.note}" for p in points if p.note]
    return ["## Not measured", "\n".join(lines)] if lines else []


def _published(complexity: Complexity, models: Sequence[str]) -> str:
    rows = []
    for cost in complexity.costs:
        if cost.model.lower() in models:
            open_sizes = "; ".join(f"{size}: {reason}" for size, reason in cost.open.items())
            what = f"{cost.model}{f' {cost.part}' if cost.part else ''}, {cost.quantity}"
            row = [what, f"O({cost.expression})", cost.source, " ".join(filter(None, (cost.note, open_sizes)))]
            rows.append([text.replace("|", "\\|") for text in row])
    text = _table(rows, ["what", "published", "source", "note, and what is left open"]) if rows else "Nothing is."
    return f"## What is published\n\n{text}"


def _method(scaling: Scaling) -> str:
    plan, base, complexity = scaling.plan, scaling.plan.base, scaling.complexity
    multipliers = ", ".join(map(str, plan.multipliers))
    return f"""## How it was measured

Base: {base.users:,} users, I = {base.items:,} items, E = {base.interactions:,} training interactions (random, by power
laws), random visual features of d_m = {base.width} and text features of a quarter of that, d = {base.embedding},
B = {base.batch}, L = {base.layers}, other settings as published. One size at a time is multiplied by {multipliers}; all
else stays.

Times: {plan.repetitions} repetitions after a warm-up, all sizes in turn and in a new order each time. A repetition is
the first step of an epoch, with shuffling, sampling and what the model renews then, and some plain steps; an epoch is
put together from these. A part is called alone, with its gradient where training has one. Memory is the peak of loading
the data, building the model and steps of some epochs, above what was held before: of {plan.memory_repetitions}
processes on the CPU, of the allocator on CUDA.

`exponent` is k of y = a + b x^k with a, b ≥ 0, fitted to the medians by least relative squares, with its bootstrap
interval over repetitions at {complexity.confidence:.0%}. `constant` is the share of a at the largest size. `slope` is
that of log y over log x from the middle size on, the constant included. `consistent`: the published exponent is inside
the interval or above it. `above`: the interval begins more than {complexity.tolerance:g} above the published exponent,
a logarithm included. `no evidence`: not measured, an interval wider than {complexity.widest:g} around the published
exponent, or a median further than {complexity.misfit:.0%} from the fit. `open`: no source says."""


def _environment(environment: Mapping[str, object]) -> str:
    rows = [[key, value] for key, value in environment.items() if value is not None]
    return f"## Environment\n\n{_table(rows, ['what', 'value'])}"


def _table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> str:
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)
