"""BM3 with frozen features of up to 63,001 items in memory and in their file: memory and time of a step.

    python tests/benchmarks/features_on_disk.py

Prints Markdown. Every line is a process of its own; the files (1 GB) are temporary. Users and interactions are those of
a small random data set, so that what grows is the table alone.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from bm3 import BM3, Batch, BM3Config, Data
from harness.training.fit import make_deterministic, train_step
from harness.training.optimiser import adam

N_USERS, N_INTERACTIONS, BATCH_SIZE, STEPS = 20_000, 200_000, 2048, 40
CASES = [
    ("memory", "float32", 63_001, 4096),
    ("disk", "float32", 63_001, 1024),
    ("disk", "float32", 63_001, 4096),
    ("disk", "float16", 63_001, 4096),
    ("memory", "float32", 15_750, 4096),
    ("disk", "float32", 15_750, 4096),
]


def point(path: str, location: str) -> None:
    """Train a few steps and print JSON: MB of memory of the process's own (no pages of files), ms per step."""
    features = np.load(path, mmap_mode="r" if location == "disk" else None)
    features.flags.writeable = False  # as data sets have them, so that the model needs no copy
    draw = np.random.default_rng(0)
    train = np.stack(
        [draw.integers(N_USERS, size=N_INTERACTIONS), draw.integers(len(features), size=N_INTERACTIONS)], 1
    )
    data = Data(N_USERS, len(features), train, {"visual": features})
    make_deterministic()
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = BM3(data, BM3Config(features="frozen"), torch.Generator().manual_seed(0))
    optimiser = adam(model, 1e-3)
    batches = [
        Batch(*torch.from_numpy(rows.astype(np.int64)).T) for rows in np.array_split(train, len(train) // BATCH_SIZE)
    ]
    seconds = []
    for batch, following in pairwise(batches[: STEPS + 1]):
        started = time.perf_counter()
        loss = train_step(model, optimiser, batch, following).total
        seconds.append(time.perf_counter() - started)
    done.set()
    watcher.join()
    print(json.dumps({"MB": peak[0] / 1e6, "ms": 1e3 * statistics.median(seconds), "loss": loss.item()}))


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell anonymous memory apart")


def write_table(path: Path, precision: str, n_items: int, width: int) -> None:
    """Random features of all items, a few rows at a time."""
    table = np.lib.format.open_memmap(path, "w+", precision, (n_items, width))
    draw = np.random.default_rng(1)
    for start in range(0, n_items, 1024):
        table[start : start + 1024] = draw.standard_normal((min(1024, n_items - start), width), np.float32)
    table.flush()


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for location, precision, n_items, width in CASES:
            path = Path(folder, f"{n_items}-{width}-{precision}.npy")
            if not path.exists():
                write_table(path, precision, n_items, width)
            command = [sys.executable, __file__, str(path), location]
            printed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            figures = f"{printed['MB']:.0f}", f"{printed['ms']:.0f}", f"{printed['loss']:.6f}"
            rows.append((location, precision, f"{n_items:,}", str(width), f"{path.stat().st_size / 1e6:.0f}", *figures))
    headers = ("features", "precision", "items", "d_m", "table, MB", "peak MB of its own", "ms per step", "last loss")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True, colalign=("left", "left", *["right"] * 6)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        point(*sys.argv[1:])
    else:
        main()
