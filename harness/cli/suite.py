"""The commands `bm3 suite …` and `bm3 watch`: what a suite is, what is done of it, and one that is running."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import DataError
from harness.cli.options import DATA, DATASETS, DEVICE, LAYOUT, MODELS, OUT, PAPER, PATH, SEEDS, known_suite
from harness.cli.output import say
from harness.common import NOT_KNOWN, duration, size

if TYPE_CHECKING:
    import torch

    from harness.paper.load import Paper
    from harness.runs.trial import Trial
    from harness.studies.estimate import Estimates
    from harness.studies.suite import Outcomes, Outline, Row

HEAD = ("row", "data set", "points", "seeds", "trials", "done", "failed", "time left", "memory", "estimated from")


@click.group()
def suite() -> None:
    """Look at suites: files of trials that answer a question. `bm3 reproduce` runs one.

    \b
    bm3 suite list
    bm3 suite show table3 --data ~/data
    """


@suite.command(name="list")
@PAPER
def list_command(paper: Paper) -> None:
    """List the suites of a paper, and how many trials each has at most.

    \b
    bm3 suite list
    bm3 suite list --paper damrs
    """
    from harness.report.tables import table, text
    from harness.studies.suite import load_suite, outline

    rows = []
    for name in paper.suites:
        found = load_suite(name, paper, check=False)
        more = " and their variants" if any(experiment.variants for experiment in found.experiments) else ""
        most = sum(row.trials for row in outline(found, paper=paper, variants=False))
        rows.append([name, found.title, f"{most:,}{more}"])
    click.echo(text(table("", ["suite", "what", "trials"], rows)), nl=False)


@suite.command()
@click.argument("name", callback=known_suite)
@DATASETS
@MODELS
@SEEDS
@LAYOUT
@click.option("--dry-run", is_flag=True, help="List the commands of the trials to run; as text only.")
@DEVICE
@DATA
@OUT
@PAPER
def show(
    name: str,
    datasets: tuple[str, ...],
    models: tuple[str, ...],
    seeds: list[int],
    form: str,
    dry_run: bool,
    device: torch.device,
    data: Path | None,
    out: Path,
    paper: Paper,
) -> None:
    """Show the rows of the suite NAME: how many trials, how many of them are done, what the others will take.

    Where points are searched, more trials follow once they are done: the best on validation and the best on test run
    with the other seeds. Trials are as many as can follow. The time left is theirs, without those that failed, which
    are not run again by themselves; it is an estimate from past runs, on whatever machine made them. Of a data set
    that is not there only the counts are shown. Nothing is run.

    \b
    bm3 suite show table3 --data ~/data
    bm3 suite show table3 --data ~/data --dataset baby --dry-run
    bm3 suite show baby --model bpr --format csv
    bm3 suite show my-suite.toml
    """
    from harness.cli.progress import reading_runs
    from harness.cli.study import following, left_alone
    from harness.data.layouts import data_roots
    from harness.measure.environment import environment
    from harness.report.tables import table
    from harness.report.write import laid_out
    from harness.runs.record import cost_key
    from harness.studies.estimate import estimates_of
    from harness.studies.execute import pending
    from harness.studies.suite import Outline, Row, load_suite, outline, plan, wanted

    if dry_run and form != "text":
        raise click.UsageError("--dry-run lists commands: leave --format out")
    chosen = load_suite(name, paper).narrowed(models)
    data_roots(data)  # a folder that is not there is refused, one that lacks a data set is not
    planned: list[Row | Outline] = []
    missing = []
    for dataset in dict.fromkeys(datasets or chosen.datasets):
        try:
            planned += plan(chosen, data, device, [dataset], paper, seeds)
        except DataError as error:
            missing.append(f"{dataset}: counts from the suite's file alone, and no time, since {error}")
            planned += outline(chosen, [dataset], paper, seeds)
    rows = [row for row in planned if isinstance(row, Row)]
    outlines = [row for row in planned if isinstance(row, Outline)]
    # How many threads there will be is for `bm3 reproduce` to say.
    costs = {key: here for key, here in cost_key(environment(device)).items() if key != "torch_threads"}
    found = pending(lambda outcomes: wanted(rows, outcomes, chosen.order), out, costs=costs if chosen.alone else None)
    unread: list[str] = []
    estimates = estimates_of(out, paper, unread, reading_runs)
    shown = laid_out(table("", HEAD, [_line(row, found.outcomes, estimates) for row in planned]), form)
    notes = [*missing, *(f"cannot be read, left out: {path}" for path in unread)]
    if form != "text":
        click.echo(shown, nl=False)
        say(notes, err=True)
        return
    click.echo(f"{Path(name).stem}: {chosen.title}\n\n{shown}")
    come = sum(row.to_come(found.outcomes) for row in planned)
    most = come + len(found.trials) + sum(len(row.commands) for row in outlines)
    done, failed = _done_and_failed(found.trials, found.outcomes)
    left = duration(_seconds_left(rows, found.trials, found.outcomes, estimates))
    head = f"{'at most ' * bool(come)}{most:,} trials: {done} done, {failed} failed"
    click.echo(head + f"; time left, one after another: {left}" * bool(rows))
    say([*left_alone(found), *notes])
    if dry_run:
        commands = [trial.command for trial in found.to_run]
        commands += [command for row in outlines for command in row.commands]
        say(["", *commands, *following(planned, found)])


def _line(row: Row | Outline, outcomes: Outcomes, estimates: Estimates) -> list[object]:
    """The row of the table."""
    from harness.studies.suite import Outline

    if isinstance(row, Outline):
        return [row.label, row.dataset, len(row.points), len(row.seeds), row.trials, *[NOT_KNOWN] * 5]
    trials = row.wanted(outcomes)
    known = [estimate for point in row.points if (estimate := estimates.of(point)) is not None]
    memory = max((estimate.memory_bytes or 0 for estimate in known), default=0)
    return [
        row.label,
        row.dataset.name,
        len(row.points),
        len(row.seeds),
        len(trials) + row.to_come(outcomes),
        *_done_and_failed(trials, outcomes),
        duration(_seconds_left([row], trials, outcomes, estimates)),
        size(memory) if memory else NOT_KNOWN,
        "; ".join(dict.fromkeys(estimate.basis for estimate in known)) or "no past run",
    ]


def _done_and_failed(trials: Iterable[Trial], outcomes: Outcomes) -> tuple[int, int]:
    ended = [outcomes[trial.key] for trial in trials if trial.key in outcomes]
    return sum(run is not None for run in ended), sum(run is None for run in ended)


def _seconds_left(
    rows: Sequence[Row], trials: Sequence[Trial], outcomes: Outcomes, estimates: Estimates
) -> float | None:
    """Of all that is to be run, and of the most that may follow; None where it is not known of some trial."""
    left = [(trial, 1.0) for trial in trials if trial.key not in outcomes]
    for row in rows:
        more = row.to_come(outcomes)
        left += [(point, more / len(row.points)) for point in row.points if more]
    known = [(estimates.seconds(trial), times) for trial, times in left]
    return None if any(s is None for s, _ in known) else sum(s * times for s, times in known if s is not None)


SECONDS_BETWEEN_LOOKS = 1.0
VANISHED = "has ended without saying so (killed?); the same command goes on"


@click.command()
@click.argument("folder", type=PATH, default=Path("runs"))
@click.option("--once", is_flag=True, help="Show how it stands and leave.")
def watch(folder: Path, once: bool) -> None:
    """Show a study that runs elsewhere until it has ended. Ctrl-C leaves it running.

    FOLDER (default: runs) is the folder of a study, or one that holds several, of which one is running.

    \b
    bm3 watch
    bm3 watch runs/mini --once
    """
    from rich.console import Console

    from harness.cli.progress import StudyProgress, bars, show
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
