"""Faults of the kinds that implementations of these models have had, each planted into the loaded program by its name.

`tests/benchmarks/self_check.py` counts which of them the self-check and conformance find. The list was written before
either was tuned to it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

import bm3.graph
import bm3.model
import harness.models.base
from harness import training
from harness.evaluation import ranking
from harness.models.buir import BUIR
from harness.training import batches, optimiser
from harness.training.optimiser import BETAS


def put(original: Any, replacement: Any) -> None:
    """Replace a function in every module that has it."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("bm3", "harness"):
            for key, value in list(vars(module).items()):
                if value is original:
                    setattr(module, key, replacement)


def dropout_not_rescaled() -> None:
    """BM3's survivors of dropout are not scaled by 1/(1−p)."""
    target = bm3.model.BM3._target

    def unscaled(self: Any, *arguments: Any) -> Tensor:
        return target(self, *arguments) * (1 - self.config.dropout)

    bm3.model.BM3._target = unscaled  # type: ignore[method-assign]


def stop_gradient_gone() -> None:
    """Gradients flow into BM3's targets."""
    loss = bm3.model.BM3.loss

    def through(self: Any, *arguments: Any) -> Any:
        with _without_detach():
            return loss(self, *arguments)

    bm3.model.BM3.loss = through  # type: ignore[method-assign]


@contextmanager
def _without_detach() -> Iterator[None]:
    detach = Tensor.detach
    Tensor.detach = lambda self: self  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        Tensor.detach = detach  # type: ignore[method-assign]


def normalised_by_rows() -> None:
    """D⁻¹A in place of D^{-1/2} A D^{-1/2}."""

    def by_rows(adjacency: sparse.csr_array, offset: float = 0.0) -> sparse.csr_array:
        degree = np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1)
        return sparse.csr_array(sparse.diags_array(1 / degree) @ adjacency)

    put(bm3.graph.symmetric_normalised, by_rows)


def layers_summed() -> None:
    """The readout is the sum over layers, not their mean."""
    readout = bm3.graph.mean_readout
    put(readout, lambda propagate, h0, n_layers: readout(propagate, h0, n_layers) * (n_layers + 1))


def mask_of_another_part() -> None:
    """Validation items are masked in place of training items."""
    make = ranking.Evaluator.__init__

    def other(self: Any, dataset: Any, part: Any, **options: Any) -> None:
        make(self, dataset, part, **options)
        masked = dataset.valid[np.argsort(dataset.valid[:, 0], kind="stable")]
        self._masked_items = torch.from_numpy(masked[:, 1].astype(np.int64))
        self._masked_first = np.searchsorted(masked[:, 0], np.arange(dataset.n_users + 1))

    ranking.Evaluator.__init__ = other  # type: ignore[method-assign]


def negatives_are_positives() -> None:
    """Each negative is one of the user's own training items."""

    def own(self: Any, users: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        first = np.searchsorted(self._seen, users * self._n_items)
        end = np.searchsorted(self._seen, (users + 1) * self._n_items)
        return np.asarray(self._seen[generator.integers(first, end)] % self._n_items)

    batches.NegativeSampler.draw = own  # type: ignore[method-assign]


def negatives_unchecked() -> None:
    """Negatives are drawn from all items, the user's own included."""

    def unchecked(self: Any, users: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        return np.asarray(self._candidates[generator.integers(len(self._candidates), size=len(users))])

    batches.NegativeSampler.draw = unchecked  # type: ignore[method-assign]


def learning_rate_doubled() -> None:
    """Training steps with twice the rate that is set."""
    _learning_rate(2.0)


def learning_rate_halved() -> None:
    """Training steps with half the rate that is set."""
    _learning_rate(0.5)


def _learning_rate(factor: float) -> None:
    given = optimiser.set_learning_rate
    put(given, lambda adam, model, rate, epoch: given(adam, model, factor * rate, epoch))


def regulariser_per_item() -> None:
    """The pairwise models' norms are divided by the number of items, not by that of the batch."""
    norms = harness.models.base.batch_norms

    def per_item(*rows: Tensor) -> Tensor:
        model = sys._getframe(1).f_locals["self"]
        n_items = model.n_items if hasattr(model, "n_items") else len(model.item_embedding)
        return norms(*rows) * len(rows[0]) / n_items

    put(norms, per_item)


def bias_correction_missing() -> None:
    """Adam's moments are used as they are, as if they had not begun at zero."""
    step = optimiser.Adam.step

    def uncorrected(self: Any, closure: None = None) -> None:
        self._made = getattr(self, "_made", 0) + 1
        factor = (1 - BETAS[0] ** self._made) / (1 - BETAS[1] ** self._made) ** 0.5
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        step(self, closure)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate

    optimiser.Adam.step = uncorrected  # type: ignore[method-assign]


def item_ids_shifted() -> None:
    """Training batches name the item after the one that is meant."""
    epoch = batches.EpochBatches.epoch

    def shifted(self: Any, number: int) -> Any:
        n_items = int(self._train[:, 1].max()) + 1
        for batch in epoch(self, number):
            yield batch._replace(items=(batch.items + 1) % n_items)

    batches.EpochBatches.epoch = shifted  # type: ignore[method-assign]


def features_of_other_items() -> None:
    """Each item has the features of the item before it."""
    build = training.build

    def rolled(model: Any, dataset: Any, *arguments: Any) -> Any:
        features = {name: np.roll(table, 1, axis=0) for name, table in dataset.features.items()}
        return build(model, replace(dataset, features=features), *arguments)

    put(build, rolled)


def target_does_not_follow() -> None:
    """BUIR's target encoder stays as it was initialised."""
    BUIR.after_step = lambda self: None  # type: ignore[method-assign,assignment]


def never_shuffled() -> None:
    """Every epoch has its interactions in the order of users."""
    numpy_stream = batches.Streams.numpy

    class Unshuffled:
        def permutation(self, n: int) -> NDArray[np.int64]:
            return np.arange(n)

    def unshuffled(self: Any, name: str, *numbers: int) -> Any:
        return Unshuffled() if name == "shuffle" else numpy_stream(self, name, *numbers)

    batches.Streams.numpy = unshuffled  # type: ignore[method-assign]


def first_rank_lost() -> None:
    """The best item of each user is left out of the list."""
    top_k = ranking.top_k

    def lost(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
        values, items = top_k(scores, k + 1)
        return values[:, 1:], items[:, 1:]

    put(top_k, lost)


FAULTS: dict[str, Callable[[], None]] = {
    function.__name__.replace("_", " "): function
    for function in (
        dropout_not_rescaled,
        stop_gradient_gone,
        normalised_by_rows,
        layers_summed,
        mask_of_another_part,
        negatives_are_positives,
        negatives_unchecked,
        learning_rate_doubled,
        learning_rate_halved,
        regulariser_per_item,
        bias_correction_missing,
        item_ids_shifted,
        features_of_other_items,
        target_does_not_follow,
        never_shuffled,
        first_rank_lost,
    )
}
