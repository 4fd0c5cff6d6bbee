"""Item-item graphs from item vectors: each item's k most similar ones, found block by block.

No array of items by items exists at any point; memory is that of one block of rows.
"""

import torch
from torch import Tensor

from harness.evaluation.ranking import top_k

BLOCK_VALUES = 2**22  # similarities held at a time: 16 MiB


@torch.no_grad()
def nearest_items(unit: Tensor, k: int) -> Tensor:
    """The k items of highest cosine similarity to each item, itself usually among them: [I, k].

    `unit` [I, d] has unit rows. Most similar first, ties by ascending id; k is at most I.
    """
    n_items = len(unit)
    block = max(1, BLOCK_VALUES // n_items)
    found = [top_k(rows @ unit.T, min(k, n_items))[1] for rows in unit.split(block)]
    return torch.cat(found)


def symmetric_scale(row_sums: Tensor) -> Tensor:
    """D^{-1/2} [I] of row sums; 0 where a sum is not positive."""
    positive = row_sums > 0
    return torch.where(positive, torch.where(positive, row_sums, 1).rsqrt(), 0)
