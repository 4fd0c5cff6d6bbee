"""Our model and its textbook version with the same parameters and choices, for the tests that compare the two."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from textbook import Textbook, TextbookDualGNN
from torch import Tensor

from harness.data import Dataset
from harness.models.dualgnn import co_occurring_users
from harness.models.registry import find_model

CONTAINERS = ("branches.", "features.", "projections.")  # of textbook models; recorded traces do not name them


def alike(kind: type[Textbook], settings: Mapping[str, Any], data: Dataset) -> tuple[Any, Textbook]:
    """Our model and the textbook with the same parameters."""
    entry = find_model(kind.__name__.removeprefix("Textbook"))
    config = entry.model.Config(**settings)
    ours, textbook = entry.model(data, config, torch.Generator().manual_seed(0)), kind(data, config)
    if isinstance(textbook, TextbookDualGNN):
        drawn = np.random.default_rng(3).random((data.n_users, config.n_neighbours))
        graph = co_occurring_users(ours._adjacency, data.n_users, config.n_neighbours).padded(drawn)
        ours.set_user_graph(*graph)
        textbook.set_user_graph(*graph)
    with torch.no_grad():
        for theirs, parameter in pairs(ours, textbook).values():
            theirs.copy_(parameter)
    return ours, textbook


def named_parameters(textbook: Textbook) -> dict[str, torch.nn.Parameter]:
    """Parameters of the textbook under the names used in recorded traces."""
    return {
        name.split(".", 1)[1] if name.startswith(CONTAINERS) else name: parameter
        for name, parameter in textbook.named_parameters()
    }


def pairs(ours: Any, textbook: Textbook) -> dict[str, tuple[Tensor, Tensor]]:
    """Per name the textbook's parameter and ours; what one of the two lacks takes no part in the other's loss."""
    trace_tensors = find_model(type(ours).__name__).trace_tensors
    assert trace_tensors is not None
    tensors = trace_tensors(ours)
    return {name: (parameter, tensors[name]) for name, parameter in named_parameters(textbook).items()}


def dense(gradient: Tensor) -> Tensor:
    """A gradient whose rows may have been listed."""
    return gradient.to_dense() if gradient.is_sparse else gradient
