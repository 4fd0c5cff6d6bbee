"""The commands `bm3 suite list` and `bm3 suite show`: what a suite is, what is done of it, and what is left."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import DataError
from harness.cli.options import DATA, DEVICE, MODELS, OUT, PAPER, SEEDS, known_suite

if TYPE_CHECKING:
    from harness.runs.trial import Trial
    from harness.studies.estimate import Estimate, Estimates
    from harness.studies.execute import Pending
    from harness.studies.suite import Outcomes, Outline, Row

HEAD = ("row", "data set", "points", "seeds", "trials", "done", "failed", "time left", "memory", "estimated from")
LAYOUTS = ("text", "md", "csv", "json")
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
@PAPER
def list_command(paper: Path) -> None:
    """List the suites of a paper, and how many trials each has.

    \b
    bm3 suite list
    bm3 suite list --paper damrs
    """
    from tabulate import tabulate

    from harness.paper.load import load_paper
    from harness.studies.suite import load_suite, outline

    table = []
    about = load_paper(paper)
    for name in about.suites:
        found = load_suite(name, about, check=False)
        more = " and their variants" if any(experiment.variants for experiment in found.experiments) else ""
        counts = _sum(row.trials for row in outline(found, paper=about, variants=False))
        table.append([name, found.title, _range(counts) + more])
    click.echo(tabulate(table, ["suite", "what", "trials"], disable_numparse=True))


@suite.command()
@click.argument("name", callback=known_suite)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Instead of the suite's; may be repeated.")
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
    with the other seeds. The time left counts as many as can follow, and none that failed, which are not run again by
    themselves; it is an estimate from past runs, on whatever machine made them. Of a data set that is not there only
    the counts are shown. Nothing is run.

    \b
    bm3 suite show table3 --data ~/data
    bm3 suite show table3 --data ~/data --dataset baby --dry-run
    bm3 suite show baby --model bpr --format csv
    bm3 suite show my-suite.toml
    """
    from tabulate import tabulate

    from harness.data.layouts import data_roots
    from harness.paper.load import load_paper
    from harness.runs.store import readable_runs
    from harness.runs.trial import resolve_device
    from harness.studies.estimate import COST_FILE, Estimates, load_costs
    from harness.studies.execute import pending
    from harness.studies.suite import Outline, Row, load_suite, outline, plan, wanted

    if dry_run and form != "text":
        raise click.UsageError("--dry-run lists commands: leave --format out")
    about = load_paper(paper)
    chosen, where = load_suite(name, about).narrowed(models, seeds), resolve_device(device)
    data_roots(data)  # a folder that is not there is refused, one that lacks a data set is not
    planned: list[Row | Outline] = []
    missing = []
    for dataset in dict.fromkeys(datasets or chosen.datasets):
        try:
            planned += plan(chosen, data, where, [dataset], about)
        except DataError as error:
            missing.append(f"{dataset}: counts from the suite's file alone, and no time, since {error}")
            planned += outline(chosen, [dataset], about)
    rows = [row for row in planned if isinstance(row, Row)]
    unplanned = [row for row in planned if isinstance(row, Outline)]
    found = pending(lambda outcomes: wanted(rows, outcomes, chosen.order), out)
    unread: list[str] = []
    estimates = Estimates(readable_runs(out, unread), load_costs(about.file(COST_FILE)))
    table = [_of_row(row, found.outcomes, estimates) if isinstance(row, Row) else _of_outline(row) for row in planned]
    if form != "text":
        click.echo(_laid_out(table, form), nl=False)
        for line in [*(f"cannot be read, left out: {text}" for text in unread), *missing]:
            click.echo(line, err=True)
        return
    to_come = to_follow(rows, found)
    counts = _sum([(len(found.trials),) * 2, to_come, *(row.trials for row in unplanned)])
    click.echo(f"{Path(name).stem}: {chosen.title}\n\n{tabulate(table, HEAD, disable_numparse=True)}\n")
    click.echo(_totals(rows, found, counts, estimates))
    for line in [*left_alone(found), *missing, *(f"cannot be read, left out: {text}" for text in unread)]:
        click.echo(line)
    if dry_run:
        click.echo()
        commands = [trial.command for trial in found.to_run]
        commands += [command for row in unplanned for command in row.commands]
        for line in [*commands, *following(_sum([to_come, *_beyond(unplanned)]))]:
            click.echo(line)


def _laid_out(table: Sequence[Sequence[object]], form: str) -> str:
    """The rows as a program or a document takes them."""
    if form == "json":
        return json.dumps([dict(zip(HEAD, row, strict=True)) for row in table], indent=1, ensure_ascii=False) + "\n"
    if form == "md":
        from tabulate import tabulate

        return tabulate(table, HEAD, tablefmt="github", disable_numparse=True) + "\n"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEAD, *table])
    return text.getvalue()


def to_follow(rows: Iterable[Row], found: Pending) -> Counts:
    """How many trials follow from choices that cannot be made yet."""
    return _sum(row.to_come(found.outcomes) for row in rows)


def following(counts: Counts) -> list[str]:
    """The line on trials that follow from a selection, if any do."""
    return [f"{_range(counts)} more trials follow from the selection, once the points above are done"] * (counts[1] > 0)


def left_alone(found: Pending) -> list[str]:
    """The line on trials that failed and are not run, if there are any."""
    number = len(found.without_result)
    return [f"failed earlier, so not run again: {number}; bm3 reproduce with --rerun failed tries again"] * (number > 0)


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


def _totals(rows: Sequence[Row], found: Pending, counts: Counts, estimates: Estimates) -> str:
    done, failed = _done_and_failed(found.trials, found.outcomes)
    text = f"{_range(counts)} trials: {done} done, {failed} failed"
    if rows:
        seconds = _seconds_left(rows, found.trials, found.outcomes, estimates)
        text += f"; time left, one after another: {_time(seconds)}"
    return text


def _done_and_failed(trials: Iterable[Trial], outcomes: Outcomes) -> Counts:
    ended = [outcomes[trial.key] for trial in trials if trial.key in outcomes]
    return sum(run is not None for run in ended), sum(run is None for run in ended)


def _seconds_left(
    rows: Sequence[Row], trials: Sequence[Trial], outcomes: Outcomes, estimates: Estimates
) -> float | None:
    """Of all that is to be run, and of the most that may follow; None where it is not known of some trial."""
    left = [(trial, 1.0) for trial in trials if trial.key not in outcomes]
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
