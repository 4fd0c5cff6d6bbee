"""Accuracy against what it costs: seconds per epoch and peak memory."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.paper.measured import SHARED_NOTE
from harness.paper.study import PROPOSED, Study, StudyRow
from harness.report.plots.parts import (
    BLUE,
    VERMILLION,
    WIDTH,
    Picture,
    label_points,
    named,
    picture,
    plain_log,
    wrapped,
)
from harness.training.config import STOPPING_METRIC

MEMORY = {  # the first that was measured for every model is shown
    "gpu_process_peak": "peak GPU memory of the process (MiB)",
    "allocator_peak": "peak GPU memory of the allocator (MiB)",
    "process_rss_peak": "peak memory of the process (MiB)",
}
TIME = "time per epoch (s)"
MIB = 2**20


def cost(study: Study, dataset: str) -> Picture | None:
    """Test R@20 against time per epoch and against peak memory, of the first seed's run as in the table."""
    rows = study.of(dataset)
    results = [row.result.runs[0].result or {} for row in rows]
    memory = next((kind for kind in MEMORY if all(result["memory"][kind]["bytes"] for result in results)), None)
    panels: dict[str, list[float | None]] = {
        TIME: [
            None if study.time_mark(row) else result["timing"]["median_s"]
            for row, result in zip(rows, results, strict=True)
        ]
    }
    if memory:
        panels[MEMORY[memory]] = [result["memory"][memory]["bytes"] / MIB for result in results]
    panels = {label: values for label, values in panels.items() if any(values)}
    if not panels:
        return None
    figure = Figure((WIDTH / 2 * len(panels), 3.4), layout="constrained")
    drawn = []
    for axes, (label, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        points = [(x, row.mean(STOPPING_METRIC), row) for x, row in zip(values, rows, strict=True) if x]
        points = [point for point in points if math.isfinite(point[1])]
        for x, y, row in points:
            axes.plot([x], [y], **_marker(*_group(row)))
        axes.set(xlabel=label, ylabel="test recall@20 (share of held-out items)")
        if label == TIME:
            axes.set_xscale("log")
            plain_log(axes.xaxis, (1, 2, 5))
        axes.margins(0.15)
        drawn.append((axes, [(x, y, wrapped(row.label)) for x, y, row in points]))
    groups = sorted({_group(row) for row in rows}, reverse=True)
    handles = [
        Line2D([], [], label=f"{PROPOSED if own else 'other model'}{', surrogate features' * surrogate}", **style)
        for own, surrogate in groups
        for style in [_marker(own, surrogate)]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 * len(panels))
    figure.draw_without_rendering()  # puts the axes where they stay
    for axes, labels in drawn:
        label_points(axes, labels)
    return picture(
        f"{dataset}-cost",
        f"Accuracy against time and memory, {dataset}",
        figure,
        "Further up is more accurate, further left is cheaper; open: trained on surrogate features.",
        "Time is the median epoch of the first seed's run, evaluation excluded; memory is that run's.",
        f"Measured on {_devices(rows)}.",
        named("Not timed", (row.label for row, result in zip(rows, results, strict=True) if not _timed(result))),
        named(f"Time left out, {SHARED_NOTE}", (row.label for row in rows if study.time_mark(row))),
        "" if memory else "No kind of memory was measured for every model.",
    )


def _group(row: StudyRow) -> tuple[bool, bool]:
    return row.result.model == PROPOSED.lower(), bool(row.result.surrogates)


def _marker(own: bool, surrogate: bool) -> dict[str, Any]:
    style = {"color": VERMILLION, "marker": "D"} if own else {"color": BLUE, "marker": "o"}
    return {"linestyle": "none", "markersize": 6, **style, **({"markerfacecolor": "none"} if surrogate else {})}


def _timed(result: Any) -> bool:
    return bool(result["timing"]["median_s"])


def _devices(rows: Sequence[StudyRow]) -> str:
    found = [row.result.runs[0].run["environment"] for row in rows]
    texts = (one.get("gpu") or f"{one.get('cpu')}, threads: {one.get('torch_threads')}" for one in found)
    return "; ".join(dict.fromkeys(texts))
