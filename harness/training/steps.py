"""A model's training steps: the one place where loss, gradient, optimiser and what a model adds are put together.

`fit` makes an epoch's steps; whoever measures or inspects steps makes them one at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import torch

from bm3 import Batch, ConfigError, Loss, Recommender
from harness.data.dataset import Dataset
from harness.models.closed_form import ClosedForm
from harness.training.accelerators.prefetch import fetch, reads_ahead, with_next
from harness.training.batches import EpochBatches
from harness.training.config import MATMUL_PRECISION, TrainingConfig
from harness.training.optimiser import adam, set_learning_rate
from harness.training.streams import Streams


def train_step(model: Recommender, optimiser: Any, batch: Batch, to_fetch: Batch | None = None) -> Loss:
    """One step on the batch, and its loss from before the step. `to_fetch` is the next batch if that is read ahead."""
    optimiser.zero_grad()
    loss = model.loss(batch)
    if to_fetch is not None:
        fetch(model, to_fetch, batch.items.device)
    loss.total.backward()
    optimiser.step()
    model.after_step()
    return loss


class TrainingSteps:
    """The steps of one training, in order of its batches. Raises ConfigError for a model in closed form."""

    def __init__(
        self, model: Recommender, dataset: Dataset, training: TrainingConfig, streams: Streams, device: torch.device
    ) -> None:
        if isinstance(model, ClosedForm):
            name = type(model).__name__.lower()
            raise ConfigError(f"{name} is fitted at once and has no training steps: name another model")
        training.check_device(device.type)
        if device.type == "cuda" and training.precision == "tf32" and torch.cuda.get_device_capability(device) < (8, 0):
            instead = "which this GPU does not have: set precision=float32"
            raise ConfigError(f"TrainingConfig: precision is 'tf32', {instead}")
        self.model, self._training, self._streams, self._device = model, training, streams, device
        self.batches = EpochBatches(
            dataset.train,
            dataset.n_items,
            batch_size=training.batch_size,
            uses_negatives=model.uses_negatives,
            streams=streams,
            device=torch.device("cpu") if reads_ahead(model) else device,  # where who reads ahead looks ids up
        )
        self.optimiser = adam(model, training.learning_rate)
        self._next: Iterator[tuple[Batch, Batch | None]] = iter(())

    def prepare(self, epoch: int) -> None:
        """What comes before the first step of `epoch` (from 1): the model's random choices and the learning rate."""
        self.model.train()
        self.model.start_epoch(self._streams.torch("model", epoch, device=self._device))
        set_learning_rate(self.optimiser, self.model, self._training.learning_rate, epoch)

    def epoch(self, number: int) -> Iterator[Loss]:
        """The losses of an epoch's steps, one per batch; a step is made when its loss is asked for."""
        then = number + 1 if number < self._training.epochs else None
        batches = with_next(self.model, self.batches.epoch(number, then), self._device)
        return (self._make(*batch_and_next) for batch_and_next in batches)

    def start_epoch(self, epoch: int) -> None:
        """Prepare an epoch whose full batches `step` takes in turn, again and again."""
        self.prepare(epoch)
        batches = list(self.batches.epoch(epoch))
        # The last batch may be shorter, and would be no measure of a step.
        full = cycle([batch for batch in batches if len(batch.users) == len(batches[0].users)])
        self._next = with_next(self.model, full, self._device)

    def first_step(self, epoch: int) -> None:
        """The beginning of an epoch and its first step."""
        self.start_epoch(epoch)
        self.step()

    def step(self) -> Loss:
        """The next step of the epoch that was started, and its loss."""
        return self._make(*next(self._next))

    def _make(self, batch: Batch, to_fetch: Batch | None) -> Loss:
        there = [ids.to(self._device, non_blocking=True) for ids in batch if ids is not None]
        with matmul_precision(self._training.precision):
            return train_step(self.model, self.optimiser, Batch(*there), to_fetch)


def make_deterministic() -> None:
    """Let torch use deterministic algorithms only, and whole float32; an operation that has none raises an error that
    names it."""
    torch.set_deterministic_debug_mode("error")  # `use_deterministic_algorithms` would load the compiler too
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision("highest")  # some containers ask for less by default
    # Filling memory that is written next anyway costs time in every step; nothing here reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Matrix products of float32 with factors of the given precision (see `TrainingConfig`), afterwards as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(MATMUL_PRECISION[precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
