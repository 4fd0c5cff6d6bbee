"""Textbook models that compute whole tables: products with a sparse adjacency, dense item graphs, all projections."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data
from textbook.shared import (
    Textbook,
    degrees,
    directed_edges,
    mean_of_layers,
    norms_per_interaction,
    offset_pairwise_loss,
    pairwise_loss,
    scores,
    sparse_matrix,
    symmetric_adjacency,
    table_of,
    xavier_normal,
    xavier_uniform,
)


class BPR(Textbook):
    """The batch's rows are gathered; gradients are as large as the tables."""

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config)
        self.user_embedding = embedding(data.n_users, self.config.embedding_size)
        self.item_embedding = embedding(data.n_items, self.config.embedding_size)

    def loss(self, batch: Batch) -> Tensor:
        h_u = self.user_embedding(batch.users)
        h_i, h_j = self.item_embedding(batch.items), self.item_embedding(batch.negatives)  # [B, d] each
        pairwise = offset_pairwise_loss((h_u * h_i).sum(dim=1), (h_u * h_j).sum(dim=1))
        return pairwise + self.config.reg_weight * norms_per_interaction(h_u, h_i, h_j)


class LightGCN(Textbook):
    """Products with a COO adjacency; the layers are stacked, then averaged."""

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config)
        self.embedding_dict = id_tables(data, self.config.embedding_size)
        self.adjacency = symmetric_adjacency(data, offset=1e-7)

    def loss(self, batch: Batch) -> Tensor:
        id_users, id_items = self.embedding_dict["user_emb"], self.embedding_dict["item_emb"]
        nodes = mean_of_layers(self.adjacency, torch.cat([id_users, id_items]), self.config.n_layers)
        users, items = nodes.split(self.sizes)
        of_batch = id_users[batch.users], id_items[batch.items], id_items[batch.negatives]
        pairwise = offset_pairwise_loss(*scores(users, items, batch))
        return pairwise + self.config.reg_weight * norms_per_interaction(*of_batch)


class BUIR(Textbook):
    """Two encoders; the target's tables are averaged anew after every step. Weight decay is not in it."""

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config)
        self.adjacency = symmetric_adjacency(data, offset=0)
        self.online_encoder, self.target_encoder = nn.Module(), nn.Module()
        for encoder in (self.online_encoder, self.target_encoder):
            encoder.embedding_dict = id_tables(data, self.config.embedding_size)
        self.target_encoder.requires_grad_(False).load_state_dict(self.online_encoder.state_dict())
        self.predictor = nn.Linear(self.config.embedding_size, self.config.embedding_size)

    def loss(self, batch: Batch) -> Tensor:
        online_u, online_i = self._encoded(self.online_encoder, batch)  # [B, d] each
        target_u, target_i = self._encoded(self.target_encoder, batch)
        predicted_u, predicted_i = self.predictor(online_u), self.predictor(online_i)
        return 2 * (_distance(predicted_u, target_i) + _distance(predicted_i, target_u))

    @torch.no_grad()
    def after_step(self) -> None:
        tau = self.config.momentum
        tables = zip(self.target_encoder.parameters(), self.online_encoder.parameters(), strict=True)
        for target, online in tables:
            target.copy_(tau * target + (1 - tau) * online)

    def _encoded(self, encoder: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Means of LightGCN's layers for the batch's users and items, [B, d] each."""
        h0 = torch.cat([encoder.embedding_dict["user_emb"], encoder.embedding_dict["item_emb"]])
        users, items = mean_of_layers(self.adjacency, h0, self.config.n_layers).split(self.sizes)
        return users[batch.users], items[batch.items]


class VBPR(Textbook):
    """All items are projected through one linear map of [text ; visual], then the batch's rows are gathered."""

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config)
        d = self.config.embedding_size
        self.features = torch.cat([table_of(data, modality) for modality in self.modalities[::-1]], dim=1)
        self.u_embedding, self.i_embedding = xavier_uniform(data.n_users, 2 * d), xavier_uniform(data.n_items, d)
        self.item_linear = nn.Linear(self.features.shape[1], d)
        nn.init.xavier_normal_(self.item_linear.weight)
        nn.init.zeros_(self.item_linear.bias)

    def loss(self, batch: Batch) -> Tensor:
        items = torch.cat([self.i_embedding, self.item_linear(self.features)], dim=1)  # [I, 2d]
        positive, negative = scores(self.u_embedding, items, batch)
        rows = self.u_embedding[batch.users], items[batch.items], items[batch.negatives]
        return offset_pairwise_loss(positive, negative) + self.config.reg_weight * norms_per_interaction(*rows)


class _Featured(Textbook):
    """ID embeddings, trained features and a projection of each table, under the names of BM3 and LATTICE."""

    def __init__(self, data: Data, config: Any, width: str) -> None:
        """`width` is the setting that says how wide projections are."""
        super().__init__(data, config)
        self.user_embedding = embedding(data.n_users, self.config.embedding_size)
        self.item_id_embedding = embedding(data.n_items, self.config.embedding_size)
        self.features, self.projections = nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            prefix, table = "image" if modality == "visual" else modality, table_of(data, modality)
            self.features[f"{prefix}_embedding"] = nn.Embedding.from_pretrained(table.clone(), freeze=False)
            projection = self.projections[f"{prefix}_trs"] = nn.Linear(table.shape[1], getattr(self.config, width))
            nn.init.xavier_normal_(projection.weight)

    def projected(self) -> list[Tensor]:
        """All items' features of each modality, [I, width] each."""
        tables = zip(self.projections.values(), self.features.values(), strict=True)
        return [project(table.weight) for project, table in tables]

    def ids(self) -> Tensor:
        """Embeddings of all nodes [U+I, d]."""
        return torch.cat([self.user_embedding.weight, self.item_id_embedding.weight])


class BM3(_Featured):
    """All items are projected, all tables pass predictor and dropout, then the batch's rows are gathered."""

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config, "embedding_size")
        self.predictor = nn.Linear(self.config.embedding_size, self.config.embedding_size)
        nn.init.xavier_normal_(self.predictor.weight)
        self.adjacency = symmetric_adjacency(data, offset=1e-7)

    def loss(self, batch: Batch) -> Tensor:
        h_users, h_items = mean_of_layers(self.adjacency, self.ids(), self.config.n_layers).split(self.sizes)
        h_items = h_items + self.item_id_embedding.weight
        modal = self.projected()
        target_u, target_i = self._target(h_users)[batch.users], self._target(h_items)[batch.items]
        online_u, online_i = self.predictor(h_users)[batch.users], self.predictor(h_items)[batch.items]
        loss = _distance(online_u, target_i) + _distance(online_i, target_u)
        for h in modal:
            target_m, online_m = self._target(h)[batch.items], self.predictor(h)[batch.items]
            loss = loss + self.config.cl_weight * (_distance(online_m, target_i) + _distance(online_m, target_m))
        return loss + self.config.reg_weight * (torch.norm(h_users) + torch.norm(h_items)) / self.n_items

    def _target(self, h: Tensor) -> Tensor:
        """h [n, d] with entries dropped at random, detached."""
        return functional.dropout(h.detach(), self.config.dropout)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(x, y, dim=-1).mean()


class LATTICE(_Featured):
    """All item graphs are dense matrices [I, I], the learned one with its gradient; features are trained."""

    def __init__(self, data: Data, config: Any = None) -> None:
        super().__init__(data, config, "feat_embed_dim")
        self.modal_weight = nn.Parameter(torch.full((max(2, len(self.modalities)),), 0.5))
        self.originals = [_normalised(self._nearest(table_of(data, modality))) for modality in self.modalities]
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
        users, items = mean_of_layers(self.adjacency, self.ids(), self.config.n_ui_layers).split(self.sizes)
        items = items + functional.normalize(h)
        of_batch = users[batch.users], items[batch.items], items[batch.negatives]
        regulariser = sum((rows**2).sum() for rows in of_batch) / 2 / self.config.train_batch_size
        return pairwise_loss(users, items, batch) + self.config.reg_weight * regulariser

    def _item_graph(self) -> Tensor:
        """0.9 · Σ_m w_m original_m + 0.1 · learned, [I, I], differentiable."""
        weights = self.modal_weight[: len(self.modalities)].softmax(dim=0)
        nearest = [self._nearest(table) for table in self.projected()]
        learned = sum(weight * graph for weight, graph in zip(weights, nearest, strict=True))
        original = sum(weight * graph for weight, graph in zip(weights, self.originals, strict=True))
        share = self.config.lambda_coeff
        return (1 - share) * _normalised(learned) + share * original

    def _nearest(self, x: Tensor) -> Tensor:
        """The k largest cosines of each row of x [I, d] with all rows, zero elsewhere: [I, I]."""
        unit = x / torch.norm(x, dim=-1, keepdim=True)
        similarity = torch.mm(unit, unit.T)
        values, columns = torch.topk(similarity, self.config.knn_k, dim=-1)
        return torch.zeros_like(similarity).scatter(-1, columns, values)


def _normalised(graph: Tensor) -> Tensor:
    """D^{-1/2} S D^{-1/2} by row sums, [I, I], as two products with a diagonal matrix: O(I³), as published."""
    row_sums = graph.sum(dim=-1)
    scale = torch.diag(torch.where(row_sums > 0, row_sums, torch.inf) ** -0.5)
    return torch.mm(torch.mm(scale, graph), scale)


def embedding(n: int, d: int) -> nn.Embedding:
    return nn.Embedding(n, d, _weight=xavier_normal(n, d))


def id_tables(data: Data, d: int) -> nn.ParameterDict:
    """Embeddings of the users, `user_emb`, and of the items, `item_emb`."""
    return nn.ParameterDict({"user_emb": xavier_uniform(data.n_users, d), "item_emb": xavier_uniform(data.n_items, d)})
