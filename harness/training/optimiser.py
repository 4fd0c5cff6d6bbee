"""The optimiser of a run: Adam as published, with what a model asks for beyond it."""

from typing import Any

import torch


def adam(model: Any, learning_rate: float) -> torch.optim.Adam:
    """Dense Adam, β = (0.9, 0.999), ε = 1e-8, over the model's `parameter_groups()` or all its trainable parameters.

    A parameter without a gradient in a step is left alone, moments and step count included.
    """
    if hasattr(model, "parameter_groups"):
        groups = model.parameter_groups()
    else:
        groups = [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]
    return torch.optim.Adam(groups, lr=learning_rate, fused=True)


def set_learning_rate(optimiser: torch.optim.Optimizer, model: Any, learning_rate: float, epoch: int) -> None:
    """The rate of `epoch` (from 1): `learning_rate` times the model's `learning_rate_factor(epoch)`, if it has one."""
    factor = model.learning_rate_factor(epoch) if hasattr(model, "learning_rate_factor") else 1.0
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * factor
