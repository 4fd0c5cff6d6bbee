"""What a training step of BM3 costs at the size of Baby, against the textbook step of the same model.

    pytest tests/benchmarks --benchmark-only -s

About 2 GB of memory and half a minute on two cores. Seconds depend on the machine; the ratio within one run is
asserted. With BM3_BENCH_REPORT=FILE the table is also written to FILE as Markdown.
"""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from tabulate import tabulate
from textbook import TextbookBM3

from bm3 import BM3, Batch, BM3Config, Data
from harness.measure.environment import environment
from harness.training.fit import make_deterministic

N_USERS, N_ITEMS, N_INTERACTIONS = 19_445, 7_050, 118_551
FEATURE_WIDTHS = {"visual": 4096, "text": 384}
BATCH_SIZE, LEARNING_RATE = 2048, 1e-3
STEPS_PER_EPOCH = -(-N_INTERACTIONS // BATCH_SIZE)
WARM_UP, ROUNDS = 3, 30
MIN_RATIO = 5.0  # frozen BM3 takes at most a fifth of the textbook's time

Step = Callable[[], None]


def test_step_of_bm3_at_baby_size(benchmark: BenchmarkFixture, determinism_as_before: None) -> None:
    data = baby_sized(np.random.default_rng(2023))
    batches = random_batches(data.train, np.random.default_rng(1))
    steps = {
        "textbook": textbook_step(data, batches),
        "BM3 trained": bm3_step(data, batches, "trained"),
        "BM3 frozen": bm3_step(data, batches, "frozen"),
    }
    alternating(steps, WARM_UP)
    seconds = alternating(steps, ROUNDS)
    benchmark.pedantic(steps["BM3 frozen"], rounds=ROUNDS)

    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: medians["textbook"] / median for name, median in medians.items()}
    benchmark.extra_info["textbook_over_frozen"] = ratios["BM3 frozen"]
    benchmark.extra_info["textbook_over_trained"] = ratios["BM3 trained"]
    print("\n" + table(seconds, ratios, "simple"))
    if report := os.environ.get("BM3_BENCH_REPORT"):
        Path(report).write_text(markdown(seconds, ratios), encoding="utf-8")
    assert ratios["BM3 frozen"] >= MIN_RATIO


@pytest.fixture
def determinism_as_before() -> Iterator[None]:
    """Puts back torch's determinism, which the steps switch."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def alternating(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round; every round runs each step once, so load on the machine meets them all."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def bm3_step(data: Data, batches: list[Batch], features: str) -> Step:
    """A step as `harness.training.fit` does it: fused Adam, deterministic algorithms."""
    model = BM3(data, BM3Config(features=features), torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    supply = itertools.cycle(batches)

    def step() -> None:
        make_deterministic()
        optimiser.zero_grad()
        model.loss(next(supply)).total.backward()
        optimiser.step()

    return step


def textbook_step(data: Data, batches: list[Batch]) -> Step:
    """A step of the textbook: torch's default Adam, and none of the cost of deterministic algorithms."""
    model = TextbookBM3(data.n_users, data.n_items, data.train, data.features)
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    supply = itertools.cycle(batches)

    def step() -> None:
        torch.use_deterministic_algorithms(False)
        optimiser.zero_grad()
        model.loss(next(supply)).backward()
        optimiser.step()

    return step


def baby_sized(draw: np.random.Generator) -> Data:
    """Power laws that give about the distinct users and items per batch of the real Baby split (1,903 and 1,459)."""
    users, items = _power_law(N_USERS, 20, 0.4), _power_law(N_ITEMS, 10, 0.7)
    keys: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    while len(keys) < N_INTERACTIONS:
        drawn = [draw.choice(len(p), N_INTERACTIONS, p=p) for p in (users, items)]
        keys = np.unique(np.concatenate([keys, drawn[0] * N_ITEMS + drawn[1]]))
    keys = np.sort(draw.choice(keys, N_INTERACTIONS, replace=False))
    features = {m: draw.standard_normal((N_ITEMS, d), dtype=np.float32) for m, d in FEATURE_WIDTHS.items()}
    return Data(N_USERS, N_ITEMS, np.stack([keys // N_ITEMS, keys % N_ITEMS], axis=1), features)


def random_batches(train: NDArray[np.int64], draw: np.random.Generator) -> list[Batch]:
    """The full batches of one shuffled epoch."""
    columns = torch.from_numpy(draw.permutation(train)).T.contiguous()
    full = len(train) // BATCH_SIZE * BATCH_SIZE
    return [Batch(*columns[:, start : start + BATCH_SIZE]) for start in range(0, full, BATCH_SIZE)]


def table(seconds: Mapping[str, list[float]], ratios: Mapping[str, float], tablefmt: str) -> str:
    rows = []
    for name, times in seconds.items():
        q1, median, q3 = statistics.quantiles(times, n=4)
        rows.append(
            (
                name,
                f"{1e3 * median:.1f}",
                f"{1e3 * q1:.1f}–{1e3 * q3:.1f}",
                f"{median * STEPS_PER_EPOCH:.2f}",
                f"{ratios[name]:.1f}",
            )
        )
    headers = ("step", "ms per step (median)", "quartiles", f"s per epoch ({STEPS_PER_EPOCH} steps)", "textbook / this")
    return tabulate(rows, headers, tablefmt=tablefmt, disable_numparse=True, colalign=("left", *["right"] * 4))


def markdown(seconds: Mapping[str, list[float]], ratios: Mapping[str, float]) -> str:
    where = environment(torch.device("cpu"))
    widths = " and ".join(f"{d}-d" for d in FEATURE_WIDTHS.values())
    return f"""# Training step of BM3 against the textbook step

{N_USERS:,} users, {N_ITEMS:,} items, {N_INTERACTIONS:,} training interactions (random, power-law; the size of Baby),
random features of {widths}, batch {BATCH_SIZE}, {ROUNDS} alternating steps each in one process.
The textbook step projects all items, multiplies by a COO adjacency, trains the features and uses torch's default Adam.

{table(seconds, ratios, "github")}

- CPU: {where["cpu"]}, {where["logical_cores"]} logical cores, {where["torch_threads"]} torch threads
- torch {where["torch"]}, Python {where["python"]}
- source {where["source_revision"]}{" with uncommitted changes" if where["source_dirty"] else ""}
- command: `BM3_BENCH_REPORT=FILE pytest tests/benchmarks --benchmark-only -s`
"""


def _power_law(n: int, offset: int, exponent: float) -> NDArray[np.float64]:
    weight = (offset + np.arange(n)) ** -exponent
    return weight / weight.sum()
