"""RP3beta: random walks of three steps from a user, popular items held back.

Paudel et al., "Updatable, Accurate, Diverse, and Scalable Recommendations for Interactive Applications", ACM TiiS 2017.
In closed form, sparse throughout.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from harness.common import check_config
from harness.models.closed_form import Grid, ItemToItem, largest, power, scaled, without_diagonal


@dataclass(frozen=True, kw_only=True)
class RP3betaConfig:
    """Settings of RP3beta."""

    neighbours: int = 200
    """k, items that each item leads to: the likeliest ones."""
    alpha: float = 0.8
    """Power of a walk's probability."""
    beta: float = 0.1
    """Power of an item's degree, by which its scores are divided: 0 leaves popular items as they are."""

    GRID: ClassVar[Grid] = {"alpha": (0.6, 0.8, 1.0), "beta": (0.0, 0.1, 0.3)}

    def __post_init__(self) -> None:
        check_config(self, neighbours=1, alpha=0, beta=0)


class RP3beta(ItemToItem):
    """B = (Q P)^∘α D_i^−β with the k largest entries of each row, P = D_u⁻¹ R and Q = D_i⁻¹ Rᵀ."""

    Config = RP3betaConfig

    def weights(self) -> csr_array:
        R, degrees = self.R.astype(np.float64), self.degrees.cpu().numpy()
        P = scaled(power(R.sum(axis=1), -1), R, np.ones(R.shape[1]))  # [U, I]
        Q = scaled(power(degrees, -1), R.T, np.ones(R.shape[0]))  # [I, U]
        walks = without_diagonal(Q @ P)
        walks.data **= self.config.alpha
        return largest(scaled(np.ones(len(degrees)), walks, power(degrees, -self.config.beta)), self.config.neighbours)
