"""Seconds and bytes of models at points that differ in one size alone. Exponents are fitted to them in `fit`."""

import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields, replace
from functools import partial
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from bm3 import BM3Error, ConfigError
from harness.data.dataset import Dataset
from harness.evaluation.compiling import use_threads
from harness.evaluation.ranking import Evaluation
from harness.measure.memory import MemorySampler
from harness.measure.timing import seconds_of
from harness.models.registry import ModelEntry, find_model
from harness.runs.settings import configure
from harness.training.fit import build
from harness.training.steps import TrainingSteps, make_deterministic
from harness.training.streams import Streams

FIELDS = {"E": "interactions", "I": "items", "d_m": "width", "d": "embedding", "B": "batch", "L": "layers"}
"""The papers' symbol of each size that grows → its field in `Sizes`."""
SETTINGS = {"d": ("embedding_size", "latent_size"), "L": ("n_layers",)}
"""Sizes that are settings of a model → the names of the setting, of which a model has at most one."""
QUANTITIES = ("step", "epoch", "evaluation")
SEED = 2023
STEPS = 3  # plain steps per repetition
SAMPLING_S = 0.005  # between two looks at the memory of a process

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """What data and training are made of: powers of two by default, so that batches are full and stay so."""

    users: int = 2048
    items: int = 1024
    interactions: int = 32_768
    width: int = 128
    """d_m of the visual features; the text features have a quarter."""
    embedding: int = 32
    batch: int = 256
    layers: int = 1

    def of(self, factor: str) -> int:
        """The size with this symbol."""
        return int(getattr(self, FIELDS[factor]))

    def grown(self, factor: str, by: int) -> "Sizes":
        """One size times `by`, all others as they are."""
        return replace(self, **{FIELDS[factor]: by * self.of(factor)})


WARM_UP = Sizes(users=64, items=32, interactions=256, width=64, embedding=8, batch=64)


@dataclass(frozen=True)
class Plan:
    """How growth is measured. Raises ConfigError for sizes that no data can have."""

    base: Sizes = field(default_factory=Sizes)
    multipliers: tuple[int, ...] = (1, 2, 4, 8, 16)
    """What the size that grows is multiplied by."""
    factors: tuple[str, ...] = tuple(FIELDS)
    """The sizes that grow, one at a time."""
    repetitions: int = 9
    memory_repetitions: int = 5
    """Processes per point; 0 measures no memory."""
    warm_up_s: float = 0.7
    """At each point."""

    def __post_init__(self) -> None:
        for factor in self.factors:
            if factor not in FIELDS:
                raise ConfigError(f"there is no size {factor!r}; choose from {', '.join(FIELDS)}")
            sizes = self.grown(factor)[-1]
            if 2 * sizes.interactions > sizes.users * sizes.items or sizes.batch > sizes.interactions:
                raise ConfigError(
                    f"{factor} times {self.multipliers[-1]} is {sizes.of(factor):,}: more interactions than half of "
                    f"all pairs of users and items, or a batch larger than them; leave the largest of the sizes out"
                )

    def factors_of(self, entry: ModelEntry) -> list[str]:
        """Those that grow and that the model has."""
        own = {each.name for each in fields(entry.model.Config)}
        return [
            factor
            for factor in self.factors
            if (factor != "d_m" or entry.model.reads_features)
            and (factor not in SETTINGS or own.intersection(SETTINGS[factor]))
        ]

    def grown(self, factor: str) -> list[Sizes]:
        """The sizes of all points of one factor, in ascending order."""
        return [self.base.grown(factor, by) for by in self.multipliers]


@dataclass(frozen=True)
class Series:
    """What was measured of one model while one size grew."""

    model: str
    factor: str
    sizes: tuple[int, ...]
    values: Mapping[str, tuple[tuple[float, ...], ...]]
    """`step`, `epoch` and `evaluation` in seconds, `memory` in bytes → per size its repetitions, none if not measured.

    Memory is the peak of loading the data, building the model and some steps, above what the process held before.
    """
    notes: tuple[str, ...] = ()
    """Why something is missing."""


def power_law_dataset(sizes: Sizes) -> Dataset:
    """Distinct random interactions by power laws as in a shop, features of two modalities.

    All interactions are trained on; each user's first one is the validation part too, which is enough to be ranked for.
    """
    draw = np.random.default_rng(SEED)
    users, items = _power_law(sizes.users, 20, 0.4), _power_law(sizes.items, 10, 0.7)
    keys: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    while len(keys) < sizes.interactions:
        drawn = [draw.choice(len(p), sizes.interactions, p=p) for p in (users, items)]
        keys = np.unique(np.concatenate([keys, drawn[0] * sizes.items + drawn[1]]))
    keys = np.sort(draw.choice(keys, sizes.interactions, replace=False))
    train = np.stack([keys // sizes.items, keys % sizes.items], axis=1).astype(np.int32)
    _, first = np.unique(train[:, 0], return_index=True)
    widths = {"visual": sizes.width, "text": max(1, sizes.width // 4)}
    features = {name: draw.standard_normal((sizes.items, d), dtype=np.float32) for name, d in widths.items()}
    return Dataset(sizes.users, sizes.items, train, features, name="power law", valid=train[first], test=train[:0])


def _power_law(n: int, offset: int, exponent: float) -> NDArray[np.float64]:
    """Probabilities [n], highest first."""
    weight = (offset + np.arange(n, dtype=np.float64)) ** -exponent
    return np.asarray(weight / weight.sum(), dtype=np.float64)


class Work:
    """A new model in training as `training.fit` has it, and its evaluation, at one size."""

    def __init__(self, entry: ModelEntry, sizes: Sizes, device: torch.device) -> None:
        make_deterministic()
        dataset = power_law_dataset(sizes)
        own = {each.name for each in fields(entry.model.Config)}
        wanted = {name: sizes.of(factor) for factor, names in SETTINGS.items() for name in names if name in own}
        config, training = configure(entry.model, {**wanted, "batch_size": sizes.batch})
        streams = Streams(0)
        self.model = build(entry.model, dataset, config, streams, device)
        self.steps = TrainingSteps(self.model, dataset, training, streams, device)
        self._evaluation, self._device = Evaluation(dataset, top_k=min(50, sizes.items)), device
        self._epochs = itertools.count(1)
        self.seconds: dict[str, list[float]] = {name: [] for name in QUANTITIES}

    def warm_up(self, seconds: float) -> None:
        """Steps for about so long, and whatever else is done for the first time."""
        self.repeat()
        self.seconds = {name: [] for name in QUANTITIES}
        spent = 0.0
        while spent < seconds:
            spent += self._clocked(self.steps.step)

    def repeat(self) -> None:
        """One more repetition.

        An epoch is its first step, with shuffling, sampling and what the model renews then, as many plain steps as it
        has others, and reading the state, when an optimiser by row does what it put off.
        """
        first = self._clocked(lambda: self.steps.first_step(next(self._epochs)))
        step = median(self._clocked(self.steps.step) for _ in range(STEPS))
        state = self._clocked(self.model.state_dict)
        evaluation = self._clocked(lambda: self._evaluation(self.model, "valid", self._device))
        epoch = first + (len(self.steps.batches) - 1) * step + state
        for name, value in zip(QUANTITIES, (step, epoch, evaluation), strict=True):
            self.seconds[name].append(value)

    def _clocked(self, call: Callable[[], object]) -> float:
        return seconds_of(call, self._device)


def measure(
    models: Sequence[str], plan: Plan, device: torch.device, tell: Tell = lambda text: None
) -> Iterator[Series]:
    """Each model, size by size. `tell` is called with what comes next.

    Times of all points are taken in turn, in a new order in every repetition, so that what slows the machine for a
    while slows all of them. Peak memory on the CPU is that of a process of its own. Raises ConfigError for a model that
    does not exist, and what a model raises; a lack of memory ends in a note.
    """
    for entry in map(find_model, models):
        for factor in plan.factors_of(entry):
            tell(f"{entry.name}: {factor}")
            sizes, notes = plan.grown(factor), list[str]()
            seconds = _times(entry, factor, sizes, plan, device, notes)
            values = {name: tuple(tuple(of[name]) for of in seconds) for name in QUANTITIES}
            if plan.memory_repetitions:
                values["memory"] = tuple(_peaks(entry.name, factor, each, plan, device, notes) for each in sizes)
            yield Series(entry.name, factor, tuple(each.of(factor) for each in sizes), values, tuple(notes))


def _times(
    entry: ModelEntry, factor: str, sizes: Sequence[Sizes], plan: Plan, device: torch.device, notes: list[str]
) -> list[Mapping[str, list[float]]]:
    """Per size the seconds of every quantity."""
    works: dict[int, Work] = {}
    for place, each in enumerate(sizes):
        try:
            work = Work(entry, each, device)
            work.warm_up(plan.warm_up_s)
            works[place] = work
        except (MemoryError, torch.OutOfMemoryError) as error:
            notes.append(f"{factor} = {each.of(factor):,}: too little memory: {error}")
    draw = np.random.default_rng(SEED)
    for _ in range(plan.repetitions):
        for place in draw.permutation(list(works)):
            works[int(place)].repeat()
    nothing: Mapping[str, list[float]] = {name: [] for name in QUANTITIES}
    return [works[place].seconds if place in works else nothing for place in range(len(sizes))]


def _peaks(
    model: str, factor: str, sizes: Sizes, plan: Plan, device: torch.device, notes: list[str]
) -> tuple[float, ...]:
    ask = partial(peak_bytes, model, sizes, device.type, torch.get_num_threads())
    try:
        # The allocator of a CUDA device keeps peaks by itself: no process is needed.
        return tuple(ask() if device.type == "cuda" else _in_fresh_process(ask) for _ in range(plan.memory_repetitions))
    except (MemoryError, torch.OutOfMemoryError) as error:
        notes.append(f"{factor} = {sizes.of(factor):,}: memory: too little of it: {error}")
    except BrokenProcessPool:
        notes.append(f"{factor} = {sizes.of(factor):,}: memory: its process was ended, as when memory runs out")
    return ()


def peak_bytes(model: str, sizes: Sizes, device_type: str, threads: int) -> int:
    """Peak of making the data, building the model and a few steps of two epochs, above what was held before.

    A tiny model of the kind goes before, so that what a process loads once and keeps counts nowhere. On the CPU it
    must be the first that a process does. Raises BM3Error where the system gives no figure.
    """
    device = torch.device(device_type)
    if device.type == "cpu":
        use_threads(threads)
    entry = find_model(model)

    def train(sizes: Sizes) -> None:
        work = Work(entry, sizes, device)
        for epoch in (1, 2):
            work.steps.first_step(epoch)
            work.steps.step()
        work.model.state_dict()

    train(WARM_UP)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    with MemorySampler(device, SAMPLING_S) as sampler:
        train(sizes)
    readings = sampler.readings()
    start, peak = readings["process_rss_start"], readings["process_rss_peak"]
    if device.type == "cuda":
        peak = readings["allocator_peak"]
    if peak.bytes is None or start.bytes is None:
        raise BM3Error(f"peak memory was not measured: {peak.note or start.note}")
    return peak.bytes - (before if device.type == "cuda" else start.bytes)


def _in_fresh_process(function: Callable[[], int]) -> int:
    """Raises what the function raises, and BrokenProcessPool when its process is killed."""
    context = multiprocessing.get_context("forkserver")
    # Each process would load anew, for seconds: this module, and what compiled loops need. One that is not there is
    # left out.
    context.set_forkserver_preload([__name__, "numba"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function).result()
