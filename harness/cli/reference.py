"""The command `bm3 reference`: options and messages."""

import sys
from pathlib import Path

import click

from bm3 import ConfigError
from harness.cli.options import PAPER


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: the file of this checkout.")
@click.option("--overwrite", is_flag=True, help="Do not ask before a file is overwritten.")
@PAPER
def reference(folder: Path, out: Path | None, overwrite: bool, paper: Path) -> None:
    """Take the finished runs in FOLDER as what the self-check compares with: at least 20 seeds of each model.

    It is written to reference/selfcheck.json of the paper's folder in a checkout, or to --out. Commit it with the
    change that moved the figures, and say why they moved.

    \b
    bm3 reproduce selfcheck --seeds 101-140 --threads 1 --out DIR
    bm3 reference DIR
    """
    import harness
    from harness.paper.load import load_paper
    from harness.paper.selfcheck import FILE, SUITE, reference_from, write_reference
    from harness.runs.store import stored_runs
    from harness.studies.suite import load_suite

    if out is None and Path(harness.__file__).parent in paper.parents:
        raise ConfigError(f"{paper} is part of an installed package: run this in a checkout, or give --out FILE")
    unread: list[str] = []
    models = [one.model for one in load_suite(SUITE, load_paper(paper), check=False).experiments]
    found = reference_from(stored_runs(folder, unread), models)
    for text in unread:
        click.echo(f"cannot be read, left out: {text}", err=True)
    target = out or paper / FILE
    if target.exists() and not overwrite:
        if not sys.stdin.isatty():
            raise ConfigError(f"{target} is there already: give --overwrite to replace it, or --out FILE")
        click.confirm(f"{target} is there already. Overwrite it?", abort=True)
    write_reference(found, target)
    click.echo(f"written: {target}")
