"""A model's training steps one at a time, for whoever measures or inspects them. `fit` is what trains."""

from collections.abc import Iterator
from itertools import cycle, pairwise
from typing import Any

import torch

from bm3 import Batch, Loss
from harness.data import Dataset
from harness.training.accelerators.prefetch import reads_ahead
from harness.training.batches import EpochBatches
from harness.training.config import TrainingConfig
from harness.training.fit import matmul_precision, start_epoch, train_step
from harness.training.optimiser import adam
from harness.training.streams import Streams


class TrainingSteps:
    """A model's steps as `fit` makes them, one at a time, over the full batches of an epoch in turn."""

    def __init__(
        self, model: Any, dataset: Dataset, training: TrainingConfig, streams: Streams, device: torch.device
    ) -> None:
        self.model, self._training, self._streams, self._device = model, training, streams, device
        self.batches = EpochBatches(
            dataset.train,
            dataset.n_items,
            batch_size=training.batch_size,
            uses_negatives=model.uses_negatives,
            streams=streams,
            device=device,
        )
        self._optimiser = adam(model, training.learning_rate)
        self._ahead = reads_ahead(model)
        self._next: Iterator[tuple[Batch, Batch]] = iter(())

    def start_epoch(self, epoch: int) -> None:
        """All that comes before an epoch's first step (epochs count from 1)."""
        start_epoch(self.model, self._optimiser, self._training, self._streams, self._device, epoch)
        batches = list(self.batches.epoch(epoch))
        # The last batch may be shorter, and would be no measure of a step.
        self._next = pairwise(cycle([batch for batch in batches if len(batch.users) == len(batches[0].users)]))

    def first_step(self, epoch: int) -> None:
        """The beginning of an epoch and its first step."""
        self.start_epoch(epoch)
        self.step()

    def step(self) -> Loss:
        """The next step of the epoch that was started, and its loss."""
        batch, following = next(self._next)
        with matmul_precision(self._training.precision):
            return train_step(self.model, self._optimiser, batch, following if self._ahead else None)
