"""Writing a study beside its runs, in the formats asked for. What a format says is in the module named like it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bm3 import DataError
from harness.files import write_whole
from harness.report.cells import cells_csv, cells_json
from harness.report.latex import document, latex
from harness.report.markdown import markdown
from harness.report.study import Study

Make = Callable[[Study], Mapping[str, bytes]]
"""A study -> contents by file name, which may have a folder before it."""


def _page(study: Study) -> Mapping[str, bytes]:
    from harness.report import pictures  # matplotlib takes a second that no other command should wait for
    from harness.report.html import html

    drawn = pictures.draw(study)
    page = html(study, [(picture.title, picture.caption, pictures.svg(picture)) for picture in drawn])
    return {"report.html": page.encode(), **pictures.files(drawn)}


FORMATS: Mapping[str, Make] = {
    "md": lambda study: {"report.md": markdown(study).encode()},
    "html": _page,
    "tex": lambda study: {"report.tex": document(latex(study)).encode()},
    "csv": lambda study: {"cells.csv": cells_csv(study).encode()},
    "json": lambda study: {"cells.json": cells_json(study).encode()},
}


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
