"""Running the trials of a study.

A trial runs in a process of its own, as the `bm3 train` command that repeats it, so that memory is measured apart and
a crash costs one trial.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bm3 import BM3Error
from harness.experiments.store import StoredRun, find_run
from harness.experiments.suite import Row
from harness.experiments.trial import Trial
from harness.training.config import STOPPING_METRIC

Execute = Callable[[Trial], StoredRun | None]
"""Runs a trial; None when it failed."""


def run_row(row: Row, execute: Execute) -> Iterator[StoredRun | None]:
    """Runs of a row in order: grid points, then the point best on validation with the other seeds."""
    searched: list[tuple[Trial, StoredRun]] = []
    for trial in row.points:
        run = execute(trial)
        yield run
        if run is not None:
            searched.append((trial, run))
    if searched:
        best, _ = max(searched, key=lambda pair: metric_of(pair[1], "valid", STOPPING_METRIC))
        for trial in row.repeats(best):
            yield execute(trial)


def metric_of(run: StoredRun, part: str, metric: str) -> float:
    """A metric of a finished run. Raises ValueError when it is unfinished."""
    if run.result is None:
        raise ValueError(f"{run.path} is unfinished")
    return float(run.result[part][metric])


def run_in_process(trial: Trial, out: Path, data: Path | None, threads: int | None) -> StoredRun | None:
    """Run a trial as a `bm3` command of its own; None when that fails, whose message is then on standard error.

    A trial that is stored and finished is not run again. Raises KeyboardInterrupt when the command was interrupted.
    """
    finished = find_run(out, trial.key)
    if finished is not None:
        return finished
    options = ["--out", str(out)]
    if data is not None:
        options += ["--data", str(data)]
    if threads is not None:
        options += ["--threads", str(threads)]
    code = subprocess.run([sys.executable, "-m", "harness", *trial.arguments, *options], check=False).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        return None
    run = find_run(out, trial.key)
    if run is None:
        raise BM3Error(f"{out / trial.key}: the trial ended well but its result is not there")
    return run
