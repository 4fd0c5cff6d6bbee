"""Accuracy: against published values, against what it costs, and user by user."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from harness.paper.costs import SHARED_NOTE, measured_on, memory_readings
from harness.paper.published import canonical_metric, short_metric
from harness.paper.rows import ranked, representative, representatives
from harness.paper.significance import paired
from harness.paper.study import Study
from harness.paper.verdict import Outcome
from harness.report.plots.style import BLUE, INK, WIDTH, Picture, coloured, named, picture, signed, wrapped
from harness.runs.record import RunRecord

TIME = "time per epoch (s)"
EDGE = 1.1  # beyond the largest gain of a user, so that steps at ±1 are seen
BELOW_TO_ABOVE = LinearSegmentedColormap.from_list("difference", ("#f1a340", "#f7f7f7", "#a99dc8"), 21)
"""Light enough for black text everywhere; of so few shades that it is drawn and no image."""


def difference(study: Study, dataset: str) -> Picture | None:
    """Heat map of the difference to the value that each cell is compared with, with the verdict in words."""
    rows = [row for row in study.of(dataset) if any(verdict.published for verdict in row.verdicts.values())]
    if not rows:
        return None
    metrics = list(rows[0].verdicts)
    verdicts = [[row.verdicts[metric] for metric in metrics] for row in rows]
    per_cent = 100 * np.array([[one.difference for one in of_row] for of_row in verdicts], dtype=float)  # None: NaN
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


def cost(study: Study, dataset: str) -> Picture | None:
    """The test metric that training stops by, against time per epoch and against peak memory, of the first seed's run
    as in the table."""
    rows = study.of(dataset)
    seconds = [row.runs[0].outcome.timing.median_s for row in rows]
    memory = [counts for row in rows for counts in [*memory_readings(row.runs[0]).items()][:1]]
    panels = {TIME: [None if study.time_mark(r) else s for r, s in zip(rows, seconds, strict=True)]}
    ways = {way for way, _ in memory}
    if len(ways) == 1 and len(memory) == len(rows):
        panels[f"peak memory, {ways.pop()} (MiB)"] = [2**10 * reading.value for _, reading in memory]
    panels = {label: values for label, values in panels.items() if any(values)}
    if not panels:
        return None
    metric = study.paper.stopping
    figure = Figure((WIDTH, 3.4), layout="constrained")
    for axes, (label, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for place, (x, row) in enumerate(zip(values, rows, strict=True)):
            if x and math.isfinite(y := row.mean(canonical_metric(metric))):
                face = {"markerfacecolor": "none"} if row.surrogates else {}
                axes.plot([x], [y], linestyle="none", label=wrapped(row.label), **coloured(place), **face)
        axes.set(xlabel=label, ylabel=f"test {metric} (share of held-out items)")
        if label == TIME:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.15)
    handles = {
        text: handle for axes in figure.axes for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside right center")
    return picture(
        f"{dataset}-cost",
        f"Accuracy against time and memory, {dataset}",
        figure,
        "Further up is more accurate, further left is cheaper; open: trained on surrogate features.",
        "Time is the median epoch of the first seed's run, evaluation excluded; memory is that run's.",
        named("Measured on", dict.fromkeys(measured_on(row.runs[0]) for row in rows)),
        named("Not timed", (row.label for row, reading in zip(rows, seconds, strict=True) if reading is None)),
        named(f"Time left out, {SHARED_NOTE}", (row.label for row in rows if study.time_mark(row))),
        "" if len(panels) > 1 or TIME not in panels else "No kind of memory was measured for every model.",
    )


def users(study: Study, dataset: str) -> Picture | None:
    """How much users gain by the proposed model over the best other one; without one of them, by the best row over the
    second."""
    rows, metric = study.of(dataset), canonical_metric(study.paper.stopping)
    own = representative(rows, study.paper.proposed or "")
    others = ranked([row for row in representatives(rows) if row is not own], metric)
    first, second, *_ = [own, *others] if own and others else [*ranked(rows, metric), None, None]
    if first is None or second is None or first.data != second.data:
        return None
    # as many runs of both, of the same seeds where there are any
    runs = paired(first.repeated, second.repeated)
    gain = _gain(runs, metric)
    if gain is None:
        return None
    changed = gain[gain != 0]
    figure = Figure((WIDTH / 2, 2.7), layout="constrained")
    axes = figure.add_subplot()
    if len(changed):
        axes.ecdf(changed, color=BLUE, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set(xlim=(-EDGE, EDGE), ylim=(0, 1), xticks=(-1, -0.5, 0, 0.5, 1))
    axes.grid(visible=True)
    name, (one, other) = study.paper.stopping, (first.label, second.label)
    axes.set(xlabel=f"gain in {name} (share of held-out items)")
    axes.set(ylabel="users who are not equal,\nup to this gain (share)")
    win, lose = int((gain > 0).sum()), int((gain < 0).sum())
    axes.set_title(wrapped(f"{one} over {other}: {win} gain, {lose} lose", 40))
    return picture(
        f"{dataset}-users",
        f"Per-user gain of {one} over {other}, {dataset}",
        figure,
        f"Of {len(gain)} test users, {win} gain in {name} by {one} over {other}, {lose} lose and "
        f"{len(gain) - win - lose} are equal (they are not in the curve); the mean gain is "
        f"{signed(float(gain.mean()), 4)}.",
        f"A user's gain is the mean over {len(runs)} pair{'s' * (len(runs) > 1)} of runs.",
    )


def _gain(runs: Sequence[tuple[RunRecord, RunRecord]], metric: str) -> NDArray[np.float64] | None:
    """The mean gain of each test user; None where a run stored no hits or has other users."""
    stored = [[run.per_user(metric) for run in pair] for pair in runs]
    values = [found for pair in stored for found in pair if found is not None]
    if not values or len(values) < 2 * len(stored) or not all(np.array_equal(v[0], values[0][0]) for v in values):
        return None
    gain = np.mean([ours[1] - theirs[1] for ours, theirs in zip(values[::2], values[1::2], strict=True)], axis=0)
    return np.asarray(np.round(gain, 9))  # what is 0 but for rounding is 0
