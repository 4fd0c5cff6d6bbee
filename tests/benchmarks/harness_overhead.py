"""What the harness costs over the bare training loop: `python tests/benchmarks/harness_overhead.py [DATASET]`.

The bare loop is what anybody would write with the same parts: batches, steps, an evaluation after every epoch, the best
state kept, the test part in the end. `run_trial` does that too, and times and samples memory, writes records, hits,
checkpoints and the result, and shows progress. Both run alternately in this process; the ratio is that of medians.

Freed memory stays with the process (glibc's MALLOC variables, as in `harness.tools.regress.measure`): otherwise
chance decides whether a step gets its tensors anew from the system, which makes LightGCN's take twice as long, in
either loop.
"""

import argparse
import copy
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import torch
from processes import markdown

from harness.cli.progress import TrainingProgress
from harness.evaluation.compiling import use_threads
from harness.evaluation.ranking import Evaluation
from harness.evaluation.words import METRICS
from harness.measure.environment import environment
from harness.runs.trial import Trial, dataset_for, make_trial, run_trial
from harness.tools.regress.measure import KEEP_MEMORY
from harness.training.batches import EpochBatches
from harness.training.config import STOPPING_METRIC
from harness.training.fit import build
from harness.training.optimiser import adam, set_learning_rate
from harness.training.steps import make_deterministic, train_step
from harness.training.streams import Streams

CPU = torch.device("cpu")
EPOCHS = {"baby": {"bpr": 25, "lightgcn": 10, "bm3": 6}, "mini": {"bpr": 100, "lightgcn": 100, "bm3": 100}}


def bare(trial: Trial) -> dict[str, float]:
    """Test metrics of the best epoch, trained without the harness around it."""
    make_deterministic()
    streams = Streams(trial.seed)
    model = build(trial.entry.model, trial.dataset, trial.config, streams, CPU)
    batches = EpochBatches(
        trial.dataset.train,
        trial.dataset.n_items,
        batch_size=trial.training.batch_size,
        uses_negatives=model.uses_negatives,
        streams=streams,
        device=CPU,
    )
    optimiser = adam(model, trial.training.learning_rate)
    evaluate = Evaluation(trial.dataset)
    best, state = -1.0, None
    for epoch in range(1, trial.training.epochs + 1):
        model.start_epoch(streams.torch("model", epoch))
        set_learning_rate(optimiser, model, trial.training.learning_rate, epoch)
        for batch in batches.epoch(epoch):
            train_step(model, optimiser, batch)
        optimiser.catch_up()
        value = round(evaluate(model, "valid", CPU)[STOPPING_METRIC], 4)
        if value > best:
            best, state = value, copy.deepcopy(model.state_dict())
    optimiser.release()
    model.load_state_dict(state)
    return dict(evaluate(model, "test", CPU))


def whole(trial: Trial) -> dict[str, float]:
    """The same through the harness, into a store that is thrown away."""
    with tempfile.TemporaryDirectory() as store, redirect_stderr(io.StringIO()):
        with TrainingProgress("a trial", trial.training.epochs) as progress:
            run = run_trial(trial, Path(store), progress.epoch)
        return {name: value for name, value in run.outcome.test.items() if name.partition("@")[0] in METRICS}


def seconds(work: Callable[[Trial], dict[str, float]], trial: Trial) -> tuple[float, float, dict[str, float]]:
    """Of wall time, of CPU time, and what was found."""
    started, cpu = time.perf_counter(), time.process_time()
    found = work(trial)
    return time.perf_counter() - started, time.process_time() - cpu, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", nargs="?", default="mini", choices=sorted(EPOCHS))
    parser.add_argument("--model", action="append", help="default: three of them")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})
    use_threads(options.threads)
    rows = []
    for model, epochs in EPOCHS[options.dataset].items():
        if model not in (options.model or EPOCHS[options.dataset]):
            continue
        settings = {"epochs": epochs, "early_stopping.patience": epochs}
        trial = make_trial(model, dataset_for({}, options.dataset, options.data), options.dataset, settings, 1, CPU)
        taken = []  # seconds and CPU seconds, bare and with the harness
        for number in range(options.repetitions + 1):
            order = (whole, bare) if number % 2 else (bare, whole)  # the second finds memory as the first left it
            found = {work: seconds(work, trial) for work in order}
            if found[bare][2] != found[whole][2]:
                sys.exit(f"{model}: the bare loop trains another model, so there is nothing to compare")
            taken.append([*found[bare][:2], *found[whole][:2]])
        bare_s, bare_cpu, whole_s, whole_cpu = np.median(taken[1:], axis=0)  # the first of each warms up
        pairs = sorted(100 * (with_harness / alone - 1) for alone, _, with_harness, _ in taken[1:])
        over = [100 * (whole_s / bare_s - 1), 100 * (whole_cpu / bare_cpu - 1), np.median(pairs)]
        of_pairs = f"{pairs[0]:+.1f} to {pairs[-1]:+.1f}"
        rows.append([model, epochs, f"{bare_s:.2f}", f"{whole_s:.2f}", *(f"{share:+.1f}" for share in over), of_pairs])
    here = environment(CPU)
    head = ["model", "epochs", "bare (s)", "harness (s)", "over (%)", "CPU time (%)", "of pairs (%)", "their range (%)"]
    print(f"Data set {options.dataset}, {options.threads} thread(s), {options.repetitions} repetitions, {here['cpu']},")
    print(f"torch {here['torch']}, source {here['source_revision']}{' (changed)' if here['source_dirty'] else ''}.\n")
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
