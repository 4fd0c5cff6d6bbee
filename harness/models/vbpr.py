"""VBPR: matrix factorisation with item content, here the features of all modalities side by side.

He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback", AAAI 2016, arXiv 1510.01784.
Regulariser and initialisation are those of the code behind the published tables.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bm3 import Batch, Data, Loss, Recommender
from harness.common import check_config
from harness.models.base import batch_norms, each, negatives_of, pairwise_loss, rows, xavier_normal, xavier_uniform
from harness.models.features import FeatureTable, at, distinct, frozen_features, modality_order


@dataclass(frozen=True, kw_only=True)
class VBPRConfig:
    """Hyper-parameters of VBPR."""

    embedding_size: int = 64
    """d, width of the items' ID embeddings and of their projected content; users have 2d."""
    reg_weight: float = 1e-2
    """λ, weight of the regulariser. The published grid is not known; searched here are BPR's values."""

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, reg_weight=0)


class VBPR(Recommender):
    """h_i = [id_i ; W e_i + b], h_u of width 2d; the loss of BPR on them, its regulariser on the full vectors."""

    Config = VBPRConfig
    uses_negatives: ClassVar[bool] = True

    def __init__(self, data: Data, config: VBPRConfig, generator: torch.Generator) -> None:
        """Raises DataError: no modality, or features that are not one finite row per item."""
        super().__init__()
        self.config = config
        d = config.embedding_size
        self.user_embedding = xavier_uniform(data.n_users, 2 * d, generator)
        self.item_embedding = xavier_uniform(data.n_items, d, generator)
        modalities = modality_order(data)[::-1]  # text before visual
        self.features = nn.ModuleList(frozen_features(data, name, precision=None, by_row=True) for name in modalities)
        self._widths = [data.features[modality].shape[1] for modality in modalities]
        width = sum(self._widths)
        self.projection = nn.Linear(width, d, device="meta")  # both parameters follow
        self.projection.weight = xavier_normal(d, width, generator)
        self.projection.bias = nn.Parameter(torch.zeros(d))

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        # Content depends on the item alone, so each distinct item of the batch is projected once.
        items, place = distinct(torch.cat([batch.items, negatives_of(batch)]))
        vectors = torch.cat([rows(self.item_embedding, items), self._content(items)], dim=1)  # [n, 2d]
        h_i, h_j = at(vectors, place).chunk(2)  # [B, 2d]
        h_u = rows(self.user_embedding, batch.users)  # [B, 2d]
        pairwise = pairwise_loss(h_u, h_i, h_j)
        regulariser = self.config.reg_weight * batch_norms(h_u, h_i, h_j)
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})

    def embed(self) -> tuple[Tensor, Tensor]:
        """(users [U, 2d], items [I, 2d])."""
        return self.user_embedding, torch.cat([self.item_embedding, self._content(None)], dim=1)

    def _content(self, items: Tensor | None) -> Tensor:
        """W e_i + b, [n, d], of the given items [n], or of all: the sum of one product per modality."""
        content: Tensor = self.projection.bias
        weights = self.projection.weight.split(self._widths, dim=1)
        for features, weight in zip(each(self.features, FeatureTable), weights, strict=True):
            content = content + features.project(items, weight)
        return content


def trace_tensors(model: VBPR) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    return {
        "u_embedding": model.user_embedding,
        "i_embedding": model.item_embedding,
        "item_linear.weight": model.projection.weight,
        "item_linear.bias": model.projection.bias,
    }
