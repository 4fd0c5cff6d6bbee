"""What the commands that run studies share: which back end runs the trials, and the display of progress."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from bm3 import ConfigError
from harness.ending import keeping

if TYPE_CHECKING:
    import torch

    from harness.paper.conformance import Check
    from harness.paper.load import Paper
    from harness.paper.study import Study as Report
    from harness.runs.trial import Trial
    from harness.studies.conduct import Study
    from harness.studies.execute import Backend
    from harness.studies.local import Need
    from harness.studies.suite import Outcomes


def workers_for(
    workers: int | None, device: torch.device, *, in_process: bool, ray_address: str | None, alone: bool = False
) -> int:
    """Trials side by side: as asked, else one, or on CUDA one per GPU; one where trials are to be `alone`.

    Raises ConfigError for options that exclude each other.
    """
    from harness.studies.local import visible_gpus

    if in_process and (ray_address or workers not in (None, 1)):
        raise ConfigError("--in-process runs trials one by one in this process: leave --workers and --ray out")
    if alone and workers not in (None, 1):
        raise ConfigError("this suite measures time, so its trials run one by one: leave --workers out")
    if alone or in_process:
        return 1
    return workers or (max(1, len(visible_gpus())) if device.type == "cuda" else 1)


def backend_for(
    store: Path,
    data: Path | None,
    *,
    workers: int,
    threads: int | None,
    in_process: bool,
    ray_address: str | None,
    paper: Paper,
) -> Backend:
    """The back end that the options name. Raises ConfigError where Ray or its cluster is not there."""
    from harness.evaluation.compiling import use_threads
    from harness.studies.local import InProcess, Processes, threads_beside
    from harness.studies.ray import RayCluster

    if in_process:
        if threads is not None:
            use_threads(threads)
        return InProcess(store)
    threads, need = threads or threads_beside(workers), needed_memory(store, paper)
    if ray_address:
        return RayCluster(ray_address, store, data, threads, need, workers=workers)
    return Processes(store, data, workers, threads, need)


def needed_memory(store: Path, paper: Paper) -> Need:
    """What past runs say that a trial needs."""
    from harness.runs.store import readable_runs
    from harness.studies.estimate import COST_FILE, Estimates, load_costs

    estimates = Estimates(readable_runs(store), load_costs(paper.file(COST_FILE)))

    def need(trial: Trial) -> int | None:
        estimate = estimates.of(trial)
        return None if estimate is None else estimate.memory_bytes

    return need


def run_study(study: Study, backend: Backend) -> Outcomes:
    """Run a study with its progress shown. Raises Interrupted on Ctrl-C and SIGTERM."""
    from harness.cli.study_progress import StudyProgress
    from harness.studies.conduct import conduct

    kept = f"finished trials are kept in {study.store}; the same command goes on from there"
    with keeping(lambda: kept), StudyProgress() as progress:
        return conduct(study, backend, progress.update)


def conformance_line(checks: list[Check]) -> str:
    """How many recorded traces passed, failed and could not be replayed."""
    from harness.paper.conformance import Status, trace_statuses

    counts = Counter(trace_statuses(checks).values())
    return ", ".join(f"{counts[status]} {status.value}" for status in Status)


def finish(study: Report, folder: Path, formats: list[str]) -> NoReturn:
    """Write a report, print how it begins and where it is, and leave with its verdict as exit code."""
    from harness.report.markdown import markdown
    from harness.report.write import write_report

    paths = write_report(study, folder, formats)
    click.echo(markdown(study).split("\n## ")[0].rstrip() + "\n")
    for path in paths:
        click.echo(f"report: {path}")
    sys.exit(study.code)
