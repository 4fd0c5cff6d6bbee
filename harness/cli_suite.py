"""The commands `bm3 suite list` and `bm3 suite show`: what a suite is, what is done of it, and what is left."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
from tabulate import tabulate

from bm3 import DataError
from harness.cli_options import DATA, DEVICE, OUT
from harness.compare.expected import expected_dir
from harness.data.layouts import data_roots
from harness.experiments.estimate import Estimate, Estimates, load_costs
from harness.experiments.store import StoredRun, stored_runs
from harness.experiments.suite import Outcomes, Outline, Row, load_suite, outline, plan, suite_names, wanted
from harness.experiments.trial import Trial, resolve_device

HEAD = ("row", "data set", "points", "seeds", "trials", "done", "failed", "time left", "memory", "estimated from")
NOT_KNOWN = "–"
GIB = 2**30

Counts = tuple[int, int]
"""At least and at most."""


@click.group()
def suite() -> None:
    """Look at suites: files that say which trials answer a question. `bm3 reproduce` runs one.

    \b
    bm3 suite list
    bm3 suite show table3 --data ~/data
    """


@suite.command(name="list")
def list_command() -> None:
    """List the suites that come with the harness, and how many trials each has.

    \b
    bm3 suite list
    """
    loaded = {name: load_suite(name) for name in suite_names()}
    table = [[name, found.title, _range(_sum(row.trials for row in outline(found)))] for name, found in loaded.items()]
    click.echo(tabulate(table, ["suite", "what", "trials"], disable_numparse=True))


@suite.command()
@click.argument("name")
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Instead of the suite's; may be repeated.")
@click.option("--dry-run", is_flag=True, help="List the commands of the trials that are not done.")
@DEVICE
@DATA
@OUT
def show(name: str, datasets: tuple[str, ...], dry_run: bool, device: str, data: Path | None, out: Path) -> None:
    """Show the rows of the suite NAME: how many trials, how many of them are done, what the others will take.

    Where points are searched, more trials follow once they are done: the best on validation and the best on test run
    with the other seeds. The time left counts as many as can follow; it is an estimate from past runs, on whatever
    machine made them. Of a data set that is not there only the counts are shown. Nothing is run.

    \b
    bm3 suite show table3 --data ~/data
    bm3 suite show table3 --data ~/data --dataset baby --dry-run
    bm3 suite show my-suite.toml
    """
    chosen, where = load_suite(name), resolve_device(device)
    data_roots(data)  # a folder that is not there is refused, one that lacks a data set is not
    runs = list(stored_runs(out)) if out.is_dir() else []
    outcomes = _outcomes(runs, out)
    estimates = Estimates(runs, load_costs(expected_dir()))
    rows: list[Row] = []
    table: list[list[object]] = []
    counts: list[Counts] = []
    missing = []
    unplanned: list[Outline] = []
    for dataset in dict.fromkeys(datasets or chosen.datasets):
        try:
            there = plan(chosen, data, where, [dataset])
        except DataError as error:
            missing.append(f"{dataset}: counts from the suite's file alone, and no time, since {error}")
            lines = outline(chosen, [dataset])
            table += [_of_outline(line) for line in lines]
            counts += [line.trials for line in lines]
            unplanned += lines
            continue
        rows += there
        table += [_of_row(row, outcomes, estimates) for row in there]
    trials = wanted(rows, outcomes, chosen.order)
    to_come = _sum(row.to_come(outcomes) for row in rows)
    click.echo(f"{Path(name).stem}: {chosen.title}\n\n{tabulate(table, HEAD, disable_numparse=True)}\n")
    click.echo(_totals(rows, trials, _sum([(len(trials),) * 2, to_come, *counts]), outcomes, estimates))
    for text in missing:
        click.echo(text)
    if dry_run:
        click.echo()
        for trial in trials:
            if outcomes.get(trial.key) is None:
                click.echo(trial.command)
        commands = [command for line in unplanned for command in line.commands]
        click.echo("\n".join(commands), nl=bool(commands))
        follow = _sum([to_come, *_beyond(unplanned)])
        if follow[1]:
            click.echo(f"{_range(follow)} more trials follow from the selection, once the points above are done")


def _outcomes(runs: Sequence[StoredRun], out: Path) -> Outcomes:
    """What has ended: the run, or None for one that failed."""
    ended = [run for run in runs if run.state != "unfinished"]
    return {run.path.relative_to(out).as_posix(): run if run.finished else None for run in ended}


def _beyond(rows: Sequence[Outline]) -> list[Counts]:
    """Trials of each row that are not run in any case."""
    return [(row.trials[0] - len(row.commands), row.trials[1] - len(row.commands)) for row in rows]


def _of_outline(row: Outline) -> list[object]:
    counts = [len(row.points), len(row.seeds), _range(row.trials)]
    return [row.label, row.dataset, *counts, *[NOT_KNOWN] * (len(HEAD) - 5)]


def _of_row(row: Row, outcomes: Outcomes, estimates: Estimates) -> list[object]:
    trials = row.wanted(outcomes)
    done, failed = _done_and_failed(trials, outcomes)
    found = [estimate for point in row.points if (estimate := estimates.of(point)) is not None]
    memory = max((estimate.memory_bytes or 0 for estimate in found), default=0)
    return [
        row.label,
        row.dataset.name,
        len(row.points),
        len(row.seeds),
        _range(_sum([(len(trials),) * 2, row.to_come(outcomes)])),
        done,
        failed,
        _time(_seconds_left([row], trials, outcomes, estimates)),
        f"{memory / GIB:.1f} GiB" if memory else NOT_KNOWN,
        _basis(found),
    ]


def _totals(
    rows: Sequence[Row], trials: Sequence[Trial], counts: Counts, outcomes: Outcomes, estimates: Estimates
) -> str:
    done, failed = _done_and_failed(trials, outcomes)
    text = f"{_range(counts)} trials: {done} done, {failed} failed"
    if rows:
        seconds = _seconds_left(rows, trials, outcomes, estimates)
        text += f"; time left, one after another: {_time(seconds)}"
    return text


def _done_and_failed(trials: Iterable[Trial], outcomes: Outcomes) -> Counts:
    ended = [outcomes[trial.key] for trial in trials if trial.key in outcomes]
    return sum(run is not None for run in ended), sum(run is None for run in ended)


def _seconds_left(
    rows: Sequence[Row], trials: Sequence[Trial], outcomes: Outcomes, estimates: Estimates
) -> float | None:
    """Of all that is not done, and of the most that may follow; None where it is not known of some trial."""
    left = [(trial, 1.0) for trial in trials if outcomes.get(trial.key) is None]
    for row in rows:
        _, more = row.to_come(outcomes)
        left += [(point, more / len(row.points)) for point in row.points if more]
    known = [(estimates.of(trial), times) for trial, times in left]
    if any(estimate is None for estimate, _ in known):
        return None
    return sum(estimate.seconds * times for estimate, times in known if estimate is not None)


def _basis(estimates: Sequence[Estimate]) -> str:
    return "; ".join(dict.fromkeys(estimate.basis for estimate in estimates)) or "no past run"


def _sum(counts: Iterable[Counts]) -> Counts:
    pairs = list(counts)
    return sum(fewest for fewest, _ in pairs), sum(most for _, most in pairs)


def _range(counts: Counts) -> str:
    fewest, most = counts
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return NOT_KNOWN
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
