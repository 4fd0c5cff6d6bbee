"""Writing a study beside its runs, in the formats asked for. What a format says is in the module named like it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.common import nearest, write_files

if TYPE_CHECKING:
    from harness.paper.study import Study
    from harness.report.tables import Table

FORMATS = ("md", "html", "tex", "csv", "json")


def made(study: Study, form: str) -> Mapping[str, bytes | str]:
    """Contents of a format by file name, which may have a folder before it. Only what it needs is loaded."""
    from harness.report import flat, latex, markdown

    if form == "html":
        from harness.report.html import html
        from harness.report.plots import draw
        from harness.report.plots.style import written

        drawn = draw(study)
        page = html(study, [(picture.title, picture.caption, written(picture, "svg")) for picture in drawn])
        files = {f"pictures/{one.name}.{form}": written(one, form) for one in drawn for form in ("png", "pdf")}
        return {"report.html": page, **files}
    makers: dict[str, tuple[str, Callable[[Study], str]]] = {
        "md": ("report.md", markdown.markdown),
        "tex": ("report.tex", latex.report),
        "csv": ("cells.csv", flat.cells_csv),
        "json": ("cells.json", flat.cells_json),
    }
    name, make = makers[form]
    return {name: make(study)}


def laid_out(table: Table, form: str) -> str:
    """A table as `text`, `md`, `tex` or `csv`."""
    from harness.report import flat, latex, tables

    return {"text": tables.text, "md": tables.markdown, "tex": latex.tex_table, "csv": flat.table_csv}[form](table)


def write_report(study: Study, folder: Path, formats: Sequence[str] = ("md",)) -> list[Path]:
    """Write the study into `folder`, each file whole or not at all; returns the files.

    Raises ConfigError for another format, WriteError when they cannot be written. Everything is made before anything is
    written.
    """
    for form in formats:
        nearest(form, FORMATS, "no format")
    contents = {folder / name: content for form in formats for name, content in made(study, form).items()}
    return write_files(contents, "name another folder with --out")
