"""What pictures share: the value, palette and markers, and how a figure becomes SVG for a page and files for print."""

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
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
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first comes with matplotlib, the second is as wide
    "font.size": 8,
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 8),
    **dict.fromkeys(("legend.fontsize", "legend.title_fontsize"), 8),
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.linewidth": 0.6,
    "lines.linewidth": 1,
    "grid.alpha": 0.2,
    "text.parse_math": False,  # names of data sets and settings are no formulas
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
FILES: Mapping[str, dict[str, Any]] = {
    "png": {"dpi": 150, "facecolor": "white", "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None}},
}
"""Ending → how matplotlib writes it."""


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


def style(hashsalt: str | None = None) -> Any:
    """Matplotlib's own defaults and STYLE, whatever the user's settings, until the context ends."""
    return matplotlib.style.context(["default", {**STYLE, "svg.hashsalt": hashsalt}])


def svg(picture: Picture) -> str:
    """The picture as an `<svg>` element for a page: its ink is that of the page, its width that of its place."""
    with style(hashsalt=picture.name):
        file = StringIO()
        picture.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = _plain(element.tag)
        element.attrib = {_plain(name): _own(value, name, picture.name) for name, value in element.items()}
    for parent, tag in ((root, "metadata"), *((defs, "style") for defs in root.findall("defs"))):
        for element in parent.findall(tag):  # a style would hold for the whole page
            parent.remove(element)
    title = ElementTree.Element("title")
    title.text = picture.title
    root.insert(0, title)
    width = picture.figure.get_figwidth()
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "style": f"width: 100%; max-width: {width:g}in; stroke-linejoin: round; stroke-linecap: butt",
    }
    return ElementTree.tostring(root, encoding="unicode")


def files(pictures: Iterable[Picture]) -> Mapping[str, bytes]:
    """`pictures/NAME.png` (on white) and `pictures/NAME.pdf` of every picture; the same study gives the same bytes."""
    made = {}
    for picture in pictures:
        for ending, options in FILES.items():
            titled = {**options, "metadata": {**options["metadata"], "Title": picture.title}}
            with style():
                file = BytesIO()
                picture.figure.savefig(file, format=ending, **titled)
            made[f"pictures/{picture.name}.{ending}"] = file.getvalue()
    return made


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


def coloured(place: int) -> dict[str, Any]:
    """Colour and marker of the series at this place, which all the first 42 have to themselves."""
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}


def beside(axes: Axes, title: str = "") -> None:
    """The legend of the axes, to their right."""
    axes.legend(title=title, loc="center left", bbox_to_anchor=(1, 0.5))


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


def _plain(name: str) -> str:
    return name.rpartition("}")[2]


def _own(value: str, name: str, prefix: str) -> str:
    """An attribute's value with ids that no other picture has, and the page's ink."""
    if name == "id":
        return f"{prefix}-{value}"
    value = re.sub(r"^#(?=\D)|(?<=url\()#", f"#{prefix}-", value) if "href" in name or "url(#" in value else value
    return value.replace(INK, "currentColor")
