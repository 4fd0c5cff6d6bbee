"""Sparse–dense products of a fixed matrix, and on a fixed pattern whose values have gradients.

Every product is a weighted sum of gathered rows, done by kernels that hold no per-edge copy of a row.
"""

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

SHORT_BAG = 64


def longest_bag(n_entries: int) -> int:
    """Entries of a row that a GPU may sum one after another before others wait for it: by the graph, by no race.

    An entry takes some 0.4 µs where it waits for the one before, and 0.1 ns where a full GPU sums all rows of 64 values
    (on paper): a row of E/4096 entries takes as long as all E. Raises nothing.
    """
    return max(SHORT_BAG, n_entries // 4096)


def pieces(starts: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Rows [n] that start at `starts` [n+1], cut every `longest` entries: starts of P pieces [P+1], and of rows among
    the pieces [n+1]. A row without entries is one piece.
    """
    cuts = ((starts.diff() + longest - 1) // longest).clamp_min(1)
    of_rows = nn.functional.pad(cuts.cumsum(0), (1, 0))
    row = torch.arange(len(cuts), device=starts.device).repeat_interleave(cuts)
    within = torch.arange(len(row), device=starts.device) - of_rows[row]
    return torch.cat([starts[row] + longest * within, starts[-1:]]), of_rows


class Rows(nn.Module):
    """A fixed sparse pattern by rows, E entries: its product is an embedding bag, each row a weighted sum of rows.

    That is several times faster than torch's CSR and COO products on a CPU, with the same values. A GPU walks a bag
    entry by entry, so long rows are cut there and their pieces summed in order; cuSPARSE promises no equal bits.
    """

    starts: Tensor  # [n+1]
    columns: Tensor  # [E]
    piece_starts: Tensor | None  # [P+1], where there are longer rows
    row_pieces: Tensor  # [n+1]
    values: Tensor | None  # [E], where they are fixed

    def __init__(self, starts: Tensor, columns: Tensor, values: Tensor | None = None) -> None:
        super().__init__()
        longest = longest_bag(len(columns))
        long = len(columns) > 0 and int(starts.diff().max()) > longest
        cut = pieces(starts, longest) if long else (None, None)
        named = {"starts": starts, "columns": columns, "piece_starts": cut[0], "row_pieces": cut[1]}
        for name, tensor in named.items():
            self.register_buffer(name, None if tensor is None else tensor.int(), persistent=False)
        self.register_buffer("values", values, persistent=False)

    def summed(self, x: Tensor, values: Tensor | None = None) -> Tensor:
        """M x [n, d] for x [m, d] and values [E], if they are not fixed. Not differentiable."""
        x, given = x.detach().contiguous(), self.values if values is None else values
        weights = None if given is None else given.to(x.dtype)
        if self.piece_starts is None or not walks_bags(x):
            return _bags(x, self.columns, self.starts, weights)
        partial = _bags(x, self.columns, self.piece_starts, weights)  # [P, d]
        return _bags(partial, torch.arange(len(partial), dtype=torch.int32, device=x.device), self.row_pieces)


def walks_bags(x: Tensor) -> bool:
    """Whether this device walks a bag entry by entry."""
    return x.is_cuda


def _bags(x: Tensor, entries: Tensor, starts: Tensor, values: Tensor | None = None) -> Tensor:
    return nn.functional.embedding_bag(
        entries, x, starts, mode="sum", per_sample_weights=values, include_last_offset=True
    )


class SparseProduct(nn.Module):
    """X -> M X for a fixed sparse matrix M [n, m], differentiable in X."""

    def __init__(self, matrix: sparse.csr_array, *, symmetric: bool = False) -> None:
        """A symmetric matrix is its own transpose: one copy serves both directions."""
        super().__init__()
        # Copied in CSR form with sorted, distinct entries, whatever form it came in.
        forward = sparse.csr_array(matrix, copy=True)
        forward.sum_duplicates()
        ways = [forward] if symmetric else [forward, sparse.csr_array(forward.T)]
        arrays = ((way.indptr.astype(np.int64), way.indices, way.data.astype(np.float32)) for way in ways)
        rows = [Rows(*map(torch.from_numpy, each)) for each in arrays]
        self.rows, self.t_rows = rows[0], rows[-1]

    def forward(self, x: Tensor) -> Tensor:
        """M x [n, d] for x [m, d], float32."""
        product: Tensor = _FixedProduct.apply(x, self)  # type: ignore[no-untyped-call]
        return product


class _FixedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: SparseProduct) -> Tensor:
        ctx.matrix = matrix
        return matrix.rows.summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.matrix.t_rows.summed(gradients[0]), None


def readout(propagate: SparseProduct, h0: Tensor, n_layers: int) -> Tensor:
    """`bm3.graph.mean_readout` to the bit, H [n, d], with fewer tables in memory than layers."""
    mean: Tensor = _Readout.apply(h0, None, propagate, n_layers)  # type: ignore[no-untyped-call]
    return mean


def readout_rows(propagate: SparseProduct, h0: Tensor, n_layers: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of H⁰ and of its `readout` by node [B], [B, d] each, of which neither table is kept for the gradient."""
    found: tuple[Tensor, Tensor] = _Readout.apply(h0, nodes, propagate, n_layers)  # type: ignore[no-untyped-call]
    return found


class _Readout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h0: Tensor, nodes: Tensor | None, matrix: SparseProduct, n_layers: int) -> Any:
        ctx.matrix, ctx.n_layers, ctx.n_nodes = matrix, n_layers, len(h0)
        ctx.save_for_backward(nodes)
        layer, mean = h0, h0.clone()
        for _ in range(n_layers):
            layer = matrix.rows.summed(layer)
            mean += layer
        mean /= n_layers + 1
        return mean if nodes is None else (h0[nodes], mean[nodes])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (nodes,) = ctx.saved_tensors
        n_layers, of_mean = ctx.n_layers, gradients[-1]
        each = of_mean.clone() if nodes is None else _in_table(of_mean, nodes, ctx.n_nodes)
        each /= n_layers + 1
        passed: Tensor | None = None
        for _ in range(n_layers):
            passed = ctx.matrix.t_rows.summed(each if passed is None else passed.add_(each))
        total = each if nodes is None else _in_table(gradients[0], nodes, ctx.n_nodes).add_(each)
        return total if passed is None else total.add_(passed), None, None, None


def _in_table(rows: Tensor, ids: Tensor, n: int) -> Tensor:
    """Sums of rows [B, d] by id, [n, d]: the gradient of looking them up."""
    sums: Tensor = torch.ops.aten.embedding_dense_backward(rows, ids, n, -1, False)
    return sums


class Pattern(nn.Module):
    """A fixed sparsity pattern [n, m]; its E values are arguments, in row order, and have gradients.

    A row names a column at most once.
    """

    order: Tensor  # [E], takes entries by row to entries by column
    template: Tensor  # sparse CSR [n, m], for sampled products

    def __init__(self, starts: Any, columns: Any, n_columns: int) -> None:
        """`starts` [n+1] and `columns` [E] as in a CSR matrix, arrays or tensors, on whose device it is made."""
        super().__init__()
        starts, columns = torch.as_tensor(starts).long(), torch.as_tensor(columns).long()
        ordered, order = columns.sort(stable=True)
        row_of = torch.arange(len(starts) - 1, device=starts.device).repeat_interleave(starts.diff())
        t_starts = torch.searchsorted(ordered, torch.arange(n_columns + 1, device=starts.device))
        self.rows, self.t_rows = Rows(starts, columns), Rows(t_starts, row_of[order])
        self.register_buffer("order", order, persistent=False)
        with warnings.catch_warnings():  # torch calls its CSR tensors a beta, once per process
            warnings.simplefilter("ignore")
            zeros, shape = torch.zeros(len(columns), device=starts.device), (len(starts) - 1, n_columns)
            template = torch.sparse_csr_tensor(self.rows.starts, self.rows.columns, zeros, shape)
        self.register_buffer("template", template, persistent=False)

    def _times(self, values: Tensor, x: Tensor, transposed: bool) -> Tensor:
        return self.t_rows.summed(x, values[self.order]) if transposed else self.rows.summed(x, values)

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
        return torch.segment_reduce(values, "sum", offsets=self.rows.starts.long(), initial=0.0)

    def column_sums(self, values: Tensor) -> Tensor:
        """Sum of each column's values [E]: [m]."""
        return torch.segment_reduce(values[self.order], "sum", offsets=self.t_rows.starts.long(), initial=0.0)

    def at_rows(self, x: Tensor) -> Tensor:
        """x [n] at each entry's row: [E]."""
        return x.repeat_interleave(self.rows.starts.diff(), output_size=len(self.rows.columns))

    def at_columns(self, x: Tensor) -> Tensor:
        """x [m] at each entry's column: [E]."""
        return x[self.rows.columns]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor, pattern: Pattern, transposed: bool) -> Tensor:
        ctx.pattern, ctx.transposed = pattern, transposed
        ctx.save_for_backward(values, x if ctx.needs_input_grad[0] else None)
        return pattern._times(values, x, transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,), (values, x), pattern = gradients, ctx.saved_tensors, ctx.pattern
        for_values = for_x = None
        if ctx.needs_input_grad[0]:
            for_values = pattern._sampled(x, gradient) if ctx.transposed else pattern._sampled(gradient, x)
        if ctx.needs_input_grad[1]:
            for_x = pattern._times(values, gradient, not ctx.transposed)
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
        for_x = ctx.pattern._times(gradients[0], y, False) if ctx.needs_input_grad[0] else None
        for_y = ctx.pattern._times(gradients[0], x, True) if ctx.needs_input_grad[1] else None
        return for_x, for_y, None
