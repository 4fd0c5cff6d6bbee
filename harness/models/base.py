"""What the harness asks of a recommender, and the pieces several models share.

The models are one file each beside this one; finding them by name is `registry`.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Loss


@runtime_checkable
class Recommender(Protocol):
    """A `torch.nn.Module` built as `Model(dataset, config, generator)`; parameters that require a gradient train.

    Besides the members below, either `embed() -> (users [U, d], items [I, d])`, whose dot products are the scores, or
    `score(users [n]) -> [n, I]`. Optional: `start_epoch(generator)`, called before each epoch with a fresh stream for
    the model's own random choices; `after_step()`, called after each optimiser step; `parameter_groups()`, groups for
    Adam where they are not simply all trainable parameters; `learning_rate_factor(epoch)`, which multiplies the rate of
    an epoch (from 1); `reads_features = False` where item features take no part.

    A `Config` with a field `train_batch_size` whose default is None is given the training's batch size.
    """

    Config: ClassVar[Any]
    """A frozen dataclass whose fields all have defaults (the published setting where there is one)."""
    uses_negatives: ClassVar[bool]
    """Whether batches carry one sampled negative per interaction."""

    def loss(self, batch: Batch) -> Loss:
        """Mean loss over the batch and its named parts."""


PAIRWISE_OFFSET = 1e-10  # inside the logarithm of the published pairwise loss


def pairwise_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """−log(1e-10 + σ(s_ui − s_uj)), mean over the batch of scores [B] (BPR, UAI 2009; offset of the published code)."""
    return -torch.log(PAIRWISE_OFFSET + torch.sigmoid(positive - negative)).mean()


def batch_norms(*rows: Tensor) -> Tensor:
    """Σ ‖rows‖F / B for tables of the batch's rows [B, d], norms not squared: the published code's regulariser."""
    total = torch.stack([torch.linalg.norm(table) for table in rows]).sum()
    return total / len(rows[0])


def scores_of(users: Tensor, items: Tensor) -> Tensor:
    """Row-wise dot products of [B, d] and [B, d]: [B]."""
    return (users * items).sum(dim=-1)


def rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows of `table` [n, d] by id [B], with repetition: [B, d]."""
    return functional.embedding(ids, table)


def negatives_of(batch: Batch) -> Tensor:
    """The batch's sampled negatives [B]. Raises ValueError when it has none: the caller forgot to draw them."""
    if batch.negatives is None:
        raise ValueError("this model is pairwise and the batch has no negatives")
    return batch.negatives


def xavier_normal(n_rows: int, d: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(n_rows, d), generator=generator))


def xavier_uniform(n_rows: int, d: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_rows, d), generator=generator))


def linear(d_in: int, d_out: int, generator: torch.Generator) -> nn.Linear:
    """x Wᵀ + b with torch's default initialisation, W [d_out, d_in] and b uniform in ±1/√d_in."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, d_in, d_out)
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -(d_in**-0.5), d_in**-0.5, generator=generator)
    return layer
