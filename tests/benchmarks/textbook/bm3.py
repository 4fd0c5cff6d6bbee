"""BM3 as one writes it down first: the baseline of the benchmark, used for nothing else.

The published objective with trained features. It computes the same loss as `bm3.BM3` (`test_textbook` holds it to
that) and does without every shortcut of that model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, BM3Config, Data
from textbook.shared import Textbook, mean_of_layers, symmetric_adjacency, table_of


class TextbookBM3(Textbook):
    """All items are projected, all tables pass predictor and dropout, then the batch's rows are gathered."""

    def __init__(self, data: Data, config: BM3Config | None = None) -> None:
        super().__init__(data)
        self.config = config = config or BM3Config()
        d = config.embedding_size
        self.user_embedding = nn.Embedding(data.n_users, d)
        self.item_id_embedding = nn.Embedding(data.n_items, d)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_id_embedding.weight)
        self.predictor = nn.Linear(d, d)
        nn.init.xavier_normal_(self.predictor.weight)
        self.features, self.projections = nn.ModuleDict(), nn.ModuleDict()
        for modality in self.modalities:
            prefix = "image" if modality == "visual" else modality
            table = table_of(data, modality)
            self.features[f"{prefix}_embedding"] = nn.Embedding.from_pretrained(table.clone(), freeze=False)
            self.projections[f"{prefix}_trs"] = projection = nn.Linear(table.shape[1], d)
            nn.init.xavier_normal_(projection.weight)
        self.adjacency = symmetric_adjacency(data, offset=1e-7)

    def loss(self, batch: Batch) -> Tensor:
        config = self.config
        h_users, h_items = self._encode()
        tables = zip(self.modalities, self.projections.values(), self.features.values(), strict=True)
        h_modal = {modality: project(table.weight) for modality, project, table in tables}
        target_u, target_i = self.target("user", h_users)[batch.users], self.target("item", h_items)[batch.items]
        online_u, online_i = self.predictor(h_users)[batch.users], self.predictor(h_items)[batch.items]
        loss = _distance(online_u, target_i) + _distance(online_i, target_u)
        for modality, h in h_modal.items():
            target_m, online_m = self.target(modality, h)[batch.items], self.predictor(h)[batch.items]
            loss = loss + config.cl_weight * (_distance(online_m, target_i) + _distance(online_m, target_m))
        return loss + config.reg_weight * (torch.norm(h_users) + torch.norm(h_items)) / self.n_items

    def target(self, view: str, h: Tensor) -> Tensor:
        """h [n, d] with entries dropped at random, detached; `view` is `user`, `item` or the modality."""
        return functional.dropout(h.detach(), self.config.dropout)

    def _encode(self) -> tuple[Tensor, Tensor]:
        h0 = torch.cat([self.user_embedding.weight, self.item_id_embedding.weight])
        h = mean_of_layers(self.adjacency, h0, self.config.n_layers)
        h_users, h_items = h.split([self.n_users, self.n_items])
        return h_users, h_items + self.item_id_embedding.weight


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(x, y, dim=-1).mean()
