"""The commands `bm3 paper` and `bm3 reference`: papers as folders, and what the self-check compares with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import ConfigError
from harness.cli.options import PAPER, PATH
from harness.cli.output import say, say_table, say_unread
from harness.ending import MISUSED
from harness.paper.folders import paper_folder, papers

if TYPE_CHECKING:
    from harness.paper.load import Paper


@click.group()
def paper() -> None:
    """Make and check papers: folders of what was published. --paper takes one.

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
    from harness.paper.load import load_paper

    found = {name: load_paper(folder) for name, folder in papers().items()}
    rows = [[name, one.title, one.citation.partition(";")[0], len(one.values)] for name, one in found.items()]
    say_table(["paper", "title", "citation", "figures"], rows)


@paper.command()
@click.argument("folder", type=PATH)
def new(folder: Path) -> None:
    """Make FOLDER, with a skeleton of a paper in it that is consistent; its figures are made up.

    \b
    bm3 paper new my-paper
    """
    from harness.tools.papers.new import new_paper

    say((folder / name for name in new_paper(folder)), "written: ")
    click.echo(f"Replace what is made up, then: bm3 paper check {folder}")


@paper.command()
@click.argument("name", metavar="NAME|FOLDER")
def check(name: str) -> None:
    """Say every fault of a paper, with its file and line or key path. Exit code 2 where there is one.

    Unknown keys and files, figures of models, data sets and metrics that the paper does not have, cells that stand
    there twice, rows with the digits of another row that do not say so, claims about something else, settings that do
    not exist, suites and traces that cannot be loaded.

    \b
    bm3 paper check bm3
    bm3 paper check my-paper
    """
    from harness.paper.load import load_paper
    from harness.tools.papers.check import Check

    folder = paper_folder(name)
    if faults := Check(folder).run():
        say(faults, err=True)
        sys.exit(MISUSED)
    found = load_paper(folder)
    counts = f"{len(found.values)} figures, {len(found.claims)} claims, {len(found.suites)} suites"
    click.echo(f"{found.name}: consistent; {counts}")


@click.command()
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, metavar="FILE", help="Default: the file of this checkout.")
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@PAPER
def reference(folder: Path, out: Path | None, overwrite: bool, paper: Paper) -> None:
    """Take the runs in FOLDER as reference of the self-check.

    Needed are at least 20 finished seeds of each model. It is written to reference/selfcheck.json of the paper's folder
    in a checkout, or to --out. Commit it with the change that moved the figures, and say why they moved.

    \b
    bm3 reproduce selfcheck --seeds 101-140 --threads 1 --out DIR
    bm3 reference DIR
    """
    import harness
    from harness.paper.selfcheck import FILE, SUITE, reference_from, write_reference
    from harness.runs.store import stored_runs
    from harness.studies.suite import load_suite

    if out is None and Path(harness.__file__).parent in paper.folder.parents:
        raise ConfigError(f"{paper.folder} is part of an installed package: run this in a checkout, or give --out FILE")
    unread: list[str] = []
    models = [one.model for one in load_suite(SUITE, paper, check=False).experiments]
    found = reference_from(stored_runs(folder, unread), models)
    say_unread(unread)
    target = out or paper.folder / FILE
    if target.exists() and not overwrite:
        raise ConfigError(f"{target} is there already: give --overwrite to replace it, or --out FILE")
    write_reference(found, target)
    click.echo(f"written: {target}")
