"""EASE: a linear model from items to items with a closed form, one number to set.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, arXiv 1905.03375. Its weights are dense: memory
grows with the square of the items, and a catalogue for which there is no room is refused in one line.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from harness.common import check_config
from harness.models.closed_form import Grid, ItemToItem, check_room

BYTES, BYTES_ON_GPU = 20, 24
"""Per pair of items at the peak: two matrices of float64, and the weights of float32, or cuSOLVER's own copy."""


@dataclass(frozen=True, kw_only=True)
class EASEConfig:
    """Settings of EASE."""

    reg_weight: float = 400.0
    """λ, weight of the regulariser."""

    GRID: ClassVar[Grid] = {"reg_weight": (50.0, 100.0, 200.0, 400.0, 800.0)}

    def __post_init__(self) -> None:
        check_config(self, reg_weight=1e-6)


class EASE(ItemToItem):
    """B = P / (−diag P) by columns with diagonal 0, P = (RᵀR + λI)⁻¹."""

    Config = EASEConfig

    def weights(self) -> Tensor:
        return ease_weights(self.R, self.config.reg_weight, self.degrees.device)


def ease_weights(R: csr_array, reg_weight: float, device: torch.device) -> Tensor:
    """EASE's B [I, I], float32, by way of float64. Raises MemoryError."""
    check_room(R.shape[1], BYTES_ON_GPU if device.type == "cuda" else BYTES, device)
    P = torch.from_numpy((R.T.astype(np.float64) @ R).toarray()).to(device)
    P.diagonal().add_(reg_weight)
    P = torch.linalg.cholesky(P)  # one name throughout, so that what was before is let go
    P = torch.cholesky_inverse(P)
    P /= -P.diagonal().clone()
    return P.fill_diagonal_(0).float()
