"""A modality's item features inside a model: given data or trained parameters, and products with some of their rows."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bm3.errors import DataError

BLOCK_BYTES = 2**22  # rows gathered at a time: few enough to stay in cache between gathering and product
READER = ThreadPoolExecutor(1, "feature-reader")  # reads ahead; has no thread until something is to be read


class FeatureTable(nn.Module):
    """e_m [I, d_m]: a parameter when trained, else given data, which may be float16 and may lie in a file."""

    table: Tensor

    def __init__(
        self,
        name: str,
        table: NDArray[Any],
        n_items: int,
        *,
        trained: bool,
        precision: type | None = None,
        shared: bool = False,
    ) -> None:
        """Parameters are float32. Given data keeps its precision unless another is asked for.

        The table is copied, so that neither side notices what the other writes. Given data is not where it is `shared`
        or cannot be written, and in memory as needed, and where it is memory-mapped: then it stays in its file. Raises
        DataError, with the modality's `name`, unless `table` is one finite floating-point row per item.
        """
        super().__init__()
        _check(name, table, n_items)
        self.away = isinstance(table, np.memmap) and not trained and precision in (None, table.dtype)
        """Given data that stays where it is when the model moves to a device; only rows that are asked for follow."""
        self.row_gradients = False
        """Whether a trained table's gradient is sparse, rows alone: for an optimiser that takes such."""
        self.before_read: Callable[[Tensor | None], None] | None = None
        """Called with the items [n] whose rows `project` or `state_dict` is about to read, None for all."""
        self._fetching: tuple[Tensor, Future[Tensor]] | None = None
        if self.away:
            values = table
        elif (shared or not table.flags.writeable) and not trained:
            values = np.require(table, precision, ["C_CONTIGUOUS"])
        else:
            values = np.array(table, np.float32 if trained else precision, order="C")
        if trained:
            self.table = nn.Parameter(torch.from_numpy(values))
        else:
            self.register_buffer("table", _tensor(values), persistent=False)
        self.register_state_dict_pre_hook(FeatureTable._read_all)  # type: ignore[no-untyped-call]

    def _read_all(self, prefix: str, keep_vars: bool) -> None:
        if self.before_read is not None:
            self.before_read(None)

    def project(self, items: Tensor | None, weight: Tensor) -> Tensor:
        """Rows of the items [n], or of all, times Wᵀ: [n, d] in the precision and on the device of weight [d, d_m].

        Gathers a few rows at a time, again for the gradient, instead of holding all of them.
        """
        if self.before_read is not None:
            self.before_read(items)
        rows = None if items is None else self._fetched(items)
        if rows is not None:
            return rows.to(weight) @ weight.T
        product: Tensor = _Projection.apply(self.table, items, weight, self.row_gradients)  # type: ignore[no-untyped-call]
        return product

    def fetch(self, items: Tensor) -> None:
        """Begin to read the rows of these items [n], which the next `project` will ask for, if they are far away."""
        if self.away:
            self._fetching = items, READER.submit(self.table.index_select, 0, items.to(self.table.device))

    def _fetched(self, items: Tensor) -> Tensor | None:
        fetching, self._fetching = self._fetching, None
        if fetching is None or not torch.equal(fetching[0], items):
            return None
        return fetching[1].result()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        if not self.away:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


class _Projection(torch.autograd.Function):
    """table[items] Wᵀ in blocks of rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, items: Tensor | None, weight: Tensor, row_gradients: bool) -> Tensor:
        ctx.save_for_backward(table, items, weight)
        ctx.row_gradients = row_gradients
        return torch.cat([block @ weight.T for block in _blocks(table, items, weight)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        (gradient,), (table, items, weight) = gradients, ctx.saved_tensors
        for_weight = for_table = None
        if ctx.needs_input_grad[2]:
            for_weight = torch.zeros_like(weight)
            at = 0
            for block in _blocks(table, items, weight):
                for_weight.addmm_(gradient[at : at + len(block)].T, block)
                at += len(block)
        if ctx.needs_input_grad[0]:
            for_rows = gradient @ weight
            if items is None:
                for_table = for_rows
            elif ctx.row_gradients:
                for_table = torch.sparse_coo_tensor(items[None], for_rows, table.shape, check_invariants=False)
            else:
                for_table = torch.zeros_like(table).index_add_(0, items, for_rows)
        return for_table, None, for_weight, None


def _blocks(table: Tensor, items: Tensor | None, weight: Tensor) -> Iterator[Tensor]:
    """Rows of the table in the weight's precision and on its device: on a CPU a few at a time."""
    some = len(table) if weight.is_cuda else max(1, BLOCK_BYTES // (weight.element_size() * table.shape[1]))
    if items is None:
        yield from (block.to(weight) for block in table.split(some))
    else:
        yield from (table.index_select(0, chosen).to(weight) for chosen in items.to(table.device).split(some))


def _tensor(values: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():  # torch warns of memory that cannot be written, which given data never is
        warnings.simplefilter("ignore")
        return torch.from_numpy(values)


def _check(name: str, table: NDArray[Any], n_items: int) -> None:
    if table.ndim != 2 or len(table) != n_items or table.shape[1] == 0:
        raise DataError(
            f"features of {name!r} have shape {list(table.shape)}, needed is one row for each of {n_items} items"
        )
    if not np.issubdtype(table.dtype, np.floating):
        raise DataError(f"features of {name!r} are {table.dtype}, needed are floating-point numbers")
    rows = max(1, BLOCK_BYTES // (table.itemsize * table.shape[1]))
    if not all(np.isfinite(table[start : start + rows]).all() for start in range(0, n_items, rows)):
        raise DataError(f"features of {name!r} contain NaN or infinity: replace them before training")
