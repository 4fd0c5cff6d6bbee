"""LightGCN: propagation of ID embeddings over the user-item graph.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020,
arXiv 2002.02126. Regulariser and initialisation are those of the code behind the published tables.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bm3 import Batch, Data, Loss, Recommender
from bm3.graph import bipartite_adjacency, symmetric_normalised
from harness.common import check_config
from harness.models.base import batch_norms, negatives_of, pairwise_loss, xavier_uniform
from harness.models.products import SparseProduct, readout, readout_rows


@dataclass(frozen=True, kw_only=True)
class LightGCNConfig:
    """Hyper-parameters of LightGCN."""

    embedding_size: int = 64
    """d, width of the embeddings."""
    n_layers: int = 2
    """L, propagation rounds. Published grid: 1, 2, 3, 4."""
    reg_weight: float = 1e-3
    """λ, weight of the regulariser on layer-0 rows. Published grid: 1e-2, …, 1e-6."""

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, n_layers=0, reg_weight=0)


class LightGCN(Recommender):
    """H = 1/(L+1) Σ_{l=0..L} Â^l H⁰; the loss of BPR on rows of H, its regulariser on rows of H⁰."""

    Config = LightGCNConfig
    uses_negatives: ClassVar[bool] = True
    reads_features: ClassVar[bool] = False

    def __init__(self, data: Data, config: LightGCNConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        graph = symmetric_normalised(bipartite_adjacency(data.train, data.n_users, data.n_items))
        self.propagate = SparseProduct(graph, symmetric=True)
        self.user_embedding = xavier_uniform(data.n_users, config.embedding_size, generator)
        self.item_embedding = xavier_uniform(data.n_items, config.embedding_size, generator)

    def embed(self) -> tuple[Tensor, Tensor]:
        """(H_u [U, d], H_i [I, d]), the mean readout."""
        h_users, h_items = readout(self.propagate, self._h0(), self.config.n_layers).split([self.n_users, self.n_items])
        return h_users, h_items

    def _h0(self) -> Tensor:
        return torch.cat([self.user_embedding, self.item_embedding])  # H⁰ [U+I, d]

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        nodes = torch.cat([batch.users, torch.cat([batch.items, negatives_of(batch)]) + self.n_users])  # [3B]
        both = readout_rows(self.propagate, self._h0(), self.config.n_layers, nodes)
        layer_0, h = (rows.chunk(3) for rows in both)  # 3 x [B, d] each
        pairwise = pairwise_loss(*h)
        regulariser = self.config.reg_weight * batch_norms(*layer_0)
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})


def trace_tensors(model: LightGCN) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    return {"embedding_dict.user_emb": model.user_embedding, "embedding_dict.item_emb": model.item_embedding}
