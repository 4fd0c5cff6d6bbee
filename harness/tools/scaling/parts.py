"""What grows: whole models in training, and the parts of BM3 and LATTICE that have a published cost of their own.

How often and at which sizes they are measured is `scaling`.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bm3 import BM3, BM3Config
from bm3.features import distinct
from bm3.losses import alignment_loss, masked_loss, reconstruction_loss
from harness.data import Dataset
from harness.measure.sizes import FIELDS, Sizes
from harness.models.base import normalise
from harness.models.item_graph import most_similar, normalised_entries, row_blocks, similarities
from harness.models.lattice import LATTICEConfig
from harness.models.registry import ModelEntry, find_model
from harness.runs.settings import configure
from harness.tools.profiling.profile import TrainingSteps
from harness.tools.profiling.roofline import seconds_of
from harness.training import Streams, build
from harness.training.fit import make_deterministic

SETTINGS = {"d": ("embedding_size", "latent_size"), "L": ("n_layers",)}
"""Sizes that are settings of a model → the names of the setting, of which a model has at most one."""
NEIGHBOURS = LATTICEConfig().knn_k
STEPS = 3  # plain steps per repetition
SHORTEST_S = 0.005  # a part that takes less is called several times per reading of the clock


class Work(Protocol):
    """Something built at one size."""

    def settle(self, seconds: float) -> None:
        """Warm up, for about so long, until repetitions are like one another."""

    def repeat(self) -> None:
        """One more repetition."""

    def seconds(self) -> Mapping[str, list[float]]:
        """Quantity (`step`, `epoch`, `call`) → seconds of each repetition.

        Comes last, since it may finish what was put off.
        """


@dataclass(frozen=True)
class Subject:
    """A model, or a part of one, whose cost is measured."""

    model: str
    """Lower-case name."""
    part: str
    """Empty for the whole model."""
    factors: tuple[str, ...]
    """The sizes that it depends on, or could."""
    prepare: Callable[[Dataset, Sizes, torch.device], Work]

    @property
    def name(self) -> str:
        return f"{self.model} {self.part}".strip()


def subjects_of(model: str) -> tuple[Subject, ...]:
    """The model and its parts. Raises ConfigError when there is no such model."""
    entry = find_model(model)
    own = {field.name for field in fields(entry.model.Config)}
    factors = [
        factor
        for factor in FIELDS
        if (factor != "d_m" or entry.reads_features) and (factor not in SETTINGS or own.intersection(SETTINGS[factor]))
    ]
    whole = Subject(entry.name, "", tuple(factors), partial(_Training, entry))
    return (whole, *PARTS.get(entry.name, ()))


def power_law_dataset(sizes: Sizes, draw: np.random.Generator) -> Dataset:
    """Distinct random interactions by power laws as in a shop, features of two modalities; nothing is held out.

    Raises ValueError when interactions are more than half of all pairs, which random draws would hardly find.
    """
    if 2 * sizes.interactions > sizes.users * sizes.items:
        raise ValueError(f"{sizes.interactions} interactions are too many for {sizes.users} users, {sizes.items} items")
    users, items = power_law(sizes.users, 20, 0.4), power_law(sizes.items, 10, 0.7)
    keys: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    while len(keys) < sizes.interactions:
        drawn = [draw.choice(len(p), sizes.interactions, p=p) for p in (users, items)]
        keys = np.unique(np.concatenate([keys, drawn[0] * sizes.items + drawn[1]]))
    keys = np.sort(draw.choice(keys, sizes.interactions, replace=False))
    train = np.stack([keys // sizes.items, keys % sizes.items], axis=1).astype(np.int32)
    widths = {"visual": sizes.width, "text": max(1, sizes.width // 4)}
    features = {name: draw.standard_normal((sizes.items, d), dtype=np.float32) for name, d in widths.items()}
    return training_only(sizes, train, features)


def training_only(sizes: Sizes, train: NDArray[np.int32], features: Mapping[str, NDArray[Any]]) -> Dataset:
    """A data set without held-out parts, which a checked one cannot be."""
    return Dataset("power law", sizes.users, sizes.items, train, train[:0], train[:0], features)


def power_law(n: int, offset: int, exponent: float) -> NDArray[np.float64]:
    """Probabilities [n], highest first."""
    weight = (offset + np.arange(n, dtype=np.float64)) ** -exponent
    return np.asarray(weight / weight.sum(), dtype=np.float64)


class _Training:
    """A new model in training as `harness.training.fit` has it."""

    def __init__(self, entry: ModelEntry, dataset: Dataset, sizes: Sizes, device: torch.device) -> None:
        make_deterministic()
        own = {field.name for field in fields(entry.model.Config)}
        wanted = {name: sizes.of(factor) for factor, names in SETTINGS.items() for name in names if name in own}
        config, training = configure(entry.model, {**wanted, "batch_size": sizes.batch})
        streams = Streams(0)
        model = build(entry.model, dataset, config, streams, device)
        self._steps, self._device = TrainingSteps(model, dataset, training, streams, device), device
        self._epochs = itertools.count(1)
        self._first: list[float] = []
        self._plain: list[float] = []

    def settle(self, seconds: float) -> None:
        self._first_step()
        self._first_step()
        spent = 0.0
        while spent < seconds:
            spent += self._step()

    def repeat(self) -> None:
        self._first.append(self._first_step())
        self._plain.append(median(self._step() for _ in range(STEPS)))

    def seconds(self) -> dict[str, list[float]]:
        # What an optimiser by row puts off is done when the state is read: once per epoch, as before a validation.
        state = seconds_of(self._steps.model.state_dict, self._device)
        others = len(self._steps.batches) - 1
        epochs = [first + others * step + state for first, step in zip(self._first, self._plain, strict=True)]
        return {"step": self._plain, "epoch": epochs}

    def _first_step(self) -> float:
        """Shuffling and sampling an epoch, what the model renews then, and its first step."""
        return seconds_of(lambda: self._steps.first_step(next(self._epochs)), self._device)

    def _step(self) -> float:
        return seconds_of(self._steps.step, self._device)


class _Part:
    """A function that is called again and again."""

    def __init__(self, call: Callable[[], object], device: torch.device) -> None:
        self._call, self._device, self._calls = call, device, 1
        self._seconds: list[float] = []

    def settle(self, seconds: float) -> None:
        self._call()
        spent, calls = 0.0, 0
        while calls < 2 or spent < seconds:
            spent, calls = spent + seconds_of(self._call, self._device), calls + 1
        self._calls = max(1, math.ceil(SHORTEST_S * calls / spent))

    def repeat(self) -> None:
        def several() -> None:
            for _ in range(self._calls):
                self._call()

        self._seconds.append(seconds_of(several, self._device) / self._calls)

    def seconds(self) -> dict[str, list[float]]:
        return {"call": self._seconds}


def _bm3(dataset: Dataset, sizes: Sizes, device: torch.device) -> BM3:
    make_deterministic()
    config = BM3Config(embedding_size=sizes.embedding, n_layers=sizes.layers, features="frozen")
    return BM3(dataset, config, Streams(0).torch("initialisation")).to(device)


def _differentiate(value: Tensor, *by: Tensor) -> None:
    torch.autograd.grad(value, by)


def _propagation(dataset: Dataset, sizes: Sizes, device: torch.device) -> Work:
    """Of all nodes over all edges, L times, and its gradient."""
    model = _bm3(dataset, sizes, device)

    def call() -> None:
        users, items = model.encode()
        _differentiate(users.sum() + items.sum(), model.user_embedding, model.item_embedding)

    return _Part(call, device)


def _projection(dataset: Dataset, sizes: Sizes, device: torch.device) -> Work:
    """Of the distinct items of a batch, as in a step on given features, and its gradient."""
    model = _bm3(dataset, sizes, device)
    items, _ = distinct(torch.from_numpy(_batch_of(dataset, sizes)[:, 1].astype(np.int64)).to(device))
    weights = [linear.weight for linear in model.projections if isinstance(linear, nn.Linear)]

    def call() -> None:
        total = torch.stack([model.project(m, items).sum() for m in range(len(weights))]).sum()
        _differentiate(total, *weights)

    return _Part(call, device)


def _losses(dataset: Dataset, sizes: Sizes, device: torch.device) -> Work:
    """The 2 + 2|M| cosines of a batch's rows, and their gradient."""
    generator = torch.Generator().manual_seed(0)
    n_modalities = len(dataset.features)

    def views(n: int, *, online: bool) -> list[Tensor]:
        shape = n, sizes.batch, sizes.embedding
        return [view.to(device).requires_grad_(online) for view in torch.randn(shape, generator=generator).unbind()]

    online, target = views(2 + n_modalities, online=True), views(2 + n_modalities, online=False)

    def call() -> None:
        terms = (
            reconstruction_loss(online[0], online[1], target[0], target[1]),
            alignment_loss(online[2:], target[1]),
            masked_loss(online[2:], target[2:]),
        )
        _differentiate(torch.stack(terms).sum(dim=0).mean(), *online)

    return _Part(call, device)


def _batch_of(dataset: Dataset, sizes: Sizes) -> NDArray[np.int32]:
    chosen = np.random.default_rng(0).choice(len(dataset.train), sizes.batch, replace=False)
    return dataset.train[chosen]


def _unit_features(dataset: Dataset, device: torch.device) -> Tensor:
    return normalise(torch.from_numpy(np.array(dataset.features["visual"])).to(device))  # [I, d_m]


def _similarity(dataset: Dataset, sizes: Sizes, device: torch.device) -> Work:
    """Cosines of all items with all items, in the blocks that LATTICE's search makes."""
    unit = _unit_features(dataset, device)

    def call() -> None:
        for rows in row_blocks(unit):
            similarities(rows, unit)

    return _Part(call, device)


def _nearest(dataset: Dataset, sizes: Sizes, device: torch.device) -> Work:
    """The k largest of each item's similarities, one block of which stands for all."""
    unit = _unit_features(dataset, device)
    blocks = row_blocks(unit)
    similarity = similarities(blocks[0], unit)

    def call() -> None:
        for rows in blocks:
            most_similar(similarity[: len(rows)], NEIGHBOURS)

    return _Part(call, device)


def _normalisation(dataset: Dataset, sizes: Sizes, device: torch.device) -> Work:
    """D^{-1/2} S D^{-1/2} of the k entries that each row keeps."""
    generator, shape = torch.Generator().manual_seed(0), (sizes.items, NEIGHBOURS)
    columns = torch.randint(sizes.items, shape, generator=generator).to(device)  # [I, k]
    similarity = torch.rand(shape, generator=generator).to(device)  # [I, k]

    def call() -> None:
        normalised_entries(similarity, columns)

    return _Part(call, device)


PARTS = {
    "bm3": (
        Subject("bm3", "propagation", ("E", "I", "d", "B", "L"), _propagation),
        Subject("bm3", "projection", ("I", "d_m", "d", "B"), _projection),
        Subject("bm3", "losses", ("d", "B"), _losses),
    ),
    "lattice": (
        Subject("lattice", "similarity", ("I", "d_m"), _similarity),
        Subject("lattice", "normalisation", ("I",), _normalisation),
        Subject("lattice", "top-k", ("I",), _nearest),
    ),
}
