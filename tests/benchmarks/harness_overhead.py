"""What the harness costs over the bare training loop: `python tests/benchmarks/harness_overhead.py [DATASET]`.

The bare loop is what anybody would write with the same parts: batches, steps, an evaluation after every epoch, the best
state kept, the test part in the end. `run_trial` does that too, and times and samples memory, writes records, hits,
checkpoints and the result, and shows progress. Both run alternately in this process; the ratio is that of medians.

Freed memory stays with the process (glibc's MALLOC variables, as in `harness.tools.regress.alternation`): otherwise
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
from contextlib import redirect_stderr
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate

from harness.cli.progress import TrainingProgress
from harness.evaluation import Evaluation
from harness.evaluation.compiling import use_threads
from harness.measure.environment import environment
from harness.runs.trial import Trial, dataset_for, make_trial, run_trial
from harness.tools.regress.measure import KEEP_MEMORY
from harness.training import Streams, build
from harness.training.batches import EpochBatches
from harness.training.config import STOPPING_METRIC
from harness.training.fit import make_deterministic, start_epoch, train_step
from harness.training.optimiser import adam

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
        start_epoch(model, optimiser, trial.training, streams, CPU, epoch)
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
        return dict((run.result or {})["test"])


def seconds(work: object, trial: Trial) -> tuple[float, float, dict[str, float]]:
    """Of wall time, of CPU time, and what was found."""
    started, cpu = time.perf_counter(), time.process_time()
    found = work(trial)  # type: ignore[operator]
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
        times: dict[str, list[float]] = {"bare": [], "harness": []}
        cpu: dict[str, list[float]] = {"bare": [], "harness": []}
        for number in range(options.repetitions + 1):
            if number % 2:  # whoever comes second finds caches and memory as the first left them, so they take turns
                (whole_s, whole_cpu, theirs), (bare_s, bare_cpu, ours) = seconds(whole, trial), seconds(bare, trial)
            else:
                (bare_s, bare_cpu, ours), (whole_s, whole_cpu, theirs) = seconds(bare, trial), seconds(whole, trial)
            cpu["bare"].append(bare_cpu)
            cpu["harness"].append(whole_cpu)
            if ours != theirs:
                sys.exit(f"{model}: the bare loop trains another model, so there is nothing to compare")
            times["bare"].append(bare_s)
            times["harness"].append(whole_s)
        bare_s, whole_s = (median(values[1:]) for values in times.values())  # the first of each warms up
        pairs = sorted(h / b for b, h in zip(times["bare"][1:], times["harness"][1:], strict=True))
        rows.append(
            [
                model,
                epochs,
                f"{bare_s:.2f}",
                f"{whole_s:.2f}",
                f"{100 * (whole_s / bare_s - 1):+.1f}",
                f"{100 * (median(cpu['harness'][1:]) / median(cpu['bare'][1:]) - 1):+.1f}",
                f"{100 * (median(pairs) - 1):+.1f}",
                f"{100 * (pairs[0] - 1):+.1f} to {100 * (pairs[-1] - 1):+.1f}",
            ]
        )
    here = environment(CPU)
    head = [
        "model",
        "epochs",
        "bare (s)",
        "harness (s)",
        "over (%)",
        "CPU time (%)",
        "of pairs, median (%)",
        "of pairs, range (%)",
    ]
    print(f"Data set {options.dataset}, {options.threads} thread(s), {options.repetitions} repetitions, {here['cpu']},")
    print(f"torch {here['torch']}, source {here['source_revision']}{' (changed)' if here['source_dirty'] else ''}.\n")
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
