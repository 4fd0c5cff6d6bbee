"""BUIR with the LightGCN encoder: bootstrapped user and item representations, without negatives.

Lee et al., "Bootstrapping User and Item Representations for One-Class Collaborative Filtering", SIGIR 2021,
arXiv 2105.06323. The target encoder follows the online one as a moving average, after every optimiser step.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from bm3 import Batch, Data, Loss, Recommender
from bm3.graph import bipartite_adjacency, symmetric_normalised
from harness.common import check_config, require
from harness.models.base import linear, rows, xavier_uniform
from harness.models.products import SparseProduct, readout


@dataclass(frozen=True, kw_only=True)
class BUIRConfig:
    """Hyper-parameters of BUIR. Which of the grid's values were published is not known."""

    embedding_size: int = 64
    """d, width of the embeddings."""
    n_layers: int = 2
    """L, propagation rounds of both encoders. Published grid: 1, 2, 3, 4."""
    momentum: float = 0.995
    """τ of the target's moving average. Published grid: 0.99, 0.995, 0.999."""
    weight_decay: float = 0.0
    """L2 weight decay on all online parameters, the predictor's bias included. Published grid: 0, 1e-4."""

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, n_layers=0, weight_decay=0)
        require(self, "momentum", 0 <= self.momentum <= 1, "between 0 and 1")


class BUIR(Recommender):
    """L = (2 − 2cos(q(u_on), i_tg)) + (2 − 2cos(q(i_on), u_tg)); θ_tg ← τ θ_tg + (1−τ) θ_on after every step.

    u, i are mean readouts over D^{-1/2} A D^{-1/2}; q is the predictor, on the online side alone.
    """

    Config = BUIRConfig
    reads_features: ClassVar[bool] = False

    target_user_embedding: Tensor
    target_item_embedding: Tensor

    def __init__(self, data: Data, config: BUIRConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        graph = symmetric_normalised(bipartite_adjacency(data.train, data.n_users, data.n_items), offset=0)
        self.propagate = SparseProduct(graph, symmetric=True)
        self.user_embedding = xavier_uniform(data.n_users, config.embedding_size, generator)
        self.item_embedding = xavier_uniform(data.n_items, config.embedding_size, generator)
        self.predictor = linear(config.embedding_size, config.embedding_size, generator)
        self.register_buffer("target_user_embedding", self.user_embedding.detach().clone())
        self.register_buffer("target_item_embedding", self.item_embedding.detach().clone())

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.parameters()), "weight_decay": self.config.weight_decay}]

    def loss(self, batch: Batch) -> Loss:
        """Parts: `users` (predicted from their items' targets' side), `items`."""
        online_users, online_items = self._encode(self.user_embedding, self.item_embedding)
        with torch.no_grad():
            target_users, target_items = self._encode(self.target_user_embedding, self.target_item_embedding)
        predicted_u = self.predictor(rows(online_users, batch.users))  # [B, d]
        predicted_i = self.predictor(rows(online_items, batch.items))
        users = _distance(predicted_u, rows(target_items, batch.items))
        items = _distance(predicted_i, rows(target_users, batch.users))
        return Loss(users + items, {"users": users, "items": items})

    @torch.no_grad()
    def after_step(self) -> None:
        """θ_tg ← τ θ_tg + (1−τ) θ_on."""
        self.target_user_embedding.lerp_(self.user_embedding, 1 - self.config.momentum)
        self.target_item_embedding.lerp_(self.item_embedding, 1 - self.config.momentum)

    def embed(self) -> tuple[Tensor, Tensor]:
        """([q(u) ; u] [U, 2d], [i ; q(i)] [I, 2d]): their dot product is q(u)·i + u·q(i)."""
        users, items = self._encode(self.user_embedding, self.item_embedding)
        return torch.cat([self.predictor(users), users], dim=1), torch.cat([items, self.predictor(items)], dim=1)

    def _encode(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        h = readout(self.propagate, torch.cat([users, items]), self.config.n_layers)
        h_users, h_items = h.split([self.n_users, self.n_items])
        return h_users, h_items


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """2 − 2cos(x, y), mean over the batch of [B, d] each."""
    return (2 - 2 * functional.cosine_similarity(x, y, dim=-1)).mean()


def trace_tensors(model: BUIR) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    return {
        "online_encoder.embedding_dict.user_emb": model.user_embedding,
        "online_encoder.embedding_dict.item_emb": model.item_embedding,
        "target_encoder.embedding_dict.user_emb": model.target_user_embedding,
        "target_encoder.embedding_dict.item_emb": model.target_item_embedding,
        "predictor.weight": model.predictor.weight,
        "predictor.bias": model.predictor.bias,
    }
