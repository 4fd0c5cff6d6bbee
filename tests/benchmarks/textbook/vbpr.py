"""VBPR as one writes it down first: the baseline of the benchmark, used for nothing else."""

import torch
from torch import Tensor, nn

from bm3 import Batch, Data
from harness.models.vbpr import VBPRConfig
from textbook.shared import Textbook, norms_per_interaction, offset_pairwise_loss, scores, table_of


class TextbookVBPR(Textbook):
    """All items are projected through one linear map of [text ; visual], then the batch's rows are gathered."""

    def __init__(self, data: Data, config: VBPRConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or VBPRConfig()
        d = config.embedding_size
        self.features = torch.cat([table_of(data, modality) for modality in self.modalities[::-1]], dim=1)
        self.u_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(data.n_users, 2 * d)))
        self.i_embedding = nn.Parameter(nn.init.xavier_uniform_(torch.empty(data.n_items, d)))
        self.item_linear = nn.Linear(self.features.shape[1], d)
        nn.init.xavier_normal_(self.item_linear.weight)
        nn.init.zeros_(self.item_linear.bias)

    def loss(self, batch: Batch) -> Tensor:
        items = torch.cat([self.i_embedding, self.item_linear(self.features)], dim=1)  # [I, 2d]
        positive, negative = scores(self.u_embedding, items, batch)
        rows = self.u_embedding[batch.users], items[batch.items], items[batch.negatives]
        return offset_pairwise_loss(positive, negative) + self.config.reg_weight * norms_per_interaction(*rows)
