"""DualGNN as one writes it down first: the baseline of the benchmark, used for nothing else.

The user-user graph is no part of a step; it is found as the project's own model finds it.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data
from bm3.graph import bipartite_adjacency
from harness.models.base import gcn_prefix
from harness.models.dualgnn import DualGNNConfig, co_occurring_users
from textbook.shared import Textbook, degrees, directed_edges, scores, sum_over_edges, table_of, xavier_normal


class TextbookDualGNN(Textbook):
    """Every directed edge has a message of its own; every user gathers the vectors of all 40 neighbours."""

    def __init__(self, data: Data, config: DualGNNConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or DualGNNConfig()
        n_modalities = max(2, len(self.modalities))
        self.weight_u = nn.Parameter(torch.randn(data.n_users, n_modalities, 1).softmax(dim=1))
        self.weight_i = nn.Parameter(torch.randn(data.n_items, n_modalities, 1).softmax(dim=1))
        edges = directed_edges(data)
        self.branches = nn.ModuleDict(
            {gcn_prefix(m): _Branch(data, m, edges, config.latent_size) for m in self.modalities}
        )
        adjacency = bipartite_adjacency(data.train, data.n_users, data.n_items)
        self._neighbours = co_occurring_users(adjacency, data.n_users, config.n_neighbours)
        self._draw = np.random.default_rng(0)
        self.start_epoch()

    def start_epoch(self) -> None:
        """Draws anew which of their own neighbours pad the rows of users that have few."""
        self.set_user_graph(*self._neighbours.padded(self._draw.random(self._neighbours.users.shape)))

    def set_user_graph(self, users: NDArray[Any], weights: NDArray[Any]) -> None:
        """Neighbours of every user and their weights, [U, k] each."""
        self.user_index, self.user_weight = torch.from_numpy(users), torch.from_numpy(weights).float()

    def loss(self, batch: Batch) -> Tensor:
        branches = list(self.branches.values())
        modal = [branch() for branch in branches]
        modal[0] = summed = sum(modal)  # in place in the published code: user weights see the sum as the first
        of_users = torch.stack([x[: self.n_users] for x in modal], dim=2)  # [U, d, M]
        weights = self.weight_u.transpose(1, 2) if len(modal) > 1 else 1
        h_users = (weights * of_users).sum(dim=2)
        gathered = h_users[self.user_index]  # [U, k, d]
        users = h_users + torch.matmul(self.user_weight.unsqueeze(1), gathered).squeeze(1)
        positive, negative = scores(users, summed[self.n_users :], batch)
        pairwise = -torch.log2(torch.sigmoid(positive - negative)).mean()
        squares = [(branch.preference[batch.users] ** 2).mean() for branch in branches]
        squares += [(self.weight_u**2).mean(), (self.weight_i**2).mean()]
        return pairwise + self.config.reg_weight * sum(squares)


class _Branch(nn.Module):
    """The graph network of one modality."""

    def __init__(self, data: Data, modality: str, edges: tuple[Tensor, Tensor], d: int) -> None:
        super().__init__()
        self.source, self.target = edges
        scale = degrees(self.target, data.n_users + data.n_items) ** -0.5
        self.norm = (scale[self.source] * scale[self.target])[:, None]  # [2E, 1]
        self.features = table_of(data, modality)
        self.preference = xavier_normal(data.n_users, d)
        self.MLP = nn.Linear(self.features.shape[1], 4 * d)
        self.MLP_1 = nn.Linear(4 * d, d)

    def forward(self) -> Tensor:
        """x + x¹ + x² [U+I, d]."""
        z = self.MLP_1(functional.leaky_relu(self.MLP(self.features)))
        x = functional.normalize(torch.cat([self.preference, z]))
        x1 = self._propagate(x)
        return x + x1 + self._propagate(x1)

    def _propagate(self, x: Tensor) -> Tensor:
        return sum_over_edges(self.norm * x.index_select(0, self.source), self.target, len(x))
