"""The user-item graph: adjacency, normalisation and propagation. Nodes are users first, then items."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import sparse
from torch import Tensor, nn

from bm3.errors import DataError


def bipartite_adjacency(interactions: ArrayLike, n_users: int, n_items: int) -> sparse.csr_array:
    """A, the (U+I)x(U+I) adjacency of the interactions [E, 2], both directions, float64; a repeated one is one edge.

    Raises DataError when there is no interaction, and when an id is out of range or no whole number.
    """
    pairs = np.asarray(interactions)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise DataError(f"the graph has no edges: interactions are {list(pairs.shape)}, needed is [E, 2] with E > 0")
    if pairs.dtype.kind not in "iu" or pairs.min() < 0 or (pairs.max(axis=0) >= (n_users, n_items)).any():
        ids, sizes = f"from {pairs.min(axis=0)} to {pairs.max(axis=0)}", f"{n_users} users and {n_items} items"
        raise DataError(f"interactions name users and items {ids}, but there are {sizes}: whole numbers from 0")
    users, items = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64) + n_users
    edges = np.concatenate([users, items]), np.concatenate([items, users])
    adjacency = sparse.csr_array((np.ones(len(edges[0])), edges), shape=(n_users + n_items, n_users + n_items))
    adjacency.sum_duplicates()
    adjacency.data[:] = 1.0
    return adjacency


def symmetric_normalised(adjacency: sparse.csr_array, offset: float = 1e-7) -> sparse.csr_array:
    """Â = D^{-1/2} A D^{-1/2} (LightGCN), with `offset` added to the degrees as published; isolated nodes stay zero."""
    degree = np.asarray(adjacency.sum(axis=1)).ravel() + offset
    scale = np.where(degree > 0, degree, np.inf) ** -0.5
    return sparse.csr_array(sparse.diags_array(scale) @ adjacency @ sparse.diags_array(scale))


class Propagation(nn.Module):
    """X -> Â X for a fixed sparse matrix Â, differentiable in X."""

    matrix: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        entries = matrix.tocoo()
        indices, values = torch.from_numpy(np.stack(entries.coords)), torch.from_numpy(entries.data).float()
        tensor = torch.sparse_coo_tensor(indices, values, matrix.shape, check_invariants=True)
        self.register_buffer("matrix", tensor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.matrix.to(x.dtype) @ x  # [U+I, d]


def mean_readout(propagate: nn.Module, h0: Tensor, n_layers: int) -> Tensor:
    """H = 1/(L+1) Σ_{l=0..L} Â^l H⁰ (LightGCN; BM3 likewise), [U+I, d]."""
    layer = total = h0
    for _ in range(n_layers):
        layer = propagate(layer)
        total = total + layer
    return total / (n_layers + 1)
