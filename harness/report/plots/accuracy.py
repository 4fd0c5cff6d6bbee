"""Ours against the values compared with: a heat map per data set, and a scatter over all of them."""

from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from harness.paper.expected import short_metric
from harness.paper.results import METRICS
from harness.paper.study import Study
from harness.paper.verdict import Outcome, Verdict
from harness.report.plots.style import (
    BLUE,
    GREEN,
    INK,
    MARKERS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    Picture,
    named,
    picture,
    signed,
    wrapped,
)

Fill = Literal["full", "left", "right", "bottom", "top", "none"]
OUTCOMES: dict[Outcome, tuple[str, Fill]] = {  # told apart by the fill where there is no colour
    Outcome.REPRODUCED: (BLUE, "full"),
    Outcome.CLOSE: (SKY, "bottom"),
    Outcome.ABOVE: (GREEN, "top"),
    Outcome.BELOW: (VERMILLION, "left"),
    Outcome.DISPUTED: (PURPLE, "right"),
    Outcome.NO_EVIDENCE: (ORANGE, "none"),
}


def difference(study: Study, dataset: str) -> Picture | None:
    """Heat map of the difference to the value that each cell is compared with, with the verdict in words."""
    rows = [row for row in study.of(dataset) if any(verdict.published for verdict in row.verdicts.values())]
    if not rows:
        return None
    cells = [(i, j, row.verdicts[metric]) for i, row in enumerate(rows) for j, metric in enumerate(METRICS)]
    bands = {100 * study.tolerances.of(metric).relative for metric in METRICS}
    limit = max(bands | {100 * abs(verdict.difference) for *_, verdict in cells if verdict.difference is not None})
    colours = ScalarMappable(Normalize(-limit, limit), colormaps["PuOr"].resampled(21))

    figure = Figure((WIDTH, 0.9 + 0.4 * max(len(rows), 3)), layout="constrained")
    axes = figure.add_subplot()
    for i, j, verdict in cells:
        _cell(axes, i, j, verdict, colours)
    axes.set(xlim=(-0.5, len(METRICS) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set(xlabel="test metric (mean over seeds)", ylabel="model")
    axes.set_xticks(range(len(METRICS)), [short_metric(metric) for metric in METRICS])
    axes.set_yticks(range(len(rows)), [wrapped(row.label) for row in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(colours, ax=axes, aspect=30, pad=0.01)
    bar.set_label("difference\n(% of the published value)")
    for band in bands:
        for end in (-band, band):
            bar.ax.axhline(end, color="#000000", linewidth=1)  # on colour, so never the page's ink
    return picture(
        f"{dataset}-difference",
        f"Difference to the published value, {dataset}",
        figure,
        "Ours less the published value, in % of it, with the verdict; hatched where there is nothing to judge by.",
        "The lines on the colour scale are the tolerance.",
        named("Nothing to compare with for", (row.label for row in study.of(dataset) if row not in rows)),
    )


def scatter(study: Study) -> Picture | None:
    """Every cell: ours against the published value, and the relative difference."""
    shown = [
        (row.dataset, verdict, value)
        for row in study.rows
        for verdict in row.verdicts.values()
        if (value := verdict.published) and verdict.difference is not None
    ]
    if not shown:
        return None
    figure = Figure((WIDTH, 3.7), layout="constrained")
    identity, residual = figure.subplots(1, 2)
    ends = np.array([0, 1.05 * max(max(verdict.mean or 0, value.value or 0) for _, verdict, value in shown)])
    bands = sorted({study.tolerances.of(metric).relative for metric in METRICS})
    for band in bands:
        identity.fill_between(ends, (1 - band) * ends, (1 + band) * ends, color=INK, alpha=0.15, linewidth=0)
        residual.axhspan(-100 * band, 100 * band, color=INK, alpha=0.15, linewidth=0)
    identity.plot(ends, ends, color=INK, linewidth=1)
    residual.axhline(0, color=INK, linewidth=1)
    datasets = list(dict.fromkeys(dataset for dataset, *_ in shown))
    for dataset, verdict, value in shown:
        marker = _marker(datasets.index(dataset), verdict.outcome)
        identity.plot([value.value], [verdict.mean], **marker)
        residual.plot([value.value], [100 * (verdict.difference or 0)], **marker)
    identity.set(xlim=ends, ylim=ends, ylabel="ours, mean over seeds (recall or NDCG, 0 to 1)")
    residual.set(xlim=ends, ylabel="difference (% of the published value)")
    for axes in (identity, residual):
        axes.set_xlabel("published value (recall or NDCG, 0 to 1)")
        axes.locator_params(axis="x", nbins=6)
    outcomes = [outcome for outcome in OUTCOMES if any(verdict.outcome is outcome for _, verdict, _ in shown)]
    handles = [Line2D([], [], label=outcome.value, **_marker(0, outcome)) for outcome in outcomes]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, columnspacing=1)
    if len(datasets) > 1:
        ink: dict[str, Any] = {"color": INK, "linestyle": "none", "markerfacecolor": "none"}
        shapes = [Line2D([], [], marker=_shape(place), label=name, **ink) for place, name in enumerate(datasets)]
        identity.legend(handles=shapes, loc="upper left")
    return picture(
        "published-ours",
        "Published value against ours",
        figure,
        f"The {len(shown)} cells that have a published value ({', '.join(datasets)}). On the line ours equals it; the "
        f"grey band is the tolerance, {' and '.join(f'±{100 * band:g} %' for band in bands)}.",
    )


def _cell(axes: Axes, i: int, j: int, verdict: Verdict, colours: ScalarMappable) -> None:
    """Row i, column j of the heat map."""
    corner, width, height = (j - 0.49, i - 0.48), 0.98, 0.96
    if verdict.difference is None:
        finite = verdict.mean is not None or verdict.published is None
        axes.text(j, i, f"{'' if finite else 'not finite'}\n{verdict.outcome}".strip(), ha="center", va="center")
        return
    red, green, blue, _ = map(float, colours.to_rgba(np.array([100 * verdict.difference]))[0])
    fill, luminance = to_hex((red, green, blue)), 0.299 * red + 0.587 * green + 0.114 * blue
    axes.add_patch(Rectangle(corner, width, height, facecolor=fill, linewidth=0))
    if verdict.outcome.held is None:
        hatched = Rectangle(corner, width, height, facecolor="none", edgecolor="#808080", hatch="////", linewidth=0)
        axes.add_patch(hatched)
    axes.text(
        j,
        i,
        f"{signed(100 * verdict.difference, 1)} %\n{verdict.outcome}",
        ha="center",
        va="center",
        color="#000000" if luminance > 0.5 else "#ffffff",  # on the cell's colour, whatever the page's
        bbox={"facecolor": fill, "edgecolor": "none", "boxstyle": "square,pad=0.1"},
    )


def _shape(dataset: int) -> str:
    return MARKERS[dataset % len(MARKERS)]


def _marker(dataset: int, outcome: Outcome) -> dict[str, Any]:
    colour, fill = OUTCOMES[outcome]
    style = {"marker": _shape(dataset), "fillstyle": fill, "markerfacecoloralt": "none", "markersize": 6}
    return {"color": colour, "linestyle": "none", **style}
