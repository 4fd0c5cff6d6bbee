"""MMGCN as one writes it down first: the baseline of the benchmark, used for nothing else."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import leaky_relu

from bm3 import Batch, Data
from harness.models.base import gcn_prefix
from harness.models.mmgcn import LAYERS, VISUAL_WIDTH, MMGCNConfig
from textbook.shared import Textbook, degrees, directed_edges, pairwise_loss, sum_over_edges, table_of, xavier_normal

UNTRAINED = ("id_embedding", "preference")


class TextbookMMGCN(Textbook):
    """Every layer computes every node; every directed edge has a message of its own.

    ID table and preferences have gradients, as in the published code, whose optimiser is never given them.
    """

    def __init__(self, data: Data, config: MMGCNConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or MMGCNConfig()
        self.id_embedding = xavier_normal(self.n_nodes, config.embedding_size)
        edges = directed_edges(data)
        self.branches = nn.ModuleDict(
            {gcn_prefix(m): _Branch(data, m, edges, config.embedding_size) for m in self.modalities}
        )

    def trained(self) -> list[nn.Parameter]:
        return [parameter for name, parameter in self.named_parameters() if not name.endswith(UNTRAINED)]

    def loss(self, batch: Batch) -> Tensor:
        branches = list(self.branches.values())
        nodes = sum(branch(self.id_embedding) for branch in branches) / len(branches)
        users, items = nodes.split([self.n_users, self.n_items])
        id_users, id_items = self.id_embedding.split([self.n_users, self.n_items])
        regulariser = (id_users[batch.users] ** 2).mean() + (
            id_items[torch.cat([batch.items, batch.negatives])] ** 2
        ).mean()
        if "v_gcn" in self.branches:
            regulariser = regulariser + (self.branches["v_gcn"].preference ** 2).mean()
        return pairwise_loss(users, items, batch) + self.config.reg_weight * regulariser


class _Branch(nn.Module):
    """The graph network of one modality."""

    def __init__(self, data: Data, modality: str, edges: tuple[Tensor, Tensor], d: int) -> None:
        super().__init__()
        self.source, self.target = edges
        self.n_nodes = data.n_users + data.n_items
        self.degree = degrees(self.target, self.n_nodes).clamp(min=1)[:, None]
        self.features = table_of(data, modality)
        width = self.features.shape[1]
        self.MLP: nn.Module = nn.Identity()
        if modality == "visual":
            self.MLP, width = nn.Linear(width, VISUAL_WIDTH), VISUAL_WIDTH
        self.preference = xavier_normal(data.n_users, width)
        for k in range(1, LAYERS + 1):
            self.add_module(f"conv_embed_{k}", _MeanConvolution(width))
            self.add_module(f"linear_layer{k}", nn.Linear(width, d))
            self.add_module(f"g_layer{k}", nn.Linear(width + d, d))
            width = d

    def forward(self, id_embedding: Tensor) -> Tensor:
        """[U+I, d]."""
        x = functional.normalize(torch.cat([self.preference, self.MLP(self.features)]))
        for k in range(1, LAYERS + 1):
            convolve, linear, combine = (
                self.get_submodule(f"{name}{k}") for name in ("conv_embed_", "linear_layer", "g_layer")
            )
            h = leaky_relu(convolve(x, self.source, self.target, self.degree))
            x_hat = leaky_relu(linear(x)) + id_embedding
            x = leaky_relu(combine(torch.cat([h, x_hat], dim=1)))
        return x


class _MeanConvolution(nn.Module):
    """mean_{j∈N(i)} x_j W."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = xavier_normal(width, width)

    def forward(self, x: Tensor, source: Tensor, target: Tensor, degree: Tensor) -> Tensor:
        messages = (x @ self.weight).index_select(0, source)  # [2E, w]
        return sum_over_edges(messages, target, len(x)) / degree
