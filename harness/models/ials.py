"""iALS: matrix factorisation by alternating least squares, every pair of user and item taken into account.

Hu et al., ICDM 2008, with the regulariser of Rendle et al., "Revisiting the Performance of iALS on Item Recommendation
Benchmarks", RecSys 2022. Each half step has a closed form; there are no gradients.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from bm3 import Data
from harness.common import check_config, require
from harness.models.closed_form import ClosedForm, Grid, interactions

BLOCK = 2**12
"""Interactions whose outer products are held at a time: 64 MiB at 64 factors."""


@dataclass(frozen=True, kw_only=True)
class IALSConfig:
    """Settings of iALS."""

    embedding_size: int = 64
    """d, factors per user and item."""
    unobserved_weight: float = 0.1
    """α, weight of every pair, seen or not, with the target 0; a seen one has weight 1 with the target 1 beside it."""
    reg_weight: float = 0.01
    """λ, weight of the regulariser."""
    frequency_exponent: float = 1.0
    """λ is multiplied by a user's or item's (degree + α times all on the other side) to this power."""
    iterations: int = 10
    """Of both half steps."""

    GRID: ClassVar[Grid] = {
        "unobserved_weight": (0.03, 0.1, 0.3),
        "reg_weight": (0.003, 0.01, 0.03),
    }

    def __post_init__(self) -> None:
        check_config(
            self, embedding_size=1, unobserved_weight=1e-9, reg_weight=1e-9, frequency_exponent=0, iterations=1
        )
        require(self, "frequency_exponent", self.frequency_exponent <= 2, "between 0 and 2")


class IALS(ClosedForm):
    """min Σ_seen (w_u·h_i − 1)² + α Σ_all (w_u·h_i)² + λ (Σ_u (d_u + αI)^q ‖w_u‖² + Σ_i (d_i + αU)^q ‖h_i‖²)."""

    Config = IALSConfig
    reads_features = False
    users: Tensor
    items: Tensor

    def __init__(self, data: Data, config: IALSConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.R = config, interactions(data)
        for name, rows in (("users", data.n_users), ("items", data.n_items)):
            drawn = torch.empty(rows, config.embedding_size).normal_(generator=generator)
            self.register_buffer(name, 0.1 * config.embedding_size**-0.5 * drawn)

    def fit(self) -> None:
        """Both half steps in turn, users first."""
        backwards = csr_array(self.R.T)
        for _ in range(self.config.iterations):
            half_step(self.R, self.users, self.items, self.config)
            half_step(backwards, self.items, self.users, self.config)

    def embed(self) -> tuple[Tensor, Tensor]:
        """(w_u [U, d], h_i [I, d])."""
        return self.users, self.items


def half_step(R: csr_array, rows: Tensor, fixed: Tensor, config: IALSConfig) -> None:
    """Fill `rows` [n, d] for R [n, m] and the other side's `fixed` [m, d] with (Σ h hᵀ + α HᵀH + λ_r I)⁻¹ Σ h.

    Sums are over a row's entries; λ_r = λ (d_r + α m)^q, where q is `frequency_exponent`.
    """
    alpha, d, device = config.unobserved_weight, fixed.shape[1], fixed.device
    degrees = torch.from_numpy(np.diff(R.indptr)).to(fixed)
    reg = config.reg_weight * (degrees + alpha * len(fixed)) ** config.frequency_exponent  # [n]
    shared = alpha * fixed.T @ fixed  # [d, d]
    first = 0
    while first < len(rows):
        last = max(first + 1, int(np.searchsorted(R.indptr, R.indptr[first] + BLOCK, side="right")) - 1)
        n, entries = last - first, slice(R.indptr[first], R.indptr[last])
        h = fixed[torch.from_numpy(R.indices[entries]).long().to(device)]  # [E, d]
        row = torch.from_numpy(np.repeat(np.arange(n), np.diff(R.indptr[first : last + 1]))).to(device)
        outer = (h[:, :, None] * h[:, None, :]).flatten(1)  # [E, d²]
        left = fixed.new_zeros(n, d * d).index_add_(0, row, outer).view(n, d, d) + shared
        left.diagonal(dim1=1, dim2=2).add_(reg[first:last, None])
        rows[first:last] = torch.linalg.solve(left, fixed.new_zeros(n, d).index_add_(0, row, h))
        first = last
