"""What a recommender is, and what it is trained on. Files, splits and the training loop belong to its user."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """B training interactions: ids [B] each, int64; `negatives` only for models that ask for them."""

    users: Tensor
    items: Tensor
    negatives: Tensor | None = None


class Loss(NamedTuple):
    """`total` is the scalar to differentiate; `parts` are its named terms as they enter it, for reading only."""

    total: Tensor
    parts: Mapping[str, Tensor]


class Recommender(nn.Module):
    """Built as `Model(data, config, generator)` and trained on `loss`: all its parameters that require a gradient.

    What scores depend on belongs to the state (parameters and persistent buffers): the best epoch is restored from it.
    """

    Config: ClassVar[Any]  # a frozen dataclass whose fields have defaults; `VARIANTS` maps some to a `Variant`
    numerics_version: ClassVar[int] = 1  # one more whenever equal seeds train to other numbers, by more than rounding
    uses_negatives: ClassVar[bool] = False  # whether batches carry one sampled negative per interaction
    reads_features: ClassVar[bool] = True  # whether item features take part

    def loss(self, batch: Batch) -> Loss:
        """Mean loss over the batch and its named parts."""
        raise NotImplementedError

    def embed(self) -> tuple[Tensor, Tensor]:
        """Vectors of users [U, d] and items [I, d], whose dot products are the scores."""
        raise NotImplementedError

    def score(self, users: Tensor) -> Tensor:
        """Scores of all items for these users [n]: [n, I]. To be overridden where they are no dot products."""
        user_vectors, item_vectors = self.embed()
        return user_vectors[users] @ item_vectors.T

    def start_epoch(self, generator: torch.Generator) -> None:
        """Before each epoch: `generator` is for the model's own random choices in it."""

    def after_step(self) -> None:
        """After each step of the optimiser."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups; with `weight_decay` where some parameter wants it."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]

    def learning_rate_factor(self, epoch: int) -> float:
        """What the learning rate of an epoch (from 1) is multiplied by."""
        return 1.0
