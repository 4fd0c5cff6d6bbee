"""Sparse–dense products of a fixed matrix, and on a fixed pattern whose values have gradients.

Every product is a weighted sum of gathered rows, done by kernels that hold no per-edge copy of a row.
"""

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

Csr = tuple[Tensor, Tensor, Tensor]  # row starts [n+1], columns [E], values [E]


class SparseProduct(nn.Module):
    """X -> M X for a fixed sparse matrix M [n, m], differentiable in X.

    The product is an embedding bag (each output row is a weighted sum of input rows): several times faster than torch's
    CSR and COO products on a CPU, same values.
    """

    indptr: Tensor
    indices: Tensor
    data: Tensor
    t_indptr: Tensor
    t_indices: Tensor
    t_data: Tensor | None

    def __init__(self, matrix: sparse.csr_array, *, symmetric: bool = False) -> None:
        """A symmetric matrix is its own transpose: one copy serves both directions."""
        super().__init__()
        # Copied in CSR form with sorted, distinct entries, whatever form it came in.
        forward, backward = sparse.csr_array(matrix, copy=True), None
        forward.sum_duplicates()
        if not symmetric:
            backward = sparse.csr_array(forward.T)
        for prefix, rows in (("", forward), ("t_", backward)):
            for name, dtype in (("indptr", np.int32), ("indices", np.int32), ("data", np.float32)):
                tensor = None if rows is None else torch.from_numpy(getattr(rows, name).astype(dtype))
                self.register_buffer(prefix + name, tensor, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """M x [n, d] for x [m, d], float32."""
        ways = [(self.indptr, self.indices, self.data)]
        if self.t_data is not None:
            ways.append((self.t_indptr, self.t_indices, self.t_data))
        product: Tensor = _FixedProduct.apply(x, ways[0], ways[-1])  # type: ignore[no-untyped-call]
        return product


class _FixedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Csr, transposed: Csr) -> Tensor:
        ctx.transposed = transposed
        return rows_summed(x, *matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return rows_summed(gradients[0], *ctx.transposed), None, None


def rows_summed(x: Tensor, row_starts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """M x [n, d] for x [m, d] and M in CSR form: row_starts [n+1], columns [E], values [E]. Not differentiable in x."""
    return nn.functional.embedding_bag(
        columns,
        x.contiguous(),
        row_starts,
        mode="sum",
        per_sample_weights=values.to(x.dtype),
        include_last_offset=True,
    )


class Pattern(nn.Module):
    """A fixed sparsity pattern [n, m]; its E values are arguments, in row order, and have gradients.

    A row names a column at most once.
    """

    starts: Tensor  # [n+1]
    columns: Tensor  # [E]
    t_starts: Tensor  # [m+1], of the pattern by columns
    t_columns: Tensor  # [E]
    order: Tensor  # [E], takes entries by row to entries by column
    template: Tensor  # sparse CSR [n, m], for sampled products

    def __init__(self, starts: Any, columns: Any, n_columns: int) -> None:
        """`starts` [n+1] and `columns` [E] as in a CSR matrix, arrays or tensors."""
        super().__init__()
        starts, columns = np.asarray(starts), np.asarray(columns)
        order = np.argsort(columns, kind="stable")
        row_of = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        t_starts = np.concatenate([[0], np.cumsum(np.bincount(columns, minlength=n_columns))])
        arrays = {"starts": starts, "columns": columns, "t_starts": t_starts, "t_columns": row_of[order]}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array, dtype=np.int32)), persistent=False)
        self.register_buffer("order", torch.from_numpy(order), persistent=False)
        with warnings.catch_warnings():  # torch calls its CSR tensors a beta, once per process
            warnings.simplefilter("ignore")
            zeros = torch.zeros(len(columns))
            template = torch.sparse_csr_tensor(self.starts, self.columns, zeros, (len(starts) - 1, n_columns))
        self.register_buffer("template", template, persistent=False)

    def _times(self, values: Tensor, x: Tensor) -> Tensor:
        return rows_summed(x, self.starts, self.columns, values)

    def _transposed_times(self, values: Tensor, x: Tensor) -> Tensor:
        return rows_summed(x, self.t_starts, self.t_columns, values[self.order])

    def _sampled(self, x: Tensor, y: Tensor) -> Tensor:
        dots: Tensor = torch.sparse.sampled_addmm(self.template, x.contiguous(), y.contiguous().T, beta=0.0).values()
        return dots

    def product(self, values: Tensor, x: Tensor) -> Tensor:
        """M x [n, d] for values [E] and x [m, d]."""
        product: Tensor = _Product.apply(values, x, self, False)  # type: ignore[no-untyped-call]
        return product

    def transposed_product(self, values: Tensor, x: Tensor) -> Tensor:
        """Mᵀ x [m, d] for values [E], in the pattern's own order, and x [n, d]."""
        product: Tensor = _Product.apply(values, x, self, True)  # type: ignore[no-untyped-call]
        return product

    def dots(self, x: Tensor, y: Tensor) -> Tensor:
        """x_r · y_c for every entry (r, c): [E], for x [n, d] and y [m, d]."""
        dots: Tensor = _Dots.apply(x, y, self)  # type: ignore[no-untyped-call]
        return dots

    def row_sums(self, values: Tensor) -> Tensor:
        """Sum of each row's values [E]: [n]."""
        return torch.segment_reduce(values, "sum", offsets=self.starts.long(), initial=0.0)

    def column_sums(self, values: Tensor) -> Tensor:
        """Sum of each column's values [E]: [m]."""
        return torch.segment_reduce(values[self.order], "sum", offsets=self.t_starts.long(), initial=0.0)

    def at_rows(self, x: Tensor) -> Tensor:
        """x [n] at each entry's row: [E]."""
        return x.repeat_interleave(self.starts.diff(), output_size=len(self.columns))

    def at_columns(self, x: Tensor) -> Tensor:
        """x [m] at each entry's column: [E]."""
        return x[self.columns]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, pattern: Pattern, transposed: bool) -> Tensor:
        ctx.pattern, ctx.transposed = pattern, transposed
        ctx.save_for_backward(values, x if ctx.needs_input_grad[0] else None)
        return pattern._transposed_times(values, x) if transposed else pattern._times(values, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (values, x), pattern = gradients, ctx.saved_tensors, ctx.pattern
        for_values = for_x = None
        if ctx.needs_input_grad[0]:
            for_values = pattern._sampled(x, gradient) if ctx.transposed else pattern._sampled(gradient, x)
        if ctx.needs_input_grad[1]:
            back = pattern._times if ctx.transposed else pattern._transposed_times
            for_x = back(values, gradient)
        return for_values, for_x, None, None


class _Dots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, pattern: Pattern) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(x, y)
        return pattern._sampled(x, y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y = ctx.saved_tensors
        for_x = ctx.pattern._times(gradients[0], y) if ctx.needs_input_grad[0] else None
        for_y = ctx.pattern._transposed_times(gradients[0], x) if ctx.needs_input_grad[1] else None
        return for_x, for_y, None
