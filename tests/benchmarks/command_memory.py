"""Peak memory of all of `bm3 train` at the size of Baby: `python tests/benchmarks/command_memory.py [MODEL…]`.

Each command is a process of its own on a data set in files, two epochs with validation and a checkpoint after each,
then the test. After STEPS batches an epoch ends: what a step needs, it needs by then. The peak is the system's record
of the process. Another process counts what tensors hold at once at most (`alive.py`). The floor adds it to the peak of
the same command on `mini`, whose data weigh nothing. Prints Markdown, with what importing torch takes, torch with the
harness, and torch with numba and a first compiled loop.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from processes import markdown, run

STEPS = 10
WANTED = {
    "bpr": 400,
    "lightgcn": 400,
    "vbpr": 500,
    "bm3": 800,
    "bm3 features=frozen": 480,
    "lattice": 1000,
    "grcn": 700,
    "dualgnn": 700,
    "mmgcn": 900,
}
"""Command → MB."""
MOVED_BY_ROW = ("bm3",)
"""Commands that load numba, though not on `mini`, whose tables are small."""
WIDTHS = {"visual": 4096, "text": 384}
BEFORE = """
import itertools, sys
from harness.training.batches import EpochBatches
from harness.training.checkpoint import Checkpoints
whole = EpochBatches.epoch
EpochBatches.epoch = lambda *which: itertools.islice(whole(*which), {steps})
Checkpoints.due = property(lambda self: True)
from harness.cli.main import main
main()
"""
ALIVE = Path(__file__).with_name("alive.py")
WITH_HARNESS = "import torch, harness.cli.main, harness.runs.trial, harness.models.registry"
WITH_NUMBA = """
import numpy, torch
from harness.evaluation.compiling import run_compiled
from harness.training.accelerators import compiled
tables, pair = [numpy.ones((9, 64), numpy.float32) for _ in range(3)], numpy.ones(2, numpy.float32)
rows, decays = numpy.arange(9), numpy.ones((2, 9), numpy.float32)
run_compiled(compiled.step, *tables, rows, tables[0].copy(), decays, pair, pair, numpy.ones(3, numpy.float32))
"""


def peak_mb(*arguments: str) -> float:
    """Of Python with these arguments."""
    used = run(*arguments)
    if used.code:
        sys.exit(f"{' '.join(arguments)} failed")
    return used.peak_mb


def write_features(folder: Path) -> None:
    """Random ones of Baby's size."""
    draw = np.random.default_rng(1)
    for name, width in WIDTHS.items():
        table = np.lib.format.open_memmap(folder / f"{name}_feat.npy", "w+", np.float32, (7050, width))
        for rows in np.array_split(table, 50):
            rows[:] = draw.standard_normal(rows.shape, np.float32)


def write_interactions(folder: Path) -> None:
    """Random ones of Baby's size: every user in every part, every item once in training at least."""
    draw, n_users, n_items = np.random.default_rng(2), 19_445, 7050
    weight = (np.arange(n_items) + 20.0) ** -0.8
    users = np.concatenate([np.arange(n_users), draw.integers(n_users, size=120_000)])
    items = draw.choice(n_items, len(users) + 2 * n_users, p=weight / weight.sum())
    users = np.concatenate([users, np.arange(n_users), np.arange(n_users)])
    items[:n_items] = np.arange(n_items)
    part = np.repeat([0, 1, 2], [len(users) - 2 * n_users, n_users, n_users])
    _, first = np.unique(users * n_items + items, return_index=True)
    pairs = np.stack([users, items], axis=1).astype(np.int32)
    parts = {name: pairs[first[part[first] == k]] for k, name in enumerate(("train", "valid", "test"))}
    np.savez(folder / "interactions.npz", **parts)


def main(asked: list[str]) -> None:
    floors = {
        "`import torch`": "import torch",
        "torch and the harness": WITH_HARNESS,
        "torch, numba, a loop": WITH_NUMBA,
    }
    start = {name: peak_mb("-c", code) for name, code in floors.items()}
    rows = [[name, f"{taken:.0f}", "", "", "", ""] for name, taken in start.items()]
    _, harness, numba = start.values()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "baby-sized"
        folder.mkdir()
        write_features(folder)
        write_interactions(folder)
        for command, wanted in WANTED.items():
            model, *settings = command.split()
            if asked and model not in asked:
                continue
            options = [part for setting in settings for part in ("--set", setting)]
            options += ["--epochs", "2", "--threads", "1", "--device", "cpu", "--out"]
            code, alive = BEFORE.format(steps=STEPS), Path(place, "alive")
            peak = peak_mb("-c", code, "train", model, str(folder), *options, f"{place}/runs")
            small = peak_mb("-c", code, "train", model, "mini", *options, f"{place}/small")
            peak_mb(str(ALIVE), str(alive), code, "train", model, str(folder), *options, f"{place}/counted")
            held, loaded = int(alive.read_text()) / 1e6, numba - harness if command in MOVED_BY_ROW else 0.0
            figures = (peak, wanted, small, held, small + held + loaded)
            rows.append([command, *(f"{figure:.0f}" for figure in figures)])
            print(*rows[-1], file=sys.stderr)
    headers = ("command", "peak MB", "wanted", "on mini, MB", "alive, MB", "floor, MB")
    print(markdown(headers, rows))


if __name__ == "__main__":
    main(sys.argv[1:])
