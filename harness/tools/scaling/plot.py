"""How the costs of one model grow: seconds and bytes over each size, with their fitted exponents."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.plots.style import COLOURS, INK, MARKERS, WIDTH, Picture, named, picture, plain_log, style
from harness.tools.scaling.fit import Cell

ROW = 2.3  # inches


def scaling_picture(model: str, cells: Sequence[Cell], name: str) -> Picture:
    """A column per size that grew; the upper row has seconds, the lower one memory, where it was measured.

    It is called NAME-MODEL.
    """
    drawn = [cell for cell in cells if cell.model == model and cell.sizes]
    factors = list(dict.fromkeys(cell.factor for cell in drawn)) or [""]
    lines = {key: place for place, key in enumerate(dict.fromkeys((cell.part, cell.quantity) for cell in drawn))}
    rows = [kind for kind in (False, True) if any((cell.quantity == "memory") is kind for cell in drawn)] or [False]
    with style():
        figure = Figure((WIDTH, ROW * len(rows) + 0.5), layout="constrained")
        grid = figure.subplots(len(rows), len(factors), squeeze=False, sharey="row")
        for panels, memory in zip(grid, rows, strict=True):
            for axes, factor in zip(panels, factors, strict=True):
                shown = [cell for cell in drawn if cell.factor == factor and (cell.quantity == "memory") is memory]
                for cell in shown:
                    _line(axes, cell, lines[cell.part, cell.quantity])
                _finish(axes, factor, shown)
            panels[0].set_ylabel("peak memory (MB)" if memory else "time (ms)")
        handles = {
            label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)))
        missing = (f"{cell.part or model} {cell.quantity} over {cell.factor}" for cell in drawn if cell.fit is None)
        return picture(
            f"{name}-{model}",
            f"Growth of {model}",
            figure,
            "Both axes are logarithmic: a power of the size is a straight line. Dashed: linear growth.",
            named("No exponent could be fitted", missing),
        )


def _line(axes: Axes, cell: Cell, place: int) -> None:
    style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
    axes.plot(cell.sizes, _shown(cell), label=f"{cell.part or 'model'}, {cell.quantity}", markersize=4, **style)


def _finish(axes: Axes, factor: str, cells: Sequence[Cell]) -> None:
    axes.set(xscale="log", yscale="log", xlabel=factor)
    plain_log(axes.yaxis)
    axes.grid(visible=True)
    if cells:
        lowest = min(cells, key=lambda cell: min(_shown(cell)))
        start, end, linear = lowest.sizes[0], lowest.sizes[-1], min(_shown(lowest))
        axes.plot([start, end], [linear, linear * end / start], color=INK, linestyle="--", linewidth=0.5)
        axes.set_xticks([start, end], [_short(start), _short(end)])  # panels are narrow: the ends say enough
        axes.set_xticks([], minor=True)


def _short(size: int) -> str:
    """`32k` for 32,768."""
    return str(size) if size < 10_000 else f"{round(size / 1024)}k" if size % 1024 == 0 else f"{round(size / 1000)}k"


def _shown(cell: Cell) -> list[float]:
    """Medians in the unit of the axis: ms or MB."""
    return [value / 1e6 if cell.quantity == "memory" else 1e3 * value for value in cell.medians]
