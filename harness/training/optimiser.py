"""The optimiser of a run: Adam as published, with what a model asks for beyond it. Wide tables are `rows`."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from bm3.features import FeatureTable
from harness.training.rows import BETAS, EPSILON, Rows, pays


def adam(model: Any, learning_rate: float) -> "Adam":
    """Dense Adam, β = (0.9, 0.999), ε = 1e-8, over the model's `parameter_groups()` or all its trainable parameters.

    A parameter without a gradient in a step is left alone, moments and step count included.
    """
    if hasattr(model, "parameter_groups"):
        groups = model.parameter_groups()
    else:
        groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    by_row = getattr(model, "reads_feature_rows", False) and not hasattr(model, "parameter_groups")
    tables = [module for module in model.modules() if isinstance(module, FeatureTable)] if by_row else []
    return Adam(groups, learning_rate, [table for table in tables if pays(table)])


def set_learning_rate(optimiser: torch.optim.Optimizer, model: Any, learning_rate: float, epoch: int) -> None:
    """The rate of `epoch` (from 1): `learning_rate` times the model's `learning_rate_factor(epoch)`, if it has one."""
    factor = model.learning_rate_factor(epoch) if hasattr(model, "learning_rate_factor") else 1.0
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * factor


class Adam(torch.optim.Adam):
    """torch's fused Adam; the rows of `tables` are brought up to date when they are read.

    They are what dense Adam makes of them, to rounding, whenever `FeatureTable.project` or `state_dict` of the table
    is called; `catch_up` brings all of them up to date for other readers.
    """

    def __init__(self, groups: Iterable[Any], learning_rate: float, tables: Sequence[FeatureTable] = ()) -> None:
        super().__init__(groups, lr=learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        self._rows = [Rows(table) for table in tables]
        for rows, table in zip(self._rows, tables, strict=True):
            table.row_gradients, table.before_read = True, rows.catch_up

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure would come after the tables' turn
        """One step from the present gradients; those of the tables are used up."""
        of_tables = [rows.take_gradient() for rows in self._rows]
        super().step()
        for rows, gradient in zip(self._rows, of_tables, strict=True):
            if gradient is not None:
                rows.step(gradient, self.param_groups[0]["lr"])

    def catch_up(self) -> None:
        """Bring every row of every table up to date."""
        for rows in self._rows:
            rows.catch_up(None)
