"""The command `bm3 reproduce`: run a suite and report on it. How a report is made is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bm3 import DataError
from harness.cli.options import (
    DATA,
    DEVICE,
    DRY_RUN,
    IN_PROCESS,
    MODELS,
    OUT,
    PAPER,
    RAY,
    REPORT_FORMATS,
    RERUN,
    SEEDS,
    THREADS_EACH,
    WORKERS,
    known_suite,
)
from harness.cli.suite import following, left_alone, to_follow
from harness.runs.words import Policy

if TYPE_CHECKING:
    from harness.paper.rows import Planned
    from harness.runs.store import StoredRun
    from harness.runs.trial import Trial
    from harness.studies.suite import Outcomes, Row, Suite


@click.command()
@click.argument("suite", default="selfcheck", callback=known_suite)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Instead of the suite's; may be repeated.")
@MODELS
@SEEDS
@REPORT_FORMATS
@RERUN
@WORKERS
@RAY
@IN_PROCESS
@DRY_RUN
@DEVICE
@THREADS_EACH
@DATA
@OUT
@PAPER
def reproduce(
    suite: str,
    datasets: tuple[str, ...],
    models: tuple[str, ...],
    seeds: list[int],
    formats: list[str],
    rerun: Policy,
    workers: int | None,
    ray_address: str | None,
    in_process: bool,
    dry_run: bool,
    device: str,
    threads: int | None,
    data: Path | None,
    out: Path,
    paper: Path,
) -> None:
    """Check the models against recorded traces, run SUITE (default: selfcheck), and report what reproduces.

    The suite selfcheck needs no data: it shows whether the models learn on this machine what they learned when its
    reference was made, and nothing about published tables.

    SUITE is the name of one of the paper (bm3 suite list) or the path of a .toml file. Trials that are
    stored and finished are not run again, whichever suite they were run for; one that was interrupted or killed goes on
    after its last checkpoint, so the same command continues a study. Its report.md, log and status are in the suite's
    folder below --out; bm3 watch shows how far it is from another terminal.

    The same trials give the same numbers side by side or one by one, on this machine or a Ray cluster of its kind, with
    the same --threads.

    \b
    bm3 reproduce
    bm3 reproduce baby --data ~/data --workers 4 --threads 2
    bm3 reproduce baby --data ~/data --model bpr --format md,html
    bm3 reproduce table3 --data /shared/data --out /shared/runs --ray auto
    bm3 reproduce ablation --dataset mini --dry-run
    """
    from harness.cli.study import backend_for, conformance_line, finish, run_study, workers_for
    from harness.paper.conformance import known_traces, trace_statuses
    from harness.paper.load import load_paper
    from harness.paper.study import make_study
    from harness.runs.trial import folder_of, resolve_device
    from harness.studies.conduct import Study, make_folder
    from harness.studies.execute import pending
    from harness.studies.suite import load_suite, plan, wanted

    about = load_paper(paper)
    chosen, where = load_suite(suite, about).narrowed(models, seeds), resolve_device(device)
    rows = plan(chosen, data, where, datasets, about)

    def trials(outcomes: Outcomes) -> list[Trial]:
        return wanted(rows, outcomes, chosen.order)

    if dry_run:
        found = pending(trials, out, rerun)
        for line in [*(trial.command for trial in found.to_run), *following(to_follow(rows, found))]:
            click.echo(line)
        if rerun == "missing":
            for line in left_alone(found):
                click.echo(line)
        return
    side_by_side = workers_for(workers, where, in_process=in_process, ray_address=ray_address, alone=chosen.alone)
    name, folder = Path(suite).stem, out / Path(suite).stem
    make_folder(folder)
    backend = backend_for(
        out, data, workers=side_by_side, threads=threads, ray_address=ray_address, in_process=in_process, paper=about
    )
    planned = _planned(rows, chosen, out)
    checks = known_traces(about)
    click.echo(conformance_line(checks))
    outcomes = run_study(Study(name, trials, out, folder, about, rerun, side_by_side, chosen.alone, planned), backend)
    unread: list[str] = []
    runs = [(trial, _stored(folder_of(trial, out), unread)) for trial in trials(outcomes)]
    without = [
        trial.command if run is None else run.command
        for trial, run in runs
        if run is None or not (run.finished or run.out_of_memory)
    ]
    unchecked = _unchecked(chosen)
    if rerun == "none":
        unchecked += [f"{len(without)} of {len(runs)} trials, which are not run: leave --rerun out"] if without else []
        without = []
    study = make_study(
        out,
        f"{chosen.title} (only {', '.join(models)})" if models else chosen.title,
        of=[run for _, run in runs if run is not None],
        paper=about,
        planned=planned,
        conformance=Counter(status.value for status in trace_statuses(checks).values()),
        unchecked=unchecked,
        failed=without,
        of_costs=chosen.alone,
        unread=unread,
        exceptions=chosen.exceptions,
        self_check=[one.model for one in chosen.experiments] if chosen.self_check else None,
    )
    finish(study, folder, formats)


def _planned(rows: Sequence[Row], suite: Suite, out: Path) -> list[Planned]:
    """The rows of the plan for its report."""
    from harness.paper.rows import Planned
    from harness.runs.settings import flatten
    from harness.runs.trial import folder_of

    named = cycle(
        experiment.label not in (None, experiment.model)
        for experiment in suite.experiments
        for _ in experiment.rows(suite.training)
    )
    planned = []
    for row, by_label in zip(rows, named, strict=False):
        settings = [flatten({**asdict(point.config), **asdict(point.training)}) for point in row.points]
        differing = sorted(key for key in settings[0] if any(other[key] != settings[0][key] for other in settings))
        points = tuple(
            (
                {key: of_point[key] for key in differing},
                {s: "/".join(folder_of(replace(point, seed=s), out).parts[-2:]) for s in row.seeds},
            )
            for point, of_point in zip(row.points, settings, strict=True)
        )
        planned.append(Planned(row.label if by_label else None, points, row.repeat == "all"))
    return planned


def _stored(path: Path, unread: list[str]) -> StoredRun | None:
    """The run there; None where there is none, or where it cannot be read: why is added to `unread`."""
    from harness.runs.store import RESULT, RUN, StoredRun

    try:
        return StoredRun.read(path) if (path / RUN).is_file() or (path / RESULT).is_file() else None
    except DataError as error:
        unread.append(str(error))
        return None


def _unchecked(suite: Suite) -> list[str]:
    import torch

    missing = []
    if suite.self_check:
        missing.append("the published tables: run one of the suites that `bm3 suite list` names, with their --data DIR")
    if not torch.cuda.is_available():
        missing.append("anything on a GPU, its memory included: install a CUDA build of torch and use `--device cuda`")
    return missing
