"""What pictures share: the value, palette and markers, and how a figure becomes files for pages and for print."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from harness.common import number

INK = "#000000"
"""The colour of text, axes and whatever means nothing by its colour."""
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)  # Okabe and Ito, without the yellow that fades on white
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
WIDTH = 7.0  # inches: both columns of a printed page
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first comes with matplotlib, the second is as wide
    "font.size": 8,
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 8),
    **dict.fromkeys(("legend.fontsize", "legend.title_fontsize"), 8),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "axes.linewidth": 0.6,
    "lines.linewidth": 1,
    "grid.alpha": 0.2,
    "text.parse_math": False,  # names of data sets and settings are no formulas
    "svg.fonttype": "none",
    "svg.hashsalt": "the same ids for the same picture",
    "pdf.fonttype": 42,
}
FORMATS: Mapping[str, str] = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}
"""How pictures are written → what is left out of it, so that the same study gives the same bytes."""


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


def style() -> Any:
    """Matplotlib's own defaults and STYLE, whatever the user's settings, until the context ends."""
    return matplotlib.style.context(["default", STYLE])


def written(picture: Picture, form: str) -> bytes:
    """The picture in one of FORMATS, on white."""
    with style():
        file = BytesIO()
        picture.figure.savefig(file, format=form, dpi=150, metadata={"Title": picture.title, FORMATS[form]: None})
    return in_256_colours(file) if form == "png" else file.getvalue()


def in_256_colours(png: BytesIO) -> bytes:
    """A PNG that looks the same in a quarter of the bytes: a few inks and the shades between them and white."""
    smaller, about = BytesIO(), PngInfo()
    with Image.open(png) as image:
        few = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        about.add_text("Title", str(image.info["Title"]))
        few.save(smaller, "png", optimize=True, pnginfo=about, dpi=image.info["dpi"])
    return smaller.getvalue()


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
