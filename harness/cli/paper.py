"""The commands `bm3 paper`: a folder for another paper, and whether one is consistent."""

import sys
from pathlib import Path

import click

from harness.ending import MISUSED


@click.group()
def paper() -> None:
    """Make and check papers: folders that hold what was published and what is asked. --paper takes one.

    \b
    bm3 paper list
    bm3 paper new my-paper
    bm3 paper check my-paper
    bm3 tables 1 --paper ./my-paper
    """


@paper.command(name="list")
def list_command() -> None:
    """List the papers that have a name: those that come with the harness, and those of installed packages.

    \b
    bm3 paper list
    """
    from tabulate import tabulate

    from harness.paper.folders import papers
    from harness.paper.load import load_paper

    found = {name: load_paper(folder) for name, folder in papers().items()}
    rows = [[name, one.title, one.citation.partition(";")[0], len(one.values)] for name, one in found.items()]
    click.echo(tabulate(rows, ["paper", "title", "citation", "figures"], disable_numparse=True))


@paper.command()
@click.argument("folder", type=click.Path(path_type=Path))
def new(folder: Path) -> None:
    """Make FOLDER, with a skeleton of a paper in it that is consistent; its figures are made up.

    \b
    bm3 paper new my-paper
    """
    from harness.tools.papers.new import new_paper

    for name in new_paper(folder):
        click.echo(f"written: {folder / name}")
    click.echo(f"Replace what is made up, then: bm3 paper check {folder}")


@paper.command()
@click.argument("name", metavar="NAME|FOLDER")
def check(name: str) -> None:
    """Say every fault of a paper, with its file and line or key path. Exit code 2 where there is one.

    Unknown keys and files, figures of models, data sets and metrics that the paper does not have, cells that stand
    there twice, claims about something else, settings that do not exist, suites and traces that cannot be loaded.

    \b
    bm3 paper check bm3
    bm3 paper check my-paper
    """
    from harness.paper.folders import paper_folder
    from harness.paper.load import load_paper
    from harness.tools.papers.check import Check

    folder = paper_folder(name)
    faults = Check(folder).run()
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        sys.exit(MISUSED)
    found = load_paper(folder)
    counts = f"{len(found.values)} figures, {len(found.claims)} claims, {len(found.suites)} suites"
    click.echo(f"{found.name}: consistent; {counts}")
