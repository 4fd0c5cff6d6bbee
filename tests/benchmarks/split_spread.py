"""How much a random split moves R@20: `python tests/benchmarks/split_spread.py --data DIR --work DIR`.

The real interactions of a data set are divided anew by the published rule with several seeds, and a model is trained on
each division and on the authors' own. What is finished in the working folder is not run again.
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from tabulate import tabulate

from harness.data import PARTS, load_dataset, random_user_split
from harness.data.files import new_folder
from harness.measure.environment import environment
from harness.runs.trial import Trial, make_trial
from harness.studies.backends import Processes
from harness.studies.execution import execute, metric_of

CPU = torch.device("cpu")
SETTINGS = {"n_layers": 4, "reg_weight": 1e-4}  # LightGCN's best on the authors' split of Baby
SEED = 999


def divided(dataset: str, data: Path, work: Path, seed: int) -> Path:
    """A folder with the data set's interactions divided anew; features are left out."""
    folder = work / "data" / f"{dataset}-split{seed}"
    if not folder.is_dir():
        known = load_dataset(dataset, data)
        pairs = np.concatenate([known.part(part) for part in PARTS])
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]  # whichever part a pair was in is forgotten
        with new_folder(folder) as made:
            np.savez_compressed(made / "interactions.npz", **random_user_split(pairs, np.random.default_rng(seed)))
    return folder


def trial(model: str, dataset: str, data: Path) -> Trial:
    return make_trial(model, load_dataset(dataset, data), dataset, SETTINGS, SEED, CPU)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="baby")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folders = [divided(options.dataset, options.data, options.work, seed) for seed in range(1, options.splits + 1)]
    own = trial("lightgcn", options.dataset, options.data)
    trials = [own, *(trial("lightgcn", str(folder), options.work) for folder in folders)]
    store = options.work / "runs"
    found = execute(
        lambda outcomes: trials, store, Processes(store, options.data.resolve(), options.workers, threads=1)
    )
    rows, tests = [], []
    for name, one in zip(["the authors'", *(folder.name for folder in folders)], trials, strict=True):
        run = found[one.key]
        if run is None:
            raise SystemExit(f"{one.command}: has no result; see {store / one.key}")
        values = [metric_of(run, part, "recall@20") for part in ("valid", "test")]
        parts = [len(one.dataset.part(part)) for part in PARTS]
        rows.append([name, *parts, (run.result or {})["best_epoch"], *(f"{value:.4f}" for value in values)])
        tests.append(values[1])
    again = tests[1:]
    print(f"LightGCN, {SETTINGS}, seed {SEED}; torch {torch.__version__}, {environment(CPU)['cpu']}.\n")
    head = ["split", *PARTS, "best epoch", "valid R@20", "test R@20"]
    print(tabulate(rows, head, tablefmt="github", disable_numparse=True))
    print(
        f"\nTest R@20 of the {len(again)} new splits: mean {mean(again):.4f}, standard deviation {stdev(again):.4f} "
        f"({100 * stdev(again) / mean(again):.1f} %), from {min(again):.4f} to {max(again):.4f} "
        f"({100 * (max(again) / min(again) - 1):.1f} %). The authors' split gives {tests[0]:.4f}, "
        f"{100 * (tests[0] / mean(again) - 1):+.1f} % of their mean."
    )


if __name__ == "__main__":
    main()
