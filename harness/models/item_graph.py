"""Item-item graphs from item vectors: each item's k most similar ones, found block by block, and their weights.

No array of items by items exists at any point; memory is that of one block of rows.
"""

import torch
from torch import Tensor

from harness.evaluation.ranking import top_k

BLOCK_VALUES = 2**22  # similarities held at a time: 16 MiB


@torch.no_grad()
def nearest_items(unit: Tensor, k: int) -> Tensor:
    """The k items of highest cosine similarity to each item, itself usually among them: [I, k]; all I where k is more.

    `unit` [I, d] has unit rows. Most similar first, ties by ascending id.
    """
    blocks = unit.split(max(1, BLOCK_VALUES // len(unit)))
    return torch.cat([top_k(rows @ unit.T, min(k, len(unit)))[1] for rows in blocks])


def normalised_entries(similarity: Tensor, columns: Tensor) -> Tensor:
    """D^{-1/2} S D^{-1/2} of a sparse S [I, I], D its row sums: its entries [I, k], given S's and their columns."""
    sums = similarity.sum(dim=1)
    scale = torch.where(sums > 0, torch.where(sums > 0, sums, 1).rsqrt(), 0)  # 0 where a sum is not positive
    return scale[:, None] * similarity * scale[columns]
