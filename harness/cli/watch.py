"""The command `bm3 watch`: a study that runs in another process, as it goes on. Showing it is `study_progress`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import DataError

if TYPE_CHECKING:
    from harness.studies.status import Status

SECONDS_BETWEEN_LOOKS = 1.0
VANISHED = "has ended without saying so (killed?); the same command goes on"


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--once", is_flag=True, help="Show how it stands and leave.")
def watch(folder: Path, once: bool) -> None:
    """Show the study in FOLDER, or the one running below it, until it has ended. Ctrl-C leaves it running.

    FOLDER (default: runs) is the folder of a study, or one that holds several.

    \b
    bm3 watch
    bm3 watch runs/mini --once
    """
    from rich.console import Console

    from harness.cli.study_progress import StudyProgress, render
    from harness.studies.status import read_status, vanished

    study = chosen_study(folder)
    console = Console(highlight=False)
    if once:
        status = read_status(study)
        console.print(render(status, Path(status.store), now=time.time()))
        _say_if_vanished(study, status)
        return
    try:
        with StudyProgress(console) as progress:
            while True:
                status = read_status(study)
                progress.update(status)
                if status.state != "running" or vanished(status):
                    break
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt as interruption:
        if type(interruption) is KeyboardInterrupt:  # Ctrl-C; a scheduler's signal is for the caller
            return
        raise
    _say_if_vanished(study, status)


def chosen_study(folder: Path) -> Path:
    """The folder of the study meant by `folder`. Raises DataError when there is none, or not the one to choose."""
    from harness.studies.status import STATUS, read_status, studies, vanished

    if (folder / STATUS).is_file() or not folder.is_dir():
        read_status(folder)  # raises where there is none
        return folder
    found = studies(folder)
    running = [path for path, status in found.items() if status.state == "running" and not vanished(status)]
    candidates = running or list(found)
    if len(candidates) == 1:
        return candidates[0]
    if not found:
        raise DataError(f"{folder}: no study has been run there; bm3 reproduce SUITE --out {folder} runs one")
    what = f"{len(running)} studies are running" if running else "no study is running"
    raise DataError(f"{folder}: {what} there; name the folder of one: {_named(found, candidates)}")


def _named(found: Mapping[Path, Status], paths: list[Path]) -> str:
    from harness.studies.status import vanished

    return ", ".join(f"{path} ({'killed' if vanished(found[path]) else found[path].state})" for path in paths)


def _say_if_vanished(study: Path, status: Status) -> None:
    from harness.studies.status import read_status, vanished

    # It may have ended properly since the status was read.
    if vanished(status) and vanished(read_status(study)):
        click.echo(f"the study in {study} {VANISHED}")
