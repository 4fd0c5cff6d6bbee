"""A modality's item features inside a model: given data or trained parameters. Projections belong to the models."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bm3.errors import DataError


class FeatureTable(nn.Module):
    """e_m [I, d_m]: a parameter when trained, else given data."""

    table: Tensor

    def __init__(
        self,
        name: str,
        table: NDArray[Any],
        n_items: int,
        *,
        trained: bool,
        precision: type | None = None,
        shared: bool = False,
    ) -> None:
        """Parameters are float32. Given data keeps its precision unless another is asked for.

        The table is copied, so that neither side notices what the other writes; given data that is `shared` is not,
        where it is in memory as needed. Raises DataError, with the modality's `name`, unless `table` is one finite
        floating-point row per item.
        """
        super().__init__()
        _check(name, table, n_items)
        if shared and not trained:
            values = np.require(table, precision, ["C_CONTIGUOUS", "WRITEABLE"])  # torch takes no read-only memory
        else:
            values = np.array(table, np.float32 if trained else precision, order="C")
        if trained:
            self.table = nn.Parameter(torch.from_numpy(values))
        else:
            self.register_buffer("table", torch.from_numpy(values), persistent=False)

    def forward(self, items: Tensor) -> Tensor:
        """Rows of the given items [n]: [n, d_m], float32."""
        return functional.embedding(items, self.table).float()


def _check(name: str, table: NDArray[Any], n_items: int) -> None:
    if table.ndim != 2 or len(table) != n_items or table.shape[1] == 0:
        raise DataError(
            f"features of {name!r} have shape {list(table.shape)}, needed is one row for each of {n_items} items"
        )
    if not np.issubdtype(table.dtype, np.floating):
        raise DataError(f"features of {name!r} are {table.dtype}, needed are floating-point numbers")
    if not np.isfinite(table).all():
        raise DataError(f"features of {name!r} contain NaN or infinity: replace them before training")
