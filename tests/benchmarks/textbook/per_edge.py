"""Textbook models that pass messages per edge, with a graph network for each modality."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import leaky_relu

from bm3 import Batch, Data
from bm3.graph import bipartite_adjacency
from harness.models.base import gcn_prefix
from harness.models.dualgnn import co_occurring_users
from harness.models.mmgcn import LAYERS, VISUAL_WIDTH
from textbook.shared import (
    Textbook,
    degrees,
    directed_edges,
    pairwise_loss,
    scores,
    sum_over_edges,
    table_of,
    xavier_normal,
)


class _PerEdge(Textbook):
    """Models with a branch for each modality, each with a table `preference` of the users."""

    def __init__(self, data: Data, config: Any, branch: type[nn.Module]) -> None:
        super().__init__(data, config)
        self.source, self.target = edges = directed_edges(data)
        self.branches = nn.ModuleDict({gcn_prefix(m): branch(data, m, edges, self.config) for m in self.modalities})

    def squares_of_ids(self, table: Tensor, batch: Batch) -> Tensor:
        """Mean squares of the batch's rows of a table of IDs [U+I, d], and of all users' visual preferences."""
        users, items = table.split(self.sizes)
        found = (users[batch.users] ** 2).mean() + (items[torch.cat([batch.items, batch.negatives])] ** 2).mean()
        if "v_gcn" in self.branches:
            found = found + (self.branches["v_gcn"].preference ** 2).mean()
        return found


class MMGCN(_PerEdge):
    """Every layer computes every node; every directed edge has a message of its own.

    ID table and preferences have gradients, as in the published code, whose optimiser is never given them.
    """

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config, _MMGCNBranch)
        self.id_embedding = xavier_normal(self.n_nodes, self.config.embedding_size)

    def trained(self) -> list[nn.Parameter]:
        untrained = ("id_embedding", "preference")
        return [parameter for name, parameter in self.named_parameters() if not name.endswith(untrained)]

    def loss(self, batch: Batch) -> Tensor:
        branches = list(self.branches.values())
        users, items = (sum(branch(self.id_embedding) for branch in branches) / len(branches)).split(self.sizes)
        regulariser = self.squares_of_ids(self.id_embedding, batch)
        return pairwise_loss(users, items, batch) + self.config.reg_weight * regulariser


class _MMGCNBranch(nn.Module):
    def __init__(self, data: Data, modality: str, edges: tuple[Tensor, Tensor], config: Any) -> None:
        super().__init__()
        self.source, self.target = edges
        self.degree = degrees(self.target, data.n_users + data.n_items).clamp(min=1)[:, None]
        self.features = table_of(data, modality)
        width, d = self.features.shape[1], config.embedding_size
        self.MLP: nn.Module = nn.Identity()
        if modality == "visual":
            self.MLP, width = nn.Linear(width, VISUAL_WIDTH), VISUAL_WIDTH
        self.preference = xavier_normal(data.n_users, width)
        for k in range(1, LAYERS + 1):
            self.add_module(f"conv_embed_{k}", nn.Module())
            self.get_submodule(f"conv_embed_{k}").weight = xavier_normal(width, width)
            self.add_module(f"linear_layer{k}", nn.Linear(width, d))
            self.add_module(f"g_layer{k}", nn.Linear(width + d, d))
            width = d

    def forward(self, id_embedding: Tensor) -> Tensor:
        """[U+I, d]."""
        x = functional.normalize(torch.cat([self.preference, self.MLP(self.features)]))
        for k in range(1, LAYERS + 1):
            convolution, linear, combine = (
                self.get_submodule(f"{name}{k}") for name in ("conv_embed_", "linear_layer", "g_layer")
            )
            messages = (x @ convolution.weight).index_select(0, self.source)  # [2E, w]
            h = leaky_relu(sum_over_edges(messages, self.target, len(x)) / self.degree)  # mean_{j∈N(i)} x_j W
            x_hat = leaky_relu(linear(x)) + id_embedding
            x = leaky_relu(combine(torch.cat([h, x_hat], dim=1)))
        return x


class DualGNN(_PerEdge):
    """Every directed edge has a message of its own; every user gathers the vectors of all 40 neighbours.

    The user-user graph is no part of a step; it is found as the project's own model finds it.
    """

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config, _DualGNNBranch)
        n_modalities = max(2, len(self.modalities))
        self.weight_u = nn.Parameter(torch.randn(data.n_users, n_modalities, 1).softmax(dim=1))
        self.weight_i = nn.Parameter(torch.randn(data.n_items, n_modalities, 1).softmax(dim=1))
        adjacency = bipartite_adjacency(data.train, data.n_users, data.n_items)
        self._neighbours = co_occurring_users(adjacency, data.n_users, self.config.n_neighbours)
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


class _DualGNNBranch(nn.Module):
    def __init__(self, data: Data, modality: str, edges: tuple[Tensor, Tensor], config: Any) -> None:
        super().__init__()
        self.source, self.target = edges
        d = config.latent_size
        scale = degrees(self.target, data.n_users + data.n_items) ** -0.5
        self.norm = (scale[self.source] * scale[self.target])[:, None]  # [2E, 1]
        self.features = table_of(data, modality)
        self.preference = xavier_normal(data.n_users, d)
        self.MLP, self.MLP_1 = nn.Linear(self.features.shape[1], 4 * d), nn.Linear(4 * d, d)

    def forward(self) -> Tensor:
        """x + x¹ + x² [U+I, d]."""
        x = functional.normalize(torch.cat([self.preference, self.MLP_1(leaky_relu(self.MLP(self.features)))]))
        x1 = self._propagate(x)
        return x + x1 + self._propagate(x1)

    def _propagate(self, x: Tensor) -> Tensor:
        return sum_over_edges(self.norm * x.index_select(0, self.source), self.target, len(x))


class GRCN(_PerEdge):
    """Attention, edge weights and messages are computed for every directed edge.

    The routing is the published one: its messages run from users to items, so that users receive nothing.
    """

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config, _GRCNBranch)
        self.model_specific_conf = xavier_normal(self.n_nodes, len(self.modalities))
        self.id_gcn = nn.Module()
        self.id_gcn.id_embedding = xavier_normal(self.n_nodes, self.config.embedding_size)

    def loss(self, batch: Batch) -> Tensor:
        branches = list(self.branches.values())
        contents, attentions = zip(*(branch() for branch in branches), strict=True)
        confidence = self.model_specific_conf.index_select(0, self.source)  # [2E, M]
        weight = (torch.stack(attentions, dim=1) * confidence).max(dim=1).values.relu()[:, None]  # [2E, 1]
        ids = [functional.normalize(self.id_gcn.id_embedding)]
        for _ in range(2):
            messages = weight * ids[-1].index_select(0, self.source)  # [2E, d]
            ids.append(sum_over_edges(messages, self.target, self.n_nodes))
        users, items = torch.cat([sum(ids), *contents], dim=1).split(self.sizes)
        regulariser = self.squares_of_ids(self.id_gcn.id_embedding, batch)
        regulariser = regulariser + sum((branch.preference[batch.users] ** 2).mean() for branch in branches)
        return pairwise_loss(users, items, batch) + self.config.reg_weight * regulariser


class _GRCNBranch(nn.Module):
    def __init__(self, data: Data, modality: str, edges: tuple[Tensor, Tensor], config: Any) -> None:
        super().__init__()
        self.n_users, self.n_routing, self.edges = data.n_users, config.n_layers, edges
        self.routing_edges = tuple(nodes[: len(data.train)] for nodes in edges)  # from users to items
        self.features = table_of(data, modality)
        self.preference = xavier_normal(data.n_users, config.latent_embedding)
        self.MLP = nn.Linear(self.features.shape[1], config.latent_embedding)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Content [U+I, c] and attention of the edges [2E]."""
        features = functional.normalize(leaky_relu(self.MLP(self.features)))
        preference = functional.normalize(self.preference)
        for _ in range(self.n_routing):
            received, _ = _attend(torch.cat([preference, features]), *self.routing_edges)
            preference = functional.normalize(preference + received[: self.n_users])
        x = torch.cat([preference, features])
        received, alpha = _attend(x, *self.edges)
        return x + received, alpha


def _attend(x: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_{j→i} α_ji x_j [n, c] and α [E], the softmax of x_j · x_i over the edges that enter i."""
    x_source, x_target = x.index_select(0, source), x.index_select(0, target)  # [E, c] each
    values = (x_source * x_target).sum(dim=-1)
    largest = values.new_zeros(len(x)).scatter_reduce(0, target, values.detach(), "amax", include_self=False)
    exponential = (values - largest.index_select(0, target)).exp()
    sums = sum_over_edges(exponential, target, len(x))
    alpha = exponential / (sums.index_select(0, target) + 1e-16)
    return sum_over_edges(alpha[:, None] * x_source, target, len(x)), alpha
