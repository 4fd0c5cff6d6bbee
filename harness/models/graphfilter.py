"""A graph filter with content: a polynomial of the items' graph, made of shared users and of like features.

The ideas are those of Turbo-CF (Park et al., SIGIR 2024) and MM-GF (arXiv 2503.04406), whose normalisations are others:
no figure of theirs is held against this. In closed form, sparse throughout.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from harness.common import check_config, require
from harness.models.closed_form import ContentConfig, Grid, ItemToItem, content, power, scaled


@dataclass(frozen=True, kw_only=True)
class GraphFilterConfig(ContentConfig):
    """Settings of the graph filter."""

    asymmetry: float = 0.9
    """a in R~ = D_u^-a R D_i^(a−1): how much of the normalisation is by a user's degree rather than by an item's."""
    exponent: float = 0.7
    """s, power of each entry of P."""
    second: float = 0.0
    """b, weight of the second power beside the first."""

    GRID: ClassVar[Grid] = {
        "asymmetry": (0.5, 0.7, 0.9),
        "exponent": (0.7, 1.0),
        "content_weight": (0.03, 0.1, 0.3),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_config(self, asymmetry=0, exponent=0)
        require(self, "asymmetry", self.asymmetry <= 1, "between 0 and 1")
        require(self, "exponent", self.exponent <= 4, "between 0 and 4")
        require(self, "second", abs(self.second) <= 1e6, "between -1e6 and 1e6")


class GraphFilter(ItemToItem):
    """S = R (G + b G²), G = P + w (N_k(text) + f Σ N_k(others)), P = (R~ᵀ R~)^∘s, R~ = D_u^-a R D_i^(a−1)."""

    Config = GraphFilterConfig
    reads_features = True

    def weights(self) -> csr_array:
        """G."""
        R, a = self.R.astype(np.float64), self.config.asymmetry
        normalised = scaled(power(R.sum(axis=1), -a), R, power(R.sum(axis=0), a - 1))  # [U, I]
        P = csr_array(normalised.T @ normalised)
        P.data **= self.config.exponent
        graph = content(self.data, self.config)
        return P if graph is None else csr_array(P + self.config.content_weight * graph)

    def score(self, users: Tensor) -> Tensor:
        """R_u G + b R_u G²: the second power of G, which is nearly dense, is never made."""
        first = super().score(users)
        if self.config.second == 0:
            return first
        again = (self.sparse_weights.T @ first.cpu().numpy().T).T  # [n, I]
        return first.add(torch.from_numpy(np.ascontiguousarray(again)).to(first), alpha=self.config.second)
