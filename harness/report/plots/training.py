"""How training went: curves by epoch, and accuracy by searched setting."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.paper.results import GridPoint
from harness.paper.study import Study, StudyRow
from harness.report.plots.parts import (
    BLUE,
    COLOURS,
    INK,
    MARKERS,
    WIDTH,
    Picture,
    named,
    picture,
    plain_log,
    sampled,
    wide,
    wrapped,
)
from harness.training.config import STOPPING_METRIC

DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)))
SETTINGS = {"n_layers": "n_layers (layers)", "dropout": "dropout (share)", "reg_weight": "λ, reg_weight (no unit)"}
COLUMNS = 3
ACROSS = 20  # characters of tick labels that fit below a panel

Epochs = Sequence[Any]
Panel = tuple[str, str | None, str, list[GridPoint]]
"""The setting on the x axis, the one told by colour, the values of all others, and the points."""


def learning(study: Study, dataset: str) -> Picture | None:
    """Loss parts above validation R@20 by epoch, a pair of panels per model, each seed a thin line."""
    curves = [(row, [run.epochs() for run in row.result.runs]) for row in study.of(dataset)]
    shown = [(row, runs) for row, runs in curves if any(runs)]
    if not shown:
        return None
    parts = list(dict.fromkeys(part for _, runs in shown for run in runs for epoch in run for part in epoch["parts"]))
    figure, columns, bands = _figure(len(shown), 2.7)
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for place in range(bands * columns):
        losses, valid = (panels[2 * (place // columns) + below, place % columns] for below in (0, 1))
        if place < len(shown):
            _curves(losses, valid, *shown[place], parts)
        else:
            losses.remove()
            valid.remove()
    handles = [Line2D([], [], label=part, **_line(place)) for place, part in enumerate(parts)]
    handles.append(Line2D([], [], color=INK, linestyle=":", marker="o", markersize=4, label="chosen epoch"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2 * min(columns, 2))
    return picture(
        f"{dataset}-learning",
        f"Learning curves, {dataset}",
        figure,
        "The parts of the loss, means over an epoch, and below them validation recall@20; a thin line per seed.",
        "Dotted: the epoch that was kept, the best on validation.",
        named("No epochs are stored for", (row.label for row, runs in curves if not any(runs))),
    )


def grid(study: Study, dataset: str) -> Picture | None:
    """Validation and test R@20 by searched setting, for each model of which several grid points were run."""
    rows = [row for row in study.of(dataset) if row.result.points > 1]
    if not rows:
        return None
    panels = [(row, panel) for row in rows for panel in _panels(row.result.grid)]
    figure, columns, bands = _figure(len(panels), 2.4)
    places = list(figure.subplots(bands, columns, squeeze=False).flat)
    for axes, (row, panel) in zip(places, panels, strict=False):
        _grid_panel(axes, row, panel)
    for axes in places[len(panels) :]:
        axes.remove()
    ink: dict[str, Any] = {"color": INK, "marker": "o"}
    handles = [
        Line2D([], [], markersize=4, label="validation", **ink),
        Line2D([], [], markersize=4, markerfacecolor="none", linestyle="--", label="test", **ink),
        Line2D([], [], markersize=10, markerfacecolor="none", linestyle="none", label="chosen point", **ink),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return picture(
        f"{dataset}-grid",
        f"Sensitivity to the searched settings, {dataset}",
        figure,
        "Recall@20 of each grid point on the validation part, where points are chosen (filled), and on the test part "
        "(open); means over the seeds that every point of a model has.",
        named("Only one point was run of", (row.label for row in study.of(dataset) if row not in rows)),
    )


def _figure(panels: int, height: float) -> tuple[Figure, int, int]:
    """A figure with its columns and bands of panels, each band `height` inches."""
    columns = min(COLUMNS, panels)
    bands = math.ceil(panels / columns)
    return Figure((WIDTH if columns > 1 else WIDTH / 2, 0.5 + height * bands), layout="constrained"), columns, bands


def _line(part: int) -> dict[str, Any]:
    return {"color": COLOURS[part % len(COLOURS)], "linestyle": DASHES[part % len(DASHES)], "linewidth": 1}


def _curves(losses: Axes, valid: Axes, row: StudyRow, runs: Sequence[Epochs], parts: Sequence[str]) -> None:
    seen: list[float] = []
    for run, epochs in zip(row.result.runs, runs, strict=True):
        kept = [epochs[i] for i in sampled(len(epochs))]
        numbers = [epoch["epoch"] for epoch in kept]
        for place, part in enumerate(parts):
            if any(part in epoch["parts"] for epoch in kept):
                values = [epoch["parts"].get(part, math.nan) for epoch in kept]
                losses.plot(numbers, values, **_line(place))
                seen += values
        valid.plot(numbers, [epoch["valid"][STOPPING_METRIC] for epoch in kept], color=BLUE, linewidth=0.8)
        for best in [epoch for epoch in epochs if epoch["epoch"] == (run.result or {})["best_epoch"]]:
            for axes in (losses, valid):
                axes.axvline(best["epoch"], color=INK, linewidth=0.8, linestyle=":")
            valid.plot([best["epoch"]], [best["valid"][STOPPING_METRIC]], "o", color=INK, markersize=4)
    losses.set_title(wrapped(row.label, 34))
    losses.set(xlabel="epoch (number)", ylabel="loss part (no unit)")
    valid.set(xlabel="epoch (number)", ylabel="validation R@20\n(share)")
    for axes in (losses, valid):
        axes.locator_params(axis="x", nbins=5, integer=True)
    if wide(seen):
        losses.set_yscale("log", nonpositive="mask")
        plain_log(losses.yaxis)


def _panels(points: Sequence[GridPoint]) -> list[Panel]:
    """One panel per combination of the settings beyond the second; the setting with most values goes to the x axis."""
    values = {key: {point.settings[key] for point in points} for key in points[0].settings}
    # With as many values, counts such as layers come first.
    order = sorted(values, key=lambda key: (-len(values[key]), any(value % 1 for value in values[key]), key))
    x, *others = [key for key in order if len(values[key]) > 1]
    hue, fixed = (others[0], others[1:]) if others else (None, [])
    panels: dict[str, list[GridPoint]] = {}
    for point in sorted(points, key=lambda point: [point.settings[key] for key in [*fixed, x]]):
        panels.setdefault(", ".join(f"{key} = {point.settings[key]:g}" for key in fixed), []).append(point)
    return [(x, hue, text, part) for text, part in panels.items()]


def _grid_panel(axes: Axes, row: StudyRow, panel: Panel) -> None:
    x, hue, fixed, points = panel
    shades = sorted({point.settings[hue] for point in points}) if hue else [0.0]
    for place, shade in enumerate(shades):
        line = [point for point in points if not hue or point.settings[hue] == shade]
        style: dict[str, Any] = {
            "color": COLOURS[place % len(COLOURS)],
            "marker": MARKERS[place % len(MARKERS)],
            "markersize": 4,
        }
        at = [point.settings[x] for point in line]
        axes.plot(at, [point.valid for point in line], label=f"{shade:g}", **style)
        axes.plot(at, [point.test for point in line], linestyle="--", markerfacecolor="none", **style)
    config = row.result.runs[0].run["config"]
    for point in points:
        if all(config[key] == value for key, value in point.settings.items()):
            axes.plot([point.settings[x]], [point.valid], "o", color=INK, markersize=10, markerfacecolor="none")
    values = sorted({point.settings[x] for point in points})
    positive = [value for value in values if value > 0]
    if wide(values):
        if positive == values:
            axes.set_xscale("log")
        else:  # a logarithmic axis has no place for 0
            axes.set_xscale("symlog", linthresh=positive[0])
    labels = [_short(value) for value in values]
    lower = "\n" if sum(map(len, labels)) > ACROSS else ""  # every second label on a line below
    axes.set_xticks(values, [lower * (place % 2) + label for place, label in enumerate(labels)])
    axes.minorticks_off()
    axes.margins(0.12, 0.15)
    axes.set(xlabel=SETTINGS.get(x, f"{x} (no unit)"), ylabel="recall@20 (share)")
    if hue:  # above the axes, since lines can be anywhere in them
        heading = wrapped(f"{', '.join(filter(None, [row.label, fixed]))}; {hue}:", 34)
        axes.legend(
            title=heading, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, handlelength=1, columnspacing=1
        )
    else:
        axes.set_title(wrapped(row.label, 34))


def _short(value: float) -> str:
    """`0.01`, but `1e-3`."""
    return f"{value:g}" if value == 0 or value >= 0.01 else np.format_float_scientific(value, trim="-", exp_digits=1)
