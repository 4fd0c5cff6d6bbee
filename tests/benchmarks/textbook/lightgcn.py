"""LightGCN as one writes it down first: the baseline of the benchmark, used for nothing else."""

import torch
from torch import Tensor, nn

from bm3 import Batch, Data
from harness.models.lightgcn import LightGCNConfig
from textbook.shared import (
    Textbook,
    mean_of_layers,
    norms_per_interaction,
    offset_pairwise_loss,
    scores,
    symmetric_adjacency,
)


class TextbookLightGCN(Textbook):
    """Products with a COO adjacency; the layers are stacked, then averaged."""

    def __init__(self, data: Data, config: LightGCNConfig | None = None) -> None:
        super().__init__(data)
        self.config = config = config or LightGCNConfig()
        self.embedding_dict = id_tables(data, config.embedding_size)
        self.adjacency = symmetric_adjacency(data, offset=1e-7)

    def loss(self, batch: Batch) -> Tensor:
        id_users, id_items = self.embedding_dict["user_emb"], self.embedding_dict["item_emb"]
        nodes = mean_of_layers(self.adjacency, torch.cat([id_users, id_items]), self.config.n_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        of_batch = id_users[batch.users], id_items[batch.items], id_items[batch.negatives]
        pairwise = offset_pairwise_loss(*scores(users, items, batch))
        return pairwise + self.config.reg_weight * norms_per_interaction(*of_batch)


def id_tables(data: Data, d: int) -> nn.ParameterDict:
    """Embeddings of the users, `user_emb`, and of the items, `item_emb`."""
    sizes = {"user_emb": data.n_users, "item_emb": data.n_items}
    return nn.ParameterDict({name: nn.init.xavier_uniform_(torch.empty(n, d)) for name, n in sizes.items()})
