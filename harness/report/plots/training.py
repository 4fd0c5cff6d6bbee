"""How training went: curves by epoch, and accuracy by searched setting. A model a line of axes."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.paper.published import canonical_metric
from harness.paper.rows import Row, expected_best
from harness.paper.study import Study
from harness.report.plots.style import BLUE, COLOURS, INK, WIDTH, Picture, coloured, named, picture, wrapped
from harness.runs.record import Epoch

DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 2)))


def learning(study: Study, dataset: str) -> Picture | None:
    """Loss parts beside the validation metric by epoch, each seed a thin line."""
    curves = [(row, [run.epochs() for run in row.runs]) for row in study.of(dataset)]
    shown = [(row, runs) for row, runs in curves if any(len(epochs) > 1 for epochs in runs)]
    if not shown:
        return None
    parts = list(dict.fromkeys(part for _, runs in shown for run in runs for epoch in run for part in epoch.parts))
    figure = Figure((WIDTH, 0.5 + 1.9 * len(shown)), layout="constrained")
    for (losses, valid), (row, runs) in zip(figure.subplots(len(shown), 2, squeeze=False), shown, strict=True):
        _curves(losses, valid, row, runs, parts)
    chosen = Line2D([], [], color=INK, linestyle=":", marker="o", markersize=4, label="chosen epoch")
    figure.legend(handles=[chosen], loc="outside upper right")
    return picture(
        f"{dataset}-learning",
        f"Learning curves, {dataset}",
        figure,
        f"Parts of the loss, means over an epoch, and beside them validation {study.stopping}; a thin line per seed.",
        "Dotted: the epoch that was kept, the best on validation.",
        named("No curve, for want of epochs", (row.label for row, runs in curves if (row, runs) not in shown)),
    )


def grid(study: Study, dataset: str) -> Picture | None:
    """Validation and test metric by searched setting, for each model of which several points were run that the model's
    own settings tell apart."""
    rows = [row for row in study.of(dataset) if len(row.grid) > 1]
    shown = [row for row in rows if _has_axis(row)]
    if not shown:
        return None
    figure = Figure((WIDTH, 0.5 + 2.1 * len(shown)), layout="constrained")
    for (axes,), row in zip(figure.subplots(len(shown), 1, squeeze=False), shown, strict=True):
        _sensitivity(axes, row)
    return picture(
        f"{dataset}-grid",
        f"Sensitivity to the searched settings, {dataset}",
        figure,
        f"{study.stopping} of each grid point on the validation part, where points are chosen (filled), and on "
        "the test part (open, dashed); means over the seeds that every point of a model has. Ringed: the chosen point.",
        named("Only one point was run of", (row.label for row in study.of(dataset) if row not in rows)),
    )


def budget(study: Study, dataset: str) -> Picture | None:
    """What a search of so many points is expected to reach, a line per model of which several were run."""
    shown = [row for row in study.of(dataset) if len(row.grid) > 1]
    if not shown:
        return None
    figure = Figure((WIDTH, 3), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(shown):
        reached = expected_best(row.grid)
        searched = study.paper.grids.get(row.model, {})
        grid = math.prod(map(len, searched.values()))
        label = f"{row.label} ({f'{grid} in' if searched else 'not in'} the paper's grid)"
        axes.plot(range(1, len(reached) + 1), reached, label=label, **{**coloured(place), "marker": ""})
        if searched and grid <= len(reached):
            axes.plot([grid], [reached[grid - 1]], **{**coloured(place), "linestyle": ""})
    axes.set(xlabel="points tried (number)", ylabel=f"expected test {study.stopping}\n(share)")
    axes.locator_params(axis="x", integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return picture(
        f"{dataset}-budget",
        f"What a search reaches by its budget, {dataset}",
        figure,
        f"Expected {study.stopping} on the test part of the point that is best on validation among so many, drawn from "
        "those that were run. A mark: as many as the paper's grid has, where all of it was run.",
        named("Only one point was run of", (row.label for row in study.of(dataset) if row not in shown)),
    )


def _line(part: int) -> dict[str, Any]:
    return {"color": COLOURS[part % len(COLOURS)], "linestyle": DASHES[part % len(DASHES)], "linewidth": 1}


def _curves(losses: Axes, valid: Axes, row: Row, runs: Sequence[Sequence[Epoch]], parts: Sequence[str]) -> None:
    metric = canonical_metric(row.stopping)
    drawn = {part for epochs in runs for epoch in epochs for part in epoch.parts}
    for run, epochs in zip(row.runs, runs, strict=True):
        numbers = [epoch.epoch for epoch in epochs]
        for place, part in enumerate(parts):
            if any(part in epoch.parts for epoch in epochs):
                losses.plot(numbers, [epoch.parts.get(part, math.nan) for epoch in epochs], **_line(place))
        valid.plot(numbers, [epoch.valid.get(metric, math.nan) for epoch in epochs], color=BLUE, linewidth=0.8)
        for best in [epoch for epoch in epochs if epoch.epoch == run.outcome.best_epoch]:
            for axes in (losses, valid):
                axes.axvline(best.epoch, color=INK, linewidth=0.8, linestyle=":")
            valid.plot([best.epoch], [best.valid.get(metric, math.nan)], "o", color=INK, markersize=4)
    own = [Line2D([], [], label=part, **_line(place)) for place, part in enumerate(parts) if part in drawn]
    if own:
        losses.legend(handles=own, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7, handlelength=3)
    losses.set_title(wrapped(row.label, 34))
    losses.set(xlabel="epoch (number)", ylabel="loss part (no unit)")
    valid.set(xlabel="epoch (number)", ylabel=f"validation {row.stopping}\n(share)")
    for axes in (losses, valid):
        axes.locator_params(axis="x", nbins=5, integer=True)


def _has_axis(row: Row) -> bool:
    """Whether each of the row's points lies at numbers that the model is configured with; a suite may search
    anything."""
    config = row.runs[0].config
    settings = [setting for point in row.grid for setting in point.settings.items()]
    return all(key in config and isinstance(value, int | float) for key, value in settings)


def _sensitivity(axes: Axes, row: Row) -> None:
    """The setting with most values goes to the x axis; a line per combination of the others."""
    points = row.grid
    values = {key: sorted({point.settings[key] for point in points}) for key in points[0].settings}
    # With as many values, counts such as layers come first.
    order = sorted(values, key=lambda key: (-len(values[key]), any(value % 1 for value in values[key]), key))
    x, *others = [key for key in order if len(values[key]) > 1]
    lines: dict[str, list[Any]] = {}
    for point in sorted(points, key=lambda point: [point.settings[key] for key in [*others, x]]):
        lines.setdefault(", ".join(f"{key} = {point.settings[key]:g}" for key in others), []).append(point)
    for place, (name, line) in enumerate(lines.items()):
        at = [values[x].index(point.settings[x]) for point in line]
        shape = {"markersize": 4, **coloured(place)}
        axes.plot(at, [point.mean("valid") for point in line], label=name or "validation", **shape)
        dashed: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "none", **({} if others else {"label": "test"})}
        axes.plot(at, [point.mean("test") for point in line], **dashed, **shape)
    chosen = row.selection.on_validation
    ring: dict[str, Any] = {"color": INK, "markersize": 10, "markerfacecolor": "none"}
    axes.plot([values[x].index(chosen.settings[x])], [chosen.mean("valid")], "o", **ring)
    axes.set_xticks(range(len(values[x])), [f"{value:g}" for value in values[x]])  # as far apart as they are many
    axes.margins(0.12, 0.15)
    axes.set(xlabel=f"{x} (of {row.model})", ylabel=f"{row.stopping} (share)")
    axes.set_title(wrapped(row.label, 60))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
