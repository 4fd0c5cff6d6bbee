"""BUIR as one writes it down first: the baseline of the benchmark, used for nothing else."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch, Data
from harness.models.buir import BUIRConfig
from textbook.lightgcn import id_tables
from textbook.shared import Textbook, mean_of_layers, symmetric_adjacency


class TextbookBUIR(Textbook):
    """Two encoders; the target's tables are averaged anew after every step. Weight decay is not in it."""

    def __init__(self, data: Data, config: BUIRConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or BUIRConfig()
        adjacency = symmetric_adjacency(data, offset=0)
        self.online_encoder = _Encoder(data, config, adjacency)
        self.target_encoder = _Encoder(data, config, adjacency).requires_grad_(False)
        self.target_encoder.load_state_dict(self.online_encoder.state_dict())
        self.predictor = nn.Linear(config.embedding_size, config.embedding_size)

    def loss(self, batch: Batch) -> Tensor:
        online_u, online_i = self.online_encoder(batch)  # [B, d] each
        target_u, target_i = self.target_encoder(batch)
        return _distance(self.predictor(online_u), target_i) + _distance(self.predictor(online_i), target_u)

    @torch.no_grad()
    def after_step(self) -> None:
        tau = self.config.momentum
        tables = zip(self.target_encoder.parameters(), self.online_encoder.parameters(), strict=True)
        for target, online in tables:
            target.copy_(tau * target + (1 - tau) * online)


class _Encoder(nn.Module):
    """Mean of the layers of LightGCN."""

    def __init__(self, data: Data, config: BUIRConfig, adjacency: Tensor) -> None:
        super().__init__()
        self.embedding_dict = id_tables(data, config.embedding_size)
        self.sizes, self.adjacency, self.n_layers = [data.n_users, data.n_items], adjacency, config.n_layers

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rows of the batch's users and items, [B, d] each."""
        h0 = torch.cat([self.embedding_dict["user_emb"], self.embedding_dict["item_emb"]])
        users, items = mean_of_layers(self.adjacency, h0, self.n_layers).split(self.sizes)
        return users[batch.users], items[batch.items]


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return (2 - 2 * functional.cosine_similarity(x, y, dim=-1)).mean()
