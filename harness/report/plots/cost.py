"""Accuracy against what it costs: seconds per epoch and peak memory."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from harness.paper.published import canonical_metric
from harness.paper.rows import SHARED_NOTE
from harness.paper.study import Study
from harness.report import costs
from harness.report.plots.style import WIDTH, Picture, coloured, named, picture, wrapped

TIME = "time per epoch (s)"
MIB_PER_GB = 2**10


def cost(study: Study, dataset: str) -> Picture | None:
    """The test metric that training stops by, against time per epoch and against peak memory, of the first seed's run
    as in the table."""
    rows = study.of(dataset)
    seconds = [row.runs[0].outcome.timing.median_s for row in rows]
    memory = [counts for row in rows for counts in [*costs.memory(row.runs[0]).items()][:1]]
    panels = {TIME: [None if study.time_mark(r) else s for r, s in zip(rows, seconds, strict=True)]}
    ways = {way for way, _ in memory}
    if len(ways) == 1 and len(memory) == len(rows):
        panels[f"peak memory, {ways.pop()} (MiB)"] = [MIB_PER_GB * reading.value for _, reading in memory]
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
        named("Measured on", dict.fromkeys(costs.device(row.runs[0]) for row in rows)),
        named("Not timed", (row.label for row, reading in zip(rows, seconds, strict=True) if reading is None)),
        named(f"Time left out, {SHARED_NOTE}", (row.label for row in rows if study.time_mark(row))),
        "" if len(panels) > 1 or TIME not in panels else "No kind of memory was measured for every model.",
    )
