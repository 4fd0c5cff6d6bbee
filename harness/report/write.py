"""Writing a study beside its runs, in the formats asked for. What a format says is in the module named like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bm3 import DataError
from harness.common import write_whole

if TYPE_CHECKING:
    from harness.paper.study import Study

Make = Callable[["Study"], Mapping[str, bytes]]
"""A study -> contents by file name, which may have a folder before it."""


def _markdown(study: Study) -> Mapping[str, bytes]:
    from harness.report.markdown import markdown

    return {"report.md": markdown(study).encode()}


def _page(study: Study) -> Mapping[str, bytes]:
    from harness.report.html import html
    from harness.report.plots import draw
    from harness.report.plots.style import files, svg

    drawn = draw(study)
    page = html(study, [(picture.title, picture.caption, svg(picture)) for picture in drawn])
    return {"report.html": page.encode(), **files(drawn)}


def _latex(study: Study) -> Mapping[str, bytes]:
    from harness.report.latex import document, latex

    return {"report.tex": document(latex(study)).encode()}


def _csv(study: Study) -> Mapping[str, bytes]:
    from harness.report.flat import cells_csv

    return {"cells.csv": cells_csv(study).encode()}


def _json(study: Study) -> Mapping[str, bytes]:
    from harness.report.flat import cells_json

    return {"cells.json": cells_json(study).encode()}


# What a format needs is loaded by its function: the names are there without it.
FORMATS: Mapping[str, Make] = {"md": _markdown, "html": _page, "tex": _latex, "csv": _csv, "json": _json}


def write_report(study: Study, folder: Path, formats: Sequence[str] = ("md",)) -> list[Path]:
    """Write the study into `folder`, each file whole or not at all; returns the files.

    Raises DataError when they cannot be written. Everything is made before anything is written.
    """
    contents = {name: content for form in formats for name, content in FORMATS[form](study).items()}
    try:
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, content)
    except OSError as error:
        raise DataError(f"{folder}: the report cannot be written ({error.strerror})") from error
    return [folder / name for name in contents]
