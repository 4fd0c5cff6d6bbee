"""Ways to multiply a symmetric sparse matrix by node vectors, and orders of its nodes. They are measured elsewhere.

All forms hold the same float32 values and, where they can choose, int32 indices.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from bm3.graph import SparseProduct, rows_summed

Times = Callable[[Tensor], Tensor]
OURS, NUMBA = "ours", "numba"
TORCH_FORMS = ("torch COO", "torch CSR")


class Form(NamedTuple):
    """x -> M x [n, d] for a symmetric M [n, n]."""

    times: Times
    differentiable: bool
    """Whether torch derives the gradient; elsewhere it is the product with M again, which is its own transpose."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.times(x)

    def both(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The product, and the gradient of x for the product's gradient [n, d]."""
        if not self.differentiable:
            return self.forward(x), self.forward(gradient)
        leaf = x.detach().requires_grad_()
        product = self.times(leaf)
        return product.detach(), torch.autograd.grad(product, leaf, gradient)[0]


def forms(matrix: sparse.csr_array) -> dict[str, Form]:
    """The forms that need nothing but what the project needs, by name."""
    matrix = in_float32(matrix)
    starts, columns, values = (torch.from_numpy(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    rows = torch.arange(len(starts) - 1).repeat_interleave(starts.diff())
    with warnings.catch_warnings():  # torch calls its CSR tensors a beta and asks whether to check them
        warnings.simplefilter("ignore")
        coo = torch.sparse_coo_tensor(torch.stack([rows, columns.long()]), values, matrix.shape).coalesce()
        csr = torch.sparse_csr_tensor(starts, columns, values, matrix.shape)
    wide = starts.long(), columns.long(), values
    return {
        "torch COO": Form(lambda x: torch.sparse.mm(coo, x), True),
        "torch CSR": Form(lambda x: csr @ x, True),
        "scipy CSR": Form(lambda x: torch.from_numpy(matrix @ x.numpy()), False),
        OURS: ours(matrix),
        "rows_summed, int32": Form(lambda x: rows_summed(x, starts, columns, values), False),
        "rows_summed, int64": Form(lambda x: rows_summed(x, *wide), False),
    }


def ours(matrix: sparse.csr_array) -> Form:
    """The product that the models use."""
    return Form(SparseProduct(matrix, symmetric=True), True)


def compiled(matrix: sparse.csr_array) -> Form:
    """Compiled by numba for as many threads as torch has, each with an equal share of entries.

    Raises ImportError without numba, which the project does not need.
    """
    import numba

    matrix = in_float32(matrix)
    n_threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    bounds = np.searchsorted(matrix.indptr, np.linspace(0, matrix.nnz, n_threads + 1))
    bounds[0], bounds[-1] = 0, matrix.shape[0]  # rows without entries at either end belong to a share, too

    def kernel(bounds: Any, starts: Any, columns: Any, values: Any, x: Any, product: Any) -> None:
        for share in numba.prange(len(bounds) - 1):
            for row in range(bounds[share], bounds[share + 1]):
                total = product[row]
                total[:] = 0
                for entry in range(starts[row], starts[row + 1]):
                    value, source = values[entry], x[columns[entry]]
                    for k in range(len(total)):
                        total[k] += value * source[k]

    run = numba.njit(parallel=True, fastmath=False)(kernel)

    def times(x: Tensor) -> Tensor:
        numba.set_num_threads(n_threads)
        product = torch.empty_like(x)
        run(bounds, matrix.indptr, matrix.indices, matrix.data, x.numpy(), product.numpy())
        return product

    return Form(times, False)


def orders(matrix: sparse.csr_array) -> dict[str, NDArray[Any]]:
    """Orders [n] of the nodes by name; shuffled, for ids as given may be in some order of popularity already."""
    degree = np.diff(matrix.indptr)
    return {
        "as given": np.arange(len(degree)),
        "shuffled": np.random.default_rng(0).permutation(len(degree)),
        "descending degree": np.argsort(-degree, kind="stable"),
        "reverse Cuthill–McKee": reverse_cuthill_mckee(in_float32(matrix), symmetric_mode=True),
    }


def reordered(matrix: sparse.csr_array, order: NDArray[Any]) -> sparse.csr_array:
    """Rows and columns in the order [n]: what was node order[i] becomes node i."""
    moved = sparse.csr_array(matrix[order][:, order])
    moved.sort_indices()
    return moved


def in_float32(matrix: sparse.csr_array) -> sparse.csr_array:
    """The same with int32 indices."""
    parts = matrix.data.astype(np.float32), matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return sparse.csr_array(parts, shape=matrix.shape)
