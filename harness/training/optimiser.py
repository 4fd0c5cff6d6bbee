"""The optimiser of a run: Adam as published, with what a model asks for beyond it. Its constants are here alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from bm3 import Recommender

BETAS, EPSILON = (0.9, 0.999), 1e-8


def adam(model: Recommender, learning_rate: float) -> "Adam":
    """Adam, β = (0.9, 0.999), ε = 1e-8, over the model's `parameter_groups()`.

    A parameter without a gradient in a step is left alone, moments and step count included. Large feature tables of
    which a model reads rows alone move as in dense Adam, but not before they are read.
    """
    from harness.training.accelerators.lazy_adam import LazyAdam, tables_moved_by_row  # which know this module

    groups, tables = model.parameter_groups(), tables_moved_by_row(model)
    return LazyAdam(groups, learning_rate, tables) if tables else Adam(groups, learning_rate)


def set_learning_rate(optimiser: torch.optim.Optimizer, model: Recommender, learning_rate: float, epoch: int) -> None:
    """The rate of `epoch` (from 1): `learning_rate` times the model's factor for it."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * model.learning_rate_factor(epoch)


class Adam(torch.optim.Adam):
    """torch's fused Adam, whose state can be kept to the bit."""

    def __init__(self, groups: Iterable[Any], learning_rate: float) -> None:
        super().__init__(groups, lr=learning_rate, betas=BETAS, eps=EPSILON, fused=True)

    def catch_up(self) -> None:
        """Bring every parameter up to date, for other readers than the model; they are here."""

    def release(self) -> None:
        """Leave the parameters up to date: this optimiser makes no further step."""

    def exact_state(self) -> dict[str, Tensor]:
        """What further steps depend on, to the bit, by `<number of the parameter>.<name>`; asking changes nothing."""
        return {
            f"{number}.{name}": value
            for number, parameter in enumerate(self._parameters())
            for name, value in self._state_of(parameter).items()
        }

    def load_exact_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an `exact_state` with the model's state of the same moment."""
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in state.items():
            number, _, name = key.partition(".")
            found.setdefault(int(number), {})[name] = value
        parameters = self._parameters()
        for place, values in found.items():
            self._load_state_of(parameters[place], values)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _state_of(self, parameter: Tensor) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = self.state.get(parameter, {})
        return state

    def _load_state_of(self, parameter: Tensor, values: dict[str, Tensor]) -> None:
        self.state[parameter] = values
