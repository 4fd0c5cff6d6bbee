"""The optimiser of a run: Adam as published, with what a model asks for beyond it. Its constants are here alone."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from bm3 import ConfigError, Recommender

BETAS, EPSILON = (0.9, 0.999), 1e-8


def adam(model: Recommender, learning_rate: float) -> "Adam":
    """Adam, β = (0.9, 0.999), ε = 1e-8, over the model's `parameter_groups()`.

    A parameter without a gradient in a step is left alone, moments and step count included. Large feature tables of
    which a model reads rows alone move as in dense Adam, but not before they are read.
    """
    from harness.training.accelerators.lazy_adam import LazyAdam, tables_moved_by_row  # which know this module

    groups, tables = model.parameter_groups(), tables_moved_by_row(model)
    return LazyAdam(groups, learning_rate, tables) if tables else Adam(groups, learning_rate)


def set_learning_rate(optimiser: Any, model: Recommender, learning_rate: float, epoch: int) -> None:
    """The rate of `epoch` (from 1): `learning_rate` times the model's factor for it."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * model.learning_rate_factor(epoch)


class Adam:
    """torch's fused Adam, to the same bits, whose state can be kept to the bit.

    It calls the kernel itself: torch's optimiser brings in torch's compiler, 50 MB and a second, which nothing uses.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], learning_rate: float) -> None:
        """Raises ConfigError for another option of a group than `params` and `weight_decay`."""
        self.param_groups: list[dict[str, Any]] = [
            {"lr": learning_rate, "weight_decay": 0.0, **one, "params": [p] if isinstance(p, Tensor) else [*p]}
            for one in groups
            for p in [one["params"]]
        ]
        if others := {name for one in self.param_groups for name in one} - {"params", "lr", "weight_decay"}:
            raise ConfigError(f"parameter_groups(): there is no {', '.join(sorted(others))}, only weight_decay")
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One step from the present gradients."""
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            options = {name: value for name, value in group.items() if name != "params"}
            options |= {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPSILON, "amsgrad": False, "maximize": False}
            for parameters in alike.values():
                states = [self.state.get(parameter) or self._begin(parameter) for parameter in parameters]
                moments = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
                steps = [state["step"] for state in states]
                torch._foreach_add_(steps, 1)
                tensors = parameters, [parameter.grad for parameter in parameters], *moments, [], steps
                torch._fused_adam_(*tensors, **options)  # type: ignore[call-overload]

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        return self.state.setdefault(parameter, {"step": step, **moments})

    def catch_up(self) -> None:
        """Bring every parameter up to date, for other readers than the model; they are here."""

    def release(self) -> None:
        """Leave the parameters up to date, and keep nothing else: this optimiser makes no further step."""
        self.zero_grad()
        self.state = {}

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
        return self.state.get(parameter, {})

    def _load_state_of(self, parameter: Tensor, values: dict[str, Tensor]) -> None:
        self.state[parameter] = values
