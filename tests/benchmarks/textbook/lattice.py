"""LATTICE as one writes it down first: the baseline of the benchmark, used for nothing else."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data
from harness.models.lattice import LATTICEConfig
from textbook.shared import (
    Textbook,
    degrees,
    directed_edges,
    mean_of_layers,
    pairwise_loss,
    sparse_matrix,
    table_of,
)


class TextbookLATTICE(Textbook):
    """All item graphs are dense matrices [I, I], the learned one with its gradient; features are trained."""

    def __init__(self, data: Data, config: LATTICEConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or LATTICEConfig()
        self.user_embedding = nn.Embedding(data.n_users, config.embedding_size)
        self.item_id_embedding = nn.Embedding(data.n_items, config.embedding_size)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        self.modal_weight = nn.Parameter(torch.full((max(2, len(self.modalities)),), 0.5))
        self.features, self.projections = nn.ModuleDict(), nn.ModuleDict()
        self.originals: list[Tensor] = []
        for modality in self.modalities:
            prefix = "image" if modality == "visual" else modality
            table = table_of(data, modality)
            self.features[f"{prefix}_embedding"] = nn.Embedding.from_pretrained(table.clone(), freeze=False)
            self.projections[f"{prefix}_trs"] = nn.Linear(table.shape[1], config.feat_embed_dim)
            self.originals.append(_normalised(_nearest(_similarity(table), config.knn_k)))
        source, target = directed_edges(data)
        loops = torch.arange(self.n_nodes)
        rows, columns = torch.cat([target, loops]), torch.cat([source, loops])
        values = 1 / degrees(rows, self.n_nodes)[rows]
        self.adjacency = sparse_matrix(rows, columns, values, self.n_nodes)  # D^{-1} (A + I)
        self.item_adj: Tensor | None = None

    def start_epoch(self) -> None:
        """The next batch builds the item graph anew."""
        self.item_adj = None

    def loss(self, batch: Batch) -> Tensor:
        self.item_adj = self._item_graph() if self.item_adj is None else self.item_adj.detach()
        h = self.item_id_embedding.weight
        for _ in range(self.config.n_layers):
            h = torch.mm(self.item_adj, h)
        h0 = torch.cat([self.user_embedding.weight, self.item_id_embedding.weight])
        nodes = mean_of_layers(self.adjacency, h0, self.config.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        items = items + functional.normalize(h)
        of_batch = users[batch.users], items[batch.items], items[batch.negatives]
        regulariser = sum((rows**2).sum() for rows in of_batch) / 2 / self.config.train_batch_size
        return pairwise_loss(users, items, batch) + self.config.reg_weight * regulariser

    def _item_graph(self) -> Tensor:
        """0.9 · Σ_m w_m original_m + 0.1 · learned, [I, I], differentiable."""
        weights = self.modal_weight[: len(self.modalities)].softmax(dim=0)
        tables = zip(self.projections.values(), self.features.values(), strict=True)
        nearest = [_nearest(_similarity(project(table.weight)), self.config.knn_k) for project, table in tables]
        learned = sum(weight * graph for weight, graph in zip(weights, nearest, strict=True))
        original = sum(weight * graph for weight, graph in zip(weights, self.originals, strict=True))
        share = self.config.lambda_coeff
        return (1 - share) * _normalised(learned) + share * original


def _similarity(x: Tensor) -> Tensor:
    """Cosine of every pair of rows of x [I, d]: [I, I]."""
    unit = x / torch.norm(x, dim=-1, keepdim=True)
    return torch.mm(unit, unit.T)


def _nearest(similarity: Tensor, k: int) -> Tensor:
    """The k largest entries of each row, zero elsewhere: [I, I]."""
    values, columns = torch.topk(similarity, k, dim=-1)
    return torch.zeros_like(similarity).scatter(-1, columns, values)


def _normalised(graph: Tensor) -> Tensor:
    """D^{-1/2} S D^{-1/2} by row sums, [I, I], as two products with a diagonal matrix: O(I³), as published."""
    row_sums = graph.sum(dim=-1)
    scale = torch.diag(torch.where(row_sums > 0, row_sums, torch.inf) ** -0.5)
    return torch.mm(torch.mm(scale, graph), scale)
