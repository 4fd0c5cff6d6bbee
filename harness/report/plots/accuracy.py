"""Ours against the values compared with: a heat map per data set, and a scatter over all of them."""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from harness.paper.published import short_metric
from harness.paper.study import Study
from harness.paper.verdict import Outcome
from harness.report.plots.style import INK, WIDTH, Picture, coloured, named, picture, signed, wrapped

BELOW_TO_ABOVE = LinearSegmentedColormap.from_list("difference", ("#f1a340", "#f7f7f7", "#a99dc8"), 21)
"""Light enough for black text everywhere; of so few shades that it is drawn and no image."""


def difference(study: Study, dataset: str) -> Picture | None:
    """Heat map of the difference to the value that each cell is compared with, with the verdict in words."""
    rows = [row for row in study.of(dataset) if any(verdict.published for verdict in row.verdicts.values())]
    if not rows:
        return None
    metrics = list(rows[0].verdicts)
    verdicts = [[row.verdicts[metric] for metric in metrics] for row in rows]
    change = [[np.nan if one.difference is None else 100 * one.difference for one in of_row] for of_row in verdicts]
    per_cent = np.array(change)
    bands = {100 * study.paper.tolerances.of(metric).relative for metric in metrics}
    limit = max([*bands, *np.abs(per_cent[np.isfinite(per_cent)])])
    figure = Figure((WIDTH, 0.9 + 0.4 * max(len(rows), 3)), layout="constrained")
    axes = figure.add_subplot()
    edges = (np.arange(size + 1) - 0.5 for size in (len(metrics), len(rows)))
    masked = np.ma.masked_invalid(per_cent)
    mesh = axes.pcolormesh(*edges, masked, cmap=BELOW_TO_ABOVE, vmin=-limit, vmax=limit, edgecolor=INK, linewidth=0.2)
    for (i, j), value in np.ndenumerate(per_cent):
        known = bool(np.isfinite(value))
        lost = verdicts[i][j].published is not None and verdicts[i][j].mean is None
        figures = f"{signed(value, 1)} %\n" if known else "not finite\n" if lost else ""
        colour = "#000000" if known else INK  # on the cell's colour, whatever the page's
        axes.text(j, i, f"{figures}{verdicts[i][j].outcome}", ha="center", va="center", color=colour)
    axes.invert_yaxis()
    axes.set(xlabel="test metric (mean over seeds)", ylabel="model")
    axes.set_xticks(range(len(metrics)), [short_metric(metric) for metric in metrics])
    axes.set_yticks(range(len(rows)), [wrapped(row.label) for row in rows])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, aspect=30, pad=0.01)
    bar.set_label("difference\n(% of the published value)")
    for end in (sign * band for band in bands for sign in (-1, 1)):
        bar.ax.axhline(end, color="#000000", linewidth=1)
    return picture(
        f"{dataset}-difference",
        f"Difference to the published value, {dataset}",
        figure,
        "Ours less the published value, in % of it, with the verdict; empty where there is no difference.",
        "The lines on the colour scale are the tolerance.",
        named("Nothing to compare with for", (row.label for row in study.of(dataset) if row not in rows)),
    )


def scatter(study: Study) -> Picture | None:
    """Every cell: ours against the published value."""
    shown = [
        (row.dataset, verdict.outcome, verdict.published.value, verdict.mean)
        for row in study.rows
        for verdict in row.verdicts.values()
        if verdict.published and verdict.published.value and verdict.mean is not None
    ]
    if not shown:
        return None
    figure = Figure((WIDTH / 2, 3.7), layout="constrained")
    axes = figure.add_subplot()
    ends = np.array([0, 1.05 * max(max(published, ours) for *_, published, ours in shown)])
    bands = sorted({study.paper.tolerances.of(metric).relative for metric in study.paper.metrics})
    for band in bands:
        axes.fill_between(ends, (1 - band) * ends, (1 + band) * ends, color=INK, alpha=0.15, linewidth=0)
    axes.plot(ends, ends, color=INK, linewidth=1)
    for place, outcome in enumerate(Outcome):
        if cells := [(published, ours) for _, word, published, ours in shown if word is outcome]:
            looks = {"color": INK, "marker": "x"} if outcome.held is None else coloured(place)
            axes.plot(*zip(*cells, strict=True), linestyle="none", label=str(outcome), **looks)
    axes.set(xlim=ends, ylim=ends, xlabel="published value (share)", ylabel="ours, mean over seeds (share)")
    axes.legend(loc="upper left")
    datasets = ", ".join(dict.fromkeys(dataset for dataset, *_ in shown))
    return picture(
        "published-ours",
        "Published value against ours",
        figure,
        f"The {len(shown)} cells that have a published value ({datasets}). On the line ours equals it; the grey band "
        f"is the tolerance, {' and '.join(f'±{100 * band:g} %' for band in bands)}.",
    )
