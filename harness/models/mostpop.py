"""Most popular: the same items for everybody, by how many users have them.

In closed form; what personalisation adds is seen beside it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bm3 import Data
from harness.models.closed_form import ClosedForm, interactions


@dataclass(frozen=True, kw_only=True)
class MostPopConfig:
    """There is nothing to set."""


class MostPop(ClosedForm):
    """s_ui = d_i."""

    Config = MostPopConfig
    draws = False
    reads_features = False
    items: Tensor

    def __init__(self, data: Data, config: MostPopConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.data = config, data
        self.register_buffer("items", torch.zeros(data.n_items, 1))

    def fit(self) -> None:
        """d_i, training interactions of each item."""
        self.items.copy_(torch.from_numpy(interactions(self.data).sum(axis=0))[:, None])

    def embed(self) -> tuple[Tensor, Tensor]:
        """(1 [U, 1], d_i [I, 1])."""
        return self.items.new_ones(self.data.n_users, 1), self.items
