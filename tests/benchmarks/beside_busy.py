"""A training alone and beside one busy process: `python tests/benchmarks/beside_busy.py [--rounds N] [--model NAME]…`.

Prints Markdown. Every training is a process of its own; alone and beside take turns, and so do the ways in which idle
threads wait: `passive`, as `bm3` has them, and `default`, busily for a while, as OpenMP has them. The busy process is a
loop in Python that may run on any core. Seconds are those of building, training and evaluating, without imports.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median

from tabulate import tabulate

EPOCHS = {"bpr": 40, "lightgcn": 30, "bm3": 20, "mmgcn": 4}
WAITING = {"passive": {"OMP_WAIT_POLICY": "passive"}, "default": {}}
OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


def training(model: str, threads: int) -> None:
    """Train on `mini` in this process, and print the seconds."""
    import torch

    from harness.data import load_dataset
    from harness.evaluation.compiling import use_threads
    from harness.runs.trial import make_trial, run_trial

    use_threads(threads)
    settings = {"epochs": EPOCHS[model], "early_stopping.patience": EPOCHS[model]}
    trial = make_trial(model, load_dataset("mini"), "mini", settings, 1, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as store:
        started = time.perf_counter()
        run_trial(trial, Path(store))
        print(time.perf_counter() - started)


def seconds(model: str, threads: int, waiting: str) -> float:
    """Of a training in a fresh process."""
    environment = {key: value for key, value in os.environ.items() if key not in OURS} | WAITING[waiting]
    command = [sys.executable, __file__, "--train", model, str(threads)]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


@contextmanager
def busy(beside: bool) -> Iterator[None]:
    """With or without a process that is always busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if beside else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", choices=list(EPOCHS), help="default: all four")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", nargs=2, metavar=("MODEL", "THREADS"), help="what this script runs itself by")
    options = parser.parse_args()
    if options.train:
        training(options.train[0], int(options.train[1]))
        return
    rows = []
    for model in options.model or EPOCHS:
        cases = list(product((1, 2), WAITING))
        found: dict[tuple[int, str, bool], list[float]] = {}
        for _, (threads, waiting), beside in product(range(options.rounds), cases, (False, True)):
            with busy(beside):
                found.setdefault((threads, waiting, beside), []).append(seconds(model, threads, waiting))
        for threads, waiting in cases:
            alone, crowded = (median(found[threads, waiting, beside]) for beside in (False, True))
            rows.append([model, threads, waiting, f"{alone:.2f}", f"{crowded:.2f}", f"{crowded / alone:.1f}"])
    print(tabulate(rows, ["model", "threads", "waiting", "alone (s)", "beside (s)", "ratio"], tablefmt="github"))


if __name__ == "__main__":
    main()
