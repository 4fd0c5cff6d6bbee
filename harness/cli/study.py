"""`bm3 reproduce`, and what commands that run trials share: where and how they run, how a study is shown and ends.

How a report is made is elsewhere.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import reduce, wraps
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bm3 import ConfigError, DataError
from harness.cli.options import DATASETS, DRY_RUN, EXECUTION, MODELS, REPORT_FORMATS, SEEDS, known_suite
from harness.cli.output import say
from harness.ending import keeping
from harness.runs.words import Policy

if TYPE_CHECKING:
    import torch

    from harness.paper.conformance import Check
    from harness.paper.load import Paper
    from harness.paper.rows import Planned
    from harness.paper.study import Study as Report
    from harness.runs.record import RunRecord
    from harness.runs.trial import Trial
    from harness.studies.estimate import Estimates
    from harness.studies.execute import Backend, Pending, Study, Wanted
    from harness.studies.suite import Outcomes, Outline, Row, Suite


@dataclass(frozen=True)
class Execution:
    """Where and how trials run, as options say."""

    rerun: Policy
    workers: int | None
    ray_address: str | None
    in_process: bool
    device: str
    threads: int | None
    data: Path | None
    out: Path

    def begin(self, name: str, about: Paper, *, alone: bool = False) -> tuple[Study, Backend]:
        """The study `name`, whose folder below --out is made, and what runs its trials.

        Raises ConfigError for options that exclude each other, or where Ray or its cluster is not there.
        """
        from harness.cli.progress import reading_runs
        from harness.studies.conduct import make_folder
        from harness.studies.estimate import estimates_of
        from harness.studies.execute import Study

        workers, estimates = self._workers(alone), estimates_of(self.out, about, [], reading_runs)
        study = Study(name, self.out, estimates, self.rerun, workers, alone, self.costs(alone))
        make_folder(study.folder)
        return study, self._backend(workers, estimates)

    def _backend(self, workers: int, estimates: Estimates) -> Backend:
        from harness.evaluation.compiling import use_threads
        from harness.studies.local import InProcess, Processes, threads_beside
        from harness.studies.ray import RayCluster

        if self.in_process:
            if self.threads is not None:
                use_threads(self.threads)
            return InProcess(self.out)
        threads, need = self.threads or threads_beside(workers), estimates.memory
        if self.ray_address:
            return RayCluster(self.ray_address, self.out, self.data, threads, need, workers=workers)
        return Processes(self.out, self.data, workers, threads, need)

    def costs(self, asked: bool) -> dict[str, Any] | None:
        """What decides costs here, if they are `asked` for."""
        from harness.measure.environment import environment
        from harness.runs.record import cost_key
        from harness.runs.trial import resolve_device
        from harness.studies.local import threads_beside

        if not asked:
            return None
        here = cost_key(environment(resolve_device(self.device)))
        return here | ({} if self.in_process else {"torch_threads": self.threads or threads_beside(1)})

    def _workers(self, alone: bool) -> int:
        """Trials side by side: as asked, else one, or on CUDA one per GPU; one where trials are to be `alone`."""
        from harness.measure.gpu import visible_gpus
        from harness.runs.trial import resolve_device

        if self.in_process and (self.ray_address or self.workers not in (None, 1)):
            raise ConfigError("--in-process runs trials one by one in this process: leave --workers and --ray out")
        if alone and self.workers not in (None, 1):
            raise ConfigError("this suite measures time, so its trials run one by one: leave --workers out")
        if alone and self.ray_address:
            raise ConfigError("this suite measures time and memory, and machines of a cluster differ: leave --ray out")
        if alone or self.in_process:
            return 1
        on_cuda = resolve_device(self.device).type == "cuda"
        return self.workers or (max(1, len(visible_gpus())) if on_cuda else 1)


def run(study: Study, backend: Backend, wanted: Wanted) -> Outcomes:
    """Run the trials with the study's progress shown. Raises Interrupted on Ctrl-C and SIGTERM."""
    from harness.cli.progress import StudyProgress
    from harness.studies.conduct import conduct

    same = "the same command without --rerun all" if study.policy == "all" else "the same command"
    kept = f"finished trials are kept in {study.store}; {same} goes on from there"
    with keeping(lambda: kept), StudyProgress() as progress:
        return conduct(study, wanted, backend, progress.update)


def execution_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of an Execution, which the command gets as `how`, and --paper."""

    @wraps(command)
    def collected(**given: Any) -> Any:
        return command(how=Execution(**{field.name: given.pop(field.name) for field in fields(Execution)}), **given)

    return reduce(lambda made, option: option(made), EXECUTION, collected)


def following(rows: Sequence[Row | Outline], found: Pending) -> list[str]:
    """The line on trials that follow from a selection that cannot be made yet, if any do."""
    most = sum(row.to_come(found.outcomes) for row in rows)
    return [f"up to {most:,} more trials follow from the selection, once the points above are done"] * (most > 0)


def left_alone(found: Pending) -> list[str]:
    """The line on trials that failed and are not run, if there are any."""
    number = len(found.without_result)
    return [f"failed earlier, so not run again: {number}; bm3 reproduce with --rerun failed tries again"] * (number > 0)


def conformance_line(checks: list[Check], device: torch.device) -> str:
    """How many recorded traces passed, failed and could not be replayed, and where."""
    from harness.paper.conformance import Status, trace_statuses

    counts = Counter(trace_statuses(checks).values())
    return f"on {device.type}: " + ", ".join(f"{counts[status]} {status.value}" for status in Status)


def _replayed(paper: Paper, device: torch.device) -> list[Check]:
    """The paper's traces, replayed on a device; on a GPU by another process, so that this one keeps no context."""
    from harness.paper.conformance import known_traces

    if device.type == "cpu":
        return known_traces(paper, device)
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        return apart.submit(known_traces, paper, device).result()


def finish(study: Report, folder: Path, formats: list[str]) -> NoReturn:
    """Write a report, print how it begins and where it is, and leave with its verdict as exit code."""
    from harness.report.markdown import markdown
    from harness.report.write import write_report

    paths = write_report(study, folder, formats)
    click.echo(markdown(study).split("\n## ")[0].rstrip() + "\n")
    say(paths, "report: ")
    sys.exit(study.code)


@click.command()
@click.argument("suite", default="selfcheck", callback=known_suite)
@DATASETS
@MODELS
@SEEDS
@click.option("--available", is_flag=True, help="Leave out data sets that are not there; the report names them.")
@REPORT_FORMATS
@DRY_RUN
@execution_options
def reproduce(
    suite: str,
    datasets: tuple[str, ...],
    models: tuple[str, ...],
    seeds: list[int],
    available: bool,
    formats: list[str],
    dry_run: bool,
    how: Execution,
    paper: Paper,
) -> None:
    """Run SUITE (default: selfcheck), and report what reproduces.

    Before that, the models are checked against recorded traces. The suite selfcheck needs no data: it shows whether the
    models learn on this machine what they learned when its reference was made, and nothing about published tables.

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
    from harness.data.layouts import data_roots, is_there
    from harness.paper.conformance import trace_statuses
    from harness.paper.study import make_study
    from harness.runs.trial import folder_of, resolve_device
    from harness.studies.execute import keep_models, pending
    from harness.studies.suite import load_suite, plan, wanted

    chosen = load_suite(suite, paper).narrowed(models)
    datasets, device = tuple(dict.fromkeys(datasets or chosen.datasets)), resolve_device(how.device)
    absent = [name for name in datasets if available and not is_there(name, how.data)]
    if len(absent) == len(datasets):
        places = ", ".join(map(str, data_roots(how.data)))
        raise DataError(f"none of {', '.join(absent)} is in {places}: name their folder with --data DIR")
    rows = plan(chosen, how.data, device, [name for name in datasets if name not in absent], paper, seeds)
    if absent:
        click.echo(f"left out, since not there: {', '.join(absent)}", err=True)

    def trials(outcomes: Outcomes) -> list[Trial]:
        return wanted(rows, outcomes, chosen.order)

    if dry_run:
        found = pending(trials, how.out, how.rerun, how.costs(chosen.alone))
        left = [*(trial.command for trial in found.to_run), *following(rows, found)]
        say(left or ["nothing is left to run"])
        say(left_alone(found) if how.rerun == "missing" else ())
        return
    begun, backend = how.begin(Path(suite).stem, paper, alone=chosen.alone)
    planned, checks = _planned(rows, how.out), _replayed(paper, device)
    click.echo(conformance_line(checks, device))
    outcomes = run(begun, backend, trials)
    if chosen.keep_model and how.rerun != "none":  # what is not run yet may be chosen
        say(keep_models(rows, outcomes, chosen.keep_model, begun), "note: ", err=True)
    unread: list[str] = []
    runs = [(trial, _stored(folder_of(trial, how.out), unread)) for trial in trials(outcomes)]
    # Where costs are asked for, a run of another machine is no answer.
    runs = [(t, None if r is not None and r.finished and outcomes[t.key] is None else r) for t, r in runs]
    without = [
        trial.command if found is None else found.command
        for trial, found in runs
        if found is None or not (found.finished or found.out_of_memory)
    ]
    unchecked = [
        *_unchecked(chosen),
        *(f"{name}: the data set is not there; bring it with bm3 data" for name in absent),
    ]
    if how.rerun == "none":
        unchecked += [f"{len(without)} of {len(runs)} trials, which are not run: leave --rerun out"] if without else []
        without = []
    study = make_study(
        how.out,
        f"{chosen.title} (only {', '.join(models)})" if models else chosen.title,
        of=[found for _, found in runs if found is not None],
        paper=paper,
        planned=planned,
        conformance=Counter(status.value for status in trace_statuses(checks).values()),
        conformance_device=device.type,
        unchecked=unchecked,
        failed=without,
        of_costs=chosen.alone,
        unread=unread,
        exceptions=chosen.exceptions,
        self_check=[one.model for one in chosen.experiments] if chosen.self_check else None,
    )
    finish(study, begun.folder, formats)


def _planned(rows: Sequence[Row], out: Path) -> list[Planned]:
    """The rows of the plan for its report."""
    from harness.paper.rows import Planned
    from harness.runs.settings import flatten
    from harness.runs.trial import folder_of

    planned = []
    for row in rows:
        settings = [flatten({**asdict(point.config), **asdict(point.training)}) for point in row.points]
        differing = sorted(key for key in settings[0] if any(other[key] != settings[0][key] for other in settings))
        points = tuple(
            (
                {key: of_point[key] for key in differing},
                {s: "/".join(folder_of(replace(point, seed=s), out).parts[-2:]) for s in row.seeds},
            )
            for point, of_point in zip(row.points, settings, strict=True)
        )
        named = row.label if row.outline.named else None
        planned.append(Planned(named, points, row.outline.repeat == "all", row.outline.undeclared))
    return planned


def _stored(path: Path, unread: list[str]) -> RunRecord | None:
    """The run there; None where there is none, or where it cannot be read: why is added to `unread`."""
    from harness.runs.record import RESULT, RUN, RunRecord

    try:
        return RunRecord.read(path) if (path / RUN).is_file() or (path / RESULT).is_file() else None
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
