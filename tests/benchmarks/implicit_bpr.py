"""An epoch of BPR beside one of the `implicit` library's: `python tests/benchmarks/implicit_bpr.py DATASET [EPOCHS]`.

Both have 64 values per node (there one is a bias), one thread, and alternate in this process. Seconds are the
processor's: evaluations and other processes are not in them. Ours steps by Adam on batches of 2,048, theirs after every
pair by plain gradient descent, so it is what an epoch costs that is compared, not what it learns. Without the library
(`pip install implicit`) it says so and ends.
"""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median

import numpy as np
import torch
from processes import markdown
from scipy import sparse

from harness.data.layouts import load_dataset
from harness.models.bpr import BPR, BPRConfig
from harness.training.config import TrainingConfig
from harness.training.fit import build
from harness.training.steps import TrainingSteps, make_deterministic
from harness.training.streams import Streams

CPU = torch.device("cpu")
FIRST = 2  # epochs that are not counted


def main(name: str, epochs: int) -> None:
    if find_spec("implicit") is None:
        sys.exit("skipped: the library implicit is not installed (pip install implicit)")
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    torch.set_num_threads(1)
    make_deterministic()
    dataset, streams = load_dataset(name), Streams(1)
    # Without an epoch after it nothing is drawn ahead in another thread, whose time would be counted here.
    steps = TrainingSteps(
        build(BPR, dataset, BPRConfig(), streams, CPU), dataset, TrainingConfig(epochs=1), streams, CPU
    )
    ones = np.ones(len(dataset.train), np.float32)
    matrix = sparse.csr_matrix((ones, (dataset.train[:, 0], dataset.train[:, 1])))
    theirs = BayesianPersonalizedRanking(factors=63, iterations=1, num_threads=1, random_state=1)

    def epoch() -> None:
        steps.prepare(1)
        for _ in steps.epoch(1):
            pass

    sides: dict[str, Callable[[], object]] = {
        "ours": epoch,
        "implicit": lambda: theirs.fit(matrix, show_progress=False),
    }
    sides["of ours: batches and negatives"] = lambda: list(steps.batches.epoch(1))
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(FIRST + epochs):
        for side, run in sides.items():
            began = time.process_time()
            run()
            seconds[side].append(time.process_time() - began)
    medians = {side: median(taken[FIRST:]) for side, taken in seconds.items()}
    rows = [[side, f"{1e3 * taken:.0f}", f"{taken / medians['implicit']:.1f}"] for side, taken in medians.items()]
    print(markdown(["BPR", "ms per epoch", "times implicit"], rows))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8)
