"""BPR as one writes it down first: the baseline of the benchmark, used for nothing else."""

from torch import Tensor, nn

from bm3 import Batch, Data
from harness.models.bpr import BPRConfig
from textbook.shared import Textbook, norms_per_interaction, offset_pairwise_loss


class TextbookBPR(Textbook):
    """The batch's rows are gathered; gradients are as large as the tables."""

    def __init__(self, data: Data, config: BPRConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or BPRConfig()
        self.user_embedding = nn.Embedding(data.n_users, config.embedding_size)
        self.item_embedding = nn.Embedding(data.n_items, config.embedding_size)
        nn.init.xavier_normal_(self.user_embedding.weight)
        nn.init.xavier_normal_(self.item_embedding.weight)

    def loss(self, batch: Batch) -> Tensor:
        h_u = self.user_embedding(batch.users)
        h_i, h_j = self.item_embedding(batch.items), self.item_embedding(batch.negatives)  # [B, d] each
        pairwise = offset_pairwise_loss((h_u * h_i).sum(dim=1), (h_u * h_j).sum(dim=1))
        return pairwise + self.config.reg_weight * norms_per_interaction(h_u, h_i, h_j)
