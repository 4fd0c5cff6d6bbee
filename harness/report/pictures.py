"""The pictures of a study: which there are, as SVG for a page, and as files. What they show is in `plots`."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO, StringIO
from itertools import chain
from typing import Any
from xml.etree import ElementTree

import matplotlib.style

from harness.paper.study import Study, StudyRow
from harness.report.plots.accuracy import difference, scatter
from harness.report.plots.cost import cost
from harness.report.plots.parts import INK, Picture
from harness.report.plots.training import grid, learning
from harness.report.plots.users import users

__all__ = ["Picture", "draw", "files", "svg"]

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the first comes with matplotlib, the second is as wide
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1,
    "hatch.linewidth": 0.6,
    "grid.color": INK,
    "grid.alpha": 0.2,
    "text.parse_math": False,  # names of data sets and settings are no formulas
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
DOTS_PER_INCH = 150


def draw(study: Study) -> tuple[Picture, ...]:
    """The pictures that the study has data for: by data set, then those over all data sets.

    Raises DataError when a file of a run is damaged.
    """
    on_axes = replace(study, rows=tuple(row for row in study.rows if _has_axes(row)))
    with _style():
        by_dataset = (
            make(on_axes if make is grid else study, name)
            for name in study.datasets
            for make in (difference, learning, cost, grid, users)
        )
        return tuple(picture for picture in (*by_dataset, scatter(study)) if picture is not None)


def svg(picture: Picture) -> str:
    """The picture as an `<svg>` element for a page: its ink is that of the page, its width that of its place."""
    with _style(hashsalt=picture.name):
        file = StringIO()
        picture.figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {_plain(name): _own(value, name, picture.name) for name, value in element.items()}
    for defs in root.findall("defs"):
        for sheet in defs.findall("style"):  # would hold for the whole page
            defs.remove(sheet)
    for metadata in root.findall("metadata"):
        root.remove(metadata)
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
    return dict(chain.from_iterable(_files(picture) for picture in pictures))


def _has_axes(row: StudyRow) -> bool:
    """Whether each of the row's points lies at numbers that the model is configured with, as the picture needs it; a
    suite may search anything."""
    config = row.result.runs[0].run["config"]
    settings = [setting for point in row.result.grid for setting in point.settings.items()]
    return all(key in config and isinstance(value, int | float) for key, value in settings)


def _files(picture: Picture) -> Iterator[tuple[str, bytes]]:
    kinds: dict[str, dict[str, Any]] = {
        "png": {"dpi": DOTS_PER_INCH, "facecolor": "white", "metadata": {"Software": None}},
        "pdf": {"metadata": {"CreationDate": None, "Title": picture.title}},
    }
    for kind, options in kinds.items():
        with _style():
            file = BytesIO()
            picture.figure.savefig(file, format=kind, **options)
        yield f"pictures/{picture.name}.{kind}", file.getvalue()


def _style(hashsalt: str | None = None) -> Any:
    """Matplotlib's own defaults and STYLE, whatever the user's settings, until the context ends."""
    return matplotlib.style.context(["default", {**STYLE, "svg.hashsalt": hashsalt}])


def _plain(name: str) -> str:
    return name.rpartition("}")[2]


def _own(value: str, name: str, prefix: str) -> str:
    """An attribute's value with ids that no other picture has, and the page's ink."""
    if name == "id":
        return f"{prefix}-{value}"
    value = re.sub(r"^#(?=\D)|(?<=url\()#", f"#{prefix}-", value) if "href" in name or "url(#" in value else value
    return value.replace(INK, "currentColor")
