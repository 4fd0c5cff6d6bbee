"""ItemKNN: items that are like a user's own, by the users that they share.

Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; the shrinkage is of later
implementations. In closed form, sparse throughout.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from harness.common import check_config
from harness.models.closed_form import Grid, ItemToItem, largest, without_diagonal


@dataclass(frozen=True, kw_only=True)
class ItemKNNConfig:
    """Settings of ItemKNN."""

    neighbours: int = 200
    """k, items that an item is scored by: the most similar ones."""
    shrink: float = 100.0
    """Added to √(d_i d_j), so that few users in common count less."""

    GRID: ClassVar[Grid] = {"neighbours": (50, 100, 200), "shrink": (0.0, 10.0, 100.0)}

    def __post_init__(self) -> None:
        check_config(self, neighbours=1, shrink=0)


class ItemKNN(ItemToItem):
    """B_ji = (RᵀR)_ji / (√(d_j d_i) + shrink) where j is among the k items most like i, else 0."""

    Config = ItemKNNConfig

    def weights(self) -> csr_array:
        together = without_diagonal(self.R.T.astype(np.float64) @ self.R).tocoo()  # users in common
        degrees = self.degrees.cpu().double().numpy()
        row, column = together.coords
        cosine = together.data / (np.sqrt(degrees[row] * degrees[column]) + self.config.shrink)
        similar = csr_array((cosine, (row, column)), shape=together.shape)
        return csr_array(largest(similar, self.config.neighbours).T)
