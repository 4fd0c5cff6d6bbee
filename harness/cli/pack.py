"""The command `bm3 pack`: options, messages and exit codes. What a package is stands in `tools.pack`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bm3 import ConfigError
from harness.cli.options import EXISTING_FOLDER, PAPER, PATH
from harness.cli.output import say

if TYPE_CHECKING:
    from harness.paper.load import Paper


class Packing(click.Group):
    """A group whose first word may be the folder of `write`, in place of a command."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["write", *args])


@click.group(cls=Packing, context_settings={"ignore_unknown_options": True})
def pack() -> None:
    """Pack the runs below a folder as one file of evidence, or check such a file; `write` may be left out.

    \b
    bm3 pack runs --out evidence.zip
    bm3 pack verify evidence.zip
    """


@pack.command()
@click.argument("folder", metavar="FOLDER", type=EXISTING_FOLDER)
@click.option("--out", type=PATH, default="evidence.zip", metavar="FILE", help="The archive.")
@PAPER
def write(folder: Path, out: Path, paper: Paper) -> None:
    """Pack the finished and failed runs below FOLDER, and a report on them by --paper, into one zip archive.

    It is a Process Run Crate: runs, report, environments, commands, descriptions of the data sets without their files,
    CITATION.cff, and a digest of every file. The same runs give the same bytes. Needs the extra pack.

    \b
    bm3 pack write docs/results/runs/mini --out evidence.zip
    """
    from harness.tools.pack import pack as packed

    if out.suffix != ".zip":
        raise ConfigError(f"--out: {out} is no .zip file; name one that ends so")
    found, unfinished, digest = packed(folder, out, paper)
    say(unfinished, "note: left out, since it is unfinished: ", err=True)
    click.echo(f"{len(found)} {'run' if len(found) == 1 else 'runs'} in {out}; SHA-256, to be kept elsewhere: {digest}")


@pack.command()
@click.argument("file", type=PATH)
@click.option("--sha256", metavar="DIGEST", help="What `bm3 pack` printed, where it was kept elsewhere.")
def verify(file: Path, sha256: str | None) -> None:
    """Check that the package FILE is as it was made, to the bit, and its runs are in order.

    A line for each thing that is not, and exit code 1. Whoever changes a package and makes its digests anew is found by
    --sha256 alone.

    \b
    bm3 pack verify evidence.zip
    """
    from harness.tools.pack import check_package

    found = check_package(file)
    problems = [*found.problems]
    if sha256 is not None and found.digest != sha256.strip().lower():
        problems.append(f"is another file: its SHA-256 is {found.digest}")
    say(problems, "damaged: ")
    if not found.sealed:
        click.echo("note: packed anew by another program, so that only its files were checked")
    if not problems:
        click.echo(f"{found.runs} {'run' if found.runs == 1 else 'runs'}, all as packed; SHA-256: {found.digest}")
    sys.exit(1 if problems else 0)
