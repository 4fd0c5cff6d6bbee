"""Measured growth as files: a record in JSON, a report in Markdown, and a picture per model.

What is measured is `measure`, what it means `fit`.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from harness.common import exit_status, write_files
from harness.paper.growth import FORMAT, Complexity
from harness.report.tables import markdown, table
from harness.tools.scaling.fit import Cell, Verdict, judge
from harness.tools.scaling.measure import FIELDS, Plan, Series

ANSWERS = {
    0: "Nothing that could be judged grows faster than published.",
    1: "Something grows faster than published.",
    3: "Nothing could be judged.",
}


@dataclass(frozen=True)
class Growth:
    """What one call measured, and what follows from it."""

    command: str
    """What repeats it."""
    environment: Mapping[str, object]
    plan: Plan
    series: tuple[Series, ...]
    complexity: Complexity

    @cached_property
    def cells(self) -> list[Cell]:
        """One per model, size and quantity."""
        return [
            judge(self.complexity, each.model, each.factor, quantity, each.sizes, values)
            for each in self.series
            for quantity, values in each.values.items()
        ]

    @property
    def code(self) -> int:
        """The exit code that goes with it."""
        return exit_status(cell.verdict.held for cell in self.cells)


def write(growth: Growth, folder: Path) -> list[Path]:
    """A record, a report and pictures below `folder`, named by the time; they replace nothing. Raises WriteError."""
    name = f"scaling-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    drawn = dict.fromkeys(cell.model for cell in growth.cells)
    pictures = {f"{name}-{model}.png": picture(model, growth.cells) for model in drawn}
    contents: dict[str, bytes | str] = {
        f"{name}.json": json.dumps(as_json(growth), indent=1) + "\n",
        f"{name}.md": report(growth, list(pictures)),
        **pictures,
    }
    return write_files({folder / file: content for file, content in contents.items()}, "name another folder with --out")


def as_json(growth: Growth) -> dict[str, Any]:
    """Every repetition, in seconds and bytes, and what follows; `paper.growth` reads it."""
    return {
        "format": FORMAT,
        "command": growth.command,
        "environment": dict(growth.environment),
        "plan": asdict(growth.plan),
        "series": [asdict(each) for each in growth.series],
        "cells": [asdict(cell) for cell in growth.cells],
    }


def summary(growth: Growth) -> str:
    """The answer, how many cells have which verdict, and which grow faster than published."""
    counts = Counter(cell.verdict for cell in growth.cells)
    lines = [f"**{ANSWERS[growth.code]}**", ""]
    lines.append("- Exponents: " + (", ".join(f"{counts[v]} {v}" for v in Verdict if counts[v]) or "none"))
    for cell in growth.cells:
        if cell.verdict is Verdict.ABOVE:
            what = f"{cell.model}, {cell.quantity} in {cell.factor}"
            lines.append(f"- Above: {what}: {_exponent(cell)}, published {cell.published:g}")
    return "\n".join(lines)


def report(growth: Growth, pictures: Sequence[str]) -> str:
    """Markdown; up to the first `## ` it is the summary."""
    head = ["model", "what", "size", "from, to", "medians", "exponent", "constant", "published", "verdict", "why"]
    rows = [
        [
            cell.model,
            cell.quantity,
            cell.factor,
            f"{cell.sizes[0]:,} to {cell.sizes[-1]:,}" if cell.sizes else "",
            " to ".join(_amount(cell.quantity, cell.medians[end]) for end in (0, -1)) if cell.sizes else "",
            _exponent(cell),
            f"{cell.fit.constant:.0%}" if cell.fit else "",
            "" if cell.published is None else f"{cell.published:g}",
            f"{cell.verdict.mark} {cell.verdict}",
            cell.reason,
        ]
        for cell in growth.cells
    ]
    notes = [f"{each.model}, {note}" for each in growth.series for note in each.notes]
    measured = {cell.model for cell in growth.cells}
    costs = [
        [
            f"{cost.model}, {cost.quantity}",
            f"O({cost.expression})",
            cost.source,
            " ".join(filter(None, (cost.note, "; ".join(f"{size}: {why}" for size, why in cost.open.items())))),
        ]
        for cost in growth.complexity.costs
        if cost.model.lower() in measured
    ]
    known = [[key, str(value)] for key, value in growth.environment.items() if value is not None]
    return "\n\n".join(
        [
            "# How time and memory grow",
            summary(growth),
            *(f"![Growth of {file}]({file})" for file in pictures),
            markdown(table("Exponents", head, rows, "lllllrrrll", notes=notes, groups=1)).rstrip(),
            markdown(table("What is published", ["what", "cost", "source", "note, and what is open"], costs)).rstrip(),
            _method(growth),
            markdown(table("Environment", ["what", "value"], known)).rstrip(),
            f"## Command that repeats it\n\n```\n{growth.command}\n```\n",
        ]
    )


def _exponent(cell: Cell) -> str:
    return f"{cell.fit.exponent:.2f} [{cell.fit.low:.2f}, {cell.fit.high:.2f}]" if cell.fit else ""


def _amount(quantity: str, value: float) -> str:
    return f"{value / 1e6:.3g} MB" if quantity == "memory" else f"{1e3 * value:.3g} ms"


def _method(growth: Growth) -> str:
    plan, base, rule = growth.plan, growth.plan.base, growth.complexity
    sizes = ", ".join(f"{symbol} = {base.of(symbol):,}" for symbol in FIELDS)
    return f"""## How it was measured

Base: {base.users:,} users, {sizes}: random interactions by power laws, random visual features and text features of a
quarter of d_m, settings as published. One size at a time is multiplied by {", ".join(map(str, plan.multipliers))}.
Times: {plan.repetitions} repetitions after a warm-up, all sizes in turn and in a new order each time, of the first step
of an epoch with what comes before it, of plain steps, from which an epoch is put together, and of a full ranking.
Memory: the peak of making the data, building the model and steps of two epochs, above what was held before, in
{plan.memory_repetitions} processes on the CPU, by the allocator on CUDA.

`exponent` is k of y = a + b x^k with a, b ≥ 0, fitted to the medians, with its bootstrap interval over repetitions at
{rule.confidence:.0%}; `constant` is the share of a at the largest size. `above`: the interval begins more than
{rule.tolerance:g} above the published exponent, a logarithm included. `no evidence`: not measured, an interval wider
than {rule.widest:g} around the published exponent, or a median further than {rule.misfit:.0%} from the fit."""


def picture(model: str, cells: Sequence[Cell]) -> bytes:
    """A PNG with a panel per size that grew: times and memory as ratios to those at the smallest size."""
    drawn = [cell for cell in cells if cell.model == model and cell.sizes]
    factors = list(dict.fromkeys(cell.factor for cell in drawn)) or [""]
    figure = Figure((7.0, 2.6), layout="constrained")
    panels = figure.subplots(1, len(factors), squeeze=False, sharey=True)[0]
    for axes, factor in zip(panels, factors, strict=True):
        axes.set_xlabel(factor)
        axes.grid(visible=True, alpha=0.3)
        for cell, marker in zip((cell for cell in drawn if cell.factor == factor), "osD^", strict=False):
            ratios = [value / cell.medians[0] for value in cell.medians]
            axes.plot(cell.sizes, ratios, marker=marker, markersize=4, linewidth=1, label=cell.quantity)
            axes.set(xscale="log", yscale="log", xticks=cell.sizes[:: len(cell.sizes) - 1 or 1])
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.minorticks_off()
    panels[0].set_ylabel("times the smallest")
    panels[0].legend(frameon=False, fontsize=7)
    file = BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()
