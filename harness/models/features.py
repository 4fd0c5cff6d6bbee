"""A modality's item features inside a model: given data or trained parameters, and products with some of their rows.

Given data may stay off the model's device, in main memory or in a file; trained data may be moved row by row.
"""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bm3 import Data, DataError

BLOCK_BYTES = 2**21  # rows gathered at a time: few enough to stay in cache between gathering and product


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
        by_row: bool = False,
    ) -> None:
        """Parameters are float32. Given data keeps its precision unless another is asked for.

        The table is copied, so that neither side notices what the other writes. Given data in the precision wanted is
        not where it is `shared` or cannot be written: it is used where it lies, a memory-mapped table in its file, and
        nobody may write to the model's table then. `by_row`: the model reads it by `project` alone, some rows at a
        time. Raises DataError, with the modality's `name`, unless `table` is one finite floating-point row per item.
        """
        super().__init__()
        _check(name, table, n_items)
        in_place = not trained and precision in (None, table.dtype) and table.flags.c_contiguous
        self.by_row = by_row
        self.off_device = in_place and isinstance(table, np.memmap) and not table.flags.writeable
        """Whether the table stays where it is when the model moves to a device; the rows asked for follow alone."""
        self.row_gradients = False
        """Whether a trained table's gradient is sparse, rows alone (see `attach`)."""
        self._before_read: Callable[[Tensor | None], None] | None = None
        self._fetching: tuple[Tensor, Future[Tensor]] | None = None
        if in_place and (shared or not table.flags.writeable):
            values = np.asarray(table)
        else:
            values = np.array(table, np.float32 if trained else precision, order="C")
        if trained:
            self.table = nn.Parameter(torch.from_numpy(values))
        else:
            self.register_buffer("table", from_array(values), persistent=False)
        self.register_state_dict_pre_hook(_read_all)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_read_all)  # type: ignore[no-untyped-call]

    def attach(self, before_read: Callable[[Tensor | None], None]) -> None:
        """From now on an optimiser moves the rows of this trained table, whose gradient is sparse, when they are read.

        `before_read` is called with the items [n] whose rows `project` is about to read, and with None before all are
        read or written by `state_dict` or `load_state_dict`. Whoever was attached before is asked for all rows first.
        """
        self.detach()
        self.row_gradients, self._before_read = True, before_read

    def detach(self) -> None:
        """Ask for all rows a last time; from now on the table is a parameter like others."""
        _read_all(self)
        self.row_gradients, self._before_read = False, None

    def project(self, items: Tensor | None, weight: Tensor) -> Tensor:
        """Rows of the items [n], or of all, times Wᵀ: [n, d] in the precision and on the device of weight [d, d_m].

        Gathers a few rows at a time, again for the gradient, instead of holding all of them, unless they have been
        fetched. Raises IndexError for an item that does not exist.
        """
        if self._before_read is not None:
            self._before_read(items)
        table, rows = self._fetched(items, weight.device)
        product: Tensor = _Projection.apply(table, rows, weight, self.row_gradients)  # type: ignore[no-untyped-call]
        return product

    def fetch(self, items: Tensor, device: torch.device) -> None:
        """Begin to read the rows of the items [n], which lie in main memory, if they do not lie on the `device`.

        They are held until a `project` of the same items uses them or one of others drops them. On a GPU, where
        comparing them would make it wait, as many other items have rows that are not a number.
        """
        if self.off_device:
            reader = ThreadPoolExecutor(1)  # a thread of its own: one that is kept would not survive a fork
            self._fetching = items, reader.submit(self._read, items, keeps_repeated(device))
            reader.shutdown(wait=False)

    def _read(self, items: Tensor, for_gpu: bool) -> Tensor:
        """Rows of the items [n] in main memory, pinned for a GPU, which then copies them without a wait."""
        shape, pinned = (len(items), self.table.shape[1]), for_gpu and torch.cuda.is_available()
        rows = torch.empty(shape, dtype=self.table.dtype, pin_memory=pinned)
        return torch.index_select(self.table, 0, items, out=rows)

    def _fetched(self, items: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The items' rows on `device` and None (all of these) if they are fetched, else the whole table and the items.

        They are copied once, and kept for the gradient.
        """
        fetching, self._fetching = self._fetching, None
        if fetching is None or items is None or len(fetching[0]) != len(items):
            return self.table, items
        fetched, reading = fetching
        if not keeps_repeated(device):
            return (reading.result(), None) if torch.equal(fetched, items) else (self.table, items)
        other = fetched.to(device, non_blocking=True) != items
        return reading.result().to(device, non_blocking=True).masked_fill_(other[:, None], torch.nan), None

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        if not self.off_device:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _read_all(table: FeatureTable, *_: object) -> None:
    if table._before_read is not None:
        table._before_read(None)


class _Projection(torch.autograd.Function):
    """table[items] Wᵀ in blocks of rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, items: Tensor | None, weight: Tensor, row_gradients: bool) -> Tensor:
        ctx.save_for_backward(table, items, weight)
        ctx.row_gradients = row_gradients
        products = [block @ weight.T for block in _blocks(table, items, weight)]
        return products[0] if len(products) == 1 else torch.cat(products)

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
    """Rows of the table in the weight's precision, on its device; a few at a time unless both are on a GPU."""
    at_once = weight.is_cuda and table.is_cuda
    some = len(table) if at_once else max(1, BLOCK_BYTES // (weight.element_size() * table.shape[1]))
    if items is None:
        yield from (block.to(weight) for block in table.split(some))
    else:
        yield from (table.index_select(0, chosen).to(weight) for chosen in items.to(table.device).split(some))


def feature_tables(model: nn.Module) -> list[FeatureTable]:
    """The tables of features within a model."""
    return [module for module in model.modules() if isinstance(module, FeatureTable)]


def modality_order(data: Data) -> tuple[str, ...]:
    """Names of the modalities as the published code orders them: visual, others by name, text.

    Raises DataError when there is none.
    """
    if not data.features:
        raise DataError("this model needs at least one modality of item features and the data set has none")
    return tuple(sorted(data.features, key=lambda name: (name == "text", name != "visual", name)))


def frozen_features(
    data: Data, modality: str, *, precision: type | None = np.float32, by_row: bool = False
) -> FeatureTable:
    """A modality's given features, in the data set's own memory where they have the precision there (None: any).

    Raises DataError unless they are one finite row per item.
    """
    table = data.features[modality]
    return FeatureTable(modality, table, data.n_items, trained=False, precision=precision, shared=True, by_row=by_row)


def keeps_repeated(device: torch.device) -> bool:
    """Whether `distinct` leaves ids as they are: on CUDA counting the distinct ones would make the device wait."""
    return device.type == "cuda"


def distinct(ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """Distinct ones [n] of ids [B], and the place of each id among them [B], None where none is left out."""
    return (ids, None) if keeps_repeated(ids.device) else ids.unique(return_inverse=True)


def at(x: Tensor, place: Tensor | None) -> Tensor:
    """Rows of x [n, d] at the places that `distinct` gave: [B, d]."""
    return x if place is None else nn.functional.embedding(place, x)


def from_array(values: NDArray[Any]) -> Tensor:
    """A tensor where the array lies, which nobody writes to if it cannot be written."""
    with warnings.catch_warnings():  # torch warns of memory that cannot be written, which given data never is
        warnings.simplefilter("ignore")
        return torch.from_numpy(values)


def _check(name: str, table: NDArray[Any], n_items: int) -> None:
    if table.ndim != 2 or len(table) != n_items or table.shape[1] == 0:
        needed = f"needed is one row for each of {n_items} items"
        raise DataError(f"features of {name!r} have shape {list(table.shape)}, {needed}")
    if not np.issubdtype(table.dtype, np.floating):
        raise DataError(f"features of {name!r} are {table.dtype}, needed are floating-point numbers")
    rows = max(1, BLOCK_BYTES // (table.itemsize * table.shape[1]))
    if not all(np.isfinite(table[start : start + rows]).all() for start in range(0, n_items, rows)):
        raise DataError(f"features of {name!r} contain NaN or infinity: replace them before training")
