"""The commands `bm3 suite list` and `bm3 suite show`: what a suite is, what is done of it, and what is left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import DataError
from harness.cli.options import DATA, DATASETS, DEVICE, MODELS, OUT, PAPER, SEEDS, known_suite
from harness.common import NOT_KNOWN, duration, size

if TYPE_CHECKING:
    from harness.runs.trial import Trial
    from harness.studies.estimate import Estimates
    from harness.studies.suite import Outcomes, Outline, Row

HEAD = (
    "row",
    "data set",
    "points",
    "seeds",
    "trials",
    "done",
    "failed",
    "time left",
    "memory",
    "estimated from",
)
LAYOUTS = ("text", "md", "csv", "json")


@click.group()
def suite() -> None:
    """Look at suites: files that say which trials answer a question. `bm3 reproduce` runs one.

    \b
    bm3 suite list
    bm3 suite show table3 --data ~/data
    """


@suite.command(name="list")
@PAPER
def list_command(paper: Path) -> None:
    """List the suites of a paper, and how many trials each has at most.

    \b
    bm3 suite list
    bm3 suite list --paper damrs
    """
    from harness.paper.load import load_paper
    from harness.report.tables import table, text
    from harness.studies.suite import load_suite, outline

    rows = []
    about = load_paper(paper)
    for name in about.suites:
        found = load_suite(name, about, check=False)
        more = " and their variants" if any(experiment.variants for experiment in found.experiments) else ""
        most = sum(row.trials for row in outline(found, paper=about, variants=False))
        rows.append([name, found.title, f"{most:,}{more}"])
    click.echo(text(table("", ["suite", "what", "trials"], rows)), nl=False)


@suite.command()
@click.argument("name", callback=known_suite)
@DATASETS
@MODELS
@SEEDS
@click.option("--format", "form", type=click.Choice(LAYOUTS), default="text", show_default=True, help="Layout.")
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
    device: str,
    data: Path | None,
    out: Path,
    paper: Path,
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
    from harness.cli.study import following, left_alone
    from harness.data.layouts import data_roots
    from harness.measure.environment import environment
    from harness.paper.load import load_paper
    from harness.report.flat import csv_text
    from harness.report.tables import markdown, table, text
    from harness.runs.record import cost_key
    from harness.runs.trial import resolve_device
    from harness.studies.estimate import estimates_of
    from harness.studies.execute import pending
    from harness.studies.suite import Outline, Row, load_suite, outline, plan, wanted

    if dry_run and form != "text":
        raise click.UsageError("--dry-run lists commands: leave --format out")
    about = load_paper(paper)
    chosen, where = load_suite(name, about).narrowed(models), resolve_device(device)
    data_roots(data)  # a folder that is not there is refused, one that lacks a data set is not
    planned: list[Row | Outline] = []
    missing = []
    for dataset in dict.fromkeys(datasets or chosen.datasets):
        try:
            planned += plan(chosen, data, where, [dataset], about, seeds)
        except DataError as error:
            missing.append(f"{dataset}: counts from the suite's file alone, and no time, since {error}")
            planned += outline(chosen, [dataset], about, seeds)
    rows = [row for row in planned if isinstance(row, Row)]
    outlines = [row for row in planned if isinstance(row, Outline)]
    # How many threads there will be is for `bm3 reproduce` to say.
    costs = {key: here for key, here in cost_key(environment(where)).items() if key != "torch_threads"}
    found = pending(lambda outcomes: wanted(rows, outcomes, chosen.order), out, costs=costs if chosen.alone else None)
    unread: list[str] = []
    estimates = estimates_of(out, about, unread)
    lines = [_line(row, found.outcomes, estimates) for row in planned]
    shown = table("", HEAD, lines)
    notes = [*missing, *(f"cannot be read, left out: {path}" for path in unread)]
    if form != "text":
        as_json = json.dumps([dict(zip(HEAD, line, strict=True)) for line in lines], indent=1, ensure_ascii=False)
        layouts = {
            "json": lambda: as_json + "\n",
            "md": lambda: markdown(shown, 0),
            "csv": lambda: csv_text(HEAD, lines),
        }
        click.echo(layouts[form](), nl=False)
        click.echo("".join(f"{note}\n" for note in notes), err=True, nl=False)
        return
    click.echo(f"{Path(name).stem}: {chosen.title}\n\n{text(shown)}")
    come = sum(row.to_come(found.outcomes) for row in planned)
    most = come + len(found.trials) + sum(len(row.commands) for row in outlines)
    done, failed = _done_and_failed(found.trials, found.outcomes)
    left = duration(_seconds_left(rows, found.trials, found.outcomes, estimates))
    head = f"{'at most ' * bool(come)}{most:,} trials: {done} done, {failed} failed"
    click.echo(head + f"; time left, one after another: {left}" * bool(rows))
    for line in [*left_alone(found), *notes]:
        click.echo(line)
    if dry_run:
        commands = [trial.command for trial in found.to_run]
        commands += [command for row in outlines for command in row.commands]
        for line in ["", *commands, *following(planned, found)]:
            click.echo(line)


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
