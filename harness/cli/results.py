"""The commands `bm3 results`: options and messages. How pages are held against runs is in `tools.results`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import EXISTING_FOLDER, PAPER
from harness.cli.output import say
from harness.common import exit_status, write_files
from harness.ending import NOTHING_MEASURED

if TYPE_CHECKING:
    from harness.paper.load import Paper

FOLDER = click.argument("folder", metavar="[DIR]", type=EXISTING_FOLDER, default=Path("docs/results"))


@click.group()
def results() -> None:
    """Hold the figures of a folder of results against the runs stored in it; write its pages from them.

    \b
    bm3 results verify
    bm3 results write
    """


@results.command()
@FOLDER
@click.option("--unbound", is_flag=True, help="List the figures that no expression holds.")
@PAPER
def verify(folder: Path, unbound: bool, paper: Paper) -> None:
    """Say which figures of the pages in DIR (default: docs/results) are not what the runs in DIR/runs give.

    Reports that stand beside their runs are made anew and compared; pictures are not. A page NAME.md with a template
    NAME.md.j2 is rendered and compared: its figures are bound. Figures of other pages, and of a template's own words,
    are bound to nothing, and counted.

    A figure is a number that stands for itself. None are dates, years and versions; code and link targets; commands in
    code blocks; names with letters and digits, such as R@20 or BM3; numbers of sections, tables, equations, list
    entries and seeds.

    Exit code 0 when all that is bound is as the runs give it, 1 when a figure is not, 3 when nothing is bound.

    \b
    bm3 results verify
    bm3 results verify --unbound
    """
    from harness.report.tables import table, text
    from harness.tools.results import Bound, pages_of, reports_of

    bound = Bound(folder / "runs", paper)
    pages, reports = pages_of(folder, bound), [*reports_of(folder, bound)]
    rows = [[one.path, one.bound, len(one.unbound)] for one in pages]
    click.echo(text(table("Figures", ["page", "bound", "unbound"], rows, "lrr"), title=False))
    free = [f"{one.path}:{line}: {figure} is bound to nothing" for one in pages for line, figure in one.unbound]
    faults = [fault for one in (*pages, *reports) for fault in one.faults]
    say([*(free if unbound else ()), *faults])
    click.echo(
        f"{sum(one.bound for one in pages)} figures bound, {len(free)} unbound; {len(reports)} files of reports made "
        f"anew, without their pictures; {len(faults)} not as the runs give it"
    )
    checked = [one for one in (*pages, *reports) if one.bound or one.faults or one in reports]
    sys.exit(exit_status(not one.faults for one in checked))


@results.command()
@FOLDER
@PAPER
def write(folder: Path, paper: Paper) -> None:
    """Write each page of DIR (default: docs/results) that has a template, with the figures that the runs give.

    Reports are made by bm3 report.

    \b
    bm3 results write
    """
    from harness.tools.results import Bound, plain, rendered

    pages = {path: plain(text) for path, text in rendered(folder, Bound(folder / "runs", paper)).items()}
    changed = {path: text for path, text in pages.items() if not path.is_file() or path.read_bytes() != text.encode()}
    say(write_files(changed, "name another folder"), "written: ")
    click.echo(f"{len(pages)} pages with bound figures, {len(pages) - len(changed)} as they were")
    sys.exit(0 if pages else NOTHING_MEASURED)
