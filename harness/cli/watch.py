"""The command `bm3 watch`: a study that runs in another process, as it goes on. Showing it is `study_progress`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bm3 import DataError

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

    from harness.cli.study_progress import StudyProgress, bars, show
    from harness.studies.status import read_status, vanished

    study = chosen_study(folder)
    console, status = Console(highlight=False), read_status(study)
    try:
        if once:
            show(shown := bars(console), status, time.time())
            console.print(shown, *status.recent, sep="\n", markup=False)
        else:
            with StudyProgress(console) as progress:
                progress.update(status)
                while status.state == "running" and not vanished(status):
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    progress.update(status := read_status(study))
    except KeyboardInterrupt as interruption:
        if type(interruption) is KeyboardInterrupt:  # Ctrl-C; a scheduler's signal is for the caller
            return
        raise
    # It may have ended properly since the status was read.
    if vanished(status) and vanished(read_status(study)):
        click.echo(f"the study in {study} {VANISHED}")


def chosen_study(folder: Path) -> Path:
    """The folder of the study meant by `folder`. Raises DataError when there is none, or not the one to choose."""
    from harness.studies.status import read_status, studies, vanished

    found = studies(folder)
    if not found:
        read_status(folder)  # raises, as there is none that can be read
    states = {path: "killed" if vanished(status) else status.state for path, status in found.items()}
    running = [path for path, state in states.items() if state == "running"]
    candidates = running or list(found)
    if len(candidates) == 1:
        return candidates[0]
    what = f"{len(running)} studies are running" if running else "no study is running"
    named = ", ".join(f"{path} ({states[path]})" for path in candidates)
    raise DataError(f"{folder}: {what} there; name the folder of one: {named}")
