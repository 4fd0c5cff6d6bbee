"""What pictures share: the value, palette and markers, axes, and labels beside points. No picture is drawn here."""

import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.transforms import Bbox, BboxBase
from numpy.typing import NDArray

from harness.paper.numbers import number

INK = "#010203"
"""The colour of text, axes and whatever means nothing by its colour. No picture has it for anything else."""
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)  # Okabe and Ito, without the yellow that fades on white
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WIDTH = 7.0  # inches: both columns of a printed page
LINE_POINTS = 400  # more are not seen, and make files large
LOG_SPAN = 20  # values further apart than this factor get a logarithmic axis
FREE = 5  # pixels around a marker that labels leave free


@dataclass(frozen=True)
class Picture:
    """A figure with what is said about it."""

    name: str
    """Of its files, without ending: letters, digits, `_`, `.` and `-`. No two pictures of a study share it."""
    title: str
    caption: str
    """What is shown, how to read it, and what is missing and why."""
    figure: Figure


def picture(name: str, title: str, figure: Figure, *caption: str) -> Picture:
    """The picture, its layout settled for all formats; empty sentences of the caption are left out."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    safe = re.sub(r"[^A-Za-z0-9_.-]", lambda match: f"_{ord(match[0]):x}", name)
    return Picture(safe, title, " ".join(filter(None, caption)), figure)


def wrapped(text: str, width: int = 24) -> str:
    """The text in lines of about `width` characters."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def signed(value: float, digits: int) -> str:
    """`+1.1` or `−1.1`, with a true minus."""
    return number(value, f"+.{digits}f").replace("-", "−")


def named(sentence: str, names: Iterable[str]) -> str:
    """`sentence: a, b.`, or nothing without names."""
    listed = ", ".join(names)
    return f"{sentence}: {listed}." if listed else ""


def sampled(length: int) -> NDArray[np.int64]:
    """At most LINE_POINTS indices below `length`, evenly spread, first and last included."""
    return np.unique(np.linspace(0, max(length - 1, 0), min(length, LINE_POINTS)).astype(np.int64))


def wide(values: Iterable[float]) -> bool:
    """Whether the values ask for a logarithmic axis: none negative, the positive ones far apart."""
    finite = [value for value in values if math.isfinite(value) and value != 0]
    return bool(finite) and min(finite) > 0 and max(finite) > LOG_SPAN * min(finite)


def plain_log(axis: Axis, subs: Sequence[float] = (1,)) -> None:
    """Ticks of a logarithmic axis as plain numbers, at `subs` times powers of ten."""
    axis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each label beside its point where it covers least of what is there already. Axes must be in place."""
    taken = [_around(*axes.transData.transform((x, y))) for x, y, _ in points]
    for x, y, text in points:
        note = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", annotation_clip=False)
        note.set_in_layout(False)  # or the axes would move
        costs = []
        for place in PLACES:
            box = _placed(note, *place)
            covered = sum(_shared_area(box, other) for other in taken)
            costs.append(round(covered + 3 * (box.width * box.height - _shared_area(box, axes.bbox))))
        place = PLACES[costs.index(min(costs))]
        taken.append(_placed(note, *place))
        if math.hypot(*place) > NEAR:
            line = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", (x, y), place, textcoords="offset points", arrowprops=line).set_in_layout(False)


NEAR = 8  # points from its marker where a label needs no line to it
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
PLACES = [(far * dx, far * dy) for far in (6, 11, 18, 27) for dx, dy in SIDES]  # points from the marker, nearest first


def _placed(note: Annotation, dx: float, dy: float) -> Bbox:
    """The box of the label when it is moved there."""
    note.xyann = dx, dy
    note.set_horizontalalignment("left" if dx > 0 else "right" if dx < 0 else "center")
    note.set_verticalalignment("bottom" if dy > 0 else "top" if dy < 0 else "center")
    return note.get_window_extent()


def _around(x: float, y: float) -> Bbox:
    return Bbox.from_extents(x - FREE, y - FREE, x + FREE, y + FREE)


def _shared_area(one: BboxBase, other: BboxBase) -> float:
    both = Bbox.intersection(one, other)
    return both.width * both.height if both else 0.0
