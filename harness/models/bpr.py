"""BPR: matrix factorisation trained on pairs.

Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009. Regulariser and initialisation
are those of the code behind the published tables.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bm3 import Batch, Data, Loss, Recommender
from harness.common import check_config
from harness.models.base import batch_norms, batch_rows, pairwise_loss, xavier_normal


@dataclass(frozen=True, kw_only=True)
class BPRConfig:
    """Hyper-parameters of BPR."""

    embedding_size: int = 64
    """d, width of the embeddings."""
    reg_weight: float = 1e-2
    """λ, weight of the regulariser. Published grid: 2, 1, 1e-1, …, 1e-5."""

    def __post_init__(self) -> None:
        check_config(self, embedding_size=1, reg_weight=0)


class BPR(Recommender):
    """L = −log(1e-10 + σ(s_ui − s_uj)) + λ (‖h_u‖F + ‖h_i‖F + ‖h_j‖F)/B, s_ui = h_u · h_i."""

    Config = BPRConfig
    uses_negatives: ClassVar[bool] = True
    reads_features: ClassVar[bool] = False

    def __init__(self, data: Data, config: BPRConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.user_embedding = xavier_normal(data.n_users, config.embedding_size, generator)
        self.item_embedding = xavier_normal(data.n_items, config.embedding_size, generator)

    def loss(self, batch: Batch) -> Loss:
        """Parts: `pairwise`, `regulariser`."""
        h_u, h_i, h_j = batch_rows(self.user_embedding, self.item_embedding, batch)  # [B, d] each
        pairwise = pairwise_loss(h_u, h_i, h_j)
        regulariser = self.config.reg_weight * batch_norms(h_u, h_i, h_j)
        return Loss(pairwise + regulariser, {"pairwise": pairwise, "regulariser": regulariser})

    def embed(self) -> tuple[Tensor, Tensor]:
        """(users [U, d], items [I, d])."""
        return self.user_embedding, self.item_embedding


def trace_tensors(model: BPR) -> dict[str, Tensor]:
    """The model's tensors under the names used in recorded traces."""
    return {"user_embedding.weight": model.user_embedding, "item_embedding.weight": model.item_embedding}
