"""BM3 as one writes it down first: the baseline of the benchmark, used for nothing else.

The published objective with trained features. It computes the same loss as `bm3.BM3` (`test_textbook` holds it to
that) and does without every shortcut of that model.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bm3 import Batch


class TextbookBM3(nn.Module):
    """All items are projected, all tables pass predictor and dropout, then the batch's rows are gathered."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        train: NDArray[np.integer],
        features: Mapping[str, NDArray[np.floating]],
        *,
        d: int = 64,
        n_layers: int = 1,
        dropout: float = 0.5,
        reg_weight: float = 0.1,
        cl_weight: float = 2.0,
    ) -> None:
        """`train` is [E, 2] without repeats."""
        super().__init__()
        self.n_users, self.n_items, self.n_layers = n_users, n_items, n_layers
        self.dropout, self.reg_weight, self.cl_weight = dropout, reg_weight, cl_weight
        self.user_embedding = nn.Embedding(n_users, d)
        self.item_embedding = nn.Embedding(n_items, d)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_embedding.weight)
        self.predictor = nn.Linear(d, d)
        nn.init.xavier_normal_(self.predictor.weight)
        tables = [torch.tensor(table, dtype=torch.float32) for table in features.values()]
        self.features = nn.ModuleList(nn.Embedding.from_pretrained(table, freeze=False) for table in tables)
        self.projections = nn.ModuleList(nn.Linear(table.shape[1], d) for table in tables)
        for projection in self.projections:
            nn.init.xavier_normal_(projection.weight)
        self.register_buffer("adjacency", _adjacency(train, n_users, n_items))

    def loss(self, batch: Batch) -> Tensor:
        """The published objective on a batch, scalar."""
        h_users, h_items = self._encode()
        h_modal = [project(table.weight) for project, table in zip(self.projections, self.features, strict=True)]
        target_u, target_i = self._target(h_users)[batch.users], self._target(h_items)[batch.items]
        online_u, online_i = self.predictor(h_users)[batch.users], self.predictor(h_items)[batch.items]
        loss = _distance(online_u, target_i) + _distance(online_i, target_u)
        for h in h_modal:
            target_m, online_m = self._target(h)[batch.items], self.predictor(h)[batch.items]
            loss = loss + self.cl_weight * (_distance(online_m, target_i) + _distance(online_m, target_m))
        return loss + self.reg_weight * (torch.norm(h_users) + torch.norm(h_items)) / self.n_items

    def _encode(self) -> tuple[Tensor, Tensor]:
        layers = [torch.cat([self.user_embedding.weight, self.item_embedding.weight])]
        for _ in range(self.n_layers):
            layers.append(torch.sparse.mm(self.adjacency, layers[-1]))
        h_users, h_items = torch.stack(layers, dim=1).mean(dim=1).split([self.n_users, self.n_items])
        return h_users, h_items + self.item_embedding.weight

    def _target(self, h: Tensor) -> Tensor:
        return functional.dropout(h.detach(), self.dropout)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(x, y, dim=-1).mean()


def _adjacency(train: NDArray[np.integer], n_users: int, n_items: int) -> Tensor:
    """D^{-1/2} A D^{-1/2} [U+I, U+I], COO and coalesced, the kinder of its two states."""
    users, items = torch.from_numpy(train.astype(np.int64)).T
    edges = torch.stack([torch.cat([users, items + n_users]), torch.cat([items + n_users, users])])
    n_nodes = n_users + n_items
    scale = (torch.bincount(edges[0], minlength=n_nodes) + 1e-7) ** -0.5
    values = (scale[edges[0]] * scale[edges[1]]).float()
    return torch.sparse_coo_tensor(edges, values, (n_nodes, n_nodes), check_invariants=True).coalesce()
