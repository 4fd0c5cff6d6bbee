"""A model of one's own: BPR whose items are nothing but their projected content, so new items have scores at once."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from bm3 import Batch, DataError, Loss, Recommender


@dataclass(frozen=True, kw_only=True)
class ContentBPRConfig:
    embedding_size: int = 64
    """Width of user vectors and of projected content."""


class ContentBPR(Recommender):
    Config = ContentBPRConfig
    uses_negatives = True

    def __init__(self, data, config, generator):
        super().__init__()
        if not data.features:
            raise DataError("ContentBPR needs at least one modality of item features and the data set has none")
        features = torch.cat([torch.tensor(table).float() for table in data.features.values()], dim=1)
        self.register_buffer("features", features, persistent=False)  # [I, sum of widths]
        self.users = nn.Parameter(0.1 * torch.randn(data.n_users, config.embedding_size, generator=generator))
        self.map = nn.Parameter(0.1 * torch.randn(features.shape[1], config.embedding_size, generator=generator))

    def loss(self, batch: Batch) -> Loss:
        content = self.features[torch.cat([batch.items, batch.negatives])] @ self.map  # [2B, d]
        liked, other = content.chunk(2)
        pairwise = -logsigmoid((self.users[batch.users] * (liked - other)).sum(1)).mean()
        return Loss(pairwise, {"pairwise": pairwise})

    def embed(self):
        return self.users, self.features @ self.map
