"""The optimiser of a run: Adam as published, with what a model asks for beyond it. Rows of wide tables are `rows`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bm3.features import FeatureTable
from harness.training.accelerators.rows import BETAS, EPSILON, LazyRows, moves_by_row


def adam(model: Any, learning_rate: float) -> "Adam":
    """Adam, β = (0.9, 0.999), ε = 1e-8, over the model's `parameter_groups()` or all its trainable parameters.

    A parameter without a gradient in a step is left alone, moments and step count included. Large feature tables of
    which a model reads rows alone move as in dense Adam, but not before they are read.
    """
    if hasattr(model, "parameter_groups"):  # which may ask for weight decay
        return Adam(model.parameter_groups(), learning_rate)
    groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    by_row = getattr(model, "reads_feature_rows", False)
    tables = [module for module in model.modules() if isinstance(module, FeatureTable)] if by_row else []
    return Adam(groups, learning_rate, [table for table in tables if moves_by_row(table)])


def set_learning_rate(optimiser: torch.optim.Optimizer, model: Any, learning_rate: float, epoch: int) -> None:
    """The rate of `epoch` (from 1): `learning_rate` times the model's `learning_rate_factor(epoch)`, if it has one."""
    factor = model.learning_rate_factor(epoch) if hasattr(model, "learning_rate_factor") else 1.0
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * factor


class Adam(torch.optim.Adam):
    """torch's fused Adam; the rows of `tables` are brought up to date when they are read.

    They are what dense Adam makes of them, to rounding, whenever `FeatureTable.project` or `state_dict` of the table
    is called; `catch_up` brings all of them up to date for other readers. Its own `state_dict` is that of dense Adam.
    """

    def __init__(self, groups: Iterable[Any], learning_rate: float, tables: Sequence[FeatureTable] = ()) -> None:
        super().__init__(groups, lr=learning_rate, betas=BETAS, eps=EPSILON, fused=True)
        self._rows = [(table, LazyRows(table)) for table in tables]
        for table, rows in self._rows:
            table.attach(rows.catch_up)

    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure would come after the tables' turn
        """One step from the present gradients; those of the tables are used up."""
        of_tables = [rows.take_gradient() for _, rows in self._rows]
        super().step()
        for (_, rows), gradient in zip(self._rows, of_tables, strict=True):
            if gradient is not None:
                rows.step(gradient, self.param_groups[0]["lr"])

    def catch_up(self) -> None:
        """Bring every row of every table up to date."""
        for _, rows in self._rows:
            rows.catch_up(None)

    def release(self) -> None:
        """Bring the tables up to date and leave them: this optimiser makes no further step."""
        for table, _ in self._rows:
            table.detach()
        self._rows = []

    def exact_state(self) -> dict[str, Tensor]:
        """What further steps depend on, to the bit, by `<number of the parameter>.<name>`; asking changes nothing.

        `state_dict` brings moments up to date first, which rounds them.
        """
        by_row = {id(table.table): rows for table, rows in self._rows}
        return {
            f"{number}.{name}": value
            for number, parameter in enumerate(self._parameters())
            for name, value in (
                by_row[id(parameter)].exact_state() if id(parameter) in by_row else self.state.get(parameter, {})
            ).items()
        }

    def load_exact_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an `exact_state` with the model's state of the same moment."""
        parameters, by_row = self._parameters(), {id(table.table): rows for table, rows in self._rows}
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            found.setdefault(int(number), {})[name] = value
        for place, values in found.items():
            parameter = parameters[place]
            if id(parameter) in by_row:
                by_row[id(parameter)].load_exact_state(values)
            else:
                self.state[parameter] = values

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with every row up to date."""
        for table, rows in self._rows:
            self.state[table.table] = rows.dense_state()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's; the model's state is to be loaded too."""
        super().load_state_dict(state_dict)
        for table, rows in self._rows:
            if table.table in self.state:
                rows.load_dense_state(self.state[table.table])
