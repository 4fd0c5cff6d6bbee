"""GRCN as one writes it down first: the baseline of the benchmark, used for nothing else."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data
from harness.models.base import gcn_prefix
from harness.models.grcn import GRCNConfig
from textbook.shared import Textbook, directed_edges, pairwise_loss, sum_over_edges, table_of, xavier_normal


class TextbookGRCN(Textbook):
    """Attention, edge weights and messages are computed for every directed edge.

    The routing is the published one: its messages run from users to items, so that users receive nothing.
    """

    def __init__(self, data: Data, config: GRCNConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or GRCNConfig()
        self.source, self.target = directed_edges(data)
        self.model_specific_conf = xavier_normal(self.n_nodes, len(self.modalities))
        self.id_gcn = nn.Module()
        self.id_gcn.id_embedding = xavier_normal(self.n_nodes, config.embedding_size)
        self.branches = nn.ModuleDict(
            {gcn_prefix(m): _Branch(data, m, (self.source, self.target), config) for m in self.modalities}
        )

    def loss(self, batch: Batch) -> Tensor:
        branches = list(self.branches.values())
        contents, attentions = zip(*(branch() for branch in branches), strict=True)
        confidence = self.model_specific_conf.index_select(0, self.source)  # [2E, M]
        weight = (torch.stack(attentions, dim=1) * confidence).max(dim=1).values.relu()[:, None]  # [2E, 1]
        ids = [functional.normalize(self.id_gcn.id_embedding)]
        for _ in range(2):
            messages = weight * ids[-1].index_select(0, self.source)  # [2E, d]
            ids.append(sum_over_edges(messages, self.target, self.n_nodes))
        nodes = torch.cat([sum(ids), *contents], dim=1)
        users, items = nodes.split([self.n_users, self.n_items])
        regulariser = self._mean_squares(batch, {name: branch.preference for name, branch in self.branches.items()})
        return pairwise_loss(users, items, batch) + self.config.reg_weight * regulariser

    def _mean_squares(self, batch: Batch, preferences: dict[str, Tensor]) -> Tensor:
        id_users, id_items = self.id_gcn.id_embedding.split([self.n_users, self.n_items])
        of_batch = [
            id_users[batch.users],
            id_items[torch.cat([batch.items, batch.negatives])],
            *(preference[batch.users] for preference in preferences.values()),
            *(preference for name, preference in preferences.items() if name == "v_gcn"),
        ]
        return sum((rows**2).mean() for rows in of_batch)


class _Branch(nn.Module):
    """Content of one modality and the attention on its edges."""

    def __init__(self, data: Data, modality: str, edges: tuple[Tensor, Tensor], config: GRCNConfig) -> None:
        super().__init__()
        self.n_users, self.n_routing = data.n_users, config.n_layers
        self.edges = edges
        self.routing_edges = tuple(nodes[: len(data.train)] for nodes in edges)  # from users to items
        self.features = table_of(data, modality)
        self.preference = xavier_normal(data.n_users, config.latent_embedding)
        self.MLP = nn.Linear(self.features.shape[1], config.latent_embedding)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Content [U+I, c] and attention of the edges [2E]."""
        features = functional.normalize(functional.leaky_relu(self.MLP(self.features)))
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
    alpha = _softmax((x_source * x_target).sum(dim=-1), target, len(x))
    return sum_over_edges(alpha[:, None] * x_source, target, len(x)), alpha


def _softmax(values: Tensor, target: Tensor, n_nodes: int) -> Tensor:
    """Softmax of values [E] over the edges that enter the same node: [E]."""
    largest = values.new_zeros(n_nodes).scatter_reduce(0, target, values.detach(), "amax", include_self=False)
    exponential = (values - largest.index_select(0, target)).exp()
    sums = sum_over_edges(exponential, target, n_nodes)
    return exponential / (sums.index_select(0, target) + 1e-16)
