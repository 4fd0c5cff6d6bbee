"""Item-item graphs from item vectors: each item's k most similar ones, found block by block, and their weights.

No array of items by items exists at any point; memory is that of one block of rows. The steps are functions of their
own, so that what times one of them times what the model does.
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
    return torch.cat([most_similar(similarities(rows, unit), k) for rows in row_blocks(unit)])


def row_blocks(unit: Tensor) -> tuple[Tensor, ...]:
    """The rows of `unit` [I, d] in blocks [n, d], whose similarities to all items fit into a block of memory."""
    blocks: tuple[Tensor, ...] = unit.split(max(1, BLOCK_VALUES // len(unit)))
    return blocks


def similarities(rows: Tensor, unit: Tensor) -> Tensor:
    """Cosines [n, I] of unit rows [n, d] with all items' [I, d]."""
    return rows @ unit.T


def most_similar(similarity: Tensor, k: int) -> Tensor:
    """Columns [n, k] of the largest entries of each row of `similarity` [n, I]; all I where k is more."""
    return top_k(similarity, min(k, similarity.shape[1]))[1]


def normalised_entries(similarity: Tensor, columns: Tensor) -> Tensor:
    """D^{-1/2} S D^{-1/2} of a sparse S [I, I], D its row sums: its entries [I, k], given S's and their columns."""
    sums = similarity.sum(dim=1)
    scale = torch.where(sums > 0, torch.where(sums > 0, sums, 1).rsqrt(), 0)  # 0 where a sum is not positive
    return scale[:, None] * similarity * scale[columns]
