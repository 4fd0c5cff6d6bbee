"""A modality's item features inside a model: given data or trained parameters. Projections belong to the models."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bm3.errors import DataError


class FeatureTable(nn.Module):
    """e_m [I, d_m]: a parameter when trained, else data kept in its own precision."""

    table: Tensor

    def __init__(self, name: str, table: NDArray[Any], n_items: int, *, trained: bool) -> None:
        """Raises DataError, with the modality's `name`, unless `table` is one finite floating-point row per item."""
        super().__init__()
        check_features(name, table, n_items)
        values = torch.from_numpy(np.array(table, order="C"))  # a copy: training must not write into the caller's array
        if trained:
            self.table = nn.Parameter(values.float())
        else:
            self.register_buffer("table", values, persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """Rows of the given items [n]: [n, d_m], float32."""
        return functional.embedding(items, self.table).float()


def check_features(name: str, table: NDArray[Any], n_items: int) -> None:
    """Raise DataError, with the modality's `name`, unless `table` is one finite floating-point row per item."""
    if table.ndim != 2 or len(table) != n_items or table.shape[1] == 0:
        raise DataError(
            f"features of {name!r} have shape {list(table.shape)}, needed is one row for each of {n_items} items"
        )
    if not np.issubdtype(table.dtype, np.floating):
        raise DataError(f"features of {name!r} are {table.dtype}, needed are floating-point numbers")
    if not np.isfinite(table).all():
        raise DataError(f"features of {name!r} contain NaN or infinity: replace them before training")
