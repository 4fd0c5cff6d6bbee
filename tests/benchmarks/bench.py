"""What the benchmarks share: data, training steps, alternating timing. What is measured is in the tests."""

import itertools
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from textbook import Textbook

from bm3 import Batch, Data
from harness.data.dataset import Dataset
from harness.data.layouts import load_dataset
from harness.measure.environment import environment
from harness.tools.scaling.measure import Sizes, power_law_dataset
from harness.training.optimiser import adam
from harness.training.steps import make_deterministic, train_step

N_USERS, N_ITEMS, N_INTERACTIONS = 19_445, 7_050, 118_551
FEATURE_WIDTHS = {"visual": 4096, "text": 384}
BATCH_SIZE, LEARNING_RATE = 2048, 1e-3
DATA_VARIABLE, ROUNDS_VARIABLE = "BM3_BENCH_DATA", "BM3_BENCH_ROUNDS"

Key = TypeVar("Key", bound=str)
Step = Callable[[], object]


class Steps(NamedTuple):
    """Training steps of one model, each on the next batch."""

    plain: Step
    first: Step
    """The first of an epoch, with what the model renews then."""
    state: Step
    """Reads the model's state, as after an epoch: what steps put off until it is asked for is done then."""


def our_steps(model: Any, batches: list[Batch]) -> Steps:
    """Steps as `harness.training.fit` does them: its optimiser, deterministic algorithms."""
    optimiser = adam(model, LEARNING_RATE)
    supply = itertools.cycle(batches)
    epoch = torch.Generator().manual_seed(1)

    def plain() -> None:
        make_deterministic()
        train_step(model, optimiser, next(supply))

    def first() -> None:
        model.start_epoch(epoch)
        plain()

    return Steps(plain, first, model.state_dict)


def textbook_steps(textbook: Textbook, batches: list[Batch]) -> Steps:
    """Steps of a textbook model: torch's default Adam, and none of the cost of deterministic algorithms."""
    optimiser = torch.optim.Adam(textbook.trained(), lr=LEARNING_RATE)
    supply = itertools.cycle(batches)

    def plain() -> None:
        torch.use_deterministic_algorithms(False)
        textbook.zero_grad()  # also of what does not train, or its gradients would be added up at a cost
        textbook.loss(next(supply)).backward()
        optimiser.step()
        textbook.after_step()

    def first() -> None:
        textbook.start_epoch()
        plain()

    return Steps(plain, first, textbook.state_dict)


def alternating(steps: Mapping[Key, Step], rounds: int) -> dict[Key, list[float]]:
    """Seconds of each step in each round; every round runs each step once, so load on the machine meets them all."""
    seconds: dict[Key, list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[key].append(time.perf_counter() - started)
    return seconds


def medians(steps: Mapping[Key, Step], rounds: int) -> dict[Key, float]:
    """Median seconds of each step when they alternate."""
    return {key: statistics.median(times) for key, times in alternating(steps, rounds).items()}


def rounds(default: int) -> int:
    """How often to measure: $BM3_BENCH_ROUNDS, else the default."""
    return int(os.environ.get(ROUNDS_VARIABLE, default))


def benchmark_data() -> Data:
    """The real data set in the folder $BM3_BENCH_DATA, else a random one of Baby's size."""
    folder = os.environ.get(DATA_VARIABLE)
    return load_dataset(folder) if folder else baby_sized()


def benchmark_dataset() -> Dataset:
    """The same with validation and test parts."""
    data = benchmark_data()
    return data if isinstance(data, Dataset) else with_held_out(data, np.random.default_rng(2024))


def is_synthetic() -> bool:
    """Whether figures are of the random data, for which ratios are asserted."""
    return not os.environ.get(DATA_VARIABLE)


def baby_sized() -> Data:
    """Power laws that give about the distinct users and items per batch of the real Baby split (1,903 and 1,459)."""
    sizes = Sizes(users=N_USERS, items=N_ITEMS, interactions=N_INTERACTIONS, width=max(FEATURE_WIDTHS.values()))
    made = power_law_dataset(sizes)
    features = {m: np.ascontiguousarray(made.features[m][:, :width]) for m, width in FEATURE_WIDTHS.items()}
    for table in features.values():
        table.flags.writeable = False  # as data sets have them
    return Data(N_USERS, N_ITEMS, made.train.astype(np.int64), features)


def with_held_out(data: Data, draw: np.random.Generator) -> Dataset:
    """Two more items for every user, by popularity: for validation and for test. The real Baby has 20,559 and 21,682.

    Not by `checked_dataset`: some of the random users and items have no training interaction.
    """
    popularity = 1.0 + np.bincount(data.train[:, 1], minlength=data.n_items)
    users = np.arange(data.n_users)
    taken, parts = data.train[:, 0].astype(np.int64) * data.n_items + data.train[:, 1], []
    for _ in range(2):
        items = np.empty_like(users)
        again = users
        while len(again):
            items[again] = draw.choice(data.n_items, len(again), p=popularity / popularity.sum())
            again = users[np.isin(users * data.n_items + items, taken)]
        taken = np.concatenate([taken, users * data.n_items + items])
        parts.append(np.stack([users, items], axis=1).astype(np.int32))
    train = data.train.astype(np.int32)
    sizes = data.n_users, data.n_items
    return Dataset(*sizes, train, data.features, name="random", valid=parts[0], test=parts[1])


def random_batches(data: Data, draw: np.random.Generator) -> list[Batch]:
    """The full batches of one shuffled epoch, with negatives uniform over all items."""
    pairs = draw.permutation(data.train).astype(np.int64)
    negatives = draw.integers(data.n_items, size=len(pairs))
    columns = torch.from_numpy(np.column_stack([pairs, negatives])).T.contiguous()
    full = len(pairs) // BATCH_SIZE * BATCH_SIZE
    return [Batch(*columns[:, start : start + BATCH_SIZE]) for start in range(0, full, BATCH_SIZE)]


def steps_per_epoch(data: Data) -> int:
    return -(-len(data.train) // BATCH_SIZE)


def described(data: Data) -> str:
    """Two lines on the data and the batch size, for a report."""
    made = "random, power-law; the size of Baby" if is_synthetic() else "a real data set"
    widths = " and ".join(f"{table.shape[1]}-d" for table in data.features.values())
    surrogates = "surrogate " if getattr(data, "surrogates", ()) else ""
    return f"""{data.n_users:,} users, {data.n_items:,} items, {len(data.train):,} training interactions ({made}),
{"random " if is_synthetic() else surrogates}features of {widths}, batch {BATCH_SIZE}"""


def machine() -> str:
    """A line on where figures are from."""
    where = environment(torch.device("cpu"))
    source = f"{where['source_revision']}{' with uncommitted changes' if where['source_dirty'] else ''}"
    return (
        f"{where['cpu']}, {where['logical_cores']} logical cores, {where['torch_threads']} torch threads; "
        f"torch {where['torch']}, Python {where['python']}, source {source}"
    )
